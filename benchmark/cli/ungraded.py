"""`attriboard run` and `select` on a task without ground truth: what needs none is done, nothing is recorded."""

from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

import typer

from attriboard.cli.options import prepare_file, prepare_folder
from attriboard.cli.shell import emit, setting, show_table

if TYPE_CHECKING:
    from attriboard.attribution.job import Job, Selected
    from attriboard.attribution.runner import Outcome
    from attriboard.evaluation.ungraded import Ungraded
    from attriboard.evaluation.workspace import Workspace


BERGSON = ".bergson"
"""Ending of a folder that gets scores as bergson stores them."""


def scores_saver(path: Path | None) -> "Callable[[Outcome], None]":
    """What writes the scores of an outcome to a file, which must be possible before the work begins.

    Raises:
        InputError: the name has another ending, its folder does not exist or cannot be written to, or there is a folder
            of that name, with something in it where it should be one.
    """
    from attriboard.base.errors import InputError
    from attriboard.base.interchange import write_bergson
    from attriboard.base.paths import replacing
    from attriboard.base.scores import write_scores

    if path is None:
        return lambda outcome: None
    if path.suffix not in (".safetensors", BERGSON):
        raise InputError(f"--save-scores {path}: must end in .safetensors, or in {BERGSON} for a folder of bergson")
    if not path.parent.is_dir():
        raise InputError(f"--save-scores {path}: no folder {path.parent}; make it first")
    if path.suffix != BERGSON:
        prepare_file(path, "--save-scores")
    else:
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise InputError(f"--save-scores {path}: is there already, and not an empty folder; take another name")
        prepare_folder(path.parent, "--save-scores")

    def save(outcome: "Outcome") -> None:
        if outcome.scores is not None:
            with replacing(path) as place:
                (write_bergson if path.suffix == BERGSON else write_scores)(place, outcome.scores)

    return save


def finish_ungraded(
    task: str, workspace: "Workspace", job: "Job", found: "Ungraded", *, scores: Path | None = None, json: bool = False
) -> None:
    """Show what was found; a failed run ends with exit code 1.

    Args:
        task: its name or file, as it was given.
        workspace: the task.
        job: what was run.
        found: what came of it.
        scores: file that has the scores.
        json: whether one JSON document is printed.
    """
    from attriboard.evaluation.ungraded import truth_estimate

    cost = truth_estimate(workspace, job)
    saved = None if scores is None or found.outcome.scores is None else str(scores)
    if json:
        estimate: Any = {"possible": False, "reason": cost}
        if not isinstance(cost, str):
            estimate = {"possible": True, "seconds": cost.seconds, **vars(cost)}
        emit({**found.document(workspace, job), "scores": saved, "ground_truth_estimate": estimate, "record": None})
    else:
        _show(found)
        if saved:
            print(f"scores: {saved}")
        if isinstance(cost, str):
            print(f"no ground truth, so no LDS: {cost}")
        else:
            print(f"no ground truth, so no LDS; `attriboard groundtruth build {quote(task)}` would take {cost}")
    if found.outcome.scores is None:
        raise typer.Exit(1)


def _show(found: "Ungraded") -> None:
    outcome = found.outcome
    title = f"{outcome.attributor.name}"
    if outcome.scores is None:
        print(f"{title}: failed: {outcome.reason}")
    else:
        print(f"{title}: scores {outcome.scores.shape[0]:,} × {outcome.scores.shape[1]:,} (test × training examples)")
    for text in outcome.notes:
        print(f"note: {text}")
    if outcome.hyperparameters:
        values = ", ".join(f"{k} = {setting(v)}" for k, v in outcome.hyperparameters.items())
        print(f"{'scored with' if found.choices else 'with'} {values}")
    if outcome.fit_seconds is not None and outcome.score_seconds is not None:
        memory = f", peak memory {outcome.peak_bytes / 1e6:,.0f} MB" if outcome.peak_bytes else ""
        print(f"fit {outcome.fit_seconds:.2f} s, score {outcome.score_seconds:.2f} s{memory}")
    if found.choices:
        show_choices(found.choices)


def show_choices(choices: "Sequence[Selected]") -> None:
    """Print what selectors chose, one line for each."""
    from attriboard.evaluation.selection import EDGE, at_edge

    rows = []
    for choice in choices:
        value = choice.values.get(choice.hyperparameter)
        looked = dict(zip(choice.candidates, choice.criterion or (), strict=False))
        at = looked.get(value) if isinstance(value, float) else None
        rows.append(
            (
                choice.selector,
                choice.reason or f"{setting(value)}{' (transferred)' if choice.transferred else ''}",
                "–" if at is None else f"{at:.3g}",
                str(len(choice.candidates)),
                f"{choice.seconds:.2f}",
            )
        )
    headings = ("selector", choices[0].hyperparameter, "criterion there", "candidates", "seconds")
    show_table("chosen without retraining; the criterion of surrogate is the mean ξ", headings, rows, numeric=(2, 3, 4))
    if any(map(at_edge, choices)):
        print(f"warning: {EDGE}")
