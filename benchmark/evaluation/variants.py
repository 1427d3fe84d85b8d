"""Default, selected and oracle: which configurations of an attributor are put to use, and what they scored.

The selected and the oracle's λ come from a finished selection record where there is one, else from a selection made
now. A task without ground truth has no oracle; its selector is asked alone.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

from attriboard.attribution.job import Described, Job
from attriboard.attribution.runner import DEFAULT_RUNNER, Outcome, Runner, said
from attriboard.base.display import NOTHING, Progress
from attriboard.base.errors import InputError
from attriboard.base.scores import Scores, scores_digest
from attriboard.contracts.hyperparameter import HyperparameterValue
from attriboard.contracts.selector import REGULARIZATION, GroundTruthSelector
from attriboard.contracts.task import Task
from attriboard.evaluation.catalog import attributor_spec, load_oracle
from attriboard.evaluation.donated import with_donated
from attriboard.evaluation.grader import Grader, attributor_info, heading, same_run
from attriboard.evaluation.selection import ORACLE, Study, finished_selections, study_selection
from attriboard.evaluation.ungraded import run_and_choose
from attriboard.evaluation.workspace import Workspace
from attriboard.records.files import AnyRecord, write_record
from attriboard.records.model import HEADLINE_SELECTOR, AttributionRecord, SelectionRecord, Variant
from attriboard.records.uses import DownstreamRecord

T = TypeVar("T")
R = TypeVar("R", bound=DownstreamRecord)
VARIANTS: tuple[Variant, ...] = ("default", "selected", "oracle")


@dataclass(frozen=True)
class Part:
    """A configuration and how it came about.

    Attributes:
        variant: the part that it plays.
        selector: which selector chose it.
        hyperparameters: complete, or only what is known where it could not be chosen.
        reason: why it could not be chosen: `category: text`.
    """

    variant: Variant
    selector: str | None
    hyperparameters: Mapping[str, HyperparameterValue]
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class Attributed(Generic[T]):
    """What became of one part.

    Attributes:
        part: which.
        job: what the attributor's process was asked.
        outcome: what it gave, without the scores.
        scores_sha256: digest of the score matrix, where there is one.
        made: what was made of the scores; `None` where the outcome failed.
    """

    part: Part
    job: Job
    outcome: Outcome
    scores_sha256: str | None
    made: T | None


def choose_parts(
    task: Task,
    grader: Grader | None,
    job: Job,
    described: Described,
    variants: Sequence[Variant],
    records: Iterable[AnyRecord],
    oracle: GroundTruthSelector,
    *,
    keep: Callable[[Study], None] = lambda study: None,
    runner: Runner = DEFAULT_RUNNER,
    progress: Progress = NOTHING,
) -> list[Part]:
    """The configurations that variants stand for, starting from a job's only one; a method without λ has its own alone.

    Args:
        task: the task.
        grader: its ground truth, where it has one.
        job: one configuration, and the headline selector.
        described: what the attributor says of it.
        variants: which parts are wanted, of `VARIANTS`.
        records: finished ones, among which the answer may be.
        oracle: see `study_selection`.
        keep: given the study where one had to be made.
        runner: how it is run.
        progress: see `study_selection`.

    Raises:
        InputError: the job cannot be run at all.
    """
    start = described.configurations[0]
    parts = [Part("default", None, start)] if "default" in variants else []
    if REGULARIZATION not in start or not {"selected", "oracle"} & set(variants):
        return parts or [Part("default", None, start)]
    if not _candidates(described):
        nothing = f"not_applicable: {REGULARIZATION}: its grid has no positive number to choose from; add some"
        return [*parts, *([Part("selected", HEADLINE_SELECTOR, start, nothing)] if "selected" in variants else [])]
    if grader is None:
        return [*parts, *([_asked(job, start, runner, progress)] if "selected" in variants else [])]
    selection = _known(grader, job, described, list(records))
    if selection is None:
        study = study_selection(task, grader, job, oracle, runner=runner, progress=progress)
        keep(study)
        selection = study.selections[0]
    if "selected" in variants:
        chosen = selection.selected.hyperparameters if selection.selected else start
        reason = selection.reason if selection.selected is None else None
        parts.append(Part("selected", selection.selector, chosen, reason))
    if "oracle" in variants and selection.oracle:
        parts.append(Part("oracle", ORACLE, selection.oracle.hyperparameters))
    return parts


def variant_parts(
    workspace: Workspace, attributor: str | Path, variants: Sequence[Variant], results: Path
) -> tuple[Job, Described, list[Part]]:
    """An attributor's configurations for variants; a selection that had to be made is recorded.

    Args:
        workspace: the task.
        attributor: its name or file.
        variants: wanted ones.
        results: folder of records, which may know the selection, and gets it.
    """
    records = [*workspace.records(results), *workspace.published_records]
    job = with_donated(workspace.job(attributor, selectors=(HEADLINE_SELECTOR,)), records)
    described = workspace.runner.describe(job)

    def keep(study: Study) -> None:
        for record in study.all_records:
            write_record(record, results)

    with workspace.display.progress(f"λ of {attributor}") as progress:
        parts = choose_parts(
            workspace.task,
            workspace.grader_if_any,
            job,
            described,
            variants,
            records,
            load_oracle(),
            keep=keep,
            runner=workspace.runner,
            progress=progress,
        )
    return job, described, parts


def attribute_parts(
    job: Job,
    parts: Sequence[Part],
    make: Callable[[Scores], T],
    runner: Runner = DEFAULT_RUNNER,
    progress: Progress = NOTHING,
) -> Iterator[Attributed[T]]:
    """Run the configurations of parts, each once, and make something of their scores.

    Args:
        job: the attributor; its configurations are replaced.
        parts: what is wanted; all of them could be chosen.
        make: from scores (n_test, n_train) to what is kept of them; an `InputError` of it fails the part.
        runner: how it is run.
        progress: of configurations.
    """
    configurations: list[dict[str, Any]] = []
    for part in parts:
        if dict(part.hyperparameters) not in configurations:
            configurations.append(dict(part.hyperparameters))
    job = job.model_copy(update={"configurations": tuple(configurations), "selectors": ()})
    for count, outcome in enumerate(runner.run(job, said(progress)), start=1):
        progress(count, len(configurations))
        assert isinstance(outcome, Outcome), "a job without selectors has outcomes only"
        mine = [part for part in parts if dict(part.hyperparameters) == configurations[outcome.index]]
        found = attributed(mine[0], job, outcome, make)
        yield from (replace(found, part=part) for part in mine)


def attributed(part: Part, job: Job, outcome: Outcome, make: Callable[[Scores], T]) -> Attributed[T]:
    """Make something of an outcome's scores and let go of them; see `attribute_parts`."""
    made, digest, reason = None, None, outcome.reason
    if outcome.scores is not None:
        try:
            made, digest = make(outcome.scores), scores_digest(outcome.scores)
        except InputError as error:
            reason = f"nan: {error}"
    return Attributed(part, job, replace(outcome, scores=None, reason=reason), digest, made)


