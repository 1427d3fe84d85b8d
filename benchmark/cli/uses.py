"""What attributions are used for: `attriboard removal`, `attriboard brittleness`, `attriboard mislabel`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attriboard.base.terminal import counted
from attriboard.cli.options import (
    RESULTS,
    Balanced,
    DirectionOption,
    FigureStem,
    Methods,
    OutDir,
    Process,
    Retraining,
    Seeds,
    Sources,
    TaskArgument,
    Variants,
    checked_direction,
    chosen_variants,
    one_of,
    open_workspace,
    prepare_figure,
    prepare_file,
    prepare_folder,
)
from attriboard.cli.shell import Json, command, drawn_figure, emit, resuming, setting, show_table

if TYPE_CHECKING:
    from attriboard.evaluation.retrains import Work
    from attriboard.leaderboard.removal_rows import RemovalRow
    from attriboard.records.uses import BrittlenessRecord, MislabelRecord, RemovalRecord


@resuming()
def removal(
    task: TaskArgument,
    methods: Methods,
    rates: Annotated[
        list[str] | None,
        typer.Option("--rates", metavar="RATE…", help="Shares of the training set to remove: --rates 0.1 0.3 0.5."),
    ] = None,
    seeds: Seeds = 10,
    direction: DirectionOption = "helpful",
    balanced: Balanced = False,
    variant: Variants = None,
    out: OutDir = RESULTS,
    figure: FigureStem = None,
    latex: Annotated[Path | None, typer.Option(help="LaTeX table; by default beside the records.")] = None,
    retraining: Retraining = Retraining(),
    process: Process = Process(),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Remove training examples by their scores summed over calibration points, retrain, and measure on scoring points.

    Rows: the full training set, random removal, and default, selected and oracle hyperparameters of every method; mean
    ± standard error over seeds. Resumes if interrupted, and never repeats a retrain.
    """
    from attriboard.base.paths import write_atomically
    from attriboard.evaluation.removal import RemovalBench, RemovalPlan, removal_records
    from attriboard.groundtruth.build import open_store
    from attriboard.leaderboard.plots.uses import draw_removal
    from attriboard.leaderboard.removal_rows import latex_table, removal_rows

    names, numbers = _names_and_rates(methods, rates)
    plan = RemovalPlan(numbers, seeds, checked_direction(direction), balanced)
    variants = chosen_variants(variant)
    workspace = open_workspace(task, sources, process, retraining)
    bench = RemovalBench(workspace.task, workspace.grader_if_any, plan, open_store(workspace.task, retraining.store))
    prepare_folder(out)
    prepare_figure(figure)
    prepare_file(latex, "--latex")
    records, work = removal_records(workspace, bench, names, variants, out)
    card = workspace.task.card
    stem = out / card.name / f"removal-{plan.direction}{'-balanced' * plan.balanced}"
    table = latex or stem.with_suffix(".tex")
    rows = removal_rows(records, plan.rates)
    caption = f"{card.title}: {plan.direction} examples removed, {plan.n_seeds} seeds"
    write_atomically(table, latex_table(rows, plan.rates, caption).encode())
    drawn = drawn_figure(lambda: draw_removal(rows, caption), figure or stem)
    if json:
        documents = [row.document() for row in rows]
        asked = {"direction": plan.direction, "balanced": plan.balanced}
        made = {"retrains": vars(work), "figure": drawn and str(drawn), "latex": str(table)}
        emit({"task": card.name, **asked, "rows": documents, **made})
        return
    show_removal(records, plan.rates, caption)
    _say(work, f"records in {out}, table {table}", drawn)


