"""The check of an entry: each rule, broken alone, is named; nothing of an entry is run."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from checking.conftest import write_card
from safetensors.numpy import save_file

from attriboard.base.scores import scores_digest
from attriboard.checking.entries import scores_file
from attriboard.checking.entry_check import check_entry
from attriboard.evaluation.catalog import load_task
from attriboard.records.files import write_record
from attriboard.records.published import published_results
from attriboard.records.verifications import compare_numbers


def test_a_good_entry_passes_beside_everything_that_is_published(made):
    report = check_entry(made.folder, [published_results()])
    assert report.document() == {"kind": "entry", "ok": True, "errors": [], "warnings": []}
    assert sorted(path.relative_to(made.folder).parts[0] for path in made.folder.rglob("*.*")) == [
        "method.yaml",
        "records",
        "scores",
    ]


def test_claimed_numbers_that_do_not_come_out_again_are_errors(made):
    def change(data):
        lds = data["lds"]
        data.update(ceiling=0.99, calibration=0.9)
        lds["pearson"] += 2e-6
        lds["ci95"][1] += 1e-3
        lds["n_degenerate"] = 1
        lds["mask_influence"][7] = 9.0
        lds["per_test"] = [min(1.0, value + 0.1) for value in lds["per_test"]]
        lds["mean"] = sum(lds["per_test"]) / len(lds["per_test"])

    made.rewrite(change)
    errors = made.errors()
    assert all(error.endswith("when the scores were graded again") for error in errors)
    names = {error.split(" = ")[0].rpartition(": ")[2] for error in errors}
    assert {name.rpartition(".")[0] + "." if name[-1].isdigit() else name for name in names} == {
        "ceiling", "calibration", "lds.mean", "lds.pearson", "lds.n_degenerate", "lds.ci95.", "lds.per_test.",
        "lds.mask_influence.",
    }  # fmt: skip
    assert any("lds.mask_influence.7 = 9.0: " in error for error in errors)


def test_numbers_within_a_millionth_are_the_same(graded):
    lds = graded.lds
    near = graded.model_copy(update={"lds": lds.model_copy(update={"mean": lds.mean + 9e-7})})
    far = graded.model_copy(update={"lds": lds.model_copy(update={"mean": lds.mean + 2e-6})})
    assert compare_numbers(graded, near, 1e-6) == []
    assert [d.name for d in compare_numbers(graded, far, 1e-6)] == ["lds.mean"]


RECORDS = {
    "another fingerprint": (lambda d: d["task"].update(fingerprint="0" * 64), "the current one is version 1, bf3c"),
    "another version": (lambda d: d["task"].update(version=2), "task = digits_mlp version 2"),
    "no such task": (lambda d: d["task"].update(name="digits"), "task = digits: there is no such task"),
    "another ground truth": (lambda d: d["ground_truth"].update(sha256="0" * 64), "the current one has 91cb2478"),
    "another card": (lambda d: d["method"].update(card_sha256="0" * 64), "was graded with another method card"),
    "another method": (lambda d: d["attributor"].update(name="other"), "attributor = other: the entry is of"),
    "the future": (lambda d: d.update(created="2999-01-01T00:00:00Z"), "lies in the future"),
}  # fmt: skip


@pytest.mark.parametrize("rule", RECORDS)
def test_a_record_that_breaks_a_rule_is_named_with_the_rule(bare, rule):
    change, message = RECORDS[rule]
    bare.rewrite(change)
    assert any(message in error for error in bare.errors())


def test_an_edited_record_betrays_itself_by_its_name(bare):
    bare.rewrite(lambda data: data.update(seed=1), rename=False)
    (error,) = bare.errors()
    assert "altered or renamed: its content belongs to digits_mlp-class_neighbours-" in error


def test_a_built_in_methods_name_is_taken(bare):
    shutil.move(bare.folder, bare.folder.with_name("trak"))
    folder = bare.folder.with_name("trak")
    other = type(bare)(folder, bare.card, bare.record, bare.scores)
    other.rewrite(lambda data: data["attributor"].update(name="trak"))
    assert any("attributor = trak: a built-in method has this name" in error for error in other.errors())
    assert any("the folder is called trak" in error for error in other.errors())


def test_other_scores_than_the_records_are_found_out(made, matrix):
    (path,) = (made.folder / "scores").iterdir()
    save_file({"scores": matrix + np.float32(1e-6)}, path)
    assert "these are other scores" in made.errors()[0]
    path.unlink()
    stray = made.folder / "scores" / scores_file(scores_digest(-matrix))
    save_file({"scores": -matrix}, stray)
    assert "belongs to no record" in made.errors()[0]


def test_scores_are_optional_but_missed(made):
    shutil.rmtree(made.folder / "scores")
    assert made.errors() == []
    assert "its numbers are taken on trust" in made.warnings()[0]


def test_what_is_published_already_is_refused_and_the_entry_does_not_count_against_itself(bare, tmp_path):
    assert bare.errors(bare.folder.parent) == [], "checked where it will lie"
    (error,) = bare.errors(tmp_path / "results")
    assert "is published already, as digits_mlp-class_neighbours-" in error


def test_somebody_elses_scores_under_a_new_name_are_a_duplicate_and_nearly_theirs_are_flagged(
    bare, graded, grader, matrix, tmp_path
):
    from attriboard.evaluation.catalog import load_task

    other = graded.model_copy(update={"attributor": graded.attributor.model_copy(update={"name": "first_comer"})})
    write_record(other, tmp_path / "published")
    assert f"duplicate: the scores are those of first_comer ({other.id})" in bare.errors(tmp_path / "published")[0]
    noise = np.random.default_rng(0).normal(0, 0.05, matrix.shape).astype(np.float32)
    near = grader.record_of_scores(load_task("digits_mlp"), matrix * 3 + noise, "second_comer")
    write_record(near, tmp_path / "near")
    warning = bare.warnings(tmp_path / "near")[1]
    assert bare.errors(tmp_path / "near") == []
    assert f"near-duplicate: over scoring points its LDS differs from that of second_comer ({near.id})" in warning


def link(target: str):
    return lambda path: path.symlink_to(target)


INTRUDERS = {
    "setup.py": (lambda path: path.write_text("raise SystemExit"), "does not belong here"),
    "records/code.py": (lambda path: path.touch(), "does not belong here"),
    "records/deep/x.json": (lambda path: (path.parent.mkdir(), path.write_text("{}")), "does not belong here"),
    "scores/x.pkl": (lambda path: path.write_bytes(b"\x80\x04."), "does not belong here"),
    "records/link.json": (link("/etc/passwd"), "a symbolic link"),
    "more": (link(".."), "a symbolic link"),
    "records/pipe.json": (os.mkfifo, "neither a file nor a folder"),
    "records/x.json": (lambda path: path.write_text("[" * 100_000), "nested without end"),
    "scores/x.safetensors": (lambda path: path.write_bytes(b"\xff" * 64), "belongs to no record"),
}


@pytest.mark.parametrize("name", INTRUDERS)
def test_what_does_not_belong_into_an_entry_is_refused(bare, name):
    put, message = INTRUDERS[name]
    put(bare.folder / name)
    assert any(error.startswith(name.rpartition("/")[0]) and message in error for error in bare.errors())


def test_a_record_of_a_failure_is_an_entry(bare):
    def change(data):
        data.update(status="failed", reason="timeout: not finished after 60 s", lds=None, scores_sha256=None)

    bare.rewrite(change)
    assert bare.errors() == []


def test_check_says_it_on_the_command_line(bare, tmp_path):
    from attriboard.base.errors import InputError
    from attriboard.checking.files import check_file

    report = check_file(bare.folder)
    assert (report.kind, report.ok, len(report.warnings)) == ("entry", True, 1)
    Path(tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"a folder without method\.yaml, so it is no entry"):
        check_file(tmp_path / "empty")


def test_scores_that_hold_the_ground_truth_are_implausible_and_must_say_so(grader, tmp_path):
    """The smallest weights that give every target of every mask: what a method that reads the bundle returns."""
    truth = grader.truth
    weights = np.linalg.lstsq(truth.masks.astype(np.float64), truth.target.mean(axis=1), rcond=None)[0]
    record = grader.record_of_scores(load_task("digits_mlp"), weights.T.astype(np.float32), "class_neighbours")
    assert record.lds.mean > 0.999 > grader.ceiling.mean
    assert (record.status, record.reason, record.doubt) == ("implausible", record.doubt, record.reason)
    assert "beyond the noise ceiling 0.883" in record.reason
    folder = tmp_path / "class_neighbours"
    folder.mkdir()
    write_card(folder / "method.yaml")
    write_record_of(record, folder)
    assert [p.message for p in check_entry(folder, []).warnings if "it never ranks" in p.message]
    write_record_of(record.model_copy(update={"status": "ok", "reason": None}), folder)
    (error,) = check_entry(folder, []).errors
    assert error.message.startswith("status = ok, but it is implausible: LDS 1.000")


def write_record_of(record, folder: Path) -> None:
    (folder / "records").mkdir(exist_ok=True)
    shutil.copy(write_record(record, folder.parent / "results"), folder / "records")