def answering_records(
    job: Job, described: Described, parts: Sequence[Part], records: Iterable[R], answers: Callable[[R], bool]
) -> list[R | None]:
    """For every part, the last record of the same code, configuration, seed and checkpoints that `answers` accepts."""
    checkpoints = job.checkpoints_sha256
    usable = [
        record
        for record in records
        if same_run(record, job, described.code_sha256) and record.checkpoints_sha256 == checkpoints and answers(record)
    ]

    def answer(part: Part) -> R | None:
        wanted = (part.variant, part.selector, dict(part.hyperparameters))
        mine = [record for record in usable if (record.variant, record.selector, record.hyperparameters) == wanted]
        return mine[-1] if mine else None

    return [answer(part) for part in parts]


def finished_parts(
    job: Job, described: Described, parts: Sequence[Part], records: Iterable[R], answers: Callable[[R], bool]
) -> dict[Variant, R]:
    """Those of some parts, each another variant, that a record answers; see `answering_records`."""
    found = answering_records(job, described, parts, records, answers)
    return {part.variant: record for part, record in zip(parts, found, strict=True) if record is not None}


def known_or_made(
    workspace: Workspace,
    attributors: Sequence[str | Path],
    variants: Sequence[Variant],
    results: Path,
    kind: type[R],
    answers: Callable[[R], bool],
    make: Callable[[Scores], T],
    question: Callable[[Job], Job] = lambda job: job,
) -> Iterator[R | Attributed[T]]:
    """For every variant of every attributor, the record that answers it, else what is made of its scores now.

    Args:
        workspace: the task.
        attributors: names or files.
        variants: wanted ones.
        results: folder of records, which gets a selection that had to be made.
        kind: of the records.
        answers: see `answering_records`.
        make: see `attribute_parts`.
        question: from the attributor's job to the one whose scores are looked at.

    Raises:
        UnknownNameError: no such attributor; nothing has been run then.
    """
    for name in attributors:
        attributor_spec(name)
    finished = [record for record in workspace.records(results) if isinstance(record, kind)]
    for position, name in enumerate(attributors, start=1):
        workspace.display.note(f"[{position}/{len(attributors)}] {name}")
        job, described, parts = variant_parts(workspace, name, variants, results)
        known = finished_parts(job, described, parts, finished, answers)
        asked = question(job)
        made = {part.variant: _unchosen(part, asked, described) for part in parts if part.reason is not None}
        missing = [part for part in parts if part.variant not in {**known, **made}]
        if missing:
            with workspace.display.progress(f"{name} on {workspace.task.card.name}") as progress:
                found = attribute_parts(asked, missing, make, workspace.runner, progress)
                made |= {attributed.part.variant: attributed for attributed in found}
        yield from (known.get(part.variant) or made[part.variant] for part in parts)


