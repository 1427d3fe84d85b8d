"""Choices on a donor's spectrum that are on record, so that the donor need not be fitted again.

A method without a spectrum of its own gets the λ found on that of a donor (`attriboard.attribution.choosing`). What is
found does not depend on the method. Where the donor itself was put through the selectors before, on the same models and
from the same candidates, its records say it already.
"""

from collections.abc import Iterable

from attriboard.attribution.job import Donated, Job
from attriboard.contracts.selector import REGULARIZATION
from attriboard.records.files import AnyRecord
from attriboard.records.model import AttributionRecord, SelectionRecord


def with_donated(job: Job, records: Iterable[AnyRecord]) -> Job:
    """A job that knows what its selectors chose for its donors; the newest of equal choices comes first.

    Args:
        job: what is to be run.
        records: finished ones of its task.
    """
    donors = {spec.name for spec in job.donors.values()}
    selectors = {spec.name for spec in job.selectors if spec.origin == "builtin"}
    card = job.task.card
    mine = [
        record
        for record in records
        if record.attributor.name in donors
        and (record.seed, record.parameters, record.task.fingerprint) == (job.seed, job.parameters, card.fingerprint)
    ]
    # Selections do not name their checkpoints; the graded configurations beside them do.
    graded = [
        record.hyperparameters
        for record in mine
        if isinstance(record, AttributionRecord) and record.checkpoints_sha256 == job.checkpoints_sha256
    ]
    found = [
        record
        for record in mine
        if isinstance(record, SelectionRecord)
        and record.selector in selectors
        and (record.hyperparameter, record.status, record.transferred) == (REGULARIZATION, "ok", False)
        and record.selected is not None
        and record.selected.hyperparameters in graded
    ]
    found.sort(key=lambda record: record.created, reverse=True)
    return job.model_copy(update={"donated": tuple(map(_donated, found))})


def _donated(record: SelectionRecord) -> Donated:
    assert record.selected is not None
    assert record.attributor.digest is not None
    return Donated(
        donor=record.attributor.name,
        code_sha256=record.attributor.digest,
        hyperparameters=record.default.hyperparameters,
        selector=record.selector,
        value=record.selected.hyperparameters[REGULARIZATION],
        candidates=record.candidates,
        criterion=record.criterion,
        objective=record.objective,
        note=record.note,
        seconds=record.seconds,
    )
