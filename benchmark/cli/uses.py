"""`attriboard removal`: data selection, the table of what removing training examples does."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attriboard.cli.options import (
    FigureStem,
    OutDir,
    Process,
    Retraining,
    Sources,
    TaskArgument,
    open_workspace,
    prepare_folder,
)
from attriboard.cli.run import setting
from attriboard.cli.shell import Json, command, drawn_figure, emit, note, progress_bar, show_table
from attriboard.cli.variant_options import (
    AttributorNames,
    Balanced,
    DirectionOption,
    Seeds,
    Variants,
    checked_direction,
    chosen_variants,
    say_work,
    work_document,
)

if TYPE_CHECKING:
    from attriboard.evaluation.removal import Ranking, RemovalBench, Work
    from attriboard.evaluation.variants import Attributed
    from attriboard.evaluation.workspace import Workspace
    from attriboard.leaderboard.removal_rows import RemovalRow
    from attriboard.records.model import Variant
    from attriboard.records.uses import RemovalRecord


@command
def removal(
    task: TaskArgument,
    attributors: AttributorNames,
    rates: Annotated[
        list[str] | None,
        typer.Option("--rates", metavar="RATE…", help="Shares of the training set to remove: --rates 0.1 0.3 0.5."),
    ] = None,
    seeds: Seeds = 10,
    direction: DirectionOption = "helpful",
    balanced: Balanced = False,
    variant: Variants = None,
    out: OutDir = Path("attriboard-results"),
    figure: FigureStem = None,
    latex: Annotated[Path | None, typer.Option(help="LaTeX table; by default beside the records.")] = None,
    retraining: Retraining = Retraining(),
    process: Process = Process(),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Remove training examples by their scores summed over calibration points, retrain, and measure on scoring points.

    Rows: the full training set, random removal, and default, selected and oracle hyperparameters of every attributor;
    mean ± standard error over seeds. Goes on where it was interrupted, and trains nothing twice.
    """
    from attriboard.evaluation.removal import RemovalBench, RemovalPlan
    from attriboard.groundtruth.build import open_store

    names, numbers = _names_and_rates(attributors, rates)
    plan = RemovalPlan(numbers, seeds, checked_direction(direction), balanced)
    variants = chosen_variants(variant)
    workspace = open_workspace(task, sources, process, retraining)
    bench = RemovalBench(workspace.task, workspace.grader_if_any, plan, open_store(workspace.task, retraining.store))
    prepare_folder(out)
    records, work = _removal_records(workspace, bench, names, variants, out)
    stem = out / workspace.task.card.name / f"removal-{plan.direction}{'-balanced' * plan.balanced}"
    _present(bench, records, work, out, figure or stem, latex or stem.with_suffix(".tex"), json=json)


def _present(
    bench: "RemovalBench",
    records: "Sequence[RemovalRecord]",
    work: "Work",
    out: Path,
    figure: Path,
    table: Path,
    *,
    json: bool,
) -> None:
    """Write the LaTeX table and the figure, and print the rows."""
    from attriboard.base.paths import write_atomically
    from attriboard.leaderboard.plots.uses import draw_removal
    from attriboard.leaderboard.removal_rows import latex_table, removal_rows

    card, plan = bench.task.card, bench.plan
    rows = removal_rows(records, plan.rates)
    caption = f"{card.title}: {plan.direction} examples removed, {plan.n_seeds} seeds"
    write_atomically(table, latex_table(rows, plan.rates, caption).encode())
    drawn = drawn_figure(lambda: draw_removal(rows, caption), figure)
    if json:
        emit(
            {
                "task": card.name,
                "direction": plan.direction,
                "balanced": plan.balanced,
                "rows": [row.document() for row in rows],
                "retrains": work_document(work),
                "figure": None if drawn is None else str(drawn),
                "latex": str(table),
            }
        )
        return
    _show(rows, plan.rates, caption)
    say_work(work)
    print(f"records in {out}, table {table}" + (f", figure {drawn}" if drawn else ""))


