"""A record's configuration, run again: the same method, hyperparameters and seed, on the same task and plan."""

from collections.abc import Sequence
from pathlib import Path

from attriboard.attribution.runner import Outcome
from attriboard.base.errors import InputError
from attriboard.contracts.selector import REGULARIZATION
from attriboard.evaluation.brittleness import BrittlenessBench, BrittlenessPlan, choose_points, searched
from attriboard.evaluation.catalog import attributor_names, load_oracle
from attriboard.evaluation.grader import Grader, evaluate
from attriboard.evaluation.mislabel import MislabelBench
from attriboard.evaluation.qld import QldBench, QldPlan
from attriboard.evaluation.qld import retrained as qld_retrained
from attriboard.evaluation.removal import RemovalBench, RemovalPlan, retrained
from attriboard.evaluation.selection import study_selection
from attriboard.evaluation.selection_cost import selection_cost
from attriboard.evaluation.variants import Part, attribute_parts
from attriboard.evaluation.workspace import Workspace
from attriboard.groundtruth.bundle import GroundTruth
from attriboard.records.cost import SelectionCostRecord
from attriboard.records.files import AnyRecord, AnyUse, write_record
from attriboard.records.model import AttributionRecord, GradedRecord, HeldOut, SelectionRecord, Variant
from attriboard.records.uses import DownstreamRecord, MislabelRecord, QldRecord, RemovalRecord
from attriboard.retraining.store import RetrainStore

_RATES = (0.5,)  # of a removal that failed before anything was removed: its record names no rate


def method_of(record: AnyRecord, file: Path | None) -> str:
    """What runs a record's method: the file that is given, or the name under which it is known here.

    Raises:
        InputError: the record has no code that could be run, or its code is not here.
    """
    info = record.attributor
    if info.origin == "scores":
        raise InputError(
            f"record {record.id}: is of a score matrix made elsewhere; attriboard score {record.task.name} SCORES "
            "grades one"
        )
    if isinstance(record, AttributionRecord) and record.negates:
        raise InputError(
            f"record {record.id}: is the negative of record {record.negates.record} of {record.negates.attributor}; "
            "run that one again"
        )
    if file is not None:
        return str(file)
    names = {name.replace(":", "-"): name for name in attributor_names()}
    if info.origin == "file" or info.name not in names:
        raise InputError(
            f"record {record.id}: {info.name} came from a {info.origin.replace('_', ' ')} and is not installed here; "
            "give its .py file after the record"
        )
    return names[info.name]


def check_task(record: AnyRecord, workspace: Workspace) -> None:
    """The record must be of the task that is here.

    Raises:
        InputError: it is of another version.
    """
    claimed, here = record.task.fingerprint, workspace.task.card.fingerprint
    if claimed != here:
        raise InputError(
            f"record {record.id}: of {record.task.name} with fingerprint {claimed[:12]}…; the task here has "
            f"{here[:12]}…: another version, so that nothing can be compared"
        )


def check_method(record: AnyRecord, workspace: Workspace, method: str) -> None:
    """A file must define the record's method; asked before anything is run.

    Raises:
        InputError: it defines another one, or none.
    """
    if method in attributor_names():
        return
    found = workspace.runner.describe(workspace.job(method)).name
    if found != record.attributor.name:
        raise InputError(f"record {record.id}: is of {record.attributor.name}, {method} is {found}")


def check_truth(record: AttributionRecord, workspace: Workspace) -> None:
    """The record must be on the ground truth that is here.

    Raises:
        InputError: it is on another one.
    """
    claimed, here = record.ground_truth.sha256, grader_of(record, workspace).truth.sha256
    if claimed != here:
        raise InputError(
            f"record {record.id}: on ground truth {claimed[:12]}…, the one here is {here[:12]}…: nothing can be "
            "compared"
        )


def grader_of(record: GradedRecord, workspace: Workspace) -> Grader:
    """The ground truth that is here of the question that a record is on.

    Raises:
        DataError: there is none, or no place has it.
    """
    return workspace.grader_of(workspace.task.card.question(record.ground_truth.question))


class HeldOutExaminer:
    """Grades the scores of a re-run on held-out masks.

    Args:
        truth: the held-out ground truth; without one, nothing is graded.
        workspace: of the task, whose list of bundles must name the digest of its file.

    Attributes:
        found: what the last scores got.

    Raises:
        InputError: it is of another task, or not in the list.
    """

    def __init__(self, truth: GroundTruth | None, workspace: Workspace) -> None:
        self.found: HeldOut | None = None
        self._grader: Grader | None = None
        if truth is not None:
            from attriboard.groundtruth.held_out import check_commitment  # PyTorch, not for grading

            check_commitment(truth, workspace.task.card, workspace.bundles.registry)
            self._grader = Grader(truth)

    def __call__(self, outcome: Outcome) -> None:
        """Grade an outcome that has scores."""
        self.found = None
        if self._grader is not None and outcome.scores is not None:
            self.found = self._grader.held_out(outcome.scores)