def _unchosen(part: Part, job: Job, described: Described) -> Attributed[Any]:
    """What becomes of a part that could not be chosen: it has failed, and is not run."""
    return Attributed(part, job, Outcome(described, 0, dict(part.hyperparameters), part.reason), None, None)


def record_fields(task: Task, grader: Grader | None, attributed: Attributed[Any]) -> dict[str, Any]:
    """What every record of a use begins with."""
    part, outcome, job = attributed.part, attributed.outcome, attributed.job
    return {
        **heading(task, grader.truth if grader else None, attributor_info(outcome, job), job),
        "variant": part.variant,
        "selector": part.selector,
        "hyperparameters": outcome.hyperparameters,
        "status": "failed" if outcome.reason else "ok",
        "reason": outcome.reason,
        "fit_seconds": outcome.fit_seconds,
        "score_seconds": outcome.score_seconds,
        "peak_bytes": outcome.peak_bytes,
        "scores_sha256": attributed.scores_sha256,
        "checkpoints_sha256": job.checkpoints_sha256,
    }


def _candidates(described: Described) -> tuple[float, ...]:
    """The values of λ that there are to choose from, ascending."""
    values = described.grid(REGULARIZATION)
    return tuple(sorted({float(v) for v in values if isinstance(v, (int, float)) and v > 0}))


def _known(grader: Grader, job: Job, described: Described, records: list[AnyRecord]) -> SelectionRecord | None:
    """The newest finished selection of the same code, start, candidates, seed, checkpoints and ground truth."""
    wanted = (HEADLINE_SELECTOR, _candidates(described), described.configurations[0])
    mine = [
        record
        for record in records
        if isinstance(record, AttributionRecord | SelectionRecord)
        and same_run(record, job, described.code_sha256)
        and record.ground_truth.sha256 == grader.truth.sha256
    ]
    found = finished_selections(mine, job.checkpoints_sha256)
    return next((one for one in found if (one.selector, one.candidates, one.default.hyperparameters) == wanted), None)


def _asked(job: Job, start: Mapping[str, HyperparameterValue], runner: Runner, progress: Progress) -> Part:
    """The headline selector's choice, by the selector alone."""
    found = run_and_choose(runner, job.model_copy(update={"configurations": (dict(start),)}), None, progress)
    if found.reason is not None:
        return Part("selected", HEADLINE_SELECTOR, start, found.reason)
    return Part("selected", found.choices[0].selector, dict(start) | found.choices[0].values)
