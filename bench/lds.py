"""LDS scoring against dattri, and the time of our bootstrap."""

import statistics

import numpy as np

from attriboard.scoring.bootstrap import Bootstrap
from attriboard.scoring.lds import lds
from bench.report import Comparison, Measured, interleaved, seconds

N_MASKS, N_TRAIN, N_TEST = 100, 5_000, 500
BOOTSTRAP_MASKS, BOOTSTRAP_TEST, N_RESAMPLES = 200, 400, 1_000


def measure(repetitions: int = 5) -> Measured:
    """Time both libraries in turn on the same arrays.

    Differences are taken against dattri on float64 scores; on float32 scores its sums round, and neighboring
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
    ours = lds(scores, masks, outputs).spearman
    peer, exact = (dattri_lds(given, ground_truth)[0].numpy() for given in (peer_scores, peer_scores.double()))
    pairs = interleaved(lambda: lds(scores, masks, outputs), lambda: dattri_lds(peer_scores, ground_truth), repetitions)

    predictions = generator.standard_normal((BOOTSTRAP_MASKS, BOOTSTRAP_TEST))
    targets = predictions + 2.0 * generator.standard_normal(predictions.shape)
    boots = [
        seconds(lambda: Bootstrap(targets, n_resamples=N_RESAMPLES).interval(predictions)) for _ in range(repetitions)
    ]
    what = f"LDS, {N_MASKS} masks × {N_TRAIN:,} train × {N_TEST} test"
    return Measured(
        [Comparison(what, "dattri 0.3.0", *pairs)],
        {
            "max_difference": float(np.abs(ours - exact).max()),
            "max_difference_float32": float(np.abs(ours - peer).max()),
            "bootstrap_1000_resamples_200_by_400_seconds": statistics.median(boots),
        },
    )