def _removal_records(
    workspace: "Workspace",
    bench: "RemovalBench",
    names: Sequence[str],
    variants: "Sequence[Variant]",
    out: Path,
) -> "tuple[list[RemovalRecord], Work]":
    """Records of every attributor's variants, in order: from the folder, or made now and written there."""
    from attriboard.evaluation.variants import known_or_made, variant_parts
    from attriboard.records.files import write_record
    from attriboard.records.uses import RemovalRecord

    finished = [record for record in workspace.records(out) if isinstance(record, RemovalRecord)]
    found: list[RemovalRecord | Attributed[Ranking]] = []
    for position, name in enumerate(names, start=1):
        note(f"[{position}/{len(names)}] {name}")
        asked = variant_parts(workspace, name, variants, out)
        found += known_or_made(*asked, finished, bench.answers, bench.rank, workspace.runner)
    with progress_bar(f"retrains of {workspace.task.card.name}") as progress:
        rankings = [item.made for item in found if not isinstance(item, RemovalRecord) and item.made is not None]
        work = bench.retrain(rankings, workspace.executor(progress.say), progress)
    records = [item if isinstance(item, RemovalRecord) else bench.record(item) for item in found]
    for record in records:
        write_record(record, out)
    return records, work


def parse_rates(texts: Sequence[str]) -> tuple[float, ...]:
    """Numbers in (0, 1), as separate texts or with commas.

    Raises:
        InputError: anything else.
    """
    from attriboard.base.errors import InputError

    try:
        numbers = tuple(float(part) for text in texts for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(0 < number < 1 for number in numbers):
        raise InputError(f"--rates {' '.join(texts)}: must be numbers between 0 and 1, as in --rates 0.1 0.3 0.5")
    return numbers


def _names_and_rates(words: Sequence[str], rates: Sequence[str] | None) -> tuple[list[str], tuple[float, ...]]:
    """Attributors and rates; the option takes one number, those that follow it arrive among the attributors.

    Raises:
        InputError: no attributor, or a number where no `--rates` was given.
    """
    from attriboard.base.errors import InputError

    numbers = [word for word in words if _is_number(word)]
    names = list(dict.fromkeys(word for word in words if word not in numbers))
    if numbers and not rates:
        raise InputError(f"{numbers[0]}: is no attributor; rates follow --rates, as in --rates 0.1 0.3 0.5")
    if not names:
        raise InputError("ATTRIBUTOR: name at least one")
    return names, parse_rates([*(rates or ("0.1", "0.3", "0.5")), *numbers])


def _is_number(word: str) -> bool:
    try:
        float(word.split(",")[0])
    except ValueError:
        return False
    return True


def _show(rows: "Sequence[RemovalRow]", rates: Sequence[float], title: str) -> None:
    """One line per variant, one column per rate."""
    cells = []
    for attributor, variant in dict.fromkeys((row.attributor, row.variant) for row in rows):
        mine = {row.rate: row for row in rows if (row.attributor, row.variant) == (attributor, variant)}
        record = next(iter(mine.values())).record
        settings = _changed(record, rows) if record else ""
        numbers = [_cell(mine.get(rate, mine.get(0.0))) for rate in rates]
        cells.append((attributor or variant, variant if attributor else "", *numbers, settings))
    headings = ("attributor", "variant", *(f"{100 * rate:g} % removed" for rate in rates), "hyperparameters")
    show_table(title, headings, cells, numeric=range(2, 2 + len(rates)))
    print("mean ± standard error over seeds on scoring points; * differs from the default at 5 %, paired over seeds")


def _changed(record: "RemovalRecord", rows: "Sequence[RemovalRow]") -> str:
    """Hyperparameters that differ from those of the attributor's default row; of that row, its λ."""
    from attriboard.contracts.selector import regularization_name

    others = (r.record for r in rows if r.record and r.record.attributor == record.attributor)
    start = next((other.hyperparameters for other in others if other.variant == "default"), {})
    name = regularization_name(record.hyperparameters)
    shown = {k: v for k, v in record.hyperparameters.items() if k == name or start.get(k, v) != v}
    return ", ".join(f"{k} = {setting(v)}" for k, v in shown.items())


def _cell(row: "RemovalRow | None") -> str:
    from attriboard.leaderboard.removal_rows import headline_quantity, written

    if row is None or not row.measured:
        return f"failed: {row.record.reason}" if row and row.record else "–"
    difference = row.against_default(headline_quantity(row.measured))
    return written(row.measured) + " *" * (difference is not None and difference.p < 0.05)
