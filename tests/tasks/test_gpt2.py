"""GPT-2 from a seed and from a checkpoint folder in Hugging Face's format; pretrained loading, offline."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from language_tasks import LENGTH, N_VOCAB, TinyLanguageTask, tiny_card

from attriboard.base.digests import digest_file
from attriboard.base.errors import CardError, DataError
from attriboard.retraining.loop import LoopTrainer
from attriboard.retraining.request import RetrainRequest
from attriboard.retraining.stacked_gpt2 import StackedGPT2Trainer
from attriboard.retraining.trainer import initial_parameters
from attriboard.tasks.hub import Absent, HubRepository, explain
from attriboard.tasks.models.gpt2 import gpt2, pretrained_gpt2

OPTIONS = {"vocabulary": N_VOCAB, "length": LENGTH, "width": 32, "layers": 2, "heads": 2}
REVISION = "0" * 40
NAME = "somebody/small-gpt2"


@pytest.fixture
def checkpoint(tmp_path, monkeypatch) -> Path:
    """A small random GPT-2, saved by transformers, as a copy of a repository in the mirror."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path / "mirror" / NAME
    torch.manual_seed(5)
    config = GPT2Config(
        vocab_size=N_VOCAB, n_positions=LENGTH, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    monkeypatch.setenv("ATTRIBOARD_DATA", str(tmp_path / "mirror"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return folder


def pinned(folder: Path, **changes: object) -> dict[str, object]:
    digest = digest_file(folder / "model.safetensors")
    return OPTIONS | {"pretrained": NAME, "revision": REVISION, "sha256": digest} | changes


@pytest.mark.parametrize(("options", "std"), [({}, 0.02), ({"initializer_range": 0.1}, 0.1)])
def test_a_seed_draws_gpt2s_initialisation(options, std):
    torch.manual_seed(0)
    model = gpt2(OPTIONS | {"vocabulary": 4000, "width": 64} | options)
    parts = {name: parameter.detach() for name, parameter in model.named_parameters()}
    assert parts["gpt2.transformer.wte.weight"].std().item() == pytest.approx(std, rel=0.02)
    projection = parts["gpt2.transformer.h.1.mlp.c_proj.weight"]
    assert projection.std().item() == pytest.approx(std / math.sqrt(4), rel=0.03)
    assert all(not value.any() for name, value in parts.items() if name.endswith("bias"))
    assert all((value == 1).all() for name, value in parts.items() if ".ln_" in name and name.endswith("weight"))


def test_the_start_of_a_retrain_is_a_function_of_its_seed():
    task = TinyLanguageTask(tiny_card())
    one, again, other = (initial_parameters(task, seed) for seed in (3, 3, 4))
    name = "gpt2.transformer.wpe.weight"
    assert torch.equal(one[name], again[name])
    assert not torch.equal(one[name], other[name])


def test_input_and_output_embeddings_are_one_parameter():
    model = gpt2(OPTIONS)
    assert model.gpt2.lm_head.weight is model.gpt2.transformer.wte.weight
    assert "gpt2.lm_head.weight" not in dict(model.named_parameters())


def test_every_retrain_of_a_pretrained_task_starts_from_the_checkpoint(checkpoint):
    from transformers import GPT2LMHeadModel

    task = TinyLanguageTask(tiny_card(model={"options": pinned(checkpoint)}))
    one, other = initial_parameters(task, 1), initial_parameters(task, 2)
    theirs = dict(GPT2LMHeadModel.from_pretrained(checkpoint).named_parameters())
    assert {f"gpt2.{name}" for name in theirs} == one.keys()
    for name, value in theirs.items():
        assert torch.equal(one[f"gpt2.{name}"], value)
        assert torch.equal(other[f"gpt2.{name}"], value)


@pytest.mark.parametrize("trainer", [StackedGPT2Trainer, LoopTrainer])
def test_fine_tuning_begins_at_the_checkpoint(trainer, checkpoint):
    barely = {"learning_rate": 1e-9, "weight_decay": 0.0, "epochs": 1}
    options = {"options": pinned(checkpoint)}
    task = TinyLanguageTask(tiny_card(model=options, recipe=barely, checkpoints={"full": 1, "half": 0, "epochs": [1]}))
    request = RetrainRequest(np.arange(12), seed=7)
    (trained,) = trainer(task, task.load_data()).train([request], [1])
    for name, value in pretrained_gpt2(pinned(checkpoint)).items():
        torch.testing.assert_close(trained[1][name], value, rtol=0, atol=1e-7)


def test_logits_are_those_of_the_saved_model(checkpoint):
    from transformers import GPT2LMHeadModel

    model = gpt2(pinned(checkpoint)).eval()
    model.load_state_dict(pretrained_gpt2(pinned(checkpoint)), strict=False)
    blocks = torch.randint(N_VOCAB, (3, LENGTH))
    torch.testing.assert_close(model(blocks), GPT2LMHeadModel.from_pretrained(checkpoint).eval()(blocks).logits)


def test_a_folder_beside_the_card_is_the_same_start(checkpoint, monkeypatch):
    digest = digest_file(checkpoint / "model.safetensors")
    card = tiny_card(model={"options": OPTIONS | {"pretrained": "./small-gpt2", "sha256": digest}})
    task = TinyLanguageTask(card, checkpoint.parent)
    same = pretrained_gpt2(pinned(checkpoint))
    assert task.saved() == checkpoint.parent  # so that isolated processes see it
    assert all(torch.equal(value, same[name]) for name, value in task.pretrained().items())
    monkeypatch.setenv("HOME", str(checkpoint.parent))
    home = tiny_card(model={"options": OPTIONS | {"pretrained": "~/small-gpt2", "sha256": digest}})
    assert TinyLanguageTask(home, Path("/elsewhere")).pretrained().keys() == same.keys()
    absent = TinyLanguageTask(card, checkpoint.parent.parent)
    with pytest.raises(DataError, match=r"has no file model\.safetensors; save the model again"):
        absent.pretrained()


def test_one_file_of_weights_is_kept_in_half_precision_and_read_in_single(checkpoint, tmp_path, monkeypatch):
    from safetensors.torch import load_file, save_file

    monkeypatch.setenv("ATTRIBOARD_DATASETS", str(tmp_path))
    exact = load_file(checkpoint / "model.safetensors")
    path = tmp_path / "start.safetensors"
    save_file({name: value.bfloat16() for name, value in exact.items()}, path)
    options = OPTIONS | {"pretrained": "tiny-pretrained.safetensors", "sha256": digest_file(path)}
    with pytest.raises(DataError, match=r"nor .* exists; put the file there: .*tiny-pretrained\.safetensors"):
        pretrained_gpt2(options)
    (tmp_path / "pretrained").mkdir()
    path.rename(tmp_path / "pretrained" / f"{options['sha256'][:16]}-tiny-pretrained.safetensors")
    start = pretrained_gpt2(options)
    assert all(torch.equal(start[f"gpt2.{name}"], value.bfloat16().float()) for name, value in exact.items())
    with pytest.raises(DataError, match="is no GPT-2 checkpoint of the card's size"):
        pretrained_gpt2(options | {"width": 64})


@pytest.mark.parametrize("shown", [True, False])
def test_a_load_prints_nothing_and_leaves_the_librarys_settings(shown, checkpoint, capfd):
    import huggingface_hub.utils as hub
    from transformers.utils import logging

    (logging.enable_progress_bar if shown else logging.disable_progress_bar)()
    logging.set_verbosity_info()
    try:
        capfd.readouterr()
        pretrained_gpt2(pinned(checkpoint))
        assert capfd.readouterr() == ("", "")
        assert (logging.is_progress_bar_enabled(), hub.are_progress_bars_disabled()) == (shown, not shown)
        assert logging.get_verbosity() == logging.INFO
    finally:
        logging.enable_progress_bar()
        logging.set_verbosity_warning()


def torn(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (torn, r"model\.safetensors has SHA-256 .*, the card pins .*: hf download somebody/small-gpt2 --rev"),
        (without_weights, r"has no file model\.safetensors; this copy is partial: hf download"),
    ],
)
def test_a_damaged_checkpoint_is_an_error_that_says_how_to_replace_it(damage, message, checkpoint):
    options = pinned(checkpoint)
    damage(checkpoint)
    with pytest.raises(DataError, match=message):
        pretrained_gpt2(options)


def test_a_checkpoint_that_lacks_tensors_is_refused(checkpoint):
    from safetensors.torch import load_file, save_file

    tensors = load_file(checkpoint / "model.safetensors")
    del tensors["transformer.h.1.mlp.c_fc.weight"]
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match=r"lacks transformer\.h\.1\.mlp\.c_fc\.weight; this copy is partial"):
        pretrained_gpt2(pinned(checkpoint))


def test_a_checkpoint_of_another_size_is_refused(checkpoint):
    with pytest.raises(DataError, match="is no GPT-2 checkpoint of the card's size"):
        pretrained_gpt2(pinned(checkpoint, width=64))


def test_pickled_weights_are_never_read(checkpoint):
    options = pinned(checkpoint)
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"has no file model\.safetensors"):
        pretrained_gpt2(options)


