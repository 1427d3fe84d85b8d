"""Which rule chooses λ best from a few retrains: regret on tasks that were not looked at.

Every rule and every setting of its constants chooses on every task and method with a published ground truth, from
random draws of k single retrains. Then, task by task, the rule with the smallest mean regret on the *other* tasks is
taken, and its regret on the one left out is what counts. The constants in `attriboard.scoring.rules` are the best over
all tasks. Scores summed over masks are kept in a folder, so that a second run takes a minute.

With `--edges`, another question: is ξ's pick still a good prior where ξ̄ does not pass one half on the grid, so that the
pick is one of its ends? Grids are cut a decade from ξ's λ on either side; with each task left out, the others say.

    python -m bench.selection_rules [--edges] [--budget K …] [--task NAME …] [--folder build/selection-rules]
"""

import argparse
import itertools
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from attriboard.contracts.selector import REGULARIZATION
from attriboard.evaluation.choice_rules import positions
from attriboard.evaluation.selection_cost import run_grid
from attriboard.evaluation.workspace import Workspace
from attriboard.records.model import HEADLINE_SELECTOR
from attriboard.scoring.budget import budget_curves
from attriboard.scoring.rules import BEST, Geometry, Rule, geometry, posterior, prior_of_center, smoothed
from attriboard.toolkit.regularization import HALF, last_passage

TASKS = ("digits_mlp", "mnist_lr", "mnist_mlp", "wikitext2_gpt2_mini", "cifar2_resnet9_mini")
METHODS = ("iffim", "trak", "logra", "ekfac")
DRAWS = 100
STEP, FEWEST = 0.5, 4  # decades between grid points; points that a cut grid must have
WIDTHS, DISTRUSTS, TEMPERATURES = (0.3, 0.5, 0.7, 1.0), (0.2, 0.4, 0.6, 0.8), (1.0, 2.0, 3.0)
PLAIN = "largest LDS"

Found = dict[tuple[str, str, int, str], NDArray[np.float64]]
"""(task, method, k, rule) → regret of every draw."""


@dataclass(frozen=True, eq=False)
class Case:
    """One method's grid of λ on one task, ascending: log₁₀ λ of its points, ξ's of each, ξ̄, what its scores predict."""

    place: NDArray[np.float64]
    center: NDArray[np.float64]
    xi: NDArray[np.float64]
    predictions: NDArray[np.float64]

    @property
    def at_edge(self) -> bool:
        """Whether ξ̄ does not rise through one half on the grid."""
        return not self.xi.min() <= HALF <= self.xi[-1]

    def part(self, kept: NDArray[np.bool_]) -> "Case":
        """Some points of the grid, with ξ's pick among them."""
        place, xi = self.place[kept], self.xi[kept]
        center = np.full(len(place), place[last_passage(xi.tolist())])
        return Case(place, center, xi, self.predictions[kept])


def case(workspace: Workspace, method: str, folder: Path) -> Case:
    """From the folder, else run now."""
    path = folder / f"{workspace.task.card.name}-{method}.npz"
    if path.is_file():
        kept = np.load(path, allow_pickle=False)
        return Case(*(kept[name] for name in ("place", "center", "xi", "predictions")))
    described = workspace.runner.describe(workspace.job(method))
    values = sorted(value for value in described.grid(REGULARIZATION) if isinstance(value, float) and value)
    grid = [described.configurations[0] | {REGULARIZATION: value} for value in values]
    run = run_grid(workspace, workspace.job(method, grid, selectors=(HEADLINE_SELECTOR,)))
    choice = run.choices[HEADLINE_SELECTOR]
    known = dict(zip(choice.candidates, choice.criterion or (), strict=True))
    xi = np.array([known[float(point[REGULARIZATION] or 0.0)] for point in run.points])
    made = Case(positions(run.points), run.centers, xi, run.predictions)
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(path, place=made.place, center=made.center, xi=made.xi, predictions=made.predictions)
    return made


def rules(found: Case, shape: Geometry) -> Iterator[tuple[str, Rule]]:
    """Every rule with every setting of its constants."""
    inner = np.where(np.isfinite(found.place), found.place, np.nan)
    yield PLAIN, BEST
    for width in (0.25, 0.5, 1.0):
        yield f"smoothed, {width}", smoothed(found.place, width)
    for temperature in TEMPERATURES:
        flat = posterior(shape.similarity, temperature=temperature)
        yield f"posterior without ξ, T {temperature:g}", flat
        yield f"the same between points, T {temperature:g}", Rule(flat.utility, pooled=True, positions=inner)
        for width, distrust in itertools.product(WIDTHS, DISTRUSTS):
            prior = prior_of_center(found.place, found.center, width, distrust)
            name = f"width {width:g}, distrust {distrust:g}, T {temperature:g}"
            yield f"posterior, {name}", posterior(shape.similarity, prior, temperature=temperature)
            yield f"between, {name}", posterior(shape.similarity, prior, inner, temperature)


def regrets(tasks: Sequence[str], budgets: Sequence[int], folder: Path) -> Found:
    """Regret of every rule, task, method and budget."""
    found: Found = {}
    for task in tasks:
        workspace = Workspace(task, threads=1)
        truth, split = workspace.grader.truth, workspace.grader.split
        for method in METHODS:
            known = case(workspace, method, folder)
            every = dict(rules(known, geometry(known.predictions[:, :, split.calibration])))
            curves = budget_curves(known.predictions, truth.target, split, budgets, every, n_draws=DRAWS)
            for name, curve in curves.items():
                found |= {(task, method, k, name): row for k, row in zip(budgets, curve.regret, strict=True)}
            print(f"{task} {method} done", flush=True)
    return found


