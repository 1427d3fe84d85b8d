"""Which recipe `cifar2_resnet9` gets: candidates on the same masks and seeds, and how much of a margin is the mask's.

A candidate is the card with other fields of its recipe. Its retrains are the first rows of the ground truth that the
card would have, so whatever is trained for the recipe that is chosen counts as built. Work is a text file of lines

    CANDIDATE mask K REPEAT
    CANDIDATE checkpoint J

that any number of workers take from the top; it may be edited at any time, and what the store has is not done again.

    while OMP_NUM_THREADS=1 python -m bench.cifar_recipe work QUEUE; do :; done     # one worker; ends with the queue
    python -m bench.cifar_recipe report [CANDIDATE …]
    python -m bench.cifar_recipe compare CANDIDATE CANDIDATE [SCORES.safetensors]

`compare` is for precisions: two candidates on the masks that both have, here or in a published ground truth, and LDS of
the same scores on either.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

import attriboard.tasks
from attriboard.base.paths import cache_folder
from attriboard.base.scores import read_matrix
from attriboard.contracts.card import load_card
from attriboard.contracts.task import Task
from attriboard.groundtruth.build import open_store
from attriboard.groundtruth.bundle import read_ground_truth
from attriboard.groundtruth.listing import BundleRegistry, published_folder
from attriboard.groundtruth.plan import checkpoint_requests, mask_indices, retrain_seed
from attriboard.retraining.engine import array_names, retrain
from attriboard.retraining.request import RetrainRequest
from attriboard.scoring.ceiling import noise_ceiling
from attriboard.scoring.lds import lds
from attriboard.tasks.catalogue import task_from_card

STUDY = {"optimizer": "sgd", "learning_rate": 0.01, "momentum": 0.9, "epochs": 10, "batch_size": 64}
CYCLE = {"schedule": "cosine", "warmup": 0.2, "precision": "bfloat16"}
CANDIDATES: dict[str, dict[str, Any]] = {
    "study32": STUDY,
    "study16": STUDY | {"precision": "bfloat16"},
    "mini": STUDY | CYCLE | {"learning_rate": 0.1, "weight_decay": 0.01},
    "mini6": STUDY | CYCLE | {"learning_rate": 0.1, "weight_decay": 0.01, "epochs": 6},
    "mini15": STUDY | CYCLE | {"learning_rate": 0.1, "weight_decay": 0.01, "epochs": 15},
    "lr05wd02": STUDY | CYCLE | {"learning_rate": 0.05, "weight_decay": 0.02},
    "lr05wd02e6": STUDY | CYCLE | {"learning_rate": 0.05, "weight_decay": 0.02, "epochs": 6},
    "lr05wd02e4": STUDY | CYCLE | {"learning_rate": 0.05, "weight_decay": 0.02, "epochs": 4},
    "lr05wd02e3": STUDY | CYCLE | {"learning_rate": 0.05, "weight_decay": 0.02, "epochs": 3},
    "lr1wd02e6b128": STUDY | CYCLE | {"learning_rate": 0.1, "weight_decay": 0.02, "epochs": 6, "batch_size": 128},
    "lr05wd02e6b32": STUDY | CYCLE | {"learning_rate": 0.05, "weight_decay": 0.02, "epochs": 6, "batch_size": 32},
    "lr05wd02e4b32": STUDY | CYCLE | {"learning_rate": 0.05, "weight_decay": 0.02, "epochs": 4, "batch_size": 32},
    "lr05wd03e4b32": STUDY | CYCLE | {"learning_rate": 0.05, "weight_decay": 0.03, "epochs": 4, "batch_size": 32},
    "lr05wd02e20": STUDY | CYCLE | {"learning_rate": 0.05, "weight_decay": 0.02, "epochs": 20},
    "lr05wd03": STUDY | CYCLE | {"learning_rate": 0.05, "weight_decay": 0.03},
    "lr05wd05": STUDY | CYCLE | {"learning_rate": 0.05, "weight_decay": 0.05},
    "lr03wd03": STUDY | CYCLE | {"learning_rate": 0.03, "weight_decay": 0.03},
    "lr02wd02": STUDY | CYCLE | {"learning_rate": 0.02, "weight_decay": 0.02},
}
CANDIDATES["lr05wd02e6b32f32"] = CANDIDATES["lr05wd02e6b32"] | {"precision": "float32"}
SMALL = "/mini"
"""Behind a candidate's name: its recipe on the network of `cifar2_resnet9_mini`, a hint at a twentieth of the cost."""
MAX_MASKS = 100