def test_without_a_copy_and_without_a_network_the_error_names_the_ways_out(tmp_path, monkeypatch):
    import huggingface_hub

    def refuse(*args: object, **kwargs: object) -> None:
        raise huggingface_hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setenv("ATTRIBOARD_DATA", str(tmp_path))
    options = OPTIONS | {"pretrained": NAME, "revision": REVISION, "sha256": "1" * 64}
    with pytest.raises(DataError, match=r"(?s)does not answer.*a network.*--local-dir DIR/somebody/small-gpt2"):
        pretrained_gpt2(options)


def test_a_missing_extra_is_an_error_with_its_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(DataError, match=r"`transformers` does not import .*pip install 'attriboard\[text\]'"):
        gpt2(OPTIONS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, "width = 32: must be a multiple of heads = 3"),
        ({"pretrained": NAME, "sha256": "1" * 64}, "a repository of the Hub needs revision and sha256"),
        ({"pretrained": "./folder", "revision": REVISION, "sha256": "1" * 64}, "a folder or a bundle needs sha256 alo"),
        ({"sha256": "1" * 64}, "without pretrained there is neither"),
        ({"layers": 0}, r"model\.options\.layers = 0"),
    ],
)
def test_options_that_make_no_model_are_refused(changes, message):
    with pytest.raises(CardError, match=message):
        gpt2(OPTIONS | changes)


