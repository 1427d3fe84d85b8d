"""`attriboard report`: studies that run over several sweeps."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attriboard.cli.options import Process, Sources, TaskArgument, open_workspace
from attriboard.cli.shell import Json, command, emit, note

if TYPE_CHECKING:
    from attriboard.evaluation.sensitivity import Panel
    from attriboard.evaluation.workspace import Workspace
    from attriboard.records.model import AttributionRecord

app = typer.Typer(help="Studies over several sweeps.", no_args_is_help=True)


@app.callback()
def root() -> None:
    """Studies over several sweeps."""


@app.command()
@command
def sensitivity(
    task: TaskArgument = "mnist_mlp",
    panel: Annotated[
        list[str] | None, typer.Option(help="Letter of a panel, a to f; repeatable. By default all that can be run.")
    ] = None,
    results: Annotated[
        Path, typer.Option("--results", help="Folder of records: finished points are taken from it, new ones added.")
    ] = Path("attriboard-results"),
    out: Annotated[Path, typer.Option("--out", help="Folder that gets the figures and the page.")] = Path("report"),
    process: Process = Process(),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Make the panels of the sensitivity study: for each a figure, its points, and whether the finding holds here."""
    from attriboard.base.errors import InputError
    from attriboard.base.paths import write_atomically
    from attriboard.evaluation.catalog import attributor_names
    from attriboard.evaluation.sensitivity import PANELS
    from attriboard.evaluation.sweeps import parse_grid, sweep_points

    keys = panel or [p.key for p in PANELS]
    if unknown := sorted(set(keys) - {p.key for p in PANELS}):
        raise InputError(f"--panel {', '.join(unknown)}: must be among {', '.join(p.key for p in PANELS)}")
    bench = open_workspace(task, sources, process)
    known = attributor_names()
    documents = []
    for chosen in (p for p in PANELS if p.key in keys):
        for attributor in chosen.attributors:
            if attributor not in known:
                note(f"panel {chosen.key}: there is no attributor {attributor}; left out")
                continue
            grids = [parse_grid(text.format(**_words(bench, attributor))) for text in chosen.grids]
            title = f"panel {chosen.key}, {attributor} on {bench.task.card.name}"
            records, default = sweep_points(bench, attributor, grids, {}, results, title=title)
            documents.append(
                _panel(bench.task.card.name, chosen, attributor, records, default, [name for name, _ in grids], out)
            )
    page = out / f"sensitivity-{bench.task.card.name}.md"
    write_atomically(page, _page(bench.task.card.title, documents).encode())
    if json:
        emit({"task": bench.task.card.name, "page": str(page), "panels": documents})
        return
    for document in documents:
        verdict = "holds" if document["holds"] else "does not hold"
        print(f"({document['panel']}) {document['attributor']}: {document['finding']}: {verdict}.")
        print(f"    {document['sentence']}")
    print(f"page: {page}")


def _words(bench: "Workspace", attributor: str) -> dict[str, str]:
    """What the placeholders of a panel's grids stand for."""
    from attriboard.contracts.selector import regularization_name

    (default,) = bench.runner.describe(bench.job(attributor)).configurations
    epochs = ",".join(str(epoch) for epoch in bench.task.card.checkpoints.epochs)
    return {"epochs": epochs, "regularization": regularization_name(default) or "regularization"}


def _panel(
    task: str,
    panel: "Panel",
    attributor: str,
    records: "list[AttributionRecord]",
    default: dict[str, Any],
    names: list[str],
    out: Path,
) -> dict[str, Any]:
    """Draw and judge one panel."""
    from attriboard.cli.sweeps import draw_sweep
    from attriboard.evaluation.sensitivity import points_table

    figure = draw_sweep(records, names, out / f"{task}-{panel.key}-{attributor}", default)
    scored = [record for record in records if record.lds is not None]
    verdict = panel.judge(records) if len(scored) > 1 else None
    return {
        "panel": panel.key,
        "attributor": attributor,
        "finding": panel.finding,
        "holds": verdict.holds if verdict else None,
        "sentence": verdict.sentence if verdict else "Fewer than two points were scored.",
        "figure": figure.name if figure else None,
        "table": points_table(records, names),
        "points": len(records),
        "failed": len(records) - len(scored),
    }


def _page(title: str, documents: list[dict[str, Any]]) -> str:
    """The panels as Markdown, each with its figure, which lies beside the page, and its points."""
    parts = [f"# Sensitivity to hyperparameters: {title}\n"]
    for d in documents:
        verdict = "holds here" if d["holds"] else "does not hold here"
        failed = f", {d['failed']} of them failed" if d["failed"] else ""
        parts.append(f"## ({d['panel']}) {d['attributor']}: {d['finding']}\n")
        parts.append(f"{d['sentence']} The finding {verdict}. {d['points']} points{failed}.\n")
        if d["figure"]:
            parts.append(f"![{d['attributor']}: {d['finding']}]({d['figure']})\n")
        parts.append(f"{d['table']}\n")
    return "\n".join(parts)