def candidate(name: str) -> Task:
    """The task under a candidate's recipe; of the full network's, only the study's own, in float32, is version 1."""
    small = name.endswith(SMALL)
    card = f"cifar2_resnet9{'_mini' if small else ''}.yaml"
    raw = yaml.safe_load((Path(attriboard.tasks.__file__).parent / card).read_text(encoding="utf-8"))
    raw |= {"recipe": CANDIDATES[name.removesuffix(SMALL)], "version": 1 if small or name == "study32" else 2}
    raw["checkpoints"] = {"full": 2, "half": 3, "epochs": [raw["recipe"]["epochs"]]}
    return task_from_card(load_card(raw))


def request_of(task: Task, kind: str, *numbers: str) -> RetrainRequest:
    """The request that a line of the queue asks for."""
    if kind == "checkpoint":
        return checkpoint_requests(task.card)[int(numbers[0])]
    k, repeat = map(int, numbers)
    return RetrainRequest(mask_indices(task.card, k), retrain_seed(k, repeat))


@contextmanager
def claimed(digest: str) -> Iterator[bool]:
    """Whether this process alone is at work on a retrain; a claim of a process that is gone counts for nothing."""
    path = cache_folder() / "claims" / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not Path(f"/proc/{path.read_text() or 0}").exists():
        path.unlink(missing_ok=True)
    try:
        with path.open("x") as file:
            file.write(str(os.getpid()))
    except FileExistsError:
        yield False
        return
    try:
        yield True
    finally:
        path.unlink()


def work(queue: Path) -> int:
    """Train the first retrain that is asked for and neither done nor under way; exit code 1 where there is none."""
    return 0 if any(_train(line) for line in queue.read_text(encoding="utf-8").splitlines() if line) else 1


def _train(line: str) -> bool:
    name, *what = line.split()
    task = candidate(name)
    request = request_of(task, *what)
    digest, store = request.digest(task.card.fingerprint), open_store(task, None)
    if store.has(digest, array_names(task, request)):
        return False
    with claimed(digest) as ours:
        if not ours or not retrain(task, [request], store):
            return False
    wall, accuracy = store.seconds([digest]), store.read("outputs/correct", [digest]).mean()
    stamp = time.strftime("%H:%M:%S")
    print(f"{stamp} {line}: accuracy {accuracy:.3f}, {wall:.0f} s, {time.process_time():.0f} s of CPU", flush=True)
    return True


def report(name: str) -> str:
    """One line: from the masks of which both repeats are there, beside the accuracy of all half-models."""
    task = candidate(name)
    store = open_store(task, None)
    digests = [
        [request_of(task, "mask", str(k), str(r)).digest(task.card.fingerprint) for r in (0, 1)]
        for k in range(MAX_MASKS)
    ]
    names = [f"outputs/{measured}" for measured in task.measurements]
    there = [digest for pair in digests for digest in pair if store.has(digest, names)]
    if not there:
        return f"{name}: nothing yet"
    accuracy = store.read("outputs/correct", there).mean(axis=1)
    text = (
        f"{name} ({task.card.fingerprint[:12]}): {len(there)} models, accuracy {accuracy.mean():.3f} "
        f"[{accuracy.min():.3f}, {accuracy.max():.3f}], loss {store.read('outputs/loss', there).mean():.3f}"
    )
    pairs = [k for k, pair in enumerate(digests) if all(store.has(digest, names) for digest in pair)]
    if len(pairs) < 3:
        return text
    flat = [digest for k in pairs for digest in digests[k]]
    margins = store.read("outputs/margin", flat).astype(np.float64).reshape(len(pairs), 2, -1)
    low, value, high = reliability_interval(margins)
    text += f"; masks {pairs[0]}–{pairs[-1]} ({len(pairs)}) × 2: reliability {value:.3f} [{low:.3f}, {high:.3f}]"
    text += f", noise within / between {noise_and_signal(margins)}"
    ceiling = noise_ceiling(margins)
    if ceiling.mean is not None and ceiling.ci95 is not None:
        text += f", ceiling of two {ceiling.mean:.3f} [{ceiling.ci95[0]:.3f}, {ceiling.ci95[1]:.3f}]"
    return text


