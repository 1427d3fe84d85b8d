"""Tasks without ground truth: scores, λ, seconds and the cost of a ground truth; and the examples that matter most."""

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import attriboard as ab
import attriboard.tasks
from attriboard.base.errors import InputError
from attriboard.base.scores import read_matrix
from attriboard.cli.app import app
from attriboard.evaluation.examples import contact_sheet, pixels, rows
from attriboard.evaluation.proponents import matching
from attriboard.groundtruth.build import open_store
from attriboard.groundtruth.estimate import estimate_ground_truth
from attriboard.retraining.executors import InProcess

SOURCE = """
import numpy as np
from torch import nn

import attriboard as ab

x = np.random.default_rng(0).normal(size=(30, 4)).astype("f4")
labels = (x[:, 0] > 0).astype(int)

def build():
    return nn.Linear(4, 2)

recipe = ab.Recipe(optimizer="sgd", learning_rate=0.1, epochs=2, batch_size=5)
task = ab.define_task("mine", model=build, train=(x[:20], labels[:20]), test=(x[20:], labels[20:]), recipe=recipe)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "250")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(textwrap.dedent(SOURCE))
    return path


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            app([str(argument) for argument in arguments], prog_name="attriboard")
            code: Any = 0
        except SystemExit as end:
            code = end.code or 0
        return int(code), *capsys.readouterr()

    return run


def small_task(**changes: Any) -> Any:
    x = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)
    given = {
        "model": lambda: nn.Linear(3, 2),
        "train": (x[:16], np.arange(16) % 2),
        "test": (x[16:], np.arange(8) % 2),
        "recipe": ab.Recipe(optimizer="sgd", learning_rate=0.1, epochs=2, batch_size=4),
    }
    return ab.define_task("small", **(given | changes))


def test_run_gives_scores_seconds_and_the_cost_of_a_ground_truth(file: Path, command: Any, tmp_path: Path) -> None:
    saved = tmp_path / "scores.safetensors"
    code, out, err = command(
        "run", file, "iffim", "--save-scores", saved, "--json", "--threads", 1, "--out", tmp_path / "results"
    )
    assert code == 0, err
    document = json.loads(out)
    assert document["lds"] is None
    assert document["ground_truth"] is None
    assert document["record"] is None
    assert document["fit_seconds"] > 0
    assert document["peak_bytes"] > 0
    estimate = document["ground_truth_estimate"]
    assert (estimate["n_masks"], estimate["n_repeats"], estimate["n_missing"]) == (50, 2, 100)
    assert estimate["seconds"] > 0
    assert "checkpoints took" in estimate["basis"]
    (selection,) = document["selections"]
    assert selection["status"] == "ok"
    assert selection["hyperparameters"]["regularization"] in selection["candidates"]
    np.testing.assert_array_equal(read_matrix(saved, (10, 20)), ab.attribute(file, "iffim", threads=1))
    assert not (tmp_path / "results").exists()


def test_a_card_is_named_as_it_was_given(command: Any, tmp_path: Path) -> None:
    raw = yaml.safe_load((Path(attriboard.tasks.__file__).parent / "digits_mlp.yaml").read_text(encoding="utf-8"))
    raw |= {"name": "digits_mine", "checkpoints": {"full": 1, "half": 0, "epochs": [raw["recipe"]["epochs"]]}}
    card = tmp_path / "my card.yaml"
    card.write_text(yaml.safe_dump(raw), encoding="utf-8")
    code, out, err = command("run", card, "random", "--threads", 1)
    assert code == 0, err
    assert f"`attriboard groundtruth build '{card}'` would take about" in out


def test_run_and_select_say_what_is_missing_in_words(file: Path, command: Any) -> None:
    code, out, _ = command("run", file, "grad_dot", "--threads", 1)
    assert code == 0
    assert "grad_dot: scores 10 × 20" in out
    assert "no ground truth, so no LDS" in out
    assert f"`attriboard groundtruth build {file}` would take about" in out
    code, out, _ = command("select", file, "iffim", "--grid", "0.01,1", "--threads", 1, "--json")
    assert code == 0
    assert json.loads(out)["selections"][0]["candidates"] == [0.01, 1.0]
    code, _, err = command("select", file, "grad_dot", "--threads", 1)
    assert code == 2
    assert "has no λ" in err


def test_a_file_with_a_known_name_gives_a_warning_without_ground_truth_too(
    file: Path, command: Any, tmp_path: Path
) -> None:
    plugin = tmp_path / "method.py"
    plugin.write_text("from attriboard.attributors.random import Random\nclass Mine(Random):\n    name = 'trak'\n")
    code, _, err = command("run", file, plugin, "--threads", 1)
    assert code == 0
    assert err.count("warning: trak is the name of a known attributor") == 1


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("scores.pt", "must end in .safetensors"),
        ("no/folder/s.safetensors", "make it first"),
        ("no/folder/s.bergson", "make it first"),
        ("taken.bergson", "is there already"),
    ],
)
def test_a_place_for_scores_that_cannot_be_is_refused_first(
    file: Path, command: Any, option: str, message: str, tmp_path: Path
) -> None:
    if message == "is there already":
        option = str(tmp_path / "taken.bergson")
        Path(option).write_text("mine")
    code, _, err = command("run", file, "grad_dot", "--save-scores", option)
    assert code == 2
    assert message in err


@pytest.mark.parametrize("name", ["scores.safetensors", "scores.bergson"])
def test_a_graded_run_saves_the_scores_that_it_grades(command: Any, tmp_path: Path, name: str) -> None:
    saved = tmp_path / name
    code, out, err = command(
        "run", "digits_mlp", "random", "--save-scores", saved, "--json", "--threads", 1, "--out", tmp_path / "results"
    )
    assert code == 0, err
    assert ab.lds(read_matrix(saved), "digits_mlp").mean == json.loads(out)["lds"]["mean"]


def test_one_retrain_is_timed_and_kept_where_nothing_is_recorded() -> None:
    task = small_task(checkpoints=[nn.Linear(3, 2)])
    store = open_store(task, None)
    first = estimate_ground_truth(task, store, InProcess(), n_masks=4, n_repeats=2)
    assert (first.n_missing, len(store)) == (7, 1)
    assert "one was trained" in first.basis
    assert first.seconds == 7 * first.seconds_each
    second = estimate_ground_truth(task, store, InProcess(), n_masks=4, n_repeats=2)
    assert (second.n_missing, second.seconds_each) == (7, first.seconds_each)
    with pytest.raises(InputError, match="at least 3 masks"):
        estimate_ground_truth(task, store, InProcess(), n_masks=2, n_repeats=1)


def test_building_says_first_what_it_costs(capsys: pytest.CaptureFixture[str]) -> None:
    task = small_task()
    ab.build_ground_truth(task, masks=3, repeats=1)
    said = capsys.readouterr().err
    assert "ground truth of small: about" in said
    assert said.index("about") < said.index("3 of 3")
    ab.build_ground_truth(task, masks=3, repeats=1)
    assert "all retrains are done already" in capsys.readouterr().err


def test_top_of_a_label_is_that_of_all_its_test_examples() -> None:
    task = small_task()
    by_label = ab.top(task, "grad_dot", where={"label": 1}, k=3, threads=1)
    assert by_label.tests == (1, 3, 5, 7)
    by_hand = ab.top(task, "grad_dot", [1, 3, 5, 7], k=3, threads=1)
    assert (by_label.helpful, by_label.harmful_scores) == (by_hand.helpful, by_hand.harmful_scores)
    chosen = ab.top(task, "iffim", 0, k=2, selected=True, threads=1)
    assert chosen.hyperparameters["regularization"] == ab.select(task, "iffim", threads=1).regularization
    assert "regularization = " in repr(chosen)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give one of them"),
        ({"test": 1, "where": {"label": 1}}, "give one of them"),
        ({"where": {"label": 5}}, "no test example has it; there are 0, 1"),
        ({"where": {"label": "cat"}}, "must be a number"),
        ({"where": {"size": 5}}, "must be label"),
        ({"test": 99}, "0 … 7"),
        ({"test": 1, "k": 17}, "n_train = 16"),
    ],
)
def test_what_top_cannot_answer_is_refused_before_the_attributor_runs(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ab.top(small_task(), "no_such_method", **given)


def test_tables_are_rows_and_text_has_its_tokens() -> None:
    task = small_task()
    shown = rows(task, ab.top(task, "grad_dot", 2, k=2, threads=1))
    assert [row["side"] for row in shown] == ["test", "helpful", "helpful", "harmful", "harmful"]
    first = task.load_data().test.inputs[2].tolist()
    assert shown[0]["inputs"] == ", ".join(f"{value:.4g}" for value in first)
    assert shown[0]["label"] == "0"
    tokens = torch.tensor([[0, 1], [1, 2], [2, 0], [2, 2]])
    words = ["<pad>", "good", "bad"]
    text = small_task(
        model=lambda: nn.Sequential(nn.EmbeddingBag(3, 4), nn.Linear(4, 2)),
        train=(tokens, [0, 1, 0, 1]),
        test=(tokens, [0, 1, 0, 1]),
        vocabulary=words,
    )
    shown = rows(text, ab.top(text, "random", 1, k=1, threads=1))
    assert shown[0]["inputs"] == "good bad"


def test_images_are_a_contact_sheet(command: Any, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    arguments = ("top", "digits_mlp", "input_similarity", "--test", 7, "--k", 3, "--threads", 1)
    code, out, err = command(*arguments, "--figure", sheet, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert [len(document[side]) for side in ("helpful", "harmful")] == [3, 3]
    assert sheet.read_bytes().startswith(b"\x89PNG")
    code, out, _ = command("top", "digits_mlp", "random", "--where", "label=3", "--k", 2, "--threads", 1)
    assert code == 0
    assert "test examples together" in out
    assert out.count("helpful") == 2


def test_a_sheet_of_no_images_is_refused(file: Path, command: Any, tmp_path: Path) -> None:
    code, _, err = command("top", file, "random", "--test", 1, "--figure", tmp_path / "sheet.png")
    assert code == 2
    assert "no images" in err
    task = small_task()
    with pytest.raises(InputError, match="no images"):
        contact_sheet(task, ab.top(task, "grad_dot", 0, k=1, threads=1))


def test_pixels_lie_between_zero_and_one_in_their_shape() -> None:
    colors = np.random.default_rng(0).normal(size=(3, 4, 5))
    assert pixels(colors).shape == (4, 5, 3)
    assert pixels(colors[:1]).shape == (4, 5)
    assert pixels(np.zeros(9)).shape == (3, 3)
    assert (pixels(colors).min(), pixels(colors).max()) == (0, 1)
    with pytest.raises(InputError, match="not square"):
        pixels(np.zeros(8))


def test_labels_are_matched_as_numbers() -> None:
    examples = small_task().load_data().test
    assert matching(examples, {"label": "1"}) == matching(examples, {"label": 1.0}) == [1, 3, 5, 7]
