"""LDS against the number of models that scores are averaged over, λ by ξ at each.

The models are the task's own kinds, full-data or half-data ones as the method takes them, but more of them, and at the
last epoch only. They are in a bundle of their own, published for some tasks and else trained here once; the checkpoints
of the task stay as they are.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attriboard.attribution.job import Job, Selected
from attriboard.attribution.runner import Outcome, said
from attriboard.base.errors import AttriboardError
from attriboard.contracts.selector import REGULARIZATION
from attriboard.contracts.task import Task
from attriboard.evaluation.grader import same_run
from attriboard.evaluation.workspace import Workspace
from attriboard.groundtruth.listing import BundleEntry, BundleRegistry
from attriboard.groundtruth.other_models import other_models
from attriboard.records.files import write_record
from attriboard.records.model import HEADLINE_SELECTOR, AttributionRecord

COUNTS = (1, 2, 5, 10, 20)


def with_models(task: Task, count: int) -> Task:
    """The same task with `count` models of either kind for attributors, at the last epoch only.

    Raises:
        InputError: see `other_models`.
    """
    return other_models(task, full=count, half=count, epochs=[task.card.recipe.epochs])


def ensemble_bundle(workspace: Workspace, count: int) -> Path:
    """The bundle of these models: the published one where it has enough of them, else trained here."""
    published = workspace.bundles.models(count)
    if published is not None:
        return published
    from attriboard.groundtruth.build import train_checkpoints

    task = with_models(workspace.task, count)
    with workspace.display.progress(f"{2 * count} models of {task.card.name}") as progress:
        return train_checkpoints(task, executor=lambda: workspace.executor(progress.say), progress=progress).resolve()


def publish_models(workspace: Workspace, count: int, folder: Path) -> BundleEntry:
    """Train these models into a folder of bundles, and list them there.

    Raises:
        InputError: the folder lists other models of this task; published files are never replaced.
    """
    from attriboard.groundtruth.build import build_checkpoints, open_store

    registry, task = BundleRegistry(folder), with_models(workspace.task, count)
    path = folder / registry.file_name(task.card, "models")
    with workspace.display.progress(f"{2 * count} models of {task.card.name}") as progress:
        executor = workspace.executor(progress.say)
        build_checkpoints(task, path, open_store(task, None), executor=executor, progress=progress)
    return registry.register(task.card, "models")


def ensemble_records(
    workspace: Workspace, attributor: str | Path, results: Path, counts: Sequence[int] = COUNTS
) -> list[AttributionRecord]:
    """A record per number of models, ascending; where the method has λ, at the one that ξ chooses from their spectra.

    Args:
        workspace: a task with ground truth.
        attributor: its name or file.
        results: folder of records: finished ones are taken from it, new ones added.
        counts: numbers of models.

    Raises:
        InputError: the method does not average over checkpoints, or the task has one set of models only.
        AttriboardError: a configuration failed; the message has the reason.
    """
    counts = sorted(set(counts))
    job = workspace.job(attributor, [{"checkpoints": count} for count in counts], selectors=(HEADLINE_SELECTOR,))
    job = job.model_copy(update={"checkpoints": ensemble_bundle(workspace, max(counts))})
    described = workspace.runner.describe(job)
    finished = {
        record.hyperparameters["checkpoints"]: record
        for record in workspace.records(results)
        if isinstance(record, AttributionRecord) and _answers(record, workspace, job, described.code_sha256)
    }
    missing = [count for count in counts if count not in finished]
    if missing:
        job = job.model_copy(update={"configurations": tuple({"checkpoints": count} for count in missing)})
        for record in _made(workspace, job):
            write_record(record, results)
            finished[record.hyperparameters["checkpoints"]] = record
    return [finished[count] for count in counts]


def _answers(record: AttributionRecord, workspace: Workspace, job: Job, code: str) -> bool:
    """Whether a record is of these models, this code, seed, parameters and ground truth."""
    return (
        same_run(record, job, code)
        and record.ground_truth.sha256 == workspace.grader.truth.sha256
        and record.checkpoints_sha256 == job.checkpoints_sha256
        and record.lds is not None
    )


def _made(workspace: Workspace, job: Job) -> Iterator[AttributionRecord]:
    """A record per configuration of the job, at ξ's λ where it has one, each as soon as it is known."""
    outcomes: dict[int, Outcome] = {}
    chosen: dict[int, int] = {}
    missing = list(range(len(job.configurations)))
    with workspace.display.progress(f"{job.attributor.name} on {workspace.task.card.name}") as progress:
        for event in workspace.runner.run(job, said(progress)):
            if not isinstance(event, Selected):
                outcomes[event.index] = event
            elif event.configuration is not None:
                chosen |= dict.fromkeys(event.configurations, event.configuration)
            progress(len(outcomes), max(len(outcomes), 2 * len(job.configurations)))
            for index in [one for one in missing if _known(one, outcomes, chosen)]:
                missing.remove(index)
                outcome = outcomes[chosen.get(index, index)]
                if outcome.scores is None:
                    raise AttriboardError(f"{job.attributor.name}: {outcome.reason}")
                yield workspace.grader.record(workspace.task, outcome, job, variant="sweep")
    if missing:
        count = outcomes[missing[0]].hyperparameters["checkpoints"]
        raise AttriboardError(f"{job.attributor.name}: ξ chose no λ for {count}")


def _known(index: int, outcomes: Mapping[int, Outcome], chosen: Mapping[int, int]) -> bool:
    """Whether a configuration has run at the λ that counts; one that failed has no other."""
    if index in chosen:
        return chosen[index] in outcomes
    return index in outcomes and (
        outcomes[index].scores is None or REGULARIZATION not in outcomes[index].hyperparameters
    )
