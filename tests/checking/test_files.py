"""`check`: what a file claims to be, and what is wrong with it."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny import small_digits_yaml

from attriboard.base.errors import InputError
from attriboard.checking.files import check_file
from attriboard.groundtruth.listing import published_folder

GOLDEN = Path(__file__).parents[1] / "golden"
TRUTH = published_folder() / "digits_mlp-groundtruth.safetensors"
CHECKPOINTS = published_folder() / "digits_mlp-checkpoints.safetensors"


def random_scores(path, shape=(500, 1297), **metadata):
    matrix = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    save_file({"scores": matrix}, path, metadata or None)
    return path


def test_good_files_of_every_kind(tmp_path):
    expected = {
        GOLDEN / "record-v1.json": "record",
        TRUTH: "ground-truth bundle",
        CHECKPOINTS: "checkpoint bundle",
        GOLDEN / "start-v1.safetensors": "start bundle",
        random_scores(tmp_path / "scores ü.safetensors"): "score matrix",
        small_digits_yaml(tmp_path): "card",
        Path(__file__).parents[2] / "docs" / "my_method.py": "attributor",
    }
    for path, kind in expected.items():
        report = check_file(path, "digits_mlp")
        assert report.document() == {"kind": kind, "ok": True, "errors": [], "warnings": []}, path


def damaged(kind: str, folder: Path) -> tuple[Path, str]:
    """A bad file and what must be said of it."""
    path = folder / "bad.safetensors"
    match kind:
        case "safetensors file":
            path.write_bytes(b"\x80\x04 no such thing")
            return path, "not a readable safetensors file"
        case "ground-truth bundle":
            content = bytearray(TRUTH.read_bytes())
            content[-1] ^= 1
            path.write_bytes(content)
            return path, "the file is damaged"
        case "checkpoint bundle":
            content = bytearray(CHECKPOINTS.read_bytes())
            content[-1] ^= 1
            path.write_bytes(content)
            return path, "the file is damaged"
        case "score matrix":
            return random_scores(path, (3, 4)), "must hold one tensor 'scores', (n_test, n_train) = (500, 1297)"
        case "record":
            record = json.loads((GOLDEN / "record-v1.json").read_text())
            record["lds"]["mean"] = 7
            (folder / "bad.json").write_text(json.dumps(record))
            return folder / "bad.json", "lds.mean"
        case "card":
            text = small_digits_yaml(folder).read_text()
            (folder / "bad.yaml").write_text(text.replace("epochs: 2", "epochs: -2"))
            return folder / "bad.yaml", "recipe.epochs"
    raise AssertionError(kind)


@pytest.mark.parametrize(
    "kind", ["safetensors file", "ground-truth bundle", "checkpoint bundle", "score matrix", "record", "card"]
)
def test_a_bad_file_is_a_report_that_names_the_problem(tmp_path, kind):
    path, problem = damaged(kind, tmp_path)
    report = check_file(path, "digits_mlp")
    assert (report.kind, report.ok) == (kind, False)
    assert problem in report.errors[0].message


@pytest.mark.parametrize("card", ["not json", "[1, 2]", "7", "[" * 100_000], ids=["text", "list", "number", "deep"])
def test_a_foreign_card_is_a_report_too(tmp_path, card):
    path = random_scores(tmp_path / "odd.safetensors", (2, 2), card=card)
    assert not check_file(path).ok


def test_a_bundle_of_another_format_is_named(tmp_path):
    path = random_scores(tmp_path / "odd.safetensors", (2, 2), card=json.dumps({"format": "other/9"}))
    report = check_file(path)
    assert "format 'other/9'" in report.errors[0].message


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import no_such_module", "importing it raised ModuleNotFoundError: No module named 'no_such_module'"),
        ("def broken(:", "importing it raised SyntaxError: invalid syntax"),
        ("import os\nos._exit(0)", "importing or running it ended the process"),
        ("print('{not json')\nraise SystemExit", "importing or running it ended the process"),
        (
            """print('{"errors": [], "warnings": []}', flush=True)\nimport os\nos._exit(0)""",
            "importing or running it ended the process",
        ),
        ("import neighbor", "must define exactly one Attributor subclass, found none"),
        (
            "from attriboard.attributors.random import Random\nclass Mine(Random):\n    name = 'Mine!'",
            "Mine.name = 'Mine!': must be 1 to 64 lower-case letters, digits",
        ),
    ],
)
def test_a_bad_plugin_is_imported_elsewhere_and_says_why(tmp_path, monkeypatch, source, problem):
    monkeypatch.chdir(tmp_path)
    Path("neighbor.py").touch()  # a method may import what lies beside it
    Path("my_method.py").write_text(source)
    report = check_file(Path("my_method.py"))
    assert (report.kind, report.ok) == ("attributor", False)
    assert problem in report.errors[0].message


@pytest.mark.parametrize(
    ("scores", "rule"),
    [
        ("s.fill_(float('nan'))", "scores are finite at the defaults"),
        ("s.T", "scores are (n_test, n_train) float32 tensors"),
    ],
)
def test_scores_that_cannot_be_compared_are_one_error_and_no_more(tmp_path, scores, rule):
    plugin = tmp_path / "my_method.py"
    plugin.write_text(
        "from attriboard.attributors.random import Random\nclass Mine(Random):\n    name = 'mine'\n"
        f"    def score(self, state):\n        s = super().score(state)\n        return {scores}\n"
    )
    report = check_file(plugin)
    assert [problem.where for problem in report.errors] == [rule]


@pytest.mark.parametrize(("name", "odd"), [("mine", 0), ("random", 1)])
def test_a_plugin_with_a_known_name_passes_with_a_warning(tmp_path, name, odd):
    plugin = tmp_path / "my_method.py"
    source = "from attriboard.attributors.random import Random\nclass Mine(Random):\n    name = "
    plugin.write_text(source + repr(name) + "\n")
    report = check_file(plugin)
    assert report.ok, report.errors
    assert [problem.where for problem in report.warnings] == ["name"] * odd
    assert all("random is the name of a known attributor" in problem.message for problem in report.warnings)


def test_a_score_matrix_needs_its_task(tmp_path):
    with pytest.raises(InputError, match="taken for a score matrix; name the task that it is for with --task"):
        check_file(random_scores(tmp_path / "scores.safetensors"))


@pytest.mark.parametrize("name", ["missing.json", "folder.json", "notes.txt", "noending"])
def test_what_is_no_file_of_a_known_kind_is_the_callers_error(tmp_path, name):
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "noending").touch()
    with pytest.raises(InputError, match=r"no such file|no entry|says nothing of what it is; expected \.json, "):
        check_file(tmp_path / name)


def test_a_truncated_bundle_is_a_report(tmp_path):
    path = tmp_path / "torn.safetensors"
    shutil.copy(TRUTH, path)
    os.truncate(path, path.stat().st_size - 1)
    assert not check_file(path).ok


def test_a_plugin_that_breaks_the_contract_is_told_what_and_how_to_mend_it(tmp_path: Path) -> None:
    path = tmp_path / "backwards.py"
    path.write_text(
        "import torch\n"
        "from attriboard import Attributor\n"
        "class Backwards(Attributor):\n"
        "    name = 'backwards'\n"
        "    def fit(self, context):\n"
        "        context.train.inputs.zero_()\n"
        "        return context.test.inputs.clone(), context.train.inputs.clone()\n"
        "    def score(self, state):\n"
        "        return torch.rand(len(state[0]), len(state[1]), dtype=torch.float64)\n"
        "    def memory_need(self, context):\n"
        "        return {'a byte for each score': len(context.test) * len(context.train)}\n",
        encoding="utf-8",
    )
    report = check_file(path)
    messages = {problem.where: problem.message for problem in report.errors}
    assert "expected (12, 60) torch.float32" in messages["scores are (n_test, n_train) float32 tensors"]
    assert "Work on copies" in messages["fit leaves the context alone"]
    assert "Draw from a torch.Generator" in messages["scores repeat under one seed"]
    assert "18,000 are declared. Count what is held" in messages["memory stays within the declared need"]
