"""The leaderboards of brittleness, query loss differences and mislabel detection: default beside selected."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from attriboard.leaderboard import formats
from attriboard.leaderboard.method_rows import method_row
from attriboard.leaderboard.reading import Entry
from attriboard.leaderboard.removal_table import TUNED_ON_LDS
from attriboard.leaderboard.study import TaskStudy
from attriboard.leaderboard.tables import Cell, Column, Link, Row, Table, failed_cell, in_order
from attriboard.records.uses import INFLUENCES, BrittlenessRecord, DownstreamRecord, MislabelRecord, QldRecord

VARIANTS = ("default", "selected", "oracle")
R = TypeVar("R", bound=DownstreamRecord)


def brittleness_table(study: TaskStudy) -> Table | None:
    """Fewest removals that flip a prediction; none where nothing was searched."""
    found = _newest(study, BrittlenessRecord, lambda record: "")
    columns = [
        *_columns("", "median of the fewest removals that flip a prediction", "asc", VARIANTS),
        *_columns("flipped", "share of the points that flip at all", "desc", VARIANTS[:2]),
    ]
    rows = []
    for method, by_key in found.items():
        cells = {}
        for (variant, _), entry in by_key.items():
            cells[variant] = _median(entry)
            record = entry.record
            if record.status == "ok":
                cells[f"{variant}_flipped"] = Cell(formats.percent(record.share_flipped), record.share_flipped)
        rows.append(method_row(study, study.methods[method], cells))
    if not rows:
        return None
    caption = (
        "How many training examples, in the order of the point's own scores, must be removed before most retrains get "
        "it wrong: the median over points. The fewer, the better the method knew what held the prediction up. "
        f"Rows are sorted by the bold number. {TUNED_ON_LDS}"
    )
    return _table(caption, columns, in_order(rows, ("selected", "default"), "asc"))


def qld_table(study: TaskStudy) -> Table | None:
    """What removing a point's own top examples does to it; none where nothing was removed."""
    every = [e.record for m in study.methods.values() for e in m.uses if isinstance(e.record, QldRecord)]
    if not every:
        return None
    # Shares do not mix: the one that most records have, of several the smallest.
    counts = Counter(record.fraction for record in every)
    fraction = min(counts, key=lambda share: (-counts[share], share))
    found = _newest(study, QldRecord, lambda record: str(record.fraction))
    first = next(record for record in every if record.fraction == fraction)
    target = first.target_in_words
    columns = [
        *_columns("", f"by how much more the {target} drops than under random removals", "desc", VARIANTS[:2]),
        *_columns("harmed", f"share of the points whose {target} is lower than there", "desc", VARIANTS[:2]),
        *_columns("loss", "by how much more the loss rises than there", "desc", VARIANTS[:2]),
    ]
    rows = []
    for method, by_key in found.items():
        cells: dict[str, Cell] = {}
        for (variant, share), entry in by_key.items():
            if share == str(fraction):
                cells |= _drops(entry, variant)
        if cells:
            rows.append(method_row(study, study.methods[method], cells))
    caption = (
        f"Each test point's own top {100 * fraction:g} % of the training examples ({first.n_removed:,}) are removed "
        f"and a model is retrained with the same seed: by how much more the point's {target} drops than under random "
        "removals, mean over points with its 95 % interval by Student's t. 0 is chance. Rows are sorted by "
        "the bold number."
    )
    return _table(caption, columns, in_order(rows, ("selected", "default"), "desc"))


def mislabel_table(study: TaskStudy) -> Table | None:
    """AUC of finding wrong labels; none without records of it."""
    found = _newest(study, MislabelRecord, lambda record: record.by)
    columns = [
        column for by, name in INFLUENCES.items() for column in _columns(by, f"AUC by {name}", "desc", VARIANTS[:2])
    ]
    rows = []
    for method, by_key in found.items():
        cells = {f"{variant}_{by}": _auc(entry) for (variant, by), entry in by_key.items()}
        rows.append(method_row(study, study.methods[method], cells))
    if not rows:
        return None
    caption = (
        "The probability that a training example with a wrong label is more suspicious than one with the right label, "
        "with DeLong's 95 % interval. Self: influence of an example on itself. Summed: minus the scores summed over "
        "calibration points. Rows are sorted by the bold number."
    )
    keys = [f"{variant}_{by}" for variant in ("selected", "default") for by in ("self", "summed")]
    return _table(caption, columns, in_order(rows, keys, "desc"))


def _newest(study: TaskStudy, kind: type[R], key: Callable[[R], str]) -> dict[str, dict[tuple[str, str], Entry[R]]]:
    """Method → (variant, key) → its newest record."""
    found: dict[str, dict[tuple[str, str], Entry[R]]] = {}
    for name, method in study.methods.items():
        for entry in method.uses:
            record = entry.record
            if isinstance(record, kind) and record.variant in VARIANTS:
                newest = found.setdefault(name, {})
                newest[record.variant, key(record)] = entry.holding(record)
    return found


def _columns(key: str, what: str, best: str, variants: Sequence[str]) -> list[Column]:
    hints = {"default": "at the defaults", "selected": "at the λ that ξ picks", "oracle": "at the λ with the best LDS"}
    return [
        Column(
            f"{variant}_{key}".rstrip("_"),
            f"{variant.capitalize()}{f', {key}' if key else ''}",
            f"{what[0].upper()}{what[1:]}, {hints[variant]}",
            best_first=best,
        )
        for variant in variants
    ]


def _median(entry: Entry[BrittlenessRecord]) -> Cell:
    record, link = entry.record, Link(f"records/{entry.id}.html")
    if record.status == "failed":
        return failed_cell(entry.id, record.reason)
    median, detail = record.median_removed, formats.chosen_regularization(record.hyperparameters)
    confirmed = record.share_confirmed
    note = f"{len(record.points)} points" + (
        f", {formats.percent(confirmed)} confirmed" if confirmed is not None else ""
    )
    if median is None:
        return Cell(
            f"> {record.sizes[-1]:,}", math.nextafter(record.sizes[-1], math.inf), note=note, detail=detail, link=link
        )
    return Cell(f"{median:g}", median, note=note, detail=detail, link=link)


def _drops(entry: Entry[QldRecord], variant: str) -> dict[str, Cell]:
    record = entry.record
    if record.drop is None or record.ci95 is None:
        return {variant: failed_cell(entry.id, record.reason)}
    low, high = map(formats.fixed, record.ci95)
    note = f"{low} to {high}, {len(record.test_points)} points"
    detail, link = formats.chosen_regularization(record.hyperparameters), Link(f"records/{entry.id}.html")
    return {
        variant: Cell(formats.fixed(record.drop), record.drop, note=note, detail=detail, link=link),
        f"{variant}_harmed": Cell(formats.percent(record.share_harmed), record.share_harmed),
        f"{variant}_loss": Cell(formats.fixed(record.loss_rise), record.loss_rise),
    }


def _auc(entry: Entry[MislabelRecord]) -> Cell:
    record = entry.record
    if record.auc is None or record.ci95 is None:
        return failed_cell(entry.id, record.reason)
    low, high = map(formats.fixed, record.ci95)
    detail, link = formats.chosen_regularization(record.hyperparameters), Link(f"records/{entry.id}.html")
    return Cell(formats.fixed(record.auc), record.auc, f"{low} to {high}", detail, link, interval=record.ci95)


def _table(caption: str, columns: list[Column], rows: list[Row]) -> Table:
    return Table("board", caption, "methods", Column("method", "Attributor", numeric=False), columns, rows)
