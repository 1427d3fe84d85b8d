"""Which question are you asking? What methods get on every ground truth of a task, and whether that ranks them alike.

A ground truth whose noise ceiling is low is shown, and ranks no method.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from attriboard.contracts.question import Question
from attriboard.contracts.selector import REGULARIZATION
from attriboard.leaderboard import formats
from attriboard.leaderboard.lds_table import lds_cell, rank_methods
from attriboard.leaderboard.method_rows import method_row
from attriboard.leaderboard.study import MethodStudy, Scalar, TaskStudy
from attriboard.leaderboard.tables import EMPTY, Cell, Column, Link, Row, Table
from attriboard.records.model import LdsResult
from attriboard.scoring.ceiling import LEAST
from attriboard.scoring.questions import RankCorrelation, Ranking, rank_correlations, ranking, resampled_means

USUAL = "50pct-fresh"  # where no card is at hand
SELECTED, DEFAULT = "selected", "default"
ORDERED = "Rows are sorted by the mean LDS over the questions, λ by ξ; controls come last."


@dataclass(frozen=True, eq=False)
class Truth:
    """One ground truth of a task.

    Attributes:
        question: what it asks.
        study: what is on it.
    """

    question: Question
    study: TaskStudy

    @property
    def name(self) -> str:
        """Of the question."""
        return self.question.name

    @property
    def ceiling(self) -> float | None:
        """The LDS that a perfect predictor would get."""
        return self.study.ceiling

    @property
    def ranks(self) -> bool:
        """Whether enough of it is signal to rank methods."""
        return self.ceiling is None or self.ceiling >= LEAST

    def result(self, method: str, variant: str) -> LdsResult | None:
        """What a method gets; `selected` is what it gets without retrains: the default's where nothing is selected."""
        found = self.study.methods.get(method)
        if found is None:
            return None
        if variant == SELECTED:
            return found.headline.record.lds if found.headline else None
        return found.lds(variant)


@dataclass(frozen=True, eq=False)
class Plane:
    """A task's ground truths, the same seed first and small removals before large ones.

    Attributes:
        task: its study.
        truths: those with records, at least two.
    """

    task: TaskStudy
    truths: Sequence[Truth]

    @cached_property
    def methods(self) -> list[str]:
        """Methods that were graded on another question than the usual one, best first; controls last."""
        asked = [truth for truth in self.truths if truth.study is not self.task]
        found = {m.name: m.control for truth in asked for m in truth.study.run if truth.result(m.name, SELECTED)}

        def level(name: str) -> float:
            scored = [result.mean for truth in self.truths if (result := truth.result(name, SELECTED))]
            return sum(scored) / len(scored)

        return sorted(found, key=lambda name: (found[name], -level(name), name))

    def study_of(self, method: str) -> MethodStudy:
        """A method's study on the first ground truth that knows it."""
        return next(t.study.methods[method] for t in self.truths if t.result(method, SELECTED))

    def compared(self, variant: str) -> list[str]:
        """Methods, no controls, that every ground truth has graded in full."""

        def full(result: LdsResult | None) -> bool:
            return result is not None and result.per_test is not None and result.mask_influence is not None

        names = [name for name in self.methods if not self.study_of(name).control]
        return [name for name in names if all(full(truth.result(name, variant)) for truth in self.truths)]

    @cached_property
    def means(self) -> Mapping[str, Mapping[str, NDArray[np.float64]]]:
        """Variant → ground truth → mean LDS of the compared methods under resamples."""
        found: dict[str, dict[str, NDArray[np.float64]]] = {}
        for variant in (SELECTED, DEFAULT):
            names, found[variant] = self.compared(variant), {}
            for k, truth in enumerate(self.truths):
                results = [result for name in names if (result := truth.result(name, variant))]
                if results:
                    found[variant][truth.name] = resampled_means(results, k)
        return found

    @cached_property
    def rankings(self) -> Mapping[str, Ranking]:
        """Ground truth → ranks of the compared methods, selected where they are, with intervals."""
        return {name: ranking(means) for name, means in self.means[SELECTED].items()}

    def correlations(self, variant: str) -> dict[tuple[str, str], RankCorrelation]:
        """Between the rankings of every two ground truths; none for fewer than three methods."""
        return rank_correlations(self.means[variant]) if len(self.compared(variant)) >= 3 else {}


