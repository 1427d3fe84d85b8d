"""Every kind of module that people bring: the chosen trainer does what a plain loop does, or nothing is trained."""

import numpy as np
import pytest
from zoo import ROWS, Row
from zoo_training import N_TRAIN, ZooTask, assert_trained_like_a_plain_loop

from attriboard.base.errors import InputError
from attriboard.retraining.opening import check_task
from attriboard.retraining.request import RetrainRequest


def refusal_of(task: ZooTask) -> str | None:
    try:
        check_task(task, task.load_data())
    except InputError as error:
        return str(error)
    return None


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_task_is_trained_as_a_plain_loop_trains_it_or_refused(row: Row) -> None:
    task = ZooTask(row)
    refusal = refusal_of(task)
    if refusal is not None:
        assert "\n" not in refusal
        assert refusal.startswith("task tiny: ")
        return
    assert_trained_like_a_plain_loop(task, RetrainRequest(np.arange(0, N_TRAIN, 2), 3))
