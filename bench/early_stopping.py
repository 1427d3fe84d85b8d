"""Does `early_stopping` choose λ better than ξ where training stopped early? On variants of digits.

Variants of `digits_mlp`, with and without hidden layers, trained for a shorter time or with smaller steps. Their ground
truths (100 masks × 3) are built in a folder, and a second run starts from there.

    python -m bench.early_stopping [--task NAME …] [--folder build/early-stopping]
"""

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from attriboard.contracts.card import TaskCard
from attriboard.evaluation.catalog import load_oracle, load_task
from attriboard.evaluation.selection import study_selection
from attriboard.evaluation.workspace import Workspace
from attriboard.groundtruth.build import build_checkpoints, build_ground_truth, open_store
from attriboard.groundtruth.listing import BundleRegistry
from attriboard.records.model import SelectionRecord

SELECTORS = ("surrogate", "early_stopping")
METHODS = ("iffim", "trak")


@dataclass(frozen=True)
class Variant:
    """What is different from `digits_mlp`."""

    hidden: tuple[int, ...]
    learning_rate: float
    momentum: float
    epochs: int
    kept: tuple[int, ...]


VARIANTS = {
    "linear_short": Variant((), 0.01, 0.0, 20, (1, 5, 10, 20)),
    "linear": Variant((), 0.1, 0.0, 20, (1, 5, 10, 20)),
    "three_epochs": Variant((64, 32), 0.02, 0.9, 3, (1, 2, 3)),
    "small_steps": Variant((64, 32), 0.01, 0.0, 20, (1, 5, 10, 20)),
    "six_epochs": Variant((64, 32), 0.02, 0.9, 6, (1, 3, 6)),
}


def card_of(name: str) -> TaskCard:
    """The card of a variant."""
    variant, plain = VARIANTS[name], load_task("digits_mlp").card.model_dump(mode="json")
    recipe = {"learning_rate": variant.learning_rate, "momentum": variant.momentum, "epochs": variant.epochs}
    return TaskCard.model_validate(
        plain
        | {"name": name, "title": name, "ground_truth": {"n_masks": 100, "n_repeats": 3}}
        | {"model": plain["model"] | {"options": plain["model"]["options"] | {"hidden": list(variant.hidden)}}}
        | {"recipe": plain["recipe"] | recipe}
        | {"checkpoints": {"full": 5, "half": 5, "epochs": list(variant.kept)}}
    )


def opened(name: str, folder: Path) -> Workspace:
    """A variant with its ground truth, built where it is absent."""
    path, bundles = folder / f"{name}.yaml", folder / "groundtruth"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(card_of(name).model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    workspace, registry = Workspace(path, bundles, threads=1), BundleRegistry(bundles)
    if registry.find(workspace.task.card, "groundtruth") is None:
        card, store = workspace.task.card, open_store(workspace.task, None)
        for kind, build in (("checkpoints", build_checkpoints), ("groundtruth", build_ground_truth)):
            build(workspace.task, bundles / registry.file_name(card, kind), store)
            registry.register(card, kind)
        workspace = Workspace(path, bundles, threads=1)
    return workspace


def choices(workspace: Workspace, method: str) -> Iterator[SelectionRecord]:
    """What each selector chose, with its regret."""
    job = workspace.job(method, selectors=SELECTORS)
    yield from study_selection(workspace.task, workspace.grader, job, load_oracle(), runner=workspace.runner).selections


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--task", action="append", choices=tuple(VARIANTS), help="repeatable; by default all")
    parser.add_argument("--folder", type=Path, default=Path("build/early-stopping"), help="of cards and ground truths")
    chosen = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    regrets: dict[str, list[float]] = {name: [] for name in SELECTORS}
    for name in chosen.task or VARIANTS:
        workspace = opened(name, chosen.folder)
        for method in METHODS:
            for record in choices(workspace, method):
                if record.regret is None or record.selected is None:
                    raise SystemExit(f"{name} {method} {record.selector}: {record.reason}")
                regrets[record.selector].append(record.regret.mean)
                value = record.selected.hyperparameters["regularization"]
                print(
                    f"{name:13s} {method:6s} {record.selector:15s} λ {value:.2g}, regret {record.regret.mean:.3f}",
                    flush=True,
                )
    for selector, values in regrets.items():
        print(f"mean regret of {selector}: {sum(values) / len(values):.4f} over {len(values)} cases")


if __name__ == "__main__":
    main()
