"""Stacked training of GPT-2 against the plain loop in float64, and against itself bit for bit."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from language_tasks import N_TEST, N_TRAIN, SlicedLanguageTask, TinyLanguageTask, tiny_card
from torch.func import functional_call

from attriboard.retraining.choosing import trainer_class
from attriboard.retraining.engine import retrain
from attriboard.retraining.loop import LoopTrainer
from attriboard.retraining.request import RetrainRequest, random_subset
from attriboard.retraining.stacked_gpt2 import StackedGPT2Trainer
from attriboard.retraining.store import RetrainStore
from attriboard.retraining.trainer import State, Trainer
from attriboard.retraining.vmapped import VmapTrainer

RECIPES = {
    "one cycle, decay, clipped": {},
    "constant rate": {"schedule": "constant", "warmup": 0.0, "clip_norm": None, "weight_decay": 0.0},
    "short last batch": {"batch_size": 7},  # 16 = 7 + 7 + 2
    "one batch, larger than the subset": {"batch_size": 64, "schedule": "linear"},
    "always clipped": {"clip_norm": 0.01},
}
MODELS = {
    "one layer, four heads": {"layers": 1, "heads": 4},
    "longer positions than blocks": {"length": 11},
    "odd vocabulary": {"vocabulary": 261},
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def requests(count: int, size: int = N_TRAIN // 2) -> list[RetrainRequest]:
    return [RetrainRequest(random_subset(N_TRAIN, size, 0, k), 1000 + k) for k in range(count)]


def train(
    trainer: type[Trainer], task: TinyLanguageTask, wanted: Sequence[RetrainRequest], epochs: Sequence[int] = (3,)
) -> list[dict[int, State]]:
    return trainer(task, task.load_data()).train(wanted, epochs)


def model_options(**changes: int) -> dict[str, object]:
    return {"options": dict(tiny_card().model.options) | changes}


def assert_same(ours: dict[int, State], theirs: dict[int, State]) -> None:
    assert ours.keys() == theirs.keys()
    for epoch in ours:
        assert ours[epoch].keys() == theirs[epoch].keys()
        for name, value in ours[epoch].items():
            torch.testing.assert_close(value, theirs[epoch][name], rtol=1e-7, atol=1e-9, msg=f"{name} at {epoch}")


def identical(a: dict[int, State], b: dict[int, State]) -> bool:
    return all(torch.equal(a[epoch][name], b[epoch][name]) for epoch in a for name in a[epoch])


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_in_float64_the_stack_computes_what_the_loop_does(recipe, double):
    task = TinyLanguageTask(tiny_card(recipe=recipe))
    stacked = train(StackedGPT2Trainer, task, requests(2), (1, 3))
    for ours, theirs in zip(stacked, train(LoopTrainer, task, requests(2), (1, 3)), strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize("options", MODELS.values(), ids=MODELS.keys())
def test_in_float64_the_stack_computes_every_supported_shape(options, double):
    task = TinyLanguageTask(tiny_card(model=model_options(**options)))
    assert_same(train(StackedGPT2Trainer, task, requests(1))[0], train(LoopTrainer, task, requests(1))[0])


def test_in_float64_weights_multiply_each_blocks_loss_as_in_the_loop(double):
    task = TinyLanguageTask(tiny_card())
    weights = np.linspace(0.0, 2.0, N_TRAIN // 2)
    weighted = [replace(one, weights=w) for one, w in zip(requests(2), (weights, weights[::-1]), strict=True)]
    stacked = train(StackedGPT2Trainer, task, weighted, (1, 3))
    for ours, theirs in zip(stacked, train(LoopTrainer, task, weighted, (1, 3)), strict=True):
        assert_same(ours, theirs)
    ones = [replace(one, weights=np.ones(N_TRAIN // 2)) for one in requests(1)]
    plain = train(StackedGPT2Trainer, task, requests(1))
    assert_same(train(StackedGPT2Trainer, task, ones)[0], plain[0])
    assert not identical(stacked[0], train(StackedGPT2Trainer, task, requests(1), (1, 3))[0])


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())
def test_a_models_bits_do_not_depend_on_its_stack(recipe):
    task = TinyLanguageTask(tiny_card(recipe=recipe))
    wanted = requests(5)
    together = train(StackedGPT2Trainer, task, wanted)
    backwards = train(StackedGPT2Trainer, task, wanted[::-1])[::-1]
    for one, whole, reverse in zip(wanted, together, backwards, strict=True):
        assert identical(whole, reverse)
        assert identical(whole, train(StackedGPT2Trainer, task, [one])[0])


def test_keeping_more_epochs_changes_no_bit():
    task = TinyLanguageTask(tiny_card())
    some, more = train(StackedGPT2Trainer, task, requests(2)), train(StackedGPT2Trainer, task, requests(2), (1, 2, 3))
    assert all(torch.equal(a[3][name], b[3][name]) for a, b in zip(some, more, strict=True) for name in a[3])


def test_training_fits_the_blocks():
    task = TinyLanguageTask(tiny_card(recipe={"epochs": 60}, checkpoints={"full": 1, "half": 1, "epochs": [60]}))
    (state,) = train(StackedGPT2Trainer, task, requests(1), (60,))
    model = task.build_model().eval()
    blocks = task.load_data().train.inputs[requests(1)[0].indices]
    with torch.no_grad():
        loss = task.loss(functional_call(model, state[60], (blocks,)), blocks).mean()
    assert loss < 3  # ln 256 = 5.5 at the start


@pytest.mark.parametrize(
    ("card", "trainer"),
    [
        (tiny_card(), StackedGPT2Trainer),
        (tiny_card(recipe={"optimizer": "sgd"}), VmapTrainer),
        (tiny_card(model=model_options(width=48)), VmapTrainer),
        (tiny_card(recipe={"precision": "bfloat16"}), LoopTrainer),
    ],
    ids=["adamw", "sgd", "a width with remainders", "bfloat16"],
)
def test_what_this_stack_does_not_compute_falls_to_the_others(card, trainer):
    assert trainer_class(TinyLanguageTask(card)) is trainer


def test_by_vmap_a_gpt2_has_the_same_bits_in_any_stack_and_is_what_the_loop_trains():
    task, three = TinyLanguageTask(tiny_card(model=model_options(width=48))), requests(3)
    stacked = train(VmapTrainer, task, three)
    for one, state in zip(three, stacked, strict=True):
        assert identical(state, train(VmapTrainer, task, [one])[0])
        (looped,) = train(LoopTrainer, task, [one])
        assert max(float((state[3][name] - looped[3][name]).abs().max()) for name in looped[3]) < 1e-4


def test_a_variant_of_gpt2_is_not_mistaken_for_it():
    for name, value in (
        ("activation_function", "relu"),
        ("attn_pdrop", 0.1),
        ("scale_attn_by_inverse_layer_idx", True),
        ("n_inner", 99),
        ("tie_word_embeddings", False),
    ):
        task = TinyLanguageTask(tiny_card())

        def build(task=task, name=name, value=value):
            model = type(task).build_model(task)
            setattr(model.gpt2.config, name, value)
            return model

        task.build_model = build
        assert trainer_class(task) is not StackedGPT2Trainer, name


def test_a_stack_has_at_least_one_model_and_fits_its_budget():
    assert StackedGPT2Trainer.stack_size(TinyLanguageTask(tiny_card())) == 32
    wide = model_options(width=256, layers=4, heads=4, vocabulary=2048)
    assert StackedGPT2Trainer.stack_size(TinyLanguageTask(tiny_card(model=wide))) == 1


def test_the_engine_measures_every_test_block_however_it_slices_them(tmp_path):
    task = SlicedLanguageTask(tiny_card())
    (request,) = requests(1)
    store = RetrainStore(tmp_path, task.card.fingerprint)
    assert retrain(task, [request], store) == 1
    (state,) = train(StackedGPT2Trainer, task, [request])
    blocks = task.load_data().test.inputs
    with torch.no_grad():
        expected = task.measure(functional_call(task.build_model().eval(), state[3], (blocks,)), blocks)
    for name in task.measurements:
        measured = store.read(f"outputs/{name}", [request.digest(task.card.fingerprint)])[0]
        assert measured.shape == (N_TEST,)
        torch.testing.assert_close(torch.from_numpy(measured), expected[name])
