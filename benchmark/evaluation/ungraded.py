"""What needs no ground truth: scores, λ by selectors, seconds and memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from attriboard.attribution.job import Job, Selected
from attriboard.attribution.runner import Outcome, Runner, said
from attriboard.base.display import NOTHING, Progress
from attriboard.base.errors import InputError
from attriboard.contracts.selector import REGULARIZATION
from attriboard.evaluation.grader import attributor_info, heading
from attriboard.evaluation.workspace import Workspace
from attriboard.groundtruth.build import open_store
from attriboard.groundtruth.estimate import Estimate, estimate_ground_truth


@dataclass
class Ungraded:
    """One configuration of an attributor, run, and what selectors chose on its fit.

    Attributes:
        outcome: scores or a reason, seconds, memory.
        choices: of each selector; none where the attributor has no λ.
    """

    outcome: Outcome
    choices: list[Selected] = field(default_factory=list)

    @property
    def reason(self) -> str | None:
        """Why nothing was chosen, of a single selector: its own reason, or that of the run."""
        return self.choices[0].reason if self.choices else self.outcome.reason or "not_applicable: nothing was chosen"

    def document(self, workspace: Workspace, job: Job) -> dict[str, Any]:
        """The fields that a record has, with `lds` and `ground_truth` null, and the selectors' choices."""
        outcome = self.outcome
        parts = heading(workspace.task, None, attributor_info(outcome, job), job)
        return {
            **{
                name: part.model_dump(mode="json") if hasattr(part, "model_dump") else part
                for name, part in parts.items()
            },
            "hyperparameters": outcome.hyperparameters,
            "status": "failed" if outcome.scores is None else "ok",
            "reason": outcome.reason,
            "lds": None,
            "fit_seconds": outcome.fit_seconds,
            "score_seconds": outcome.score_seconds,
            "peak_bytes": outcome.peak_bytes,
            "notes": list(outcome.notes),
            "selections": [
                {
                    "selector": choice.selector,
                    "status": "failed" if choice.reason else "ok",
                    "reason": choice.reason,
                    "hyperparameters": None if choice.reason else outcome.hyperparameters | choice.values,
                    "candidates": list(choice.candidates),
                    "criterion": None if choice.criterion is None else list(choice.criterion),
                    "transferred": choice.transferred,
                    "seconds": choice.seconds,
                }
                for choice in self.choices
            ],
        }


def run_ungraded(workspace: Workspace, job: Job, candidates: Sequence[Any] | None = None) -> Ungraded:
    """Run a job's one configuration and let its selectors choose; see `run_and_choose`."""
    with workspace.display.progress(f"{job.attributor.name} on {workspace.task.card.name}") as progress:
        return run_and_choose(workspace.runner, job, candidates, progress)


def run_and_choose(
    runner: Runner, job: Job, candidates: Sequence[Any] | None = None, progress: Progress = NOTHING
) -> Ungraded:
    """Run a job's one configuration and let its selectors choose.

    Args:
        runner: how it is run.
        job: one configuration, and selectors.
        candidates: values of λ; by default the attributor's grid.
        progress: of the work.

    Raises:
        InputError: the attributor does not import, or does not have these hyperparameters.
    """
    choices: dict[str, Selected] = {}
    outcomes: dict[int, Outcome] = {}
    with runner.open(job, said(progress)) as attribution:
        described = attribution.described
        start = described.configurations[0]
        values: dict[str, tuple[float, ...]] = {}
        if REGULARIZATION in start and candidates is not None:
            found = [described.configure(start | {REGULARIZATION: value})[REGULARIZATION] for value in candidates]
            values = {REGULARIZATION: tuple(float(value or 0.0) for value in found)}
        for event in attribution.run([start], values):
            if isinstance(event, Selected):
                choices.setdefault(event.selector, event)
            else:
                outcomes[event.index] = event
    return Ungraded(outcomes[0], list(choices.values()) if REGULARIZATION in start else [])


def truth_estimate(workspace: Workspace, job: Job) -> Estimate | str:
    """What the task's ground truth would cost; in words why it cannot be built."""
    try:
        return estimate_ground_truth(
            workspace.task, open_store(workspace.task, None), workspace.executor(), checkpoints=job.checkpoints
        )
    except InputError as error:
        return str(error)
