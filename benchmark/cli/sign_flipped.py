"""The control `sign_flipped`: the scores behind a task's best record, negated.

Which record is best is known from ground truth, so no attributor can be this control. Here the best record's attributor
runs again, knowing nothing of its part, and its scores are negated before they are graded. The LDS is minus that of the
best record, and the new record names the one that it negates.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from attriboard.cli.shell import note
from attriboard.cli.workbench import prepare_folder

if TYPE_CHECKING:
    from attriboard.attribution.limits import Limits
    from attriboard.attribution.runner import Outcome
    from attriboard.cli.workbench import Workbench
    from attriboard.leaderboard.reading import Entry
    from attriboard.records import AttributionRecord

__all__ = ["flip_best"]


def flip_best(
    bench: "Workbench", results: Path, *, device: str, threads: int | None, limits: "Limits"
) -> "AttributionRecord":
    """Run the best record's attributor with its configuration and seed, and grade its scores negated.

    Args:
        bench: the task.
        results: the folder for the record; records in it are considered beside the published ones.
        device: see `Workbench.job`.
        threads: see `Workbench.job`.
        limits: see `run_attributor`.

    Raises:
        InputError: no record is on this ground truth, or its folder cannot be written.
    """
    from attriboard.attribution.runner import Outcome, run_attributor
    from attriboard.record_model import Negated

    best, attributor = best_record(bench, results)
    record = best.record
    note(f"{bench.task.card.name}: the best record is {best.id} of {record.attributor.name}; running it again")
    values = dict(record.hyperparameters)
    job = bench.job(attributor, [values], seed=record.seed, device=device, threads=threads)
    prepare_folder(results)
    (outcome,) = run_attributor(job, limits)
    assert isinstance(outcome, Outcome), "a job without selectors has outcomes only"
    negated = Negated(record=best.id, attributor=record.attributor.name, hyperparameters=values)
    return bench.grader.record(bench.task, _flipped(outcome), job, variant="default", negates=negated)


def best_record(bench: "Workbench", results: Path) -> "tuple[Entry[AttributionRecord], str]":
    """The record that ranks first among those whose attributor has a name here, and that name.

    What counts for a method is what counts on the board: the selected configuration, else the default. The oracle's,
    controls, and score matrices or files from elsewhere stay out.

    Raises:
        InputError: there is none.
    """
    from attriboard.catalog import attributor_names
    from attriboard.errors import InputError
    from attriboard.leaderboard.board import published_results
    from attriboard.leaderboard.reading import read_entries
    from attriboard.leaderboard.study import studies, truth_of

    task, truth = bench.task.card, bench.grader.truth.sha256
    folders = [folder / task.name for folder in (published_results(), results) if (folder / task.name).is_dir()]
    entries = [entry for entry in read_entries(folders) if truth_of(entry.record) == truth]
    found = studies(entries, [])
    names = {name.replace(":", "-"): name for name in attributor_names()}
    headlines = [
        method.headline
        for method in (found[task.name].methods.values() if found else ())
        if method.headline and not method.control and method.name in names
    ]
    runnable = [entry for entry in headlines if entry.record.attributor.origin in ("builtin", "entry_point")]
    if not runnable:
        raise InputError(
            f"sign_flipped: negates the best record of a task, and {task.name} has none on this ground truth among the "
            f"published ones or in {results}; run an attributor first: attriboard run {task.name} iffim --out {results}"
        )
    best = max(runnable, key=lambda entry: entry.record.lds.mean if entry.record.lds else -2.0)
    return best, names[best.record.attributor.name]


def _flipped(outcome: "Outcome") -> "Outcome":
    """Negated scores, under the control's name."""
    identity = {"name": "sign_flipped", "family": "control", "paper": ""}
    return replace(
        outcome,
        attributor=outcome.attributor.model_copy(update=identity),
        hyperparameters={},
        scores=None if outcome.scores is None else -outcome.scores,
    )
