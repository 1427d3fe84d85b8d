"""`attriboard select`: λ without retrains, or any hyperparameter with a few."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attriboard.cli.options import (
    RESULTS,
    Fixed,
    MethodArgument,
    OutDir,
    Process,
    Questions,
    Retraining,
    Sources,
    TaskArgument,
    open_workspace,
    parse_assignments,
    prepare_folder,
)
from attriboard.cli.shell import Json, emit, resuming, setting, show_table
from attriboard.cli.ungraded import finish_ungraded

if TYPE_CHECKING:
    from attriboard.attribution.job import Job
    from attriboard.evaluation.budget import BudgetChoice
    from attriboard.evaluation.grader import Grader
    from attriboard.evaluation.workspace import Workspace
    from attriboard.records.model import GradedConfiguration, SelectionRecord


@resuming(lambda given: given["budget"] is not None)
def select(
    task: TaskArgument,
    method: MethodArgument,
    selector: Annotated[
        list[str] | None, typer.Option(help="Name, path of a .py file, or `all`; repeatable. Default: surrogate.")
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            metavar="K", help="Train K models and choose by them: any hyperparameter, no ground truth.", min=2
        ),
    ] = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            "--grid",
            metavar="LO:HI:Nlog|a,b,c|NAME=a,b,c",
            help="Candidates of λ; with --budget, values for any hyperparameter, repeatable. Default: the method's own "
            "grid of λ.",
        ),
    ] = None,
    hp: Fixed = None,
    question: Questions = None,
    out: OutDir = RESULTS,
    retraining: Retraining = Retraining(),
    process: Process = Process(),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Choose hyperparameters: λ without retraining, beside the default and the oracle; or anything with K retrains.

    With several questions, the method is run once and graded on each ground truth. --store, --workers and --executor
    are for --budget. On a task without ground truth the choice alone is shown, and nothing is recorded.
    """
    from attriboard.base.errors import InputError
    from attriboard.evaluation.catalog import selector_names
    from attriboard.evaluation.sweeps import check_names, parse_grid
    from attriboard.records.model import HEADLINE_SELECTOR

    grids = [parse_grid(text if "=" in text else f"regularization={text}") for text in grid or ()]
    fixed = parse_assignments(hp or [])
    workspace = open_workspace(task, sources, process, retraining)
    if budget is not None:
        if selector:
            raise InputError(f"--selector {selector[0]}: chooses without retrains; leave it or --budget out")
        if question:
            raise InputError(f"--question {question[0]}: a budget trains models of its own; leave it or --budget out")
        check_names(grids, fixed)
        _by_budget(workspace, method, dict(grids), fixed, budget, retraining.store, json=json)
        return
    if len(grids) > 1 or any(name != "regularization" for name, _ in grids):
        raise InputError(f"--grid {(grid or [''])[-1]}: only λ can be chosen without retrains; give --budget 16")
    candidates = grids[0][1] if grids else None
    job = workspace.job(
        method, [fixed], selectors=selector_names() if "all" in (selector or ()) else selector or [HEADLINE_SELECTOR]
    )
    if workspace.bundles.graded or sources.groundtruth is not None or question:
        _by_selectors(workspace, workspace.graders(question or ()), job, candidates, out, json=json)
    else:
        _without_truth(task, workspace, job, candidates, json=json)


def _by_budget(
    workspace: "Workspace",
    method: str,
    grids: dict[str, tuple[str, ...]],
    fixed: dict[str, str],
    budget: int,
    store: Path | None,
    *,
    json: bool,
) -> None:
    """Train, choose and show."""
    from attriboard.evaluation.practice import choose

    found = choose(workspace, method, budget=budget, grid=grids or None, fixed=fixed, store=store)
    if json:
        emit({"task": workspace.task.card.name, "attributor": method} | vars(found))
    else:
        show_budget_choice(workspace.task.card.name, method, found)  # type: ignore[arg-type]  # a budget was given


def show_budget_choice(task: str, method: str, found: "BudgetChoice") -> None:
    """Print the grid with its LDS, the choice, and what it is worth."""
    from attriboard.evaluation.choice_rules import varying
    from attriboard.records.cost import RULES

    names = varying(found.configurations)
    nearest = found.nearest
    mark = "chosen" if nearest == found.hyperparameters else "nearest to the choice"
    rows = [
        (*(setting(c[n]) for n in names), f"{lds:.3f}", mark if c == nearest else "")
        for c, lds in zip(found.configurations, found.lds, strict=True)
    ]
    title = f"{method} on {task}: LDS by {found.budget} retrains, calibration points"
    show_table(title, (*names, "LDS", ""), rows, numeric=range(len(names) + 1))
    chosen = ", ".join(f"{name} = {setting(found.hyperparameters[name])}" for name in names)
    print(f"chosen: {chosen} ({RULES[found.rule]})")
    if found.xi_pick is not None:
        omega = ", where ω cannot be estimated"
        if found.omega is not None and found.omega_ci95 is not None:
            low, high = found.omega_ci95
            omega = f", where ω = {found.omega:.2f} ({low:.2f} … {high:.2f}); ξ would be right at ω = 0.5"
        print(f"ξ picks λ = {setting(found.xi_pick)}{omega}")
    if found.warning:
        print(f"warning: {found.warning}")
    more = f"; {found.halving_budget} retrains would about halve it" if found.halving_budget else ""
    print(f"expected regret: {found.expected_regret:.3f} of LDS{more}")
    if found.failed:
        print(f"{len(found.failed)} grid points failed, the first: {found.failed[0]}")
    print(f"{found.budget} retrains, {found.trained} done now, {found.seconds:.1f} s in all")


