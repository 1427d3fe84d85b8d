"""The panels of the sensitivity study, on our tasks: sweeps, a figure, a table and a verdict each.

After Wang et al., "Taming Hyperparameter Sensitivity in Data Attribution" (arXiv 2505.24261). A panel asks whether one
of its findings holds here; the verdict is computed from the records and says so either way.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from attriboard.base.errors import InputError
from attriboard.base.terminal import counted
from attriboard.contracts.hyperparameter import HyperparameterValue
from attriboard.evaluation.catalog import attributor_names
from attriboard.evaluation.sweeps import parse_grid, sweep_points
from attriboard.evaluation.workspace import Workspace
from attriboard.records.model import AttributionRecord

LAMBDAS = "regularization=1e-9:1e3:25log"
_CLEAR = 0.02  # of LDS: smaller differences are called none


@dataclass(frozen=True)
class Verdict:
    """What a panel shows: a sentence, and whether the finding holds; `None` where too little was scored to say."""

    holds: bool | None
    sentence: str


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        key: its letter.
        attributors: which methods it looks at.
        grids: what is swept, as on the command line; `{epochs}` stands for the task's kept epochs.
        finding: the claim.
        judge: from the records of one attributor to a verdict.
    """

    key: str
    attributors: tuple[str, ...]
    grids: tuple[str, ...]
    finding: str
    judge: Callable[[Sequence[AttributionRecord]], Verdict]


@dataclass(frozen=True)
class PanelSummary:
    """One panel on one attributor, as the report says it.

    Attributes:
        panel: its letter.
        attributor: the method.
        finding: the claim.
        holds: whether it holds here; `None` where too little was scored to say.
        sentence: what the points show.
        figure: name of the figure beside the page, where one could be drawn.
        table: the points, Markdown.
        points: how many there are.
        failed: how many of them have no score.
    """

    panel: str
    attributor: str
    finding: str
    holds: bool | None
    sentence: str
    figure: str | None
    table: str
    points: int
    failed: int

    @property
    def verdict(self) -> str:
        """Whether the finding holds, as a sentence about it goes on."""
        if self.holds is None:
            return "cannot be told here"
        return "holds here" if self.holds else "does not hold here"


@dataclass(frozen=True, eq=False)
class PanelSweep:
    """The sweep of one panel on one attributor.

    Attributes:
        panel: which.
        attributor: its name.
        names: the hyperparameters that were swept.
        records: one a point.
        default: the configuration that the sweep varies.
    """

    panel: Panel
    attributor: str
    names: list[str]
    records: list[AttributionRecord]
    default: dict[str, HyperparameterValue]

    def summary(self, figure: str | None) -> PanelSummary:
        """Judge the panel."""
        scored = [record for record in self.records if record.lds is not None]
        verdict = self.panel.judge(self.records) if len(scored) > 1 else None
        return PanelSummary(
            panel=self.panel.key,
            attributor=self.attributor,
            finding=self.panel.finding,
            holds=verdict.holds if verdict else None,
            sentence=verdict.sentence if verdict else "Fewer than two points were scored.",
            figure=figure,
            table=points_table(self.records, self.names),
            points=len(self.records),
            failed=len(self.records) - len(scored),
        )


def sweep_panels(workspace: Workspace, keys: Sequence[str], results: Path) -> Iterator[PanelSweep]:
    """Sweep panels, each over its attributors; finished points come from the folder, new ones are recorded there.

    Args:
        workspace: the task.
        keys: letters of panels; all where there are none.
        results: folder of records.

    Raises:
        InputError: there is no such panel.
    """
    letters = [panel.key for panel in PANELS]
    if unknown := sorted(set(keys) - set(letters)):
        raise InputError(f"--panel {', '.join(unknown)}: must be among {', '.join(letters)}")
    known = attributor_names()
    for panel in PANELS:
        for attributor in panel.attributors if panel.key in (keys or letters) else ():
            if attributor not in known:
                workspace.display.note(f"panel {panel.key}: there is no attributor {attributor}; left out")
                continue
            grids = [parse_grid(_filled(text, workspace)) for text in panel.grids]
            title = f"panel {panel.key}, {attributor} on {workspace.task.card.name}"
            swept = sweep_points(workspace, attributor, grids, {}, results, title=title)
            yield PanelSweep(panel, attributor, swept.names, swept.records, swept.default)


def panels_page(title: str, summaries: Sequence[PanelSummary]) -> str:
    """Panels as Markdown, each with its figure, which lies beside the page, and its points."""
    parts = [f"# Sensitivity to hyperparameters: {title}\n"]
    for summary in summaries:
        failed = f", {summary.failed} of them failed" if summary.failed else ""
        heading = f"{summary.attributor}: {summary.finding}"
        parts.append(f"## ({summary.panel}) {heading}\n")
        parts.append(f"{summary.sentence} The finding {summary.verdict}. {counted(summary.points, 'point')}{failed}.\n")
        if summary.figure:
            parts.append(f"![{heading}]({summary.figure})\n")
        parts.append(f"{summary.table}\n")
    return "\n".join(parts)


def _filled(grid: str, workspace: Workspace) -> str:
    """A panel's grid, with the epochs that the task has models of."""
    return grid.format(epochs=",".join(map(str, workspace.bundles.epochs))) if "{epochs}" in grid else grid


