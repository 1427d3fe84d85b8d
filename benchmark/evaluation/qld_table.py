"""Query loss differences of methods side by side, for Python."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from attriboard.base.errors import InputError
from attriboard.contracts.hyperparameter import HyperparameterValue
from attriboard.contracts.selector import REGULARIZATION
from attriboard.evaluation.qld import QldBench, QldPlan, qld_records
from attriboard.evaluation.workspace import Workspace
from attriboard.groundtruth.build import open_store
from attriboard.records.uses import QldRecord


@dataclass(frozen=True)
class QldRow:
    """One method with one way of choosing its hyperparameters.

    Attributes:
        method: its name.
        variant: `default` or `selected` (λ by ξ).
        drop: mean over points of how much more the target falls without the point's own top examples than without
            random ones, in units of the target; positive = harmed. `None` with a reason.
        ci95: its 95 % interval.
        share_harmed: share of the points whose target is lower than under random removals.
        loss_rise: the same mean of the loss, in its units.
        regularization: λ; `None` where the method has none.
        reason: why there is no drop; empty otherwise.
    """

    method: str
    variant: str
    drop: float | None
    ci95: tuple[float, float] | None
    share_harmed: float | None
    loss_rise: float | None
    regularization: HyperparameterValue
    reason: str = ""


@dataclass(frozen=True, eq=False)
class QldTable:
    """Methods side by side on one task; it prints itself.

    Attributes:
        task: its name.
        rows: in the order that was asked for.
        retrains: how many were trained; the others came from the store.
        records: the records behind the rows, with the numbers of every point.
    """

    task: str
    rows: tuple[QldRow, ...]
    retrains: int
    records: tuple[QldRecord, ...]

    def __str__(self) -> str:
        first = self.records[0]
        n_points = max(len(record.test_points) for record in self.records)
        lines = [
            f"{self.task}: drop of {first.target_in_words} without a point's own top {first.n_removed:,} examples, "
            f"{n_points} points; higher is better, 0 is chance",
            _line("method", "variant", "drop", "95 % interval", "harmed", "loss", "λ"),
        ]
        for row in self.rows:
            numbers = ("failed", "", "", "")
            if row.drop is not None and row.ci95 is not None:
                interval = f"{row.ci95[0]:.3f} … {row.ci95[1]:.3f}"
                numbers = (f"{row.drop:.3f}", interval, f"{row.share_harmed:.0%}", f"{row.loss_rise:+.3f}")
            value = f"{row.regularization:.3g}" if isinstance(row.regularization, float) else ""
            lines.append(_line(row.method, row.variant, *numbers, value) + (f"  {row.reason}" if row.reason else ""))
        return "\n".join(lines)

    __repr__ = __str__


def _line(method: str, variant: str, drop: str, interval: str, harmed: str, loss: str, value: str) -> str:
    return f"{method:<22} {variant:<9} {drop:>8}  {interval:<18} {harmed:>6} {loss:>8} {value:>9}".rstrip()


def query_loss_differences(
    workspace: Workspace, methods: Sequence[str | Path], plan: QldPlan, results: Path | None = None
) -> QldTable:
    """Default and selected hyperparameters of methods; the cost is said first, what fails is a row with its reason.

    Args:
        workspace: the task.
        methods: names or files.
        plan: what is removed.
        results: folder of records, which answers what it knows and gets what is new; none by default.

    Raises:
        InputError: no method, nothing or everything would be removed, or the task cannot be trained.
        UnknownNameError: no such method.
    """
    if not methods:
        raise InputError("methods: name at least one")
    bench = QldBench(workspace.task, workspace.grader_if_any, plan, open_store(workspace.task, None))
    with TemporaryDirectory() as folder:
        kept = Path(folder) if results is None else results
        records = qld_records(workspace, bench, list(dict.fromkeys(methods)), ("default", "selected"), kept)
    return QldTable(workspace.task.card.name, tuple(map(_row, records)), bench.work.done, tuple(records))


def _row(record: QldRecord) -> QldRow:
    known = record.drop is not None
    return QldRow(
        record.title,
        record.variant,
        record.drop,
        record.ci95,
        record.share_harmed if known else None,
        record.loss_rise if known else None,
        record.hyperparameters.get(REGULARIZATION),
        record.reason or "",
    )
