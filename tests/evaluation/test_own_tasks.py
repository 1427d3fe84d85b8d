"""Tasks from Python: defined, attributed, selected, graded; and everything that does not fit is refused "
"before training."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

import attriboard as ab
from attriboard.base.errors import AttriboardError, InputError

N_TRAIN, N_TEST = 40, 15
RECIPE = ab.Recipe(optimizer="adamw", learning_rate=1e-2, epochs=4, batch_size=8)


def data(n, seed, classes=None):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, 4)).astype(np.float32)
    y = x @ np.array([1.0, -2.0, 0.5, 0.0]) + 0.1 * random.normal(size=n)
    return x, (y > 0).astype(int) if classes else y.astype(np.float32)


def build():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))


def build_classes():
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))


def regression(**changes):
    given = {
        "model": lambda: build(),  # which stays in this process, and is faster here
        "train": data(N_TRAIN, 0),
        "test": data(N_TEST, 1),
        "loss": "squared_error",
        "recipe": RECIPE,
    }
    return ab.define_task("linear", **(given | changes))


def classes(**changes):
    given = {
        "model": lambda: build_classes(),
        "train": data(N_TRAIN, 0, 2),
        "test": data(N_TEST, 1, 2),
        "recipe": RECIPE,
    }
    return ab.define_task("halves", **(given | changes))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path / "cache"))


def test_from_a_definition_to_a_table_in_four_calls():
    task = regression()
    scores = ab.attribute(task, "trak", regularization=1.0, threads=1)
    assert scores.shape == (N_TEST, N_TRAIN)
    truth = ab.build_ground_truth(task, masks=8, repeats=2, quiet=True)
    assert truth.masks.shape == (8, N_TRAIN)
    assert ab.lds(scores, task).mean == ab.lds(scores, task, groundtruth=truth).mean
    table = ab.evaluate(task, ["iffim", "grad_dot", "trak"], threads=1, quiet=True)
    assert {(row.method, row.variant) for row in table.rows} >= {("iffim", "default"), ("iffim", "selected")}
    assert all(row.lds is not None or row.reason for row in table.rows)
    assert "iffim" in str(table)
    assert f"differences below {table.resolution:.3f} cannot be told apart" in str(table)
    alone = ab.evaluate(task, ["grad_dot"], threads=1, quiet=True)
    assert 0 < alone.resolution < 2


def test_lds_is_three_lines_of_numpy():
    task = classes()
    scores = ab.attribute(task, "grad_dot", threads=1)
    truth = ab.build_ground_truth(task, masks=8, repeats=2, quiet=True)
    page = (Path(__file__).parents[2] / "docs" / "own-task.md").read_text(encoding="utf-8")
    lines = page.partition("<!-- lds -->\n```python\n")[2].partition("```")[0]
    assert len(lines.splitlines()) == 3
    names = {"np": np, "spearmanr": spearmanr, "truth": truth, "scores": scores}
    exec(lines, names)
    mean = names["lds"]
    assert ab.lds(scores, task, groundtruth=truth).mean == pytest.approx(mean, abs=2e-16)  # the last digit
    assert repr(truth).startswith("<ground truth of halves: 8 masks × 2 repeats, n_train = 40, n_test = 15, outputs")
    assert repr(truth).endswith(f"ceiling {truth.ceiling.mean:.3f}>")
    assert repr(ab.lds(scores, task, groundtruth=truth)).startswith(f"<LDS {mean:.3f}, 95 % interval ")
    assert sorted([*truth.scoring, *truth.calibration]) == list(range(N_TEST))


def test_selecting_takes_no_retrain_or_a_few():
    task = regression()
    choice = ab.select(task, "iffim", threads=1)
    assert choice.regularization in choice.candidates
    assert len(choice.xi) == len(choice.candidates)
    high = ab.select(task, "iffim", grid={"regularization": [1e6, 1e7]}, threads=1)
    assert high.at_edge
    assert "at the edge: ξ does not settle λ" in repr(high)
    assert not choice.at_edge
    assert "at the edge" not in repr(choice)
    few = ab.select(task, "iffim", budget=3, grid={"regularization": [1e-3, 1.0]}, threads=1)
    assert few.hyperparameters["regularization"] in (1e-3, 1.0)
    assert repr(few).startswith("<regularization = ")
    assert "of 2 configurations, by 3 retrains: expected regret" in repr(few)
    with pytest.raises(InputError, match="budget"):
        ab.select(task, "iffim", grid={"checkpoints": [1, 2]}, threads=1)
    with pytest.raises(AttriboardError, match="no λ"):
        ab.select(task, "grad_dot", threads=1)


def test_a_trained_model_is_attributed_and_cannot_be_retrained():
    torch.manual_seed(0)
    model = build()
    task = regression(model=model, recipe=None)
    dots = ab.attribute(task, "grad_dot", threads=1)
    x, y = (torch.from_numpy(part) for part in data(N_TRAIN, 0))
    test, answers = (torch.from_numpy(part) for part in data(N_TEST, 1))

    def gradient(inputs, target, sign):
        model.zero_grad()
        (sign * (model(inputs[None])[0, 0] - target) ** 2).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters()])

    by_hand = -(gradient(test[3], answers[3], -1) @ gradient(x[5], y[5], 1))
    assert dots[3, 5] == pytest.approx(float(by_hand), rel=1e-5)
    with pytest.raises(InputError, match="no recipe"):
        ab.build_ground_truth(task, masks=4, repeats=1, quiet=True)


def test_state_dicts_and_models_are_checkpoints():
    models = [build(), build()]
    task = regression(recipe=None, checkpoints=[models[0], models[1].state_dict()])
    single = [regression(recipe=None, checkpoints=[model]) for model in models]
    both = ab.attribute(task, "grad_dot", checkpoints=2, threads=1)
    apart = [ab.attribute(one, "grad_dot", threads=1) for one in single]
    np.testing.assert_allclose(both, (apart[0] + apart[1]) / 2, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match=r"checkpoints\[0\]: 0.bias is \(3,\), the model has \(6,\)"):
        regression(recipe=None, checkpoints=[nn.Sequential(nn.Linear(4, 3))])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": (np.ones((4, 4), np.float32), np.ones(3, np.float32))}, "4 inputs and 3 targets"),
        ({"train": (np.full((4, 4), np.nan, np.float32), np.ones(4, np.float32))}, "4 of 4 examples have NaN"),
        ({"train": (np.array([["a"], ["b"]]), np.ones(2))}, "numbers are needed"),
        ({"train": 3}, "train of type int"),
        ({"model": lambda n: build()}, "calling it without arguments"),
        ({"model": lambda: 3}, "must return a torch.nn.Module"),
        ({"model": lambda: nn.Linear(5, 1)}, "running it on train inputs"),
        ({"model": lambda: nn.Linear(4, 2)}, "do not go together"),
        ({"model": lambda: build().requires_grad_(False)}, "no parameter requires a gradient"),
        ({"model": build()}, "cannot be trained anew"),
        ({"recipe": None}, "recipe: without one"),
        ({"loss": "mse"}, "must be cross_entropy"),
        ({"loss": lambda outputs, targets: (outputs[:, 0] - targets).square().mean()}, "must be one value each"),
        ({"loss": lambda outputs, targets: outputs[:, 0] / 0}, "NaN or infinite"),
        ({"target": "margin"}, "has no margin"),
        ({"target": "accuracy"}, "must be margin"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line_before_training(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        regression(**changes)
    assert "\n" not in str(caught.value)


def test_labels_out_of_range_are_refused():
    x, y = data(N_TRAIN, 0, 2)
    with pytest.raises(InputError, match=r"targets 0 … 5: the model has 2 classes"):
        classes(train=(x, np.where(np.arange(N_TRAIN) == 3, 5, y)))


def test_every_form_of_examples_is_the_same_task():
    x, y = data(N_TRAIN, 0, 2)
    tensors = torch.from_numpy(x), torch.from_numpy(y)
    dataset = torch.utils.data.TensorDataset(*tensors)
    forms = [(x, y), tensors, dataset, torch.utils.data.DataLoader(dataset, batch_size=7)]
    assert len({classes(train=form).card.fingerprint for form in forms}) == 1
    with pytest.raises(InputError, match="shuffles"):
        classes(train=torch.utils.data.DataLoader(dataset, batch_size=7, shuffle=True))


def test_other_data_or_another_recipe_or_shape_is_another_task():
    x, y = data(N_TRAIN, 0, 2)
    prints = [
        classes().card.fingerprint,
        classes(train=(x * 5, y)).card.fingerprint,
        classes(recipe=RECIPE.model_copy(update={"epochs": 5})).card.fingerprint,
        classes(model=lambda: nn.Linear(4, 2)).card.fingerprint,
    ]
    assert len(set(prints)) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))}, "outputs on training examples"),
        ({"loss": lambda o, t: 2 * nn.functional.cross_entropy(o, t, reduction="none")}, "loss of training examples"),
    ],
)
def test_other_code_under_the_same_fingerprint_never_gets_the_old_retrains(changes, message):
    own = {"loss": lambda o, t: nn.functional.cross_entropy(o, t, reduction="none"), "target": "negative_loss"}
    task = classes(**own)
    ab.build_ground_truth(task, masks=3, repeats=1, quiet=True)
    changed = classes(**(own | changes))
    assert changed.card.fingerprint == task.card.fingerprint
    with pytest.raises(InputError, match=rf"{message} was .* and is .* now; .* another name, or delete"):
        ab.build_ground_truth(changed, masks=3, repeats=1, quiet=True)


def test_an_own_target_is_what_is_attributed_and_graded():
    task = classes(target=lambda outputs, targets: outputs[:, 0] * 3)
    truth = ab.build_ground_truth(task, masks=4, repeats=1, quiet=True)
    assert set(truth.outputs) == {"loss", "margin", "correct", "target"}
    assert (truth.target == truth.outputs["target"]).all()
    assert ab.attribute(task, "iffim", regularization=1.0, threads=1).std() > 0


def test_top_and_self_influence():
    task = classes()
    scores = ab.attribute(task, "grad_dot", threads=1)
    found = ab.top(task, "grad_dot", 2, k=3, threads=1)
    assert found.helpful == tuple(np.argsort(-scores[2], kind="stable")[:3].tolist())
    assert found.harmful[0] == int(scores[2].argmin())
    group = ab.top(task, "grad_dot", [1, 4], k=1, threads=1)
    assert group.helpful[0] == int((scores[1] + scores[4]).argmax())
    own = ab.self_influence(task, "grad_dot", threads=1)
    assert own.shape == (N_TRAIN,)
    with pytest.raises(InputError, match="0 … 14"):
        ab.top(task, "grad_dot", 99, threads=1)


def test_a_choice_by_the_surrogate_draws_itself(tmp_path):
    choice = ab.select(regression(), "iffim", threads=1)
    choice.figure().savefig(tmp_path / "xi.png")
    assert (tmp_path / "xi.png").stat().st_size > 5000
    assert repr(choice).startswith("<iffim: λ = ")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda task: ab.top(task, "grad_dot", 3.5), r"test = 3\.5: must be the position"),
        (lambda task: ab.top(task, "grad_dot", 1, k=2.5), r"k = 2\.5: must lie in 1"),
        (
            lambda task: ab.build_ground_truth(task, masks=0, quiet=True),
            "masks = 0, repeats = 2: must be whole numbers",
        ),
        (lambda task: ab.build_ground_truth(task, masks=4.5, quiet=True), "must be whole numbers"),
        (lambda task: ab.build_ground_truth(task, masks=5, repeats=0, quiet=True), "must be whole numbers"),
        (lambda task: ab.build_ground_truth(task, workers=0, quiet=True), "workers = 0: must be a whole number"),
        (lambda task: ab.attribute(task, "random", threads=-1), "threads = -1: must be a whole number"),
        (lambda task: ab.select(task, "iffim", grid={"regularization": 0.1}), "give a list of values"),
        (lambda task: ab.select(task, "iffim", grid={"regularization": []}), "give a list of values"),
        (lambda task: ab.attribute(None, "random"), "task of type NoneType: give a task"),
        (
            lambda task: ab.evaluate(task, "random", quiet=True),
            r"has no ground truth yet; build it by ab\.build_ground",
        ),
        (lambda task: ab.load_ground_truth(task), "has no ground truth yet"),
        (
            lambda task: ab.load_ground_truth(task, question="5pct-same"),
            r'ab\.build_ground_truth\(task, question="5pct-same"\), or .* with its file --question 5pct-same',
        ),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(call, message):
    with pytest.raises(AttriboardError, match=message) as caught:
        call(regression())
    assert "\n" not in str(caught.value)


def test_ground_truth_of_another_task_grades_nothing():
    task, other = classes(), classes(recipe=RECIPE.model_copy(update={"epochs": 3}))
    truth = ab.build_ground_truth(other, masks=5, repeats=2, quiet=True)
    scores = np.random.default_rng(0).normal(size=(N_TEST, N_TRAIN))
    assert ab.lds(scores, other, groundtruth=truth.path).mean == ab.lds(scores, other, groundtruth=truth).mean
    for given in (truth, truth.path):
        with pytest.raises(InputError, match="its data, model or recipe are others"):
            ab.lds(scores, task, groundtruth=given)
        with pytest.raises(InputError, match="its data, model or recipe are others"):
            ab.evaluate(task, ["random"], groundtruth=given, quiet=True)


def test_a_mask_of_test_examples_is_its_positions():
    task = classes()
    by_mask = ab.top(task, "grad_dot", np.arange(N_TEST) < 2, k=2, threads=1)
    assert by_mask.tests == (0, 1)
