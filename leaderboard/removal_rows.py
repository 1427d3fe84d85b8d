"""From removal records to what people read: rows with means and errors, a LaTeX table.

A row's difference to the default of the same attributor is paired over seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from attriboard.records.uses import BrittlenessRecord, QldRecord, RemovalRecord
from attriboard.scoring.differences import PairedDifference
from attriboard.scoring.removal import mean_and_error, paired_difference


@dataclass(frozen=True)
class Quantity:
    """A number that a retrained model is judged by.

    Attributes:
        key: in documents.
        measurement: what it is made of.
    """

    key: str
    measurement: str

    def values(self, measured: Mapping[str, Sequence[float]]) -> NDArray[np.float64] | None:
        """One value per seed; `None` where the task does not have it."""
        if self.measurement not in measured or (self.key == "perplexity" and "correct" in measured):
            return None
        numbers = np.asarray(measured[self.measurement], dtype=np.float64)
        return np.exp(numbers) if self.key == "perplexity" else numbers


ACCURACY = Quantity("accuracy", "correct")
LOSS = Quantity("loss", "loss")
PERPLEXITY = Quantity("perplexity", "loss")  # of tasks without a right answer: nats per token
QUANTITIES = (ACCURACY, LOSS, PERPLEXITY)


def headline_quantity(measured: Mapping[str, Sequence[float]]) -> Quantity:
    """What a task's table shows: accuracy where there is a right answer, else perplexity."""
    return ACCURACY if "correct" in measured else PERPLEXITY


@dataclass(frozen=True, eq=False)
class RemovalRow:
    """One line of the table: a variant at one rate.

    Attributes:
        attributor: `None` for full and random.
        variant: full, random, default, selected, oracle, custom or sweep.
        rate: share removed; 0 for full.
        n_removed: examples removed.
        measured: measurement → value per seed; empty where the attributor failed.
        default: of the same attributor, for the paired difference.
        record: where the numbers stand; `None` for full and random, which every record repeats.
    """

    attributor: str | None
    variant: str
    rate: float
    n_removed: int
    measured: Mapping[str, Sequence[float]]
    default: Mapping[str, Sequence[float]] | None = None
    record: RemovalRecord | None = None

    def against_default(self, quantity: Quantity) -> PairedDifference | None:
        """This row minus the default's, seed by seed; `None` for the default itself, or with one seed."""
        mine = quantity.values(self.measured)
        theirs = quantity.values(self.default) if self.default else None
        if mine is None or theirs is None or len(mine) < 2:
            return None
        return paired_difference(mine, theirs)

    def document(self) -> dict[str, Any]:
        """As JSON-able data."""
        shown = headline_quantity(self.measured)
        difference = self.against_default(shown)
        against = None
        if difference:
            against = {"quantity": shown.key, "mean": difference.mean, "ci95": list(difference.ci95), "p": difference.p}
        return {
            "attributor": self.attributor,
            "variant": self.variant,
            "hyperparameters": self.record.hyperparameters if self.record else {},
            "rate": self.rate,
            "n_removed": self.n_removed,
            **quantities(self.measured),
            "against_default": against,
            "n_seeds": max((len(values) for values in self.measured.values()), default=0),
            "status": self.record.status if self.record else "ok",
            "reason": self.record.reason if self.record else None,
        }


def removal_rows(records: Sequence[RemovalRecord], rates: Sequence[float]) -> list[RemovalRow]:
    """Full, random, then every record's rates; records are of one task and plan."""
    rows: list[RemovalRow] = []
    scored = [record for record in records if record.full]
    if scored:
        first = scored[0]
        assert first.full is not None
        rows.append(RemovalRow(None, "full", 0.0, 0, first.full))
        rows += [RemovalRow(None, "random", p.rate, p.n_removed, p.random) for p in first.points]
    defaults = {
        (record.title, point.rate): point.measured
        for record in scored
        if record.variant == "default"
        for point in record.points
    }
    for record in records:
        name = record.title
        for point in record.points:
            default = None if record.variant == "default" else defaults.get((name, point.rate))
            rows.append(RemovalRow(name, record.variant, point.rate, point.n_removed, point.measured, default, record))
        if record.status == "failed":
            rows += [RemovalRow(name, record.variant, rate, 0, {}, None, record) for rate in rates]
    return rows