def rerun(
    record: AnyRecord, workspace: Workspace, method: str, results: Path, store: RetrainStore
) -> Sequence[AnyRecord]:
    """Run a record's configuration again and write what comes out.

    A configuration that a selector chose is `custom` now: nothing chose it again.

    Args:
        record: what is run again.
        workspace: its task, with its seed.
        method: see `method_of`.
        results: folder of records.
        store: of the task's retrains, which may know those that a use needs.

    Returns:
        The new records; the one of the same kind is the first.

    Raises:
        InputError: the method is another one, or does not have these hyperparameters.
    """
    check_method(record, workspace, method)
    made: Sequence[AnyRecord]
    if isinstance(record, AttributionRecord):
        made = _attribution(record, workspace, method)
    elif isinstance(record, SelectionRecord):
        made = _selection(record, workspace, method)
    elif isinstance(record, SelectionCostRecord):
        grid, budgets = record.configurations, record.budgets
        made = [selection_cost(workspace, method, grid, budgets=budgets, n_draws=record.n_draws)]
    else:
        made = _use(record, workspace, method, results, store)
    for each in made:
        write_record(each, results)
    return made


def _attribution(record: AttributionRecord, workspace: Workspace, method: str) -> Sequence[AnyRecord]:
    job = workspace.job(method, [dict(record.hyperparameters)])
    variant: Variant = "default" if record.variant == "default" else "custom"
    return list(evaluate(workspace.task, grader_of(record, workspace), job, [variant], workspace.runner))


def _selection(record: SelectionRecord, workspace: Workspace, method: str) -> Sequence[AnyRecord]:
    job = workspace.job(method, selectors=[record.selector])
    described = workspace.runner.describe(job)
    start = record.default.hyperparameters
    if described.configurations[0] != start:
        job = job.model_copy(update={"configurations": (dict(start),)})
    with workspace.display.progress(f"{method} on {workspace.task.card.name}") as progress:
        study = study_selection(
            workspace.task,
            grader_of(record, workspace),
            job,
            load_oracle(),
            candidates=(record.candidates if record.hyperparameter == REGULARIZATION else ()) or None,
            runner=workspace.runner,
            progress=progress,
        )
    return [*study.selections, *study.records]


def _use(record: AnyUse, workspace: Workspace, method: str, results: Path, store: RetrainStore) -> Sequence[AnyRecord]:
    part, job = _part(record), workspace.job(method)
    task, grader = workspace.task, workspace.grader_if_any
    if isinstance(record, MislabelRecord):
        mislabel = MislabelBench(task, grader, record.by)
        question = mislabel.question(job)
        return [mislabel.record(a) for a in attribute_parts(question, [part], mislabel.detect, workspace.runner)]
    if isinstance(record, RemovalRecord):
        rates = tuple(point.rate for point in record.points) or _RATES
        plan = RemovalPlan(rates, len(record.retrain_seeds), record.direction, record.balanced)
        removal = RemovalBench(task, grader, plan, store)
        ranked = list(attribute_parts(job, [part], removal.rank, workspace.runner))
        return retrained(workspace, removal, ranked, results)[0]
    if isinstance(record, QldRecord):
        asked = len(record.test_points) + record.n_degenerate or None
        qld = QldBench(task, grader, QldPlan(record.fraction, asked, record.n_repeats), store)
        own = list(attribute_parts(job, [part], qld.order, workspace.runner))
        return qld_retrained(workspace, qld, own, results)
    n_points = len(record.points) + record.n_degenerate or BrittlenessPlan.n_points
    largest = record.sizes[-1] / task.card.data.n_train
    search = BrittlenessPlan(n_points, largest, len(record.search_seeds), len(record.confirm_seeds))
    brittleness = BrittlenessBench(task, grader, search, store)
    choose_points(workspace, brittleness)
    orders = list(attribute_parts(job, [part], brittleness.order, workspace.runner))
    return searched(workspace, brittleness, orders, results)


def _part(record: DownstreamRecord) -> Part:
    """The record's configuration, as what it was there: rows of a use are compared by that."""
    return Part(record.variant, record.selector, record.hyperparameters)
