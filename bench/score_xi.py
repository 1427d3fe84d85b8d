"""ξ from scores alone: where a selector's pick is off, is its spectrum to blame, or ω?

For any scores τ_λ the sign rule holds with t_1 = −⟨r, τ_λ⟩, t_2 = ‖τ_λ‖², t_3 = −½ d‖τ_λ‖²/dλ and r = lim −λ τ_λ
(docs/formulas.md, "Other curvatures"). With κ = −d log ‖τ_λ‖ / d log λ that is ξ² = λ ‖τ_λ‖² / (⟨r, −τ_λ⟩ κ). At the
peak of the LDS curve, where ω = ξ, it tells how far ω is from the one half that Algorithm 1 supposes.
"""

import math

import torch
from torch import Tensor

from attriboard.attribution.context import build_context
from attriboard.contracts.attributor import Context
from attriboard.contracts.selector import REGULARIZATION
from attriboard.evaluation.api import load_ground_truth
from attriboard.evaluation.catalog import attributor_spec, load_task
from attriboard.evaluation.grader import Grader
from attriboard.groundtruth.listing import BundleRegistry
from attriboard.scoring.lds import correlate
from attriboard.toolkit.knobs import REGULARIZATION_GRID
from attriboard.toolkit.regularization import last_passage, mean_xi
from bench.report import Measured

METHODS = ("iffim", "ekfac", "logra")
TASKS = ("digits_mlp", "wikitext2_gpt2_mini")
FAR = 1e9  # λ at which −λ τ_λ is r to float32's rounding
STEP = 0.02  # in log λ, for κ


def measure(repetitions: int = 1) -> Measured:
    """Picks and peaks by either ξ; exact, so once."""
    numbers: dict[str, str] = {}
    for task_name in TASKS:
        task = load_task(task_name)
        context = build_context(task, BundleRegistry().locate(task.card, "checkpoints"))
        grader = Grader(load_ground_truth(task))
        for name in METHODS:
            lds, curves = _curves(context, grader, name)
            peak = max(range(len(lds)), key=lds.__getitem__)
            for kind, xi in curves.items():
                pick = last_passage(xi)
                numbers[f"{task_name}, {name}, ξ from {kind}"] = (
                    f"pick {REGULARIZATION_GRID[pick]:.1e} with LDS {lds[pick]:.3f}; "
                    f"peak {REGULARIZATION_GRID[peak]:.1e} with {lds[peak]:.3f}, where ξ̄ = {xi[peak]:.2f}"
                )
    return Measured(numbers=numbers)


def _curves(context: Context, grader: Grader, name: str) -> tuple[list[float], dict[str, list[float]]]:
    """LDS on scoring points at every λ of the grid, and ξ̄ on calibration points, by where it comes from."""
    method = attributor_spec(name).load_attributor()
    attributor, values = method(), method.configure({})
    state = attributor.fit(context, **method.stage(values, "fit"))
    spectra, fixed = attributor.spectrum(state), method.stage(values, "score")
    assert spectra is not None, f"{name} has a spectrum"
    assert REGULARIZATION in fixed, f"{name} has a λ"
    calibration, scoring = torch.from_numpy(grader.split.calibration), grader.split.scoring
    target = grader.truth.target[:, :, scoring]

    def score(value: float) -> Tensor:
        return attributor.score(state, **(fixed | {REGULARIZATION: value}))

    def negated(scores: Tensor) -> Tensor:
        return -scores[calibration].double()

    r, lds, from_scores, own = FAR * negated(score(FAR)), [], [], []
    for value in REGULARIZATION_GRID:
        scores = score(value)
        lds.append(correlate(grader.predict(scores.numpy())[:, scoring], target).mean)
        own.append(mean_xi([spectrum.at(calibration) for spectrum in spectra], value))
        low, high = (negated(score(value * math.exp(step))).norm(dim=1).log() for step in (-STEP, STEP))
        from_scores.append(_xi(negated(scores), r, (low - high) / (2 * STEP), value))
    return lds, {"the spectrum": own, "scores": from_scores}


def _xi(negated: Tensor, r: Tensor, decay: Tensor, regularization: float) -> float:
    """Mean ξ over points; 0 for those whose scores are not yet shrunk by λ."""
    along = (r * negated).sum(1)
    inside = (along > 0) & (decay > 0)
    squares = regularization * negated.square().sum(1) / (along * decay)
    return float(squares.clamp(0, 1).sqrt().where(inside, torch.zeros_like(squares)).mean())
