"""Where an attributor runs: one worker per attribution, in a process of its own or in this one."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from attriboard.attribution.executors import OwnProcess, ThisProcess
from attriboard.attribution.job import Progressed
from attriboard.attribution.limits import Limits
from attriboard.attribution.runner import Runner
from attriboard.base.errors import HyperparameterError, InputError
from attriboard.evaluation.catalog import attributor_spec
from attriboard.evaluation.workspace import Workspace

METHOD = """
class Method(Attributor):
    name = "method"
    hyperparameters = (
        Hyperparameter("width", 2, source="here", grid=(1, 2), minimum=1, aliases=("breadth",)),
        Hyperparameter("scale", 1.0, source="here", stage="score"),
    )

    def fit(self, context, width):
        with Path(__file__).with_name("pids.txt").open("a") as file:
            print(os.getpid(), file=file)
        for step in range(3):
            context.progress(step, 3, "steps")
            time.sleep(0.6 if width == 7 else 0)
        if width == 13:
            print("about to fail")
            return self.deeper()
        return torch.arange(len(context.test) * len(context.train)).float().view(len(context.test), -1) * width

    def deeper(self):
        return torch.ones(2) @ torch.ones(3)

    def score(self, state, scale):
        return state * scale
"""


def pids(folder: Path) -> list[int]:
    return [int(pid) for pid in (folder / "pids.txt").read_text().split()]


def test_here_and_elsewhere_give_the_same_bits(make_job, tmp_path):
    job = make_job(METHOD, {"width": 3}, {"width": 3, "scale": 0.5}, {"breadth": "4"})
    elsewhere, here = list(Runner().run(job)), list(Runner(ThisProcess()).run(job))
    assert [outcome.hyperparameters for outcome in here] == [outcome.hyperparameters for outcome in elsewhere]
    assert here[2].hyperparameters == {"width": 4, "scale": 1.0}
    for one, other in zip(here, elsewhere, strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)
    assert [pid == os.getpid() for pid in pids(tmp_path)] == [False, False, True, True]


def test_one_process_describes_and_works_off_several_plans(make_job, tmp_path):
    with Runner().open(make_job(METHOD, {})) as attribution:
        described = attribution.described
        assert described.configurations == ({"width": 2, "scale": 1.0},)
        assert (described.grid("width"), described.own_name("breadth")) == ((1, 2), "width")
        with pytest.raises(HyperparameterError, match="width = 0: must be at least 1"):
            described.configure({"breadth": "0"})
        first = [outcome.reason for outcome in attribution.run()]
        second = [outcome.reason for outcome in attribution.run([described.configure({"width": 5})])]
    assert first == second == [None]
    assert len(set(pids(tmp_path))) == 1


def test_in_this_process_an_exception_arrives_unchanged(make_job):
    with pytest.raises(RuntimeError, match="size") as caught:
        list(Runner(ThisProcess()).run(make_job(METHOD, {"width": 13})))
    assert caught.traceback[-1].name == "deeper"


def test_in_this_process_the_number_of_threads_comes_back(make_job):
    before = torch.get_num_threads()
    list(Runner(ThisProcess()).run(make_job(METHOD, {}, threads=before + 1)))
    assert torch.get_num_threads() == before


def test_a_failure_has_the_frames_of_the_authors_code_and_what_it_printed(make_job, tmp_path):
    log = tmp_path / "log.txt"
    (outcome,) = Runner(OwnProcess(log=log)).run(make_job(METHOD, {"width": 13}))
    assert outcome.reason.startswith("error: RuntimeError: ")
    lines = outcome.details.splitlines()
    files = [line.strip() for line in lines if line.strip().startswith("File ")]
    assert [line.rpartition(", in ")[2] for line in files] == ["fit", "deeper"]
    assert all(str(tmp_path / "my_method.py") in line for line in files)
    assert lines[-2:] == ["it printed:", "about to fail"]
    assert log.read_text() == "about to fail\n"


def test_a_built_in_method_that_does_not_apply_says_so_without_frames(make_job):
    """They are for the author of a plugin."""
    job = make_job(METHOD)
    (ours,) = Runner(OwnProcess()).run(job.model_copy(update={"attributor": attributor_spec("bm25")}))
    assert (ours.reason.partition(":")[0], ours.details) == ("not_applicable", "")
    source = METHOD.replace("return self.deeper()", 'raise NotApplicableError("not for this task")')
    (own,) = Runner(OwnProcess()).run(make_job(source, {"width": 13}))
    assert own.reason == "not_applicable: not for this task"
    assert "my_method.py" in own.details


def test_a_log_that_cannot_be_written_is_the_callers_error(make_job, tmp_path):
    with pytest.raises(InputError, match=r"log .*nowhere.*cannot be written"):
        list(Runner(OwnProcess(log=tmp_path / "nowhere" / "log.txt")).run(make_job(METHOD)))


@pytest.mark.parametrize("executor", [OwnProcess(), ThisProcess()], ids=["own_process", "this_process"])
def test_a_long_fit_says_how_far_it_is(make_job, executor):
    heard: list[Progressed] = []
    list(Runner(executor).run(make_job(METHOD, {"width": 7}), heard.append))
    assert [(event.done, event.total, event.text) for event in heard] == [(1, 3, "steps"), (2, 3, "steps")]


def test_limits_and_a_log_are_for_a_process_of_its_own(tmp_path):
    for options in ({"limits": Limits(seconds=1)}, {"log": tmp_path / "log.txt"}):
        with pytest.raises(InputError, match="own process"):
            Workspace("digits_mlp", isolated=False, **options)
