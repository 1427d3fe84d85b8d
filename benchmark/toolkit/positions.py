"""Scores of positions: how much each token of a training example contributes to the example's score.

Where a method's score is linear in the training gradient, τ(z', i) = −⟨∇L(z_i), v⟩ with a direction v of the test
point, it falls apart as the gradient does. The gradient of a layer is a sum over positions, ∇W_i = Σ_t δ_it a_itᵀ (see
`attriboard.toolkit.terms`), so

    τ_t(z', i) = −Σ_layers ⟨δ_it a_itᵀ, V_layer⟩    and    Σ_t τ_t(z', i) = τ(z', i)

τ_t is what passes through the model at token t: what is read there, and what the losses of this and later tokens ask of
it. The same split is used for token-wise influence by Grosse et al., "Studying Large Language Model Generalization with
Influence Functions" (2023), arXiv 2308.03296, section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.context import BatchFunction, Checkpoint, Context
from attriboard.contracts.task import Examples
from attriboard.toolkit.factored import FactoredGradients, factors_of, layer_parameters
from attriboard.toolkit.gradients import attributed_shapes, by_parameter
from attriboard.toolkit.memory import affordable_rows
from attriboard.toolkit.placed import FunctionalModel, values

Direction = tuple[Checkpoint, Tensor]
"""A checkpoint, and v (n_params,) in the order of `Context.attributed`."""

_NUMBERS = 2**26
"""That the activations of a chunk may count."""


def position_scores(context: Context, directions: Sequence[Direction], examples: Examples) -> Tensor:
    """τ_t of examples that are sequences, summed over checkpoints.

    Args:
        context: the model and its loss.
        directions: v of each checkpoint.
        examples: n of them, inputs (n, length).

    Returns:
        (n, length), float64; its sums over positions are the scores of the examples.

    Raises:
        NotApplicableError: examples are no sequences, or a layer does not work position by position.
    """
    if examples.inputs.dim() != 2:
        raise NotApplicableError(
            f"inputs of shape {tuple(examples.inputs.shape[1:])} are no sequences of tokens, (length,)"
        )
    total = torch.zeros(examples.inputs.shape, dtype=torch.float64, device=context.device)
    for checkpoint, vector in directions:
        made = FactoredGradients(context, checkpoint, context.loss)
        made.check()
        along = by_parameter(vector, attributed_shapes(context))
        names = {layer: list(own) for layer, own in layer_parameters(context).items()}
        start = 0
        for chunk in made.blocks(examples):
            rows = slice(start, start := start + len(chunk[0]))
            for layer in chunk:
                for name, part in zip(names[layer.name], layer.parts, strict=True):
                    for term in part.terms:
                        total[rows] -= _of_length(term.along(along[name]), total.shape[1], layer.name)
    return total


def _of_length(found: Tensor, length: int, layer: str) -> Tensor:
    """What a term gives at each position, (n, length); nothing of a term that is zero.

    Raises:
        NotApplicableError: it has other positions.
    """
    if found.shape[1] == length:
        return found.double()
    if bool((found == 0).all()):
        return found.new_zeros(len(found), length, dtype=torch.float64)
    raise NotApplicableError(
        f"layer {layer!r} works on {found.shape[1]} positions of a sequence of {length}, so no token has a part of its "
        "gradient; scores of tokens are for language models"
    )


def weighted_gradient(
    context: Context, checkpoint: Checkpoint, function: BatchFunction, examples: Examples, weights: Tensor
) -> Tensor:
    """Σ_i w_i ∇φ(z_i), (n_params,) float64 in the order of `Context.attributed`.

    Args:
        context: the model.
        checkpoint: the parameters.
        function: φ of (outputs, targets) → (n,).
        examples: n of them.
        weights: w (n,).
    """
    factors = factors_of(context, checkpoint, function)
    model = FunctionalModel(context, checkpoint, factors.dtype)
    parameters = {name: value.requires_grad_() for name, value in model.parameters.items()}
    total = [torch.zeros(value.shape, dtype=torch.float64, device=context.device) for value in parameters.values()]
    rows = affordable_rows(model, examples.inputs[:1], _NUMBERS)
    for start in range(0, len(examples), rows):
        some = examples[start : start + rows]
        found = values(function, model(some.inputs, parameters), some.targets, factors.precision)
        weighted = (found * weights[start : start + rows].to(found)).sum()
        gradients = torch.autograd.grad(weighted, list(parameters.values()), allow_unused=True)
        for one, gradient in zip(total, gradients, strict=True):
            if gradient is not None:
                one += gradient
    return torch.cat([one.flatten() for one in total])


def mean_target_gradient(context: Context, checkpoint: Checkpoint, tests: Sequence[int]) -> Tensor:
    """g', the mean of ∇f over some test points, (n_params,) float64."""
    chosen = context.test[torch.tensor(list(tests), device=context.device)]
    return weighted_gradient(context, checkpoint, context.target, chosen, torch.full((len(tests),), 1 / len(tests)))
