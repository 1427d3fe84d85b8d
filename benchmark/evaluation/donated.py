"""Choices on a donor's spectrum that are on record, so that the donor need not be fitted again.

A method without a spectrum of its own gets the λ found on that of a donor (`attriboard.attribution.choosing`). What is
found does not depend on the method. Where the donor itself was put through the selectors before, on the same models and
from the same candidates, its records say it already.
"""

from collections.abc import Iterable

from attriboard.attribution.job import Donated, Job
from attriboard.contracts.selector import REGULARIZATION, Choice
from attriboard.evaluation.selection import finished_selections
from attriboard.records.files import AnyRecord
from attriboard.records.model import SelectionRecord


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
    found = [
        record
        for record in finished_selections(mine, job.checkpoints_sha256)
        if record.selector in selectors and record.hyperparameter == REGULARIZATION and not record.transferred
    ]
    return job.model_copy(update={"donated": tuple(map(_donated, found))})


def _donated(record: SelectionRecord) -> Donated:
    assert record.selected is not None
    assert record.attributor.digest is not None
    return Donated(
        donor=record.attributor.name,
        code_sha256=record.attributor.digest,
        hyperparameters=record.default.hyperparameters,
        selector=record.selector,
        candidates=record.candidates,
        choice=Choice(
            {REGULARIZATION: record.selected.hyperparameters[REGULARIZATION]},
            record.criterion,
            record.objective,
            record.note,
        ),
        seconds=record.seconds,
    )
