"""RPS: representer points of an L2-regularized last layer.

Yeh, Kim, Yen & Ravikumar, "Representer Point Selection for Explaining Deep Neural Networks", NeurIPS 2018 (arXiv
1811.09720), theorem 3.1: where W minimizes (1/n) Σ_i L(W h_i, y_i) + (λ/2) ‖W‖², it is W = Σ_i α_i h_iᵀ with
α_i = −(1/(λn)) ∂L/∂φ_i, φ_i = W h_i, and the output of class c at a test point is Σ_i α_{i,c} ⟨h_i, h'⟩. Hence

    τ(z', i) = α_{i,y'} ⟨h_i, h'⟩,  averaged over checkpoints

with h the input of the last linear layer (and a 1 where it has a bias), y' the label of the test point.

Deviations: the layer is trained anew on the training labels, in float64, by L-BFGS (the paper fits the outputs of the
given model, by gradient descent with line search); the class that is explained is that of the label, as in dattri. λ is
the one of a loss (λ/2)‖W‖², so that it is added to the Hessian of the mean loss, and twice the paper's and dattri's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import BatchFunction, Checkpoint, Context, Hyperparameter
from attriboard.toolkit import knobs, needs
from attriboard.toolkit.averaging import MeanOfScores
from attriboard.toolkit.embeddings import class_labels, embeddings_need, head_inputs
from attriboard.toolkit.placed import values
from attriboard.toolkit.running import accepted_precision, outputs_of

GRADIENT = 1e-9
"""L-BFGS ends when no entry of the gradient is larger."""


class RPS(MeanOfScores):
    """Representer points."""

    name = "rps"
    paper = "arXiv:1811.09720"
    family = "last layer"
    curvature = "hessian"
    hyperparameters = (
        Hyperparameter(
            "regularization",
            0.006,
            "dattri 0.3.0 RPSAttributor: l2_strength=0.003, of ‖W‖² without the ½",
            grid=knobs.REGULARIZATION_GRID,
            minimum=0.0,
            description="λ, absolute, of the loss (λ/2)‖W‖² of the last layer, beside the mean loss",
        ),
        Hyperparameter(
            "max_iterations",
            3000,
            "dattri 0.3.0 RPSAttributor: epoch=3000",
            minimum=1,
            grid=(100, 300, 1000, 3000),
            description="of L-BFGS, at most",
        ),
        *knobs.ONE_MODEL,
    )

    def fit_one(
        self, context: Context, checkpoint: Checkpoint, stream: int, *, regularization: float, max_iterations: int
    ) -> Tensor:
        """Train the layer anew, and decompose it.

        Raises:
            NotApplicableError: λ = 0, targets are no classes, or the model does not end with a linear layer.
        """
        if regularization == 0:
            raise NotApplicableError("regularization = 0: representer values are divided by λ; choose a positive one")
        labels, explained = class_labels(context)
        train, test = (head_inputs(context, checkpoint, side) for side in (context.train, context.test))
        outputs = outputs_of(context, checkpoint, context.train[:1])
        precision = accepted_precision(context.loss, outputs, labels[:1])

        def loss(outputs: Tensor, labels: Tensor) -> Tensor:
            return values(context.loss, outputs, labels, precision)

        W = last_layer(train, labels, outputs.shape[1], loss, regularization, max_iterations)
        dual = slopes(train @ W.T, labels, loss) / (-regularization * len(train))
        return (test @ train.T).mul_(dual[:, explained].T)

    def memory_need(self, context: Context, **others: object) -> dict[str, int]:
        """Activations, outputs, and the scores."""
        outputs = (
            16
            * needs.DOUBLE
            * len(context.train)
            * max(1, *(len(one) for one in context.model.parameters() if one.dim()))
        )
        return {**embeddings_need(context), "outputs": outputs, "scores": 5 * needs.pairs(context, needs.DOUBLE)}


def slopes(outputs: Tensor, labels: Tensor, loss: BatchFunction) -> Tensor:
    """∂L/∂φ of every example, (n, n_outputs)."""
    outputs = outputs.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(loss(outputs, labels).sum(), outputs)[0]


def last_layer(
    features: Tensor, labels: Tensor, n_classes: int, loss: BatchFunction, regularization: float, max_iterations: int
) -> Tensor:
    """W (n_classes, d) that minimizes (1/n) Σ L(W h_i, y_i) + (λ/2) ‖W‖²; h (n, d), float64."""
    W = torch.zeros(n_classes, features.shape[1], dtype=torch.float64, device=features.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [W],
        max_iter=max_iterations,
        max_eval=2 * max_iterations,
        tolerance_grad=GRADIENT,
        tolerance_change=0.0,
        history_size=30,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        value = loss(features @ W.T, labels).mean() + regularization / 2 * W.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(objective)  # type: ignore[no-untyped-call]
    return W.detach()
