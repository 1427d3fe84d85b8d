"""Choices on a donor's spectrum that are on record: which of them a job gets."""

from pathlib import Path

import pytest
from selecting import GRID, make_job, write_ridge
from tiny import Published

from attriboard.attribution.job import Job
from attriboard.evaluation.catalog import load_oracle
from attriboard.evaluation.donated import with_donated
from attriboard.evaluation.grader import Grader
from attriboard.evaluation.selection import Study, study_selection

pytestmark = pytest.mark.usefixtures("inline")


def job_of(published: Published, attributor: str | Path, *selectors: str) -> Job:
    return make_job(published, attributor, {}, selectors=selectors)


@pytest.fixture(scope="module")
def donor(published: Published, grader: Grader) -> Study:
    """The donor's own selection, by two selectors."""
    job = job_of(published, "iffim", "surrogate", "gcv")
    return study_selection(published.task, grader, job, load_oracle(), candidates=GRID)


def test_a_selection_from_a_donors_records_is_the_one_that_fits_the_donor(
    published: Published, grader: Grader, donor: Study, tmp_path: Path
) -> None:
    job = job_of(published, write_ridge(tmp_path), "surrogate")
    informed = with_donated(job, donor.all_records)
    assert [known.selector for known in informed.donated] == ["surrogate"]
    (fitted,), (known,) = (
        study_selection(published.task, grader, asked, load_oracle(), candidates=GRID).selections
        for asked in (job, informed)
    )
    curves = {"criterion", "objective"}  # a donor is fitted on calibration points alone, which adds in another order
    changing = {"created", "seconds", "provenance", *curves}
    assert known.model_dump(exclude=changing) == fitted.model_dump(exclude=changing)
    for curve in curves:
        assert getattr(known, curve) == pytest.approx(getattr(fitted, curve), rel=1e-9)
    assert known.transferred
    assert known.seconds > donor.selections[0].seconds


def test_records_of_other_runs_tell_nothing(published: Published, donor: Study, tmp_path: Path) -> None:
    job = job_of(published, write_ridge(tmp_path), "surrogate")
    attributions = donor.records
    for change in (
        {"seed": 7},
        {"parameters": ("head.*",)},
        {"task": donor.selections[0].task.model_copy(update={"fingerprint": "0" * 64})},
        {"transferred": True},
        {"attributor": donor.selections[0].attributor.model_copy(update={"name": "logra"})},
    ):
        changed = [record.model_copy(update=change) for record in donor.selections]
        assert with_donated(job, [*attributions, *changed]).donated == ()
    elsewhere = [record.model_copy(update={"checkpoints_sha256": "0" * 64}) for record in attributions]
    assert with_donated(job, [*elsewhere, *donor.selections]).donated == ()
    assert with_donated(job.model_copy(update={"donors": {}}), donor.all_records).donated == ()


def test_the_newest_of_equal_choices_comes_first(published: Published, donor: Study, tmp_path: Path) -> None:
    job = job_of(published, write_ridge(tmp_path), "surrogate", "gcv")
    old = [record.model_copy(update={"created": "2020-01-01T00:00:00Z", "note": "old"}) for record in donor.selections]
    notes = [known.choice.note for known in with_donated(job, [*old, *donor.all_records]).donated]
    assert len(notes) == 4
    assert notes[2:] == ["old", "old"]
    assert "old" not in notes[:2]
