"""Labels that a Fisher matrix is an expectation over: the training labels, or the model's own.

The true Fisher matrix is E_y[∇ℓ(y) ∇ℓ(y)ᵀ] with y drawn from the model and ℓ = −log p(y). For one label per example the
expectation over all classes is taken exactly. For a label at every position, as in language models, one is drawn for
each position, as in kronfluence; where the loss is a mean over m predictions, L = ℓ/m, the Fisher matrix of L's
curvature is m E[∇L ∇Lᵀ]: the weight of a draw. No label is drawn where the loss ignores it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Checkpoint, Context
from attriboard.contracts.task import Examples
from attriboard.toolkit.gradients import evaluate
from attriboard.toolkit.reference import runnable

IGNORED = -100
"""The label of an example that `cross_entropy` ignores."""


@dataclass(frozen=True)
class Draw:
    """Training examples with labels: a Fisher matrix is E_i Σ_draws `weights`_i ∇L ∇Lᵀ.

    Attributes:
        examples: n of them.
        weights: (n,), float64.
    """

    examples: Examples
    weights: Tensor


def labelled(context: Context, checkpoint: Checkpoint, *, own: bool) -> list[Draw]:
    """The draws of a Fisher matrix.

    Args:
        context: model, training examples, loss; the seed of drawn labels.
        checkpoint: the parameters.
        own: whether labels are the model's own; the training labels otherwise.

    Raises:
        NotApplicableError: the model's own are asked for, and the loss is no −log p of labels, or their mean.
    """
    targets = context.train.targets
    if not own:
        return [Draw(context.train, torch.ones(len(targets), dtype=torch.float64, device=targets.device))]
    if targets.is_floating_point() or targets.dim() > 2:
        raise NotApplicableError("fisher = true: targets must be classes; use fisher = empirical")
    return _every_class(context, checkpoint) if targets.dim() == 1 else [_drawn(context, checkpoint)]


def _every_class(context: Context, checkpoint: Checkpoint) -> list[Draw]:
    inputs, targets = context.train.inputs, context.train.targets
    n_classes = _outputs(context, checkpoint, inputs[:1]).shape[-1]
    ignored = targets == IGNORED
    candidates = [Examples(inputs, torch.full_like(targets, label)) for label in range(n_classes)]
    likelihoods = [torch.exp(-evaluate(context, checkpoint, context.loss, one).double()) for one in candidates]
    total = torch.stack(likelihoods).sum(0)
    if not torch.allclose(total, torch.ones_like(total), atol=1e-3):
        raise NotApplicableError("fisher = true: the loss must be −log p of the label; use fisher = empirical")
    weights = [likelihood.masked_fill(ignored, 0) for likelihood in likelihoods]
    return [Draw(one, weight) for one, weight in zip(candidates, weights, strict=True)]


def _drawn(context: Context, checkpoint: Checkpoint) -> Draw:
    """A label for each position that counts, from the outputs at it, or before it where the loss shifts them."""
    train = context.train
    shift, mean = _convention(context, checkpoint, train[:4])
    generator = torch.Generator().manual_seed(context.seed)
    labels = train.targets.clone()
    weights = torch.ones(len(train), dtype=torch.float64, device=labels.device)

    def draw(outputs: Tensor, rows: Tensor) -> Tensor:
        logits = outputs[:, : outputs.shape[1] - shift].double()
        uniform = torch.rand(logits.shape[:2], dtype=torch.float64, generator=generator).to(logits.device)
        cumulative = logits.softmax(-1).cumsum(-1)
        found = torch.searchsorted(cumulative, uniform[:, :, None]).squeeze(-1)
        found = found.clamp_max(logits.shape[-1] - 1).to(labels.dtype)
        counted = _counted(context, outputs, train.targets[rows])[:, : logits.shape[1]]
        labels[rows, shift:] = found.where(counted, train.targets[rows, shift:])
        if mean:
            weights[rows] = counted.sum(1).double()
        return outputs[:, 0, 0]

    numbered = Examples(train.inputs, torch.arange(len(train), device=train.targets.device))
    evaluate(context, checkpoint, draw, numbered)
    return Draw(Examples(train.inputs, labels), weights)


def _convention(context: Context, checkpoint: Checkpoint, few: Examples) -> tuple[int, bool]:
    """By how many positions the loss shifts outputs against targets, and whether it is a mean over those that count.

    Raises:
        NotApplicableError: it is neither a sum nor a mean of −log p.
    """
    outputs = _outputs(context, checkpoint, few.inputs)
    if outputs.dim() == 3 and outputs.shape[:2] == few.targets.shape:
        outputs = outputs.double()
        loss, counted = context.loss(outputs, few.targets), _counted(context, outputs, few.targets)
        for shift in (0, 1):
            logits, labels = outputs[:, : outputs.shape[1] - shift], few.targets[:, shift:]
            each = cross_entropy(logits.transpose(1, 2), labels.clamp_min(0), reduction="none")
            here = counted[:, : labels.shape[1]]
            for predictions in (torch.ones(len(few)), here.sum(1)):
                if torch.allclose((each * here).sum(1), predictions.to(loss) * loss, rtol=1e-5):
                    return shift, bool((predictions > 1).any())
    raise NotApplicableError(
        "fisher = true: the loss must be a sum or mean of −log p over positions; use fisher = empirical"
    )


@torch.enable_grad()
def _counted(context: Context, outputs: Tensor, targets: Tensor) -> Tensor:
    """Positions (n, T) whose outputs the loss looks at: not those with a label that it ignores."""
    leaves = outputs.detach().double().requires_grad_()
    (gradient,) = torch.autograd.grad(context.loss(leaves, targets).sum(), leaves)
    return gradient.ne(0).any(-1)


@torch.no_grad()
def _outputs(context: Context, checkpoint: Checkpoint, inputs: Tensor) -> Tensor:
    outputs: Tensor = runnable(context, checkpoint)(inputs)
    return outputs
