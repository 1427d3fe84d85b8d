"""`attriboard report`: studies over several sweeps."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attriboard.cli.options import (
    RESULTS,
    Bundles,
    Process,
    Retraining,
    Sources,
    TaskArgument,
    open_workspace,
    prepare_folder,
)
from attriboard.cli.questions import show_plane
from attriboard.cli.shell import Json, command, drawn_figure, emit, resuming, setting, show_table
from attriboard.cli.sweeps import draw_sweep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attriboard.records.cost import SelectionCostRecord
    from attriboard.records.files import AnyRecord

FIGURES = Path("report")
Results = Annotated[
    Path, typer.Option("--results", help="Folder of records: finished points are taken from it, new ones added.")
]
FigureFolder = Annotated[Path, typer.Option("--out", help="Output folder for the figure.")]

app = typer.Typer(help="Studies over several sweeps.", no_args_is_help=True)


@app.callback()
def root() -> None:
    """Studies over several sweeps."""


@app.command()
@resuming()
def sensitivity(
    task: TaskArgument = "mnist_mlp",
    panel: Annotated[
        list[str] | None, typer.Option(help="Letter of a panel, a to f; repeatable. By default all that can be run.")
    ] = None,
    results: Results = RESULTS,
    out: Annotated[Path, typer.Option("--out", help="Output folder for the figures and the page.")] = FIGURES,
    process: Process = Process(),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Make the panels of the sensitivity study: for each a figure, its points, and whether the finding holds here."""
    from attriboard.base.paths import write_atomically
    from attriboard.evaluation.sensitivity import panels_page, sweep_panels

    workspace = open_workspace(task, sources, process)
    prepare_folder(results, "--results")
    prepare_folder(out)
    card, summaries = workspace.task.card, []
    for found in sweep_panels(workspace, panel or (), results):
        stem = out / f"{card.name}-{found.panel.key}-{found.attributor}"
        figure = draw_sweep(found.records, found.names, stem, found.default)
        summaries.append(found.summary(figure.name if figure else None))
    page = out / f"sensitivity-{card.name}.md"
    write_atomically(page, panels_page(card.title, summaries).encode())
    if json:
        emit({"task": card.name, "page": str(page), "panels": [vars(summary) for summary in summaries]})
        return
    for summary in summaries:
        print(f"({summary.panel}) {summary.attributor}: {summary.finding}: {summary.verdict}.")
        print(f"    {summary.sentence}")
    print(f"page: {page}")


@app.command("selection-cost")
@command
def selection_cost(
    task: TaskArgument,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", metavar="NAME", help="Repeatable; by default iffim, trak, ekfac and logra."),
    ] = None,
    results: Annotated[
        Path, typer.Option("--results", help="Folder of records: finished methods are taken from it, new ones added.")
    ] = RESULTS,
    out: FigureFolder = FIGURES,
    process: Process = Process(),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """How much LDS a choice of λ gives away, against the number of retrains that it takes; nothing is trained."""
    from attriboard.evaluation.selection_cost import known_or_made_costs
    from attriboard.leaderboard.plots.selection_cost import draw_selection_cost

    workspace = open_workspace(task, sources, process)
    prepare_folder(results, "--results")
    prepare_folder(out)
    records = known_or_made_costs(workspace, method or ["iffim", "trak", "ekfac", "logra"], results)
    card = workspace.task.card
    figure = drawn_figure(lambda: draw_selection_cost(records, card.title), out / f"selection-cost-{card.name}")
    if json:
        _emit_records(card.name, records, figure)
        return
    _show_costs(card.title, records)
    _say_where(results, figure)