@resuming()
def brittleness(
    task: TaskArgument,
    methods: Methods,
    points: Annotated[int, typer.Option(help="Scoring points to flip.", min=1)] = 20,
    largest: Annotated[float, typer.Option(help="Largest share of the training set that is removed.")] = 0.5,
    seeds: Annotated[int, typer.Option(help="Retrains at every size that the search tries; odd.", min=1)] = 5,
    confirm: Annotated[int, typer.Option(help="Fresh retrains at the size that was found.", min=0)] = 10,
    variant: Variants = None,
    out: OutDir = RESULTS,
    figure: FigureStem = None,
    retraining: Retraining = Retraining(),
    process: Process = Process(),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Search for the fewest training examples whose removal, by a test point's own scores, flips its prediction.

    A prediction is flipped where most retrains get it wrong; every flip is tried again with fresh seeds.
    """
    from attriboard.evaluation.brittleness import BrittlenessBench, BrittlenessPlan, brittleness_records
    from attriboard.groundtruth.build import open_store
    from attriboard.leaderboard.plots.uses import draw_brittleness

    plan = BrittlenessPlan(points, largest, seeds, confirm)
    variants = chosen_variants(variant)
    workspace = open_workspace(task, sources, process, retraining)
    store = open_store(workspace.task, retraining.store)
    bench = BrittlenessBench(workspace.task, workspace.grader_if_any, plan, store)
    prepare_folder(out)
    prepare_figure(figure)
    records = brittleness_records(workspace, bench, list(dict.fromkeys(methods)), variants, out)
    name = workspace.task.card.name
    drawn = drawn_figure(lambda: draw_brittleness(records), figure or out / name / "brittleness")
    if json:
        documents = [record.model_dump(mode="json") for record in records]
        emit({"task": name, "rows": documents, "retrains": vars(bench.work), "figure": drawn and str(drawn)})
        return
    show_brittleness(records, workspace.task.card.title)
    _say(bench.work, f"records in {out}", drawn)


@command
def mislabel(
    task: TaskArgument,
    methods: Methods,
    by: Annotated[
        str,
        typer.Option(metavar="self|summed", help="self: influence on the example itself; summed: harm to test points."),
    ] = "self",
    variant: Annotated[
        list[str] | None, typer.Option("--variant", metavar="default|selected", help="Repeatable; by default both.")
    ] = None,
    out: OutDir = RESULTS,
    figure: FigureStem = None,
    process: Process = Process(),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Rank training examples by suspicion on a task with wrong labels: AUC and recall. Nothing is retrained."""
    from attriboard.evaluation.mislabel import BY, MislabelBench, mislabel_records
    from attriboard.leaderboard.plots.uses import draw_recall

    variants = chosen_variants(variant or ["default", "selected"], ("default", "selected"))
    workspace = open_workspace(task, sources, process)
    bench = MislabelBench(workspace.task, workspace.grader_if_any, one_of("--by", by, BY))
    prepare_folder(out)
    prepare_figure(figure)
    records = mislabel_records(workspace, bench, list(dict.fromkeys(methods)), variants, out)
    name = workspace.task.card.name
    drawn = drawn_figure(lambda: draw_recall(records), figure or out / name / f"mislabel-{bench.by}")
    if json:
        documents = [record.model_dump(mode="json") for record in records]
        emit({"task": name, "rows": documents, "figure": drawn and str(drawn)})
        return
    show_mislabel(records, workspace.task.card.title)
    _say(None, f"records in {out}", drawn)


def _say(work: "Work | None", where: str, figure: Path | None) -> None:
    """Print what retraining took, and where everything is."""
    if work:
        say_work(work)
    print(where + (f", figure {figure}" if figure else ""))


def say_work(work: "Work") -> None:
    """Print what retraining took."""
    rest = work.asked - work.done
    kept = f", {rest:,} came from the store" if rest else ""
    print(f"{counted(work.asked, 'retrain')} needed, {work.done:,} trained in {work.seconds:.1f} s{kept}")


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
    """Methods and rates; the option takes one number, those that follow it arrive among the methods.

    Raises:
        InputError: no method, or a number where no `--rates` was given.
    """
    from attriboard.base.errors import InputError

    numbers = [word for word in words if _is_number(word)]
    names = list(dict.fromkeys(word for word in words if word not in numbers))
    if numbers and not rates:
        raise InputError(f"{numbers[0]}: is not a method; rates follow --rates, as in --rates 0.1 0.3 0.5")
    if not names:
        raise InputError("METHOD: name at least one")
    return names, parse_rates([*(rates or ("0.1", "0.3", "0.5")), *numbers])


def _is_number(word: str) -> bool:
    try:
        float(word.split(",")[0])
    except ValueError:
        return False
    return True


def show_removal(records: "Sequence[RemovalRecord]", rates: Sequence[float], title: str) -> None:
    """Print removal records of one plan: one line per variant, one column per rate."""
    from attriboard.leaderboard.removal_rows import removal_rows

    rows = removal_rows(records, rates)
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
    from attriboard.contracts.selector import REGULARIZATION

    others = (r.record for r in rows if r.record and r.record.attributor == record.attributor)
    start = next((other.hyperparameters for other in others if other.variant == "default"), {})
    shown = {k: v for k, v in record.hyperparameters.items() if k == REGULARIZATION or start.get(k, v) != v}
    return ", ".join(f"{k} = {setting(v)}" for k, v in shown.items())


def _cell(row: "RemovalRow | None") -> str:
    from attriboard.leaderboard.removal_rows import headline_quantity, written

    if row is None or not row.measured:
        return f"failed: {row.record.reason}" if row and row.record else "–"
    difference = row.against_default(headline_quantity(row.measured))
    return written(row.measured) + " *" * (difference is not None and difference.p < 0.05)


def show_brittleness(records: "Sequence[BrittlenessRecord]", title: str) -> None:
    """Print brittleness records of one plan, one line each."""
    from attriboard.leaderboard.removal_rows import compare_brittleness
    from attriboard.scoring.brittleness import exact_interval

    largest, rows = records[0].sizes[-1], []
    defaults = {record.attributor.name: record for record in records if record.variant == "default"}
    for record in records:
        cells = ["–", "failed", "–", ""]
        if count := len(record.points):
            low, high = exact_interval(sum(point.n_removed is not None for point in record.points), count)
            median, confirmed = record.median_removed, record.share_confirmed
            cells[0] = f"> {largest}" if median is None else f"{median:g}"
            cells[1] = f"{record.share_flipped:.0%} ({low:.0%} … {high:.0%})"
            cells[2] = "–" if confirmed is None else f"{confirmed:.0%}"
        default = defaults.get(record.attributor.name)
        if default is not None and default is not record:
            against = compare_brittleness(record, default)
            cells[3] = f"fewer {against['fewer']}, more {against['more']}, p = {against['p']:.2g}"
        rows.append((record.attributor.name, record.variant, *cells, record.reason or ""))
    headings = ("attributor", "variant", "median removed", f"flipped within {largest}", "confirmed",
                "against default", "note")  # fmt: skip
    n_points = max(len(record.points) for record in records)
    show_table(
        f"{title}: fewest removals that flip {counted(n_points, 'prediction')}", headings, rows, numeric=(2, 3, 4)
    )
    print("intervals: Clopper and Pearson, 95 %; confirmed: share of the flips that most fresh retrains repeat")


def show_mislabel(records: "Sequence[MislabelRecord]", title: str) -> None:
    """Print mislabel records of one task, one line each."""
    from attriboard.contracts.selector import REGULARIZATION as NAME

    rows = []
    for record in records:
        recall = dict(zip(record.inspected, record.recall or (), strict=False))
        rows.append(
            (
                record.attributor.name,
                record.variant,
                f"{NAME} = {setting(record.hyperparameters[NAME])}" if NAME in record.hyperparameters else "",
                "failed" if record.auc is None else f"{record.auc:.3f}",
                f"{record.ci95[0]:.3f} … {record.ci95[1]:.3f}" if record.ci95 else "–",
                *(f"{recall[share]:.0%}" if share in recall else "–" for share in (0.1, 0.2)),
                record.reason or "",
            )
        )
    headings = ("attributor", "variant", "λ", "AUC", "95 % interval", "found in 10 %", "found in 20 %", "note")
    first = records[0]
    show_table(f"{title}: {first.n_mislabelled} wrong labels, by {first.influence}", headings, rows,
               numeric=(3, 4, 5, 6))  # fmt: skip