def _by_selectors(
    workspace: "Workspace",
    graders: "Sequence[Grader]",
    job: "Job",
    candidates: Sequence[str] | None,
    out: Path,
    *,
    json: bool,
) -> None:
    """Run the method once, let selectors choose, and show what they are worth on every ground truth."""
    from attriboard.evaluation.catalog import load_oracle
    from attriboard.evaluation.donated import with_donated
    from attriboard.evaluation.selection import study_selections
    from attriboard.records.files import write_record
    from attriboard.records.published import published_results

    prepare_folder(out)
    donors = [spec.name for spec in job.donors.values()]
    finished = workspace.records(out)  # before the work: a file that cannot be read is found now
    with workspace.display.progress(f"{job.attributor.name} on {workspace.task.card.name}") as progress:
        studies = study_selections(
            workspace.task,
            graders,
            with_donated(job, [*finished, *workspace.records(published_results(), *donors)]),
            load_oracle(),
            candidates=candidates,
            runner=workspace.runner,
            progress=progress,
        )
    for record in (record for study in studies for record in study.new_records(finished)):
        write_record(record, out)
    selections = [record for study in studies for record in study.selections]
    if json:
        documents = [record.model_dump(mode="json") for record in selections]
        emit(documents[0] if len(documents) == 1 else documents)
        return
    for grader, study in zip(graders, studies, strict=True):
        show_selections(study.selections)
        if len(studies) > 1:
            ceiling = grader.ceiling
            print(f"noise ceiling {'unknown' if ceiling.mean is None else f'{ceiling.mean:.3f}'}")
    print(f"records in {out}")


def _without_truth(
    task: str, workspace: "Workspace", job: "Job", candidates: Sequence[str] | None, *, json: bool
) -> None:
    """Let selectors choose, and show it.

    Raises:
        InputError: the method has no λ.
    """
    from attriboard.base.errors import InputError
    from attriboard.evaluation.ungraded import run_ungraded

    found = run_ungraded(workspace, job, candidates)
    if not found.choices and found.outcome.reason is None:
        raise InputError(f"{found.outcome.attributor.name}: has no λ to choose; other hyperparameters need --budget 16")
    finish_ungraded(task, workspace, job, found, json=json)


def show_selections(selections: "Sequence[SelectionRecord]") -> None:
    """Print selections of one attributor, one line for each selector."""
    from attriboard.contracts.question import Question
    from attriboard.evaluation.selection import EDGE, at_edge

    first = selections[0]
    headings = ("selector", "chosen", "default LDS", "selected LDS", "oracle LDS", "regret", "95 % interval",
                "gap closed")  # fmt: skip
    rows = []
    for record in selections:
        regret = record.regret
        rows.append(
            (
                record.selector,
                record.reason or _changes(record) + (" (transferred)" if record.transferred else ""),
                _lds(record.default),
                _lds(record.selected),
                _lds(record.oracle),
                f"{regret.mean:+.3f}" if regret else "–",
                f"{regret.ci95[0]:+.3f} … {regret.ci95[1]:+.3f}" if regret else "–",
                "–" if record.gap_closed is None else f"{record.gap_closed:.0%}",
            )
        )
    title = f"{first.attributor.name} on {first.task.name}"
    if asked := first.ground_truth.question:
        title += f", {Question.parse(asked).title}"
    if first.oracle:
        best = first.oracle.hyperparameters.get(first.hyperparameter)
        title += f", oracle at {first.hyperparameter} = {setting(best)}"
    show_table(title, headings, rows, numeric=(2, 3, 4, 5, 6, 7))
    if any(map(at_edge, selections)):
        print(f"warning: {EDGE}")


def _changes(record: "SelectionRecord") -> str:
    assert record.selected is not None
    chosen, default = record.selected.hyperparameters, record.default.hyperparameters
    changes = [f"{name} = {setting(value)}" for name, value in chosen.items() if default.get(name) != value]
    return ", ".join(changes) or "the default"


def _lds(configuration: "GradedConfiguration | None") -> str:
    if configuration is None:
        return "–"
    return "failed" if configuration.lds is None else f"{configuration.lds:.3f}"