def known_margins(task: Task) -> dict[tuple[int, int], NDArray[np.float64]]:
    """Mask and repeat → margins (n_test,): of the candidate's store, and of the ground truth that has its recipe."""
    store, registry = open_store(task, None), BundleRegistry(published_folder())
    found = {}
    for k in range(MAX_MASKS):
        for r in (0, 1):
            digest = request_of(task, "mask", str(k), str(r)).digest(task.card.fingerprint)
            if store.has(digest, ["outputs/margin"]):
                found[k, r] = store.read("outputs/margin", [digest])[0].astype(np.float64)
    if registry.find(task.card, "groundtruth"):
        margins = read_ground_truth(registry.locate(task.card, "groundtruth")).outputs["margin"].astype(np.float64)
        found |= {(k, r): margins[k, r] for k, r in np.ndindex(margins.shape[:2])}
    return found


def compare(names: Sequence[str], scores: Path | None) -> str:
    """One line for each candidate, on masks that both have, and how alike their margins are.

    With both repeats, or with the first alone where fewer than three masks have both.
    """
    tasks = [candidate(name) for name in names]
    known = [known_margins(task) for task in tasks]
    for repeats in ((0, 1), (0,)):
        masks = [k for k in range(MAX_MASKS) if all((k, r) in of_one for of_one in known for r in repeats)]
        if len(masks) >= 3:
            break
    else:
        return f"{len(masks)} masks that both have: too few"
    subsets = np.stack([np.isin(np.arange(tasks[0].card.data.n_train), mask_indices(tasks[0].card, k)) for k in masks])
    margins = [np.stack([[of_one[k, r] for r in repeats] for k in masks]) for of_one in known]
    means = [of_one.mean(axis=1) for of_one in margins]
    lines = [
        f"{len(masks)} masks × {len(repeats)}: correlation of margins over masks, pooled over test points, "
        f"{correlation(*means):.3f}"
    ]
    for name, mine in zip(names, margins, strict=True):
        lines.append(f"{name}: accuracy {(mine > 0).mean():.3f}")
        if len(repeats) == 2:
            low, value, high = reliability_interval(mine)
            lines[-1] += f", noise within / between {noise_and_signal(mine)}"
            lines[-1] += f", reliability {value:.3f} [{low:.3f}, {high:.3f}]"
        for whose, second in zip(names, known if len(repeats) == 1 else (), strict=False):
            if all((k, 1) in second for k in masks):
                repeat = np.stack([second[k, 1] for k in masks])
                lines[-1] += f", correlation with the other repeat of {whose} {correlation(mine[:, 0], repeat):.3f}"
        if scores is not None:
            lines[-1] += f", LDS {lds(read_matrix(scores), subsets, mine).mean:.3f}"
    return "\n".join(lines)


def correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Of margins (n_masks, n_test) over masks, pooled over test points."""
    one, other = one - one.mean(axis=0), other - other.mean(axis=0)
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum()))


def noise_and_signal(margins: NDArray[np.float64]) -> str:
    """Standard deviations of margins between seeds of a mask and between masks, pooled over test points."""
    within, between = components(margins)
    return f"{within.mean() ** 0.5:.2f} / {max(between.mean(), 0) ** 0.5:.2f}"


def components(margins: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Variances within and between masks, (n_test,) each, of margins (n_masks, n_repeats, n_test): one-way ANOVA."""
    within = margins.var(axis=1, ddof=1).mean(axis=0)
    return within, margins.mean(axis=1).var(axis=0, ddof=1) - within / margins.shape[1]


def reliability(margins: NDArray[np.float64]) -> float:
    """The mask's share of the variance of one retrain's margins, pooled over test points."""
    within, between = (part.mean() for part in components(margins))
    return float(between / (between + within))


def reliability_interval(margins: NDArray[np.float64]) -> tuple[float, float, float]:
    """With a 95 % interval from leaving out one mask at a time."""
    from attriboard.scoring.differences import t_quantile

    n = len(margins)
    value = reliability(margins)
    left_out = [reliability(np.delete(margins, k, axis=0)) for k in range(n)]
    reach = t_quantile(min(n, margins.shape[2]) - 1) * float(np.sqrt((n - 1) * np.var(left_out)))
    return value - reach, value, value + reach


if __name__ == "__main__":
    if sys.argv[1] == "work":
        sys.exit(work(Path(sys.argv[2])))
    elif sys.argv[1] == "compare":
        print(compare(sys.argv[2:4], Path(sys.argv[4]) if len(sys.argv) > 4 else None))
    else:
        print("\n".join(report(name) for name in sys.argv[2:] or CANDIDATES))