def latex_table(rows: Sequence[RemovalRow], rates: Sequence[float], caption: str) -> str:
    """A table in the paper's shape, for booktabs: mean ± standard error, starred where it differs from the default."""
    lines = [
        r"\begin{tabular}{ll" + "r" * len(rates) + "}",
        r"\toprule",
        "attributor & hyperparameters & " + " & ".join(rf"{100 * rate:g}\,\%" for rate in rates) + r" \\",
        r"\midrule",
    ]
    named = list(dict.fromkeys((row.attributor, row.variant) for row in rows))
    for attributor, variant in named:
        mine = {row.rate: row for row in rows if (row.attributor, row.variant) == (attributor, variant)}
        cells = [_latex_cell(mine.get(rate, mine.get(0.0))) for rate in rates]
        label, kind = (attributor, variant) if attributor else (variant, "")
        lines.append(f"{_escaped(label)} & {kind} & " + " & ".join(cells) + r" \\")
        if (attributor, variant) == (None, "random"):
            lines.append(r"\midrule")
    return "\n".join([f"% {caption}", *lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def quantities(measured: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float | None] | None]:
    """Every quantity with its mean and standard error, or nothing where the task does not have it."""
    return {q.key: _summary(q.values(measured)) for q in QUANTITIES}


def written(measured: Mapping[str, Sequence[float]]) -> str:
    """The headline quantity for reading: mean ± standard error."""
    quantity = headline_quantity(measured)
    mean, error = scaled(quantity, measured)
    return f"{mean:.2f}{' %' * (quantity is ACCURACY)}" + (f" ± {error:.2f}" if error is not None else "")


def compare_brittleness(record: BrittlenessRecord, default: BrittlenessRecord) -> dict[str, float]:
    """At how many points a record needs fewer or more removals than the default, and the two-sided sign test's p."""
    theirs = {point.test_point: point.n_removed for point in default.points}
    beyond = max(*record.sizes, *default.sizes) + 1
    pairs = [
        (point.n_removed or beyond, theirs[point.test_point] or beyond)
        for point in record.points
        if point.test_point in theirs
    ]
    fewer, more = sum(a < b for a, b in pairs), sum(a > b for a, b in pairs)
    p = float(binomtest(fewer, fewer + more).pvalue) if fewer + more else 1.0
    return {"fewer": fewer, "more": more, "p": p}


def compare_qld(record: QldRecord, default: QldRecord) -> PairedDifference | None:
    """The mean drop of a record minus the default's, paired over their common points; `None` with fewer than two."""
    theirs = dict(zip(default.test_points, default.drops, strict=True))
    pairs = [(a, theirs[point]) for point, a in zip(record.test_points, record.drops, strict=True) if point in theirs]
    if len(pairs) < 2:
        return None
    mine, others = np.array(pairs).T
    return paired_difference(mine, others)


def scaled(quantity: Quantity, measured: Mapping[str, Sequence[float]]) -> tuple[float, float | None]:
    """Mean and standard error over seeds, of an accuracy in percent; no error with a single seed."""
    values = quantity.values(measured)
    assert values is not None, "the headline is what a task has"
    return mean_and_error(values * 100 if quantity is ACCURACY else values)


def _latex_cell(row: RemovalRow | None) -> str:
    if row is None or not row.measured:
        return "failed"
    quantity = headline_quantity(row.measured)
    mean, error = scaled(quantity, row.measured)
    difference = row.against_default(quantity)
    star = "^{*}" if difference and difference.p < 0.05 else ""
    return f"${mean:.2f}" + (rf" \pm {error:.2f}" if error is not None else "") + f"{star}$"


def _escaped(text: str) -> str:
    return text.replace("_", r"\_")


def _summary(values: NDArray[np.float64] | None) -> dict[str, float | None] | None:
    if values is None:
        return None
    mean, error = mean_and_error(values)
    return {"mean": mean, "stderr": error}
