"""An entry's records run again in the sandbox: one command, one report."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from checking.conftest import write_card

from attriboard.attribution.executors import ThisProcess
from attriboard.attribution.runner import Runner
from attriboard.checking.entry_rerun import Rerun, run_entry_again
from attriboard.cli.app import app
from attriboard.cli.check import _verified
from attriboard.evaluation.grader import evaluate
from attriboard.evaluation.workspace import Workspace
from attriboard.records.files import write_record
from attriboard.records.verifications import SUFFIX, read_verification

METHOD = """
import torch
from attriboard import Attributor, Hyperparameter


class ClassNeighbours(Attributor):
    name = "class_neighbours"
    hyperparameters = (Hyperparameter("power", 1, source="here", stage="score"),)

    def fit(self, context):
        same = context.test.targets[:, None] == context.train.targets[None]
        products = context.test.inputs.flatten(1) @ context.train.inputs.flatten(1).T
        if len(context.parameters) == 1:
            products = -products
        return products, same

    def score(self, state, power):
        products, same = state
        return (products.sign() * products.abs() ** power).where(same, torch.tensor(-1.0))
"""


@pytest.fixture
def code():
    """The method's file, in a folder that other users can read."""
    with tempfile.TemporaryDirectory(prefix="attriboard-test-") as name:
        Path(name).chmod(0o755)
        path = Path(name) / "class_neighbours.py"
        path.write_text(METHOD)
        yield path


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        app([str(argument) for argument in arguments], prog_name="attriboard")
    return int(ended.value.code or 0), *capsys.readouterr()


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")
def test_honest_records_are_verified_invented_ones_found_and_the_rest_named(code, graded, capsys, tmp_path):
    workspace = Workspace("digits_mlp", threads=1)
    job = workspace.job(code, [{}, {"power": 2}])
    runner = Runner(ThisProcess())
    honest, other = evaluate(workspace.task, workspace.grader, job, ["default", "custom"], runner)
    partly = Workspace("digits_mlp", threads=1, parameters="2.weight")
    (part,) = evaluate(workspace.task, workspace.grader, partly.job(code), ["default"], runner)
    assert part.scores_sha256 != honest.scores_sha256
    better = tuple(min(1.0, value + 0.02) for value in other.lds.per_test)
    lds = other.lds.model_copy(update={"per_test": better, "mean": sum(better) / len(better), "mask_influence": None})
    invented = other.model_copy(update={"lds": lds})
    folder = tmp_path / "class_neighbours"
    (folder / "records").mkdir(parents=True)
    card = write_card(folder / "method.yaml")
    assert card.is_file()
    made = [write_record(record, tmp_path / "results") for record in (honest, invented, graded, part)]
    for path in made:
        shutil.copy(path, folder / "records")

    again = ("check", "entry", folder, "--run-again", "Grace Hopper", "--out", tmp_path / "out", "--json")
    code_, out, _ = command(capsys, *again, "--code", code)
    report = json.loads(out)
    assert code_ == 2
    assert [error["where"] for error in report["errors"]] == [f"records/{made[1].name}"]
    assert report["errors"][0]["message"].startswith("run again in the sandbox: numbers: lds.mean = ")
    named = [
        w["message"]
        for w in report["warnings"]
        if w["where"].endswith(made[2].name) and "not run again" in w["message"]
    ]
    assert len(named) == 1
    assert {line["message"].partition(":")[0] for line in report["run_again"]} == {"verified", "failed"}
    assert len(report["run_again"]) == 3
    assert not any("other code" in line["message"] for line in report["run_again"])
    written = {v.record: v for v in map(read_verification, (tmp_path / "out").rglob(f"*{SUFFIX}"))}
    assert set(written) == {honest.id, invented.id, part.id}
    assert (written[part.id].status, written[part.id].same_scores) == ("verified", True)
    assert (written[honest.id].same_scores, written[honest.id].same_code, written[honest.id].sandbox) == (
        True,
        True,
        True,
    )
    assert written[honest.id].by == "Grace Hopper"
    assert _verified(written[honest.id].model_copy(update={"same_code": False})).endswith(
        "other code than the record's"
    )


def test_where_nothing_can_be_run_again_that_is_an_error_and_each_record_says_why(tmp_path: Path) -> None:
    records = tmp_path / "records"
    records.mkdir()
    golden = Path(__file__).parents[1] / "golden"
    for name in ("removal-v1.json", "qld-v1.json"):
        shutil.copy(golden / name, records)
    found = run_entry_again(tmp_path, Rerun("Grace Hopper"))
    assert [problem.message for problem in found.errors] == ["none was run again; the warnings say why of each"]
    assert [problem.message.partition(";")[0] for problem in found.warnings] == [
        "not run again: of kind qld",
        "not run again: of kind removal",
    ]


def test_what_needs_no_run_says_so(made, bare, capsys):
    code, _, err = command(capsys, "check", "entry", made.folder, "--code", made.card)
    assert (code, "are for --run-again NAME" in err) == (2, True)
    bare.rewrite(lambda data: data.update(seed=1), rename=False)
    if shutil.which("bwrap") is None:
        return
    code, out, err = command(capsys, "check", "entry", bare.folder, "--run-again", "x", "--json")
    assert (code, "nothing was run again: the entry has errors" in err) == (2, True)
    assert "run_again" not in json.loads(out)