def planes(studies: Iterable[TaskStudy]) -> list[Plane]:
    """One for each task with records on ground truths of several questions."""
    found = []
    for study in studies:
        usual = study.card.usual_question if study.card else Question.parse(USUAL)
        truths = [Truth(usual, study), *(Truth(Question.parse(name), q) for name, q in study.questions.items())]
        scored = [truth for truth in truths if any(method.headline for method in truth.study.run)]
        if len(scored) > 1:
            found.append(Plane(study, sorted(scored, key=lambda truth: truth.question.order)))
    return found


def _column(truth: Truth) -> Column:
    ceiling = "unknown" if truth.ceiling is None else formats.fixed(truth.ceiling)
    hint = f"{truth.question.title}; noise ceiling {ceiling}"
    if not truth.ranks:
        hint += f", below {LEAST}: mostly noise of single retrains, so it ranks no method"
    return Column(truth.name, truth.question.short, hint, best_first="desc")


def _row(plane: Plane, name: str, cells: Mapping[str, Cell]) -> Row:
    return method_row(plane.task, plane.study_of(name), cells)


def matrix_table(plane: Plane, variant: str) -> Table:
    """LDS of every method on every ground truth, with its interval and shared rank."""
    entries = {
        (name, truth.name): entry
        for name in plane.methods
        for truth in plane.truths
        if (method := truth.study.methods.get(name))
        and (entry := method.headline if variant == SELECTED else method.variants.get(variant))
        and truth.result(name, variant)
    }
    ends = [end for entry in entries.values() if entry.record.lds for end in entry.record.lds.ci95]
    scale = (min([0.0, *ends]), max([0.0, *ends]))
    ranks = {
        truth.name: rank_methods(
            [m for m in truth.study.methods.values() if m.name in plane.methods],
            lambda method, truth=truth: truth.result(method.name, variant),  # type: ignore[misc]
        )
        for truth in plane.truths
        if truth.ranks
    }
    rows = []
    for name in plane.methods:
        cells = {}
        for truth in plane.truths:
            entry = entries.get((name, truth.name))
            if entry is None or entry.record.lds is None:
                continue
            cell = lds_cell(entry.record.lds, entry.id, scale, truth.ceiling)
            rank = ranks.get(truth.name, {}).get(name)
            cells[truth.name] = replace(cell, detail=f"rank {rank}" if rank else "")
        rows.append(_row(plane, name, cells))
    ceilings = {t.name: Cell(formats.fixed(t.ceiling), t.ceiling) for t in plane.truths if t.ceiling is not None}
    rows.append(Row("ceiling", Cell("noise ceiling", "noise ceiling"), ceilings, fixed=True))
    what = "λ by ξ where the method has one, else the default" if variant == SELECTED else "default hyperparameters"
    caption = (
        f"LDS on {plane.task.name}, {what}; 95 % intervals. Methods that cannot be told apart share a rank; "
        "ranks count the methods listed here. " + ORDERED
    )
    columns = [_column(truth) for truth in plane.truths]
    return Table(f"{plane.task.name}-{variant}", caption, "methods", Column("method", "Attributor", numeric=False),
                 columns, rows)  # fmt: skip