def points_table(records: Sequence[AttributionRecord], names: Sequence[str]) -> str:
    """The points of a panel as a Markdown table: a row each, or for two hyperparameters a row for each of the second.

    Args:
        records: one a point.
        names: the hyperparameters that were swept, one or two.
    """
    points = {tuple(record.hyperparameters[name] for name in names): record for record in records}
    if len(names) == 1:
        rows = [[_text(value), *_cells(record)] for (value,), record in points.items()]
        return _markdown([names[0], "LDS", "95 % interval"], rows)
    columns, lines = (list(dict.fromkeys(key[axis] for key in points)) for axis in (0, 1))
    rows = [
        [_text(line), *(_cells(points[column, line])[0] if (column, line) in points else "–" for column in columns)]
        for line in lines
    ]
    return _markdown([f"{names[1]} \\ {names[0]}", *map(_text, columns)], rows)


def _cells(record: AttributionRecord) -> tuple[str, str]:
    if record.lds is None:
        return "failed", "–"
    low, high = record.lds.ci95
    return f"{record.lds.mean:.3f}", f"{low:.3f} … {high:.3f}"


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _scored(records: Sequence[AttributionRecord]) -> list[tuple[AttributionRecord, float]]:
    return [(record, record.lds.mean) for record in records if record.lds is not None]


def _sensitive(records: Sequence[AttributionRecord]) -> Verdict:
    """The best and the worst value of a range differ clearly, beyond the best one's interval."""
    scored = _scored(records)
    best, top = max(scored, key=lambda pair: pair[1])
    _, bottom = min(scored, key=lambda pair: pair[1])
    assert best.lds is not None
    holds = bottom < best.lds.ci95[0] - _CLEAR
    return Verdict(
        holds, f"LDS runs from {bottom:.3f} to {top:.3f} over the grid, the best at {_where(best, records)}."
    )


def _projection(records: Sequence[AttributionRecord]) -> Verdict:
    """Raising d_proj alone lowers LDS somewhere; raising it with λ tuned at each d_proj does not."""
    scored = _scored(records)
    lambdas = sorted({float(record.hyperparameters["regularization"] or 0.0) for record, _ in scored})
    table = {
        (int(r.hyperparameters["projection_dim"] or 0), float(r.hyperparameters["regularization"] or 0.0)): lds
        for r, lds in scored
    }
    dimensions = sorted(d for d, λ in table if λ == lambdas[0])
    if len(dimensions) < 2:
        return Verdict(None, f"Fewer than two dimensions were scored at λ = {lambdas[0]:g}.")
    tuned = [max(lds for (d, _), lds in table.items() if d == dimension) for dimension in dimensions]
    smallest = [table[d, lambdas[0]] for d in dimensions]
    (before, after), together = _deepest_fall(smallest), _deepest_fall(tuned)
    holds = smallest[before] - smallest[after] > _CLEAR and tuned[together[0]] - tuned[together[1]] <= _CLEAR
    beyond = "" if dimensions[after] == dimensions[-1] else f" and is {smallest[-1]:.3f} at d = {dimensions[-1]}"
    if before == after:
        fall = f"rises throughout, from {smallest[0]:.3f} (d = {dimensions[0]}) to {smallest[-1]:.3f}"
    else:
        fall = f"goes from {smallest[before]:.3f} (d = {dimensions[before]}) to {smallest[after]:.3f} "
        fall += f"at d = {dimensions[after]}{beyond}"
    return Verdict(
        holds,
        f"At λ = {lambdas[0]:g}, LDS {fall}; with λ tuned at each d it goes from {tuned[0]:.3f} "
        f"(d = {dimensions[0]}) to {tuned[-1]:.3f}.",
    )


def _deepest_fall(values: Sequence[float]) -> tuple[int, int]:
    """Positions i ≤ j between which a sequence falls most."""
    pairs = [(i, j) for i in range(len(values)) for j in range(i, len(values))]
    return max(pairs, key=lambda pair: values[pair[0]] - values[pair[1]])


def _where(record: AttributionRecord, records: Sequence[AttributionRecord]) -> str:
    """The hyperparameters of a record that vary over a sweep."""
    varying = [
        name for name in record.hyperparameters if len({str(other.hyperparameters.get(name)) for other in records}) > 1
    ]
    values = {name: record.hyperparameters[name] for name in varying}
    return ", ".join(f"{name} = {_text(value)}" for name, value in values.items())


PANELS: tuple[Panel, ...] = (
    Panel("a", ("iffim",), (LAMBDAS,), "influence functions are sensitive to the regularization", _sensitive),
    Panel(
        "b",
        ("trak", "logra", "ekfac"),
        (LAMBDAS,),
        "so are the other methods with a spectrum",
        _sensitive,
    ),
    Panel(
        "c",
        ("trak",),
        ("projection_dim=64,128,256,512,1024,2048,4096,8192", LAMBDAS),
        "raising the projection dimension alone can lower LDS; with λ tuned it does not",
        _projection,
    ),
    Panel(
        "d",
        ("if_lissa",),
        ("scaling=5,10,25,50,100", "recursion_depth=50,100,500,1000,5000"),
        "LiSSA is sensitive to scaling and recursion depth",
        _sensitive,
    ),
    Panel("e", ("trak",), ("epoch={epochs}",), "the training epoch matters a lot", _sensitive),
    Panel(
        "f",
        ("logra",),
        ("projection_dim=64,256,1024,4096", LAMBDAS),
        "raising the projection dimension alone can lower LDS; with λ tuned it does not",
        _projection,
    ),
)
