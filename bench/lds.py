"""LDS scoring against dattri, and the time of our bootstrap: `python bench/lds.py`."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from attriboard.scoring.bootstrap import bootstrap
from attriboard.scoring.lds import lds

N_MASKS, N_TRAIN, N_TEST = 100, 5_000, 500
BOOTSTRAP_MASKS, BOOTSTRAP_TEST, N_RESAMPLES = 200, 400, 1_000


def measure(repetitions: int = 5) -> dict[str, Any]:
    """Time both libraries in turn on the same arrays.

    Differences are taken against dattri on float64 scores; on float32 scores its sums round, and neighbouring
    ranks can swap (`max_difference_float32`).
    """
    import torch
    from dattri.metric import lds as dattri_lds

    generator = np.random.default_rng(0)
    scores = generator.standard_normal((N_TEST, N_TRAIN), dtype=np.float32)
    subsets = np.sort(np.argsort(generator.random((N_MASKS, N_TRAIN)), axis=1)[:, : N_TRAIN // 2], axis=1)
    masks = np.zeros((N_MASKS, N_TRAIN), dtype=bool)
    np.put_along_axis(masks, subsets, True, axis=1)
    noise = 100.0 * generator.standard_normal((N_MASKS, N_TEST))
    outputs = (masks.astype(np.float32) @ scores.T + noise).astype(np.float32)

    peer_scores = torch.from_numpy(scores.T.copy())
    ground_truth = (torch.from_numpy(outputs), torch.from_numpy(subsets))
    ours_seconds, peer_seconds = [], []
    lds(scores, masks, outputs)  # threads of the linear algebra start on first use
    for _ in range(repetitions):
        seconds, ours = _timed(lambda: lds(scores, masks, outputs))
        ours_seconds.append(seconds)
        seconds, (peer, _) = _timed(lambda: dattri_lds(peer_scores, ground_truth))
        peer_seconds.append(seconds)
    exact = dattri_lds(peer_scores.double(), ground_truth)[0].numpy()

    predictions = generator.standard_normal((BOOTSTRAP_MASKS, BOOTSTRAP_TEST))
    targets = predictions + 2.0 * generator.standard_normal(predictions.shape)
    bootstrap_seconds = [
        _timed(lambda: bootstrap(predictions, targets, n_resamples=N_RESAMPLES))[0] for _ in range(repetitions)
    ]
    ratios = [peer / ours for peer, ours in zip(peer_seconds, ours_seconds, strict=True)]
    return {
        "ours_seconds": ours_seconds,
        "dattri_seconds": peer_seconds,
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "max_difference": float(np.abs(ours.spearman - exact).max()),
        "max_difference_float32": float(np.abs(ours.spearman - peer.numpy()).max()),
        "bootstrap_seconds": bootstrap_seconds,
    }


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def main() -> None:
    numbers = measure()
    low, high = numbers["ratio_range"]
    repetitions = len(numbers["ours_seconds"])
    print(f"LDS, {N_MASKS} masks × {N_TRAIN} train × {N_TEST} test, {repetitions} repetitions in turn")
    print(f"  attriboard  {statistics.median(numbers['ours_seconds']) * 1e3:8.1f} ms")
    print(f"  dattri      {statistics.median(numbers['dattri_seconds']) * 1e3:8.1f} ms")
    print(f"  ratio       {numbers['ratio']:8.1f} × ({low:.1f}–{high:.1f})")
    print(
        f"  largest difference {numbers['max_difference']:.1e} from dattri on float64 scores, "
        f"{numbers['max_difference_float32']:.1e} on float32"
    )
    print(
        f"bootstrap, {N_RESAMPLES} resamples of {BOOTSTRAP_MASKS} masks × {BOOTSTRAP_TEST} test points: "
        f"{statistics.median(numbers['bootstrap_seconds']):.2f} s"
    )


if __name__ == "__main__":
    main()