def correlation_table(plane: Plane, variant: str) -> Table | None:
    """Spearman's correlation between the rankings of every two ground truths; none for fewer than three methods."""
    found = plane.correlations(variant)
    if not found:
        return None
    rows = []
    for truth in plane.truths:
        cells = {}
        for other in plane.truths:
            pair = found.get((truth.name, other.name)) or found.get((other.name, truth.name))
            if pair is not None:
                low, high = (formats.fixed(end, 2) for end in pair.ci95)
                cells[other.name] = Cell(formats.fixed(pair.value, 2), pair.value, note=f"{low} to {high}")
        rows.append(Row(truth.name, Cell(truth.question.short, truth.name), cells))
    names = plane.compared(variant)
    chosen = "λ by ξ" if variant == SELECTED else "default hyperparameters"
    caption = (
        f"Do two questions rank alike on {plane.task.name}? Spearman's correlation over {len(names)} methods, "
        f"{chosen}, with 95 % intervals over scoring points and masks. Questions of the same seed come first, small "
        "removals before large ones."
    )
    heading = Column("truth", "Question", numeric=False)
    columns = [_column(truth) for truth in plane.truths]
    return Table(f"{plane.task.name}-{variant}-ranks", caption, "questions", heading, columns, rows)


def picks_table(plane: Plane) -> Table | None:
    """The best λ on every ground truth, and what ξ's one pick gives away there; none where nothing was selected."""
    rows = []
    for name in plane.methods:
        chosen, cells = None, {}
        for truth in plane.truths:
            method = truth.study.methods.get(name)
            entry = method.selection if method else None
            if entry is None:
                continue
            selected, oracle, regret = entry.record.selected, entry.record.oracle, entry.record.regret
            if selected is None or oracle is None:
                continue
            chosen, best = selected.hyperparameters, oracle.hyperparameters
            # The oracle chose on calibration points, so ξ's pick may be the better one on scoring points.
            sign = "+" if regret and regret.mean < 0 else ""
            note = f"ξ: {sign}{formats.fixed(-regret.mean)}" if regret and regret.mean else "ξ: the same"
            detail = f"{formats.fixed(regret.ci95[0])} to {formats.fixed(regret.ci95[1])}" if regret else ""
            link = Link(f"records/{entry.id}.html")
            cells[truth.name] = replace(_lambda(best), note=note, detail=detail, link=link)
        if chosen is not None:
            rows.append(_row(plane, name, {"pick": _lambda(chosen)} | cells))
    if not rows:
        return None
    columns = [Column("pick", "ξ's pick", "The same for every question: ξ sees no retrain")]
    caption = (
        f"Which λ is best for which question, on {plane.task.name}: the oracle's λ, and the LDS that ξ's pick gives "
        "away there, with its 95 % interval. " + ORDERED
    )
    heading = Column("method", "Attributor", numeric=False)
    columns += [replace(_column(truth), best_first="asc") for truth in plane.truths]
    return Table(f"{plane.task.name}-picks", caption, "methods", heading, columns, rows)


def _lambda(hyperparameters: Mapping[str, Scalar]) -> Cell:
    value = hyperparameters.get(REGULARIZATION)
    return Cell(formats.chosen_regularization(hyperparameters), value if isinstance(value, float) else None)


@dataclass(frozen=True, eq=False)
class MethodMatrix:
    """One method on the ground truths of one task: variant → its cell on each of them."""

    plane: Plane
    rows: Sequence[tuple[str, Sequence[Cell]]]


def method_matrix(plane: Plane, name: str) -> MethodMatrix | None:
    """A method's default, selected and oracle LDS on every ground truth; none where it has the usual one alone."""
    if name not in plane.methods:
        return None
    rows = []
    for variant in (DEFAULT, SELECTED, "oracle", "custom"):
        entries = [
            t.study.methods[name].variants.get(variant) if name in t.study.methods else None for t in plane.truths
        ]
        if not any(entry and entry.record.lds for entry in entries):
            continue
        cells = []
        for entry in entries:
            if entry is None or entry.record.lds is None:
                cells.append(EMPTY)
                continue
            lds, link = entry.record.lds, Link(f"records/{entry.id}.html")
            low, high = map(formats.fixed, lds.ci95)
            detail = formats.chosen_regularization(entry.record.hyperparameters)
            cells.append(Cell(formats.fixed(lds.mean), lds.mean, f"{low} to {high}", detail, link))
        rows.append((variant, cells))
    return MethodMatrix(plane, rows)
