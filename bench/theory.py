"""The sign rule on real ground truth: does Pearson LDS rise in λ exactly where ξ < ω?

On `mnist_mlp`, with ψ estimated from the published masks: ψ_i is the covariance of "i is in the subset" with the
retrained target. For every scoring point and every pair of neighboring λ at which o₁, o₂ > 0, the sign of ω − ξ at
the pair's geometric mean is compared with the sign of the change of

- c(λ) = ⟨τ_λ, ψ⟩ / ‖τ_λ‖, of which the rule is an identity where τ is centered, and
- the Pearson LDS over masks itself.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import torch

from attriboard.attribution.context import build_context
from attriboard.attributors.iffim import IFFIM
from attriboard.evaluation.api import load_ground_truth
from attriboard.evaluation.catalog import load_task
from attriboard.evaluation.grader import Grader
from attriboard.groundtruth.listing import BundleRegistry
from attriboard.scoring.lds import correlate
from attriboard.toolkit.knobs import REGULARIZATION_GRID
from bench.report import Measured


def measure(repetitions: int = 1, task_name: str = "mnist_mlp") -> Measured:
    """Fractions of (scoring point, λ) at which the signs agree; exact, so once."""
    task = load_task(task_name)
    truth = load_ground_truth(task)
    grader = Grader(truth)
    points = torch.from_numpy(grader.split.scoring)
    target = torch.from_numpy(truth.target[:, :, grader.split.scoring].mean(axis=1).astype(np.float64))
    masks = torch.from_numpy(truth.masks.astype(np.float64))
    psi = (target - target.mean(0)).T @ (masks - masks.mean(0)) / len(masks)  # (n_scoring, n_train)

    context = build_context(task, BundleRegistry().locate(task.card, "checkpoints"))
    state = IFFIM().fit(context, projection_dim=None, checkpoints=1, epoch=None)
    (solution,) = state.models
    spectrum = solution.spectrum.at(points)
    psi_in_basis = psi @ solution.vectors.double()  # (n_scoring, m)

    grid = [value for value in REGULARIZATION_GRID if value > solution.spectrum.floor]
    curves, lds = [], []
    for value in grid:
        scores = solution.scores(value)[points]
        curves.append((scores * psi).sum(1) / scores.norm(dim=1))
        lds.append(correlate(grader.predict(solution.scores(value).numpy())[:, points], target.numpy()).pearson)
    agreements: dict[str, list[np.ndarray[Any, Any]]] = {"identity": [], "pearson": []}
    eligible = 0
    for step, (low, high) in enumerate(pairwise(grid)):
        middle = (low * high) ** 0.5
        shifted = spectrum.shifted(middle)
        o1, o2 = (-(spectrum.coefficients * psi_in_basis / shifted**k).sum(1) for k in (1, 2))
        t1, t3 = spectrum.moment(1, middle), spectrum.moment(3, middle)
        omega = (o1 / t1.sqrt()) / (o2 / t3.sqrt())
        positive = ((o1 > 0) & (o2 > 0)).numpy()
        rising = (spectrum.xi(middle) < omega).numpy()
        eligible += int(positive.sum())
        agreements["identity"].append((rising == (curves[step + 1] > curves[step]).numpy())[positive])
        agreements["pearson"].append((rising == (lds[step + 1] > lds[step]))[positive])
    return Measured(
        numbers={
            "task": task_name,
            "scoring_points": len(points),
            "eligible_fraction": eligible / (len(points) * (len(grid) - 1)),
            "sign_agreement_identity": float(np.concatenate(agreements["identity"]).mean()),
            "sign_agreement_pearson_lds": float(np.concatenate(agreements["pearson"]).mean()),
        }
    )
