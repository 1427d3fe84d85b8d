"""`attriboard run RECORD`: what every kind of record says is run again, and comes out the same."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import selecting
from selecting import PLAIN, few_resamples, retrain_inline, run_inline, write, write_ridge
from typer.testing import CliRunner, Result

from attriboard.base.errors import InputError
from attriboard.cli.app import app
from attriboard.records.files import read_record, read_records, write_record
from attriboard.records.published import published_results

Run = Callable[..., Result]
MEASURED = {"created", "provenance", "fit_seconds", "score_seconds", "peak_bytes", "retrain_seconds", "seconds"}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    run_inline(monkeypatch)
    retrain_inline(monkeypatch)
    few_resamples(monkeypatch)
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path / "cache"))

    def invoke(*arguments: object, out: str = "out", code: int = 0) -> Result:
        words = [*map(str, arguments), "--threads", "1", "--out", str(tmp_path / out)]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == code, (result.output, result.stderr, result.exception)
        return result

    return invoke


@pytest.mark.parametrize(
    ("words", "kind", "shown"),
    [
        ("run digits_mlp PLUGIN --hp regularization=0.1 --seed 3", "attribution", "ridge on digits_mlp: LDS"),
        ("run digits_mlp random", "attribution", "random on digits_mlp: LDS"),
        ("select digits_mlp PLUGIN --grid 0.01,1", "selection", "ridge on digits_mlp, oracle at"),
        ("removal digits_mlp random --rates 0.2 --seeds 2 --direction harmful", "removal", "20 % removed"),
        ("brittleness digits_mlp random --points 2 --seeds 1 --confirm 1", "brittleness", "flipped within 648"),
        ("qld digits_mlp random --points 3 --fraction 0.02", "qld", "each without its own top 26 examples"),
        ("mislabel digits_mlp_flipped random --by summed", "mislabel", "by summed influence"),
    ],
)
def test_a_record_is_run_again_with_the_same_result(
    run: Run, tmp_path: Path, words: str, kind: str, shown: str
) -> None:
    plugin = write_ridge(tmp_path)
    run(*words.replace("PLUGIN", str(plugin)).split())
    first = next(record for record in read_records(tmp_path / "out") if record.kind == kind)
    file = [plugin] if first.attributor.origin == "file" else []
    result = run("run", tmp_path / "out" / first.path, *file, out="again")
    assert shown in result.stdout
    path = Path(result.stdout.splitlines()[-1].removeprefix("record: "))
    assert path.is_relative_to(tmp_path / "again")
    again = read_record(path)
    assert again.model_dump(exclude=MEASURED) == first.model_dump(exclude=MEASURED)


def test_a_selected_configuration_is_custom_when_it_is_run_again(run: Run, tmp_path: Path) -> None:
    plugin = write_ridge(tmp_path)
    run("select", "digits_mlp", plugin, "--grid", "0.01,1")
    chosen = next(r for r in read_records(tmp_path / "out") if r.kind == "attribution" and r.variant == "selected")
    document = json.loads(run("run", tmp_path / "out" / chosen.path, plugin, "--json", out="again").stdout)
    assert (document["variant"], document["selector"]) == ("custom", None)
    assert document["scores_sha256"] == chosen.scores_sha256


@pytest.mark.parametrize(("selector", "path"), [("surrogate", True), ("effective_dimension", False)])
def test_values_that_are_no_lambda_are_no_path_when_a_selection_is_run_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, selector: str, path: bool
) -> None:
    found = [read_record(path) for path in (published_results() / "digits_mlp" / "iffim").glob("*.json")]
    record = next(r for r in found if r.kind == "selection" and r.selector == selector)
    asked: dict[str, Any] = {}

    def study(*arguments: object, **options: Any) -> None:
        asked.update(options)
        raise InputError("enough")

    monkeypatch.setattr("attriboard.evaluation.rerun.study_selection", study)
    run("run", write_record(record, tmp_path), code=2)
    assert asked["candidates"] == (record.candidates if path else None)


def published(name: str, changes: dict[str, Any]) -> Any:
    found = [read_record(path) for path in (published_results() / "digits_mlp" / name).glob("*.json")]
    record = next(r for r in found if r.kind == "attribution" and r.variant == "default")
    parts = {part: getattr(record, part).model_copy(update=update) for part, update in changes.items()}
    return record.model_copy(update=parts)


@pytest.mark.parametrize(
    ("changes", "words", "message"),
    [
        ({"attributor": {"origin": "scores"}}, (), "is of a score matrix made elsewhere; attriboard score digits_mlp"),
        (
            {"attributor": {"origin": "file"}},
            (),
            "random came from a file and is not installed here; give its .py file",
        ),
        ({"attributor": {"name": "gone"}}, (), "gone came from a builtin and is not installed here"),
        ({"task": {"fingerprint": "0" * 64}}, (), "another version, so that nothing can be compared"),
        ({}, ("PLUGIN",), "is of random, "),
        ({}, ("--seed", "5"), "--seed 5: the record's is 0; leave --seed out"),
        ({}, ("--hp", "x=1"), "says what is run, and a record is written; leave --hp out"),
        ({}, ("--pdb",), "leave --pdb out"),
    ],
)
def test_what_cannot_be_run_again_says_why(
    run: Run, tmp_path: Path, changes: dict[str, Any], words: tuple[str, ...], message: str
) -> None:
    path = write_record(published("random", changes), tmp_path / "made")
    plugin = str(write(tmp_path / "plain.py", PLAIN))
    result = run("run", path, *(plugin if word == "PLUGIN" else word for word in words), "--json", code=2)
    assert message in json.loads(result.stdout)["error"]
    assert not list((tmp_path / "out").rglob("*.json"))


def test_a_file_with_a_known_name_gives_a_warning(run: Run, tmp_path: Path) -> None:
    plugin = write(tmp_path / "mine.py", PLAIN.replace('"plain"', '"trak"'))
    result = run("run", "digits_mlp", plugin)
    assert result.stderr.count("warning: trak is the name of a known attributor") == 1
    assert "warning" not in run("run", "digits_mlp", write(tmp_path / "plain.py", PLAIN)).stderr


def test_a_selector_of_a_file_with_a_known_name_gives_a_warning(run: Run, tmp_path: Path) -> None:
    plugin = write_ridge(tmp_path)
    for name, warnings in (("surrogate", 1), ("mine", 0)):
        source = "from attriboard.attributors.selectors.default import Default\nclass Mine(Default):\n    name = "
        selector = write(tmp_path / "chooses.py", source + repr(name) + "\n")
        result = run("select", "digits_mlp", plugin, "--grid", "0.01,1", "--selector", selector, out=name)
        assert result.stderr.count("warning: surrogate is the name of a known selector") == warnings


def test_the_file_of_saved_scores_is_named(run: Run, tmp_path: Path) -> None:
    saved = tmp_path / "scores.safetensors"
    assert run("run", "digits_mlp", "random", "--save-scores", saved).stdout.splitlines()[-1] == f"scores: {saved}"


def test_another_method_is_refused_before_anything_is_run(run: Run, tmp_path: Path) -> None:
    plugin = write_ridge(tmp_path)
    run("removal", "digits_mlp", plugin, "--rates", "0.2", "--seeds", "2", "--variant", "default")
    removal = next(record for record in read_records(tmp_path / "out") if record.kind == "removal")
    ran = selecting.calls(tmp_path, "")
    other = write(tmp_path / "other.py", plugin.read_text().replace('name = "ridge"', 'name = "other"'))
    result = run("run", tmp_path / "out" / removal.path, other, out="again", code=2)
    assert "is of ridge" in result.stderr
    assert selecting.calls(tmp_path, "") == ran
    assert not list((tmp_path / "again").rglob("*.json"))