@app.command()
@resuming()
def models(
    task: TaskArgument,
    method: Annotated[
        list[str] | None, typer.Option("--method", metavar="NAME", help="Repeatable; by default iffim and trak.")
    ] = None,
    count: Annotated[
        list[int] | None, typer.Option("--count", min=1, help="Models; repeatable. By default 1, 2, 5, 10, 20.")
    ] = None,
    results: Results = RESULTS,
    out: FigureFolder = FIGURES,
    publish: Annotated[
        Path | None,
        typer.Option("--publish", help="Folder of bundles that gets the models first, listed in its registry.json."),
    ] = None,
    retraining: Retraining = Retraining(),
    process: Process = Process(),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """LDS against the number of models that scores are averaged over, λ by ξ at each; missing models are trained."""
    from attriboard.evaluation.ensembles import COUNTS, ensemble_records, publish_models
    from attriboard.leaderboard.plots.ensembles import draw_ensembles

    workspace = open_workspace(task, sources, process, retraining)
    prepare_folder(results, "--results")
    prepare_folder(out)
    counts = count or COUNTS
    if publish is not None:
        prepare_folder(publish, "--publish")
        publish_models(workspace, max(counts), publish)
        workspace = open_workspace(task, sources, process, retraining)  # which may look into that folder
    names = method or ["iffim", "trak"]
    records = [record for name in names for record in ensemble_records(workspace, name, results, counts)]
    card = workspace.task.card
    ceiling = workspace.grader.ceiling.mean
    figure = drawn_figure(lambda: draw_ensembles(records, card.title, ceiling), out / f"models-{card.name}")
    if json:
        _emit_records(card.name, records, figure)
        return
    rows = [
        (r.attributor.name, str(r.hyperparameters["checkpoints"]), setting(r.hyperparameters.get("regularization")),
         f"{r.lds.mean:.3f}", f"{r.lds.ci95[0]:.3f} … {r.lds.ci95[1]:.3f}")
        for r in records if r.lds
    ]  # fmt: skip
    show_table(f"{card.title}: LDS against models", ("method", "models", "λ by ξ", "LDS", "95 % interval"), rows,
               numeric=range(1, 5))  # fmt: skip
    _say_where(results, figure)


@app.command()
@resuming()
def metasmoothness(
    task: TaskArgument,
    step: Annotated[
        list[float] | None, typer.Option("--step", metavar="H", help="Repeatable; by default 0.01 and 0.1.")
    ] = None,
    directions: Annotated[int, typer.Option("--directions", min=1, help="Random directions for each step.")] = 3,
    results: Annotated[Path, typer.Option("--results", help="Folder of records; the result is added to it.")] = RESULTS,
    retraining: Retraining = Retraining(),
    process: Process = Process(),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Whether small changes of the training weights change the trained model smoothly: 1 is smooth, 0 is chance."""
    from attriboard.evaluation.metasmoothness import STEPS, metasmoothness
    from attriboard.records.metasmoothness import write_metasmoothness

    workspace = open_workspace(task, sources, process, retraining)
    prepare_folder(results, "--results")
    found = metasmoothness(workspace, step or STEPS, directions, store=retraining.store)
    path = write_metasmoothness(found, results)
    if json:
        emit({"task": found.task.name, "rows": [row.model_dump() for row in found.rows], "file": str(path)})
        return

    def said(values: tuple[float, ...]) -> str:
        return f"{sum(values) / len(values):.3f} ({min(values):.3f} … {max(values):.3f})"

    rows = [(setting(row.step), said(row.parameters), said(row.outputs)) for row in found.rows]
    title = f"{workspace.task.card.title}: metasmoothness, mean (least … most) over {directions} directions"
    show_table(title, ("step", "of the parameters", "of the outputs"), rows, numeric=range(3))
    print(f"written to {path}")


@app.command()
@command
def questions(
    task: TaskArgument,
    results: Annotated[
        list[Path] | None,
        typer.Option("--results", help="Folder of records; repeatable. By default the published ones."),
    ] = None,
    out: FigureFolder = FIGURES,
    groundtruth: Bundles = None,
    json: Json = False,
) -> None:
    """How methods rank on each ground truth of a task, and whether these agree; nothing is run.

    `attriboard select TASK METHOD --question all` makes the records.
    """
    from attriboard.base.errors import InputError
    from attriboard.evaluation.catalog import load_task
    from attriboard.groundtruth.listing import published_folder
    from attriboard.leaderboard.plots.questions import draw_questions
    from attriboard.leaderboard.questions import planes
    from attriboard.leaderboard.reading import read_bundles, read_entries
    from attriboard.leaderboard.study import studies
    from attriboard.records.published import published_folders

    card = load_task(task).card
    prepare_folder(out)
    entries = read_entries(results or published_folders())
    bundles = read_bundles(groundtruth or published_folder())
    mine = [entry for entry in entries if entry.record.task.name == card.name]
    found = planes(studies(mine, [b for b in bundles if b.listing.task == card.name]).values())
    if not found:
        raise InputError(
            f"task {card.name}: no records on two of its ground truths; attriboard select {card.name} METHOD "
            "--question all makes some"
        )
    (plane,) = found
    figure = drawn_figure(lambda: draw_questions(plane, card.title), out / f"questions-{card.name}")
    show_plane(plane, figure, json=json)


def _emit_records(task: str, records: "Sequence[AnyRecord]", figure: Path | None) -> None:
    documents = [record.model_dump(mode="json") for record in records]
    emit({"task": task, "records": documents, "figure": None if figure is None else str(figure)})


def _say_where(results: Path, figure: Path | None) -> None:
    print(f"records in {results}" + (f", figure {figure}" if figure else ""))


def _show_costs(title: str, records: "list[SelectionCostRecord]") -> None:
    """Mean regret (90th percentile) of every method: ξ without retrains, then by the number of retrains."""
    from attriboard.records.model import HEADLINE_SELECTOR

    budgets = sorted({k for record in records for k in record.budgets})
    rows = []
    for record in records:
        _, rule = record.headline
        by_budget = dict(zip(record.budgets, zip(rule.mean, rule.p90, strict=True), strict=True))
        surrogate, oracle = record.picks.get(HEADLINE_SELECTOR), record.picks["oracle"]
        cells = [f"{by_budget[k][0]:.4f} ({by_budget[k][1]:.4f})" if k in by_budget else "–" for k in budgets]
        free = "–" if surrogate is None or surrogate.regret is None else f"{surrogate.regret:.4f}"
        rows.append((record.attributor.name, free, *cells, f"{oracle.regret:.4f}", f"{record.retrain_seconds:.1f}"))
    headings = ("method", "ξ, no retrain", *(f"{k} retrains" for k in budgets), "oracle", "s a retrain")
    show_table(f"{title}: regret of λ, mean (90th percentile)", headings, rows, numeric=range(1, len(headings)))