def cut(found: Case) -> Iterator[Case]:
    """Grids whose end is ξ's pick: the whole one, or what lies a decade and more above or below ξ's λ."""
    if found.at_edge:
        yield found
        return
    distance = found.place - found.center
    for kept in (distance > 1 - STEP / 2, distance < STEP / 2 - 1):
        if kept.sum() >= FEWEST:
            yield found.part(kept)


def edge_regrets(tasks: Sequence[str], budgets: Sequence[int], folder: Path) -> Found:
    """Regret with ξ's pick as a prior and without one, where it is an end of the grid; mean over a method's grids."""
    found: Found = {}
    for task in tasks:
        workspace = Workspace(task, threads=1)
        truth, split = workspace.grader.truth, workspace.grader.split
        for method in METHODS:
            each: dict[tuple[str, str, int, str], list[NDArray[np.float64]]] = defaultdict(list)
            for one in cut(case(workspace, method, folder)):
                shape = geometry(one.predictions[:, :, split.calibration])
                prior = prior_of_center(one.place, one.center)
                every = {
                    "with prior": posterior(shape.similarity, prior, one.place),
                    "without": posterior(shape.similarity, None, one.place),
                }
                curves = budget_curves(one.predictions, truth.target, split, budgets, every, n_draws=DRAWS)
                for name, curve in curves.items():
                    for k, row in zip(budgets, curve.regret, strict=True):
                        each[task, method, k, name].append(row)
            found |= {key: np.mean(rows, axis=0) for key, rows in each.items()}
            print(f"{task} {method} done", flush=True)
    return found


def show_edges(found: Found, tasks: Sequence[str], budgets: Sequence[int]) -> None:
    """Print the mean regret of every case, and what is chosen with each task left out."""
    names = ("with prior", "without")
    print("\nmean regret where ξ's pick is an end of the grid, with it as a prior and without")
    for task, method, k, name in found:
        if name == names[0]:
            one, other = (found[task, method, k, which].mean() for which in names)
            print(f"  {task:22s} {method:6s} {k:3d} retrains  {one:.4f}  {other:.4f}")
    print("\none task left out: what the others choose, and its mean regret there, with prior and without")
    for task in tasks:
        others = [other for other in tasks if other != task]
        chosen = min(names, key=lambda name: mean(found, name, others, budgets))
        print(f"  {task:22s} {chosen:10s} " + "  ".join(f"{mean(found, name, [task], budgets):.4f}" for name in names))


def mean(found: Found, rule: str, tasks: Sequence[str], budgets: Sequence[int]) -> float:
    """Mean regret over tasks, each the mean over its methods."""
    each = [
        np.mean([row.mean() for (t, _, k, name), row in found.items() if (t, k, name) == (task, budget, rule)])
        for task in tasks
        for budget in budgets
    ]
    return float(np.mean(each))


def show(found: Found, tasks: Sequence[str], budgets: Sequence[int]) -> None:
    """Print the best rules, what is chosen with each task left out, and the rule for every task and method."""
    names = sorted({name for *_, name in found})
    ordered = sorted(names, key=lambda name: mean(found, name, tasks, budgets))
    print("\nmean regret over tasks, the best rules first")
    for name in [*ordered[:8], *(n for n in ordered[8:] if n.startswith((PLAIN, "smoothed", "posterior without")))]:
        print(f"  {mean(found, name, tasks, budgets):.4f}  {name}")
    print("\none task left out: the rule that the others choose, and its mean regret there")
    for task in tasks:
        others = [other for other in tasks if other != task]
        chosen = min(names, key=lambda name: mean(found, name, others, budgets))
        plain = mean(found, PLAIN, [task], budgets)
        print(f"  {task:22s} {mean(found, chosen, [task], budgets):.4f} ({PLAIN}: {plain:.4f})  {chosen}")
    print(f"\n{ordered[0]}: mean regret and 90th percentile")
    for task, method, k, name in found:
        if name == ordered[0]:
            row = found[task, method, k, name]
            print(f"  {task:22s} {method:6s} {k:3d} retrains  {row.mean():.4f}  {np.quantile(row, 0.9):.4f}")


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--budget", type=int, action="append", metavar="K", help="repeatable; by default 8")
    parser.add_argument("--task", action="append", metavar="NAME", help="repeatable; by default five")
    parser.add_argument(
        "--edges", action="store_true", help="whether ξ's pick is a prior where it is an end of the grid"
    )
    parser.add_argument("--folder", type=Path, default=Path("build/selection-rules"), help="of summed scores")
    parser.add_argument("--out", type=Path, help="JSON of every mean and 90th percentile")
    chosen = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    tasks, budgets = chosen.task or TASKS, sorted(chosen.budget or [8])
    measure, report = (edge_regrets, show_edges) if chosen.edges else (regrets, show)
    found = measure(tasks, budgets, chosen.folder)
    report(found, tasks, budgets)
    if chosen.out:
        rows = [[*key, round(float(r.mean()), 6), round(float(np.quantile(r, 0.9)), 6)] for key, r in found.items()]
        chosen.out.write_text(json.dumps(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