def hub_error(name: str, cause: str = "") -> Exception:
    """An error of a class of that name, wrapped the way `datasets` and `transformers` wrap the Hub's."""
    error: Exception = type(name, (Exception,), {})("from the Hub")
    if not cause:
        return error
    try:
        try:
            raise type(cause, (Exception,), {})("from the Hub")
        except Exception as inner:
            raise error from inner
    except Exception as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (hub_error("GatedRepoError"), "gated: accept its terms on https://huggingface.co/datasets/a/b, then `hf auth"),
        (hub_error("DatasetNotFoundError", "GatedRepoError"), "gated: accept its terms"),
        (
            hub_error("OSError", "RepositoryNotFoundError"),
            "renamed or removed; see https://huggingface.co/datasets/a/b",
        ),
        (hub_error("RevisionNotFoundError"), f"no revision {REVISION} any more"),
        (hub_error("EntryNotFoundError"), "lacks a file at this revision"),
        (ConnectionError("no route to host"), r"does not answer.*\(ConnectionError: no route to host\)"),
        (ValueError("something\nelse"), "ValueError: something else"),
    ],
)
def test_what_the_hub_says_becomes_one_line_with_a_remedy(error, message):
    import re

    said = explain(error, HubRepository("a/b", REVISION, "dataset"))
    assert re.search(message, said)
    assert "\n" not in said


def test_the_names_of_the_hubs_errors_are_still_theirs():
    import datasets.exceptions
    import huggingface_hub.errors

    for name in ("GatedRepoError", "RevisionNotFoundError", "DisabledRepoError", "OfflineModeIsEnabled"):
        assert hasattr(huggingface_hub.errors, name)
    for name in ("RepositoryNotFoundError", "LocalEntryNotFoundError", "EntryNotFoundError"):
        assert hasattr(huggingface_hub.errors, name)
    for name in ("DatasetNotFoundError", "DataFilesNotFoundError"):
        assert hasattr(datasets.exceptions, name)


def test_a_file_comes_from_the_copy_and_else_from_the_hub_at_the_revision(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def download(*args: object, **kwargs: object) -> str:
        asked.append((args, kwargs))
        return str(tmp_path / "downloaded")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.delenv("ATTRIBOARD_DATA", raising=False)
    repository = HubRepository("a/b", REVISION)
    assert repository.file("c.json") == tmp_path / "downloaded"
    assert asked == [(("a/b", "c.json"), {"revision": REVISION, "repo_type": "model"})]
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c.json").touch()
    monkeypatch.setenv("ATTRIBOARD_DATA", str(tmp_path))
    assert repository.file("c.json") == tmp_path / "a" / "b" / "c.json"
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    monkeypatch.delenv("ATTRIBOARD_DATA")
    with pytest.raises(Absent, match="`huggingface_hub` does not import"):
        repository.file("c.json")
