"""EK-FAC with conjugate gradients: the damped Gauss–Newton system, solved from EK-FAC's solution on.

Grosse et al. (arXiv 2308.03296) for the approximation that it starts from and is preconditioned by; Martens, "Deep
learning via Hessian-free optimization", ICML 2010, for preconditioned conjugate gradients on the Gauss–Newton matrix:

    τ_λ(z', i) = −g_iᵀ x,   x ≈ argmin ½ xᵀ (C + λI) x − xᵀ g',   averaged over checkpoints

with C = E_i[J_iᵀ (∂²ℓ_i/∂z²) J_i], the Gauss–Newton matrix of the training loss, which for cross-entropy is the true
Fisher matrix. Unlike EK-FAC's it has no Kronecker structure and couples layers.

`batch_size` examples make up C, drawn once; all of them by default. The steps of a test point end where its residual
is at most `tolerance` of ‖g'‖, and before a direction along which C + λI is numerically not positive.

Deviations: λ is absolute, none for a tenth of each layer's mean eigenvalue, and the same as `ekfac`'s; the test side is
the gradient of the attributed f. Layers that are not one matrix product are left out, as in `ekfac`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from attriboard.attributors.ekfac import ekfac_blocks
from attriboard.contracts.attributor import Checkpoint, Context, Hyperparameter
from attriboard.contracts.progress import track
from attriboard.contracts.task import Examples
from attriboard.toolkit import knobs
from attriboard.toolkit.damped import Coordinates, DampedInfluence, DampedSolver, dot, fit_damped
from attriboard.toolkit.kronecker_influence import Fisher, fisher_labels
from attriboard.toolkit.layerwise import layer_regularization, matrix_layers


@dataclass(frozen=True)
class ConjugateGradients(DampedSolver):
    """One checkpoint; `examples` make up C."""

    examples: Examples

    def solve(
        self,
        b: Coordinates,
        damping: dict[str, float],
        inverse: Coordinates,
        *,
        max_iterations: int,
        tolerance: float,
    ) -> Coordinates:
        """Preconditioned conjugate gradients for some test points."""
        curvature = self.curvature
        x = {name: value * inverse[name] for name, value in b.items()}
        product = curvature.product(x, self.examples, damping)
        # Directions without curvature at λ = 0 are left out, as in EK-FAC.
        r = {name: (value - product[name]).mul_(inverse[name] > 0) for name, value in b.items()}
        z = {name: value * inverse[name] for name, value in r.items()}
        p = {name: value.clone() for name, value in z.items()}
        rz, size = dot(r, z), dot(b, b)
        running = dot(r, r) > tolerance**2 * size
        for _ in track(range(max_iterations), "conjugate gradients"):
            Ap = curvature.product(p, self.examples, damping)
            pAp = dot(p, Ap)
            running &= pAp > 0
            if not bool(running.any()):
                break
            step = torch.where(running, rz / pAp, 0.0)
            for name in x:
                along = step.to(p[name])[:, None, None]
                x[name] += along * p[name]
                r[name].sub_(Ap[name].mul_(inverse[name] > 0).mul_(along))
                z[name] = r[name] * inverse[name]
            running &= dot(r, r) > tolerance**2 * size
            following = dot(r, z)
            ratio = torch.where(running, following / rz, 0.0)
            rz = torch.where(running, following, 1.0)
            for name in x:
                p[name].mul_(ratio.to(p[name])[:, None, None]).add_(z[name])
        return x


class EKFACCG(DampedInfluence):
    """Conjugate gradients on the Gauss–Newton matrix, preconditioned by EK-FAC."""

    name = "ekfac_cg"
    paper = "arXiv:2308.03296"
    family = "influence function"
    hyperparameters = (
        layer_regularization(None, "arXiv 2308.03296: a tenth; bergson 2.5 ran it at ten times the mean", every=2),
        Hyperparameter(
            "max_iterations",
            20,
            "bergson 2.5, as run: 20 steps",
            stage="score",
            minimum=0,
            grid=(0, 1, 2, 5, 10, 20),
            description="steps of conjugate gradients, each one product with the Gauss–Newton matrix; 0 for EK-FAC",
        ),
        Hyperparameter(
            "tolerance",
            1e-7,
            "that of if_cg",
            stage="score",
            minimum=0.0,
            grid=(0.0, 1e-7, 1e-3, 1e-1),
            description="a test point's steps end when its residual is that part of its gradient",
        ),
        Hyperparameter(
            "batch_size",
            None,
            "all examples; bergson 2.5 ran 256 documents",
            type=int,
            minimum=1,
            grid=(64, 256, 1024),
            description="training examples that make up the Gauss–Newton matrix, drawn once; none for all",
        ),
        fisher_labels("true", "arXiv 2308.03296: the Fisher matrix of the preconditioner"),
        *knobs.ONE_MODEL,
    )

    def fit_one(
        self, context: Context, checkpoint: Checkpoint, stream: int, *, batch_size: int | None, fisher: Fisher
    ) -> ConjugateGradients:
        """EK-FAC, and the examples of C."""
        sizes = matrix_layers(context, checkpoint)
        curvature = fit_damped(context, checkpoint, sizes, ekfac_blocks(context, checkpoint, sizes, fisher))
        examples = context.train
        if batch_size is not None and batch_size < len(examples):
            generator = torch.Generator().manual_seed(context.seed + stream)
            rows = torch.randperm(len(examples), generator=generator)[:batch_size].sort()[0]
            examples = examples[rows.to(examples.inputs.device)]
        return ConjugateGradients(curvature, examples)
