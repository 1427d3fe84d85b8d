"""DualDA: dual variables of a multi-class support vector machine on the last layer's inputs.

Yolcu, Weckbecker, Wiegand, Samek & Lapuschkin, "Sparse, Efficient and Explainable Data Attribution with DualXDA", TMLR
2025 (arXiv 2402.12118). The last layer is replaced by the machine of Crammer & Singer (JMLR 2001),

    min_W  ½ ‖W‖² + C Σ_i max(0, max_{c ≠ y_i} 1 + w_c·h_i − w_{y_i}·h_i),

whose solution is W = Σ_i α_i h_iᵀ with dual variables Σ_c α_{i,c} = 0, α_{i,c} ≤ C [c = y_i], and

    τ(z', i) = α_{i,y'} ⟨h_i, h'⟩,  averaged over checkpoints

with h the input of the last linear layer (and a 1 where it has a bias), y' the label of the test point. Examples that
are classified with a margin have α_i = 0: scores are sparse.

Deviations: the dual is solved in float64 by accelerated projected gradients, to a relative duality gap (the authors
changed LIBLINEAR); the class that is explained is that of the label. Divided by C n the objective is the mean loss and
(λ/2)‖W‖² with λ = 1/(C n): λ is absolute as elsewhere, and none is C = 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Checkpoint, Context, Hyperparameter
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.averaging import MeanOfScores
from attriboard.toolkit.embeddings import class_labels, embeddings_need, head_inputs

CHECK_EVERY = 100
"""Iterations between two looks at the duality gap."""


class DualSVM(MeanOfScores):
    """Dual variables of a support vector machine."""

    name = "dual_svm"
    paper = "arXiv:2402.12118"
    family = "last layer"
    curvature = "hessian"
    hyperparameters = (
        Hyperparameter(
            "regularization",
            None,
            "arXiv 2402.12118 and its code: C = 1, which is λ = 1/n_train",
            type=float,
            grid=knobs.REGULARIZATION_GRID,
            minimum=0.0,
            description="λ = 1/(C · n_train), absolute; none for C = 1",
        ),
        Hyperparameter(
            "tolerance",
            1e-3,
            "ours; scikit-learn's LinearSVC, which runs LIBLINEAR, has tol=1e-4 for another quantity",
            minimum=1e-12,
            grid=(1e-4, 1e-3, 1e-2),
            description="the duality gap, relative to the primal objective, that is small enough",
        ),
        Hyperparameter(
            "max_iterations",
            10_000,
            "ours; scikit-learn's LinearSVC makes at most 1,000 passes",
            minimum=1,
            grid=(1000, 10_000),
            description="of accelerated projected gradients, at most; without a margin in sight they are used up",
        ),
        *knobs.ONE_MODEL,
    )

    def fit_one(
        self,
        context: Context,
        checkpoint: Checkpoint,
        stream: int,
        *,
        regularization: float | None,
        tolerance: float,
        max_iterations: int,
    ) -> Tensor:
        """Solve the dual, and decompose the machine's outputs.

        Raises:
            NotApplicableError: λ = 0, targets are no classes, or the model does not end with a linear layer.
        """
        if regularization == 0:
            raise NotApplicableError("regularization = 0: C = 1/(λ · n_train) is infinite; choose a positive one")
        labels, explained = class_labels(context)
        train, test = (head_inputs(context, checkpoint, side) for side in (context.train, context.test))
        C = 1.0 if regularization is None else 1 / (regularization * len(train))
        n_classes = 1 + int(torch.cat([labels, explained]).max())
        dual = solve_dual(train, one_hot(labels, n_classes).double(), C, tolerance, max_iterations)
        return (test @ train.T).mul_(dual[:, explained].T)

    def memory_need(self, context: Context, **others: object) -> dict[str, int]:
        """Activations, a few matrices of dual variables, and the scores."""
        n_classes = 1 + int(context.train.targets.max()) if context.train.targets.dim() == 1 else 1
        dual = 16 * needs.DOUBLE * len(context.train) * n_classes
        return {**embeddings_need(context), "dual variables": dual, "scores": 5 * needs.pairs(context, needs.DOUBLE)}


def solve_dual(features: Tensor, labels: Tensor, C: float, tolerance: float, max_iterations: int) -> Tensor:
    """α (n, n_classes) that minimizes ½ ‖Σ_i α_i h_iᵀ‖² + Σ_i Σ_{c ≠ y_i} α_{i,c}.

    Between two looks at the gap only examples with a loss or a dual variable are moved, which are few in the end.

    Args:
        features: h (n, d), float64.
        labels: Y (n, n_classes), ones and zeros.
        C: weight of the losses.
        tolerance: relative duality gap that is small enough.
        max_iterations: at most.
    """
    dual = torch.zeros_like(labels)
    for _ in range(0, max_iterations, CHECK_EVERY):
        W = features.T @ dual
        outputs, size = features @ W, float(W.square().sum()) / 2
        hinge = (outputs + 1 - labels).amax(1) - (outputs * labels).sum(1)
        primal = size + C * float(hinge.sum())
        if primal + size + float((dual * (1 - labels)).sum()) <= tolerance * primal:
            break
        moving = (hinge > 0) | (dual != 0).any(1)
        dual[moving] = descend(features[moving], labels[moving], dual[moving], C)
    return dual


def descend(features: Tensor, labels: Tensor, start: Tensor, C: float) -> Tensor:
    """Some accelerated steps (FISTA: Beck & Teboulle 2009), restarted as O'Donoghue & Candès 2015 have it.

    With α = C Y − β every row of β lies in the simplex of size C.
    """
    n, d = features.shape
    gram = features.T @ features if d < n else features @ features.T
    step = 1 / float(torch.linalg.eigvalsh(gram)[-1])
    current = previous = start
    momentum = 1.0
    for _ in range(CHECK_EVERY):
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        point = current + (momentum - 1) / following * (current - previous)
        slope = features @ (features.T @ point) + 1 - labels
        previous, current = current, C * labels - to_simplex(C * labels - point + step * slope, C)
        against = float(((point - current) * (current - previous)).sum()) > 0
        momentum = 1.0 if against else following
    return current


def to_simplex(rows: Tensor, size: float) -> Tensor:
    """The nearest points whose entries are not negative and sum to `size` (Duchi et al. 2008)."""
    descending = rows.sort(1, descending=True)[0]
    counts = torch.arange(1, rows.shape[1] + 1, dtype=rows.dtype, device=rows.device)
    excess = (descending.cumsum(1) - size) / counts
    kept = (descending > excess).sum(1, keepdim=True)
    return (rows - excess.gather(1, kept - 1)).clamp_min_(0)
