"""Mislabel detection: does an attribution find the training labels that a task made wrong on purpose? No retrains.

By self-influence, training examples are attributed to themselves; by summed influence, scores are summed over
calibration points, and harmful examples are suspicious.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from attriboard.attribution.job import Job
from attriboard.base.errors import InputError
from attriboard.base.scores import Scores
from attriboard.contracts.task import Task
from attriboard.evaluation.grader import Grader
from attriboard.evaluation.retrains import same_question
from attriboard.evaluation.variants import Attributed, known_or_made, record_fields
from attriboard.evaluation.workspace import Workspace
from attriboard.groundtruth.plan import split_of
from attriboard.records.files import write_record
from attriboard.records.model import Variant
from attriboard.records.uses import MislabelRecord
from attriboard.scoring.mislabel import INSPECTED, Detection, detect, suspicion_of_self, suspicion_of_sums
from attriboard.scoring.removal import summed_scores

By = Literal["self", "summed"]
BY: tuple[By, ...] = get_args(By)


class MislabelBench:
    """A task with wrong labels, and what makes an example suspicious.

    Args:
        task: the task.
        grader: its ground truth, where it has one; only its digest is used.
        by: `self` or `summed`.

    Raises:
        InputError: the task has no wrong labels.
        DataError: the data is unavailable.
    """

    def __init__(self, task: Task, grader: Grader | None, by: By) -> None:
        self.task, self.grader, self.by = task, grader, by
        mislabelled = task.load_data().mislabelled
        if mislabelled is None:
            raise InputError(
                f"task {task.card.name}: has no wrong labels to detect; its card would say data.options.flipped, as in "
                "digits_mlp_flipped"
            )
        self.wrong: NDArray[np.bool_] = mislabelled.numpy().astype(bool)

    def question(self, job: Job) -> Job:
        """The job whose scores are looked at: of training examples on themselves, or on test points."""
        return job.model_copy(update={"queries": "train" if self.by == "self" else "test"})

    def detect(self, scores: Scores) -> Detection:
        """Grade scores of the job that `question` gives.

        Raises:
            InputError: no finite suspicion.
        """
        if self.by == "self":
            return detect(suspicion_of_self(scores), self.wrong)
        points = split_of(self.task.card).calibration
        return detect(suspicion_of_sums(summed_scores(scores, points)[0]), self.wrong)

    def record(self, attributed: Attributed[Detection]) -> MislabelRecord:
        """The record of one configuration."""
        found = attributed.made
        return MislabelRecord(
            **record_fields(self.task, self.grader, attributed),
            by=self.by,
            n_mislabelled=int(self.wrong.sum()),
            auc=found.auc if found else None,
            ci95=found.ci95 if found else None,
            average_precision=found.average_precision if found else None,
            inspected=INSPECTED,
            recall=found.recall if found else None,
        )

    def answers(self, record: MislabelRecord) -> bool:
        """Whether a finished record is of this task, ground truth and suspicion, whatever its attributor."""
        return record.by == self.by and same_question(record, self.task, self.grader)


def mislabel_records(
    workspace: Workspace,
    bench: MislabelBench,
    attributors: Sequence[str | Path],
    variants: Sequence[Variant],
    results: Path,
) -> list[MislabelRecord]:
    """Records of every attributor's variants, in order: from the folder, or made now and written there.

    Args:
        workspace: the task.
        bench: what is suspicious.
        attributors: names or files.
        variants: wanted ones.
        results: folder of records.
    """
    records = []
    for item in known_or_made(
        workspace, attributors, variants, results, MislabelRecord, bench.answers, bench.detect, bench.question
    ):
        record = item if isinstance(item, MislabelRecord) else bench.record(item)
        write_record(record, results)
        records.append(record)
    return records
