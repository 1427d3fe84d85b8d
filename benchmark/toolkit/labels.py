"""Labels that a Fisher matrix is an expectation over: the training labels, or the model's own.

The true Fisher matrix is E_y[∇ℓ(y) ∇ℓ(y)ᵀ] with y drawn from the model and ℓ = −log p(y). For one label per example the
expectation over all classes is taken exactly. For a label at every position, as in language models, one is drawn for
each position, as in kronfluence; where the loss is a mean over m predictions, L = ℓ/m, the Fisher matrix of L's
curvature is m E[∇L ∇Lᵀ]: the weight of a draw. No label is drawn where the loss ignores the position, nor one that the
loss ignores wherever it stands, which has no −log p.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from attriboard.base.errors import NotApplicableError
from attriboard.contracts.context import Checkpoint, Context
from attriboard.contracts.task import Examples
from attriboard.toolkit.placed import values
from attriboard.toolkit.running import accepted_precision, evaluate, outputs_of

REDRAWN = 8
"""How often labels that the loss ignores are drawn again, without them."""


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
    train = context.train
    outputs = outputs_of(context, checkpoint, train[:1])
    candidates = [Examples(train.inputs, torch.full_like(train.targets, label)) for label in range(outputs.shape[-1])]
    likelihoods = [torch.exp(-evaluate(context, checkpoint, context.loss, one).double()) for one in candidates]
    total = torch.stack(likelihoods).sum(0)
    if not torch.allclose(total, torch.ones_like(total), atol=1e-3):
        raise NotApplicableError("fisher = true: the loss must be −log p of the label; use fisher = empirical")
    ignored = ~_counted(context, outputs.expand(len(train), *outputs.shape[1:]), train.targets)
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
        given = train.targets[rows]
        counted = _counted(context, outputs, given)[:, : logits.shape[1]]
        labels[rows, shift:] = _sampled(logits, uniform).to(labels.dtype).where(counted, given[:, shift:])
        for _ in range(REDRAWN):
            ignored = counted & ~_counted(context, outputs, labels[rows])[:, : logits.shape[1]]
            if not bool(ignored.any()):
                break
            found = labels[rows, shift:]
            logits[..., found[ignored]] = -torch.inf
            labels[rows, shift:] = found.where(~ignored, _sampled(logits, uniform).to(found.dtype))
        else:
            raise NotApplicableError(
                "fisher = true: which positions the loss ignores depends on labels elsewhere; use fisher = empirical"
            )
        if mean:
            weights[rows] = counted.sum(1).double()
        return outputs[:, 0, 0]

    numbered = Examples(train.inputs, torch.arange(len(train), device=train.targets.device))
    evaluate(context, checkpoint, draw, numbered)
    return Draw(Examples(train.inputs, labels), weights)


def _sampled(logits: Tensor, uniform: Tensor) -> Tensor:
    """Labels (n, T) of softmax(logits), (n, T, V), by numbers in [0, 1)."""
    cumulative = logits.softmax(-1).cumsum(-1)
    last = logits.shape[-1] - 1 - logits.isfinite().flip(-1).int().argmax(-1)
    return torch.searchsorted(cumulative, uniform[:, :, None], right=True).squeeze(-1).minimum(last)


def _convention(context: Context, checkpoint: Checkpoint, few: Examples) -> tuple[int, bool]:
    """By how many positions the loss shifts outputs against targets, and whether it is a mean over those that count.

    Raises:
        NotApplicableError: it is neither a sum nor a mean of −log p.
    """
    outputs = outputs_of(context, checkpoint, few)
    if outputs.dim() == 3 and outputs.shape[:2] == few.targets.shape:
        # Any outputs tell, except those of a model that is certain, whose losses are all zero.
        generator = torch.Generator().manual_seed(0)
        outputs = torch.randn(outputs.shape, generator=generator).to(outputs)
        loss = values(context.loss, outputs, few.targets, accepted_precision(context.loss, outputs, few.targets))
        outputs, counted = outputs.double(), _counted(context, outputs, few.targets)
        for shift in (0, 1):
            logits, labels = outputs[:, : outputs.shape[1] - shift], few.targets[:, shift:]
            here = counted[:, : labels.shape[1]]
            labels = labels.clamp(0, logits.shape[-1] - 1)
            each = cross_entropy(logits.transpose(1, 2), labels, reduction="none")
            for predictions in (torch.ones(len(few)), here.sum(1)):
                if torch.allclose((each * here).sum(1).to(loss), predictions.to(loss) * loss, rtol=1e-5):
                    return shift, bool((predictions > 1).any())
    raise NotApplicableError(
        "fisher = true: the loss must be a sum or mean of −log p over positions; use fisher = empirical"
    )


@torch.enable_grad()
def _counted(context: Context, outputs: Tensor, targets: Tensor) -> Tensor:
    """Examples, or positions (n, T), whose outputs the loss looks at: not those with a label that it ignores.

    At outputs of zero, where all labels are equally likely: the gradient of a label that is certain vanishes too.
    """
    precision = accepted_precision(context.loss, outputs, targets)
    leaves = torch.zeros_like(outputs, dtype=precision).requires_grad_()
    (gradient,) = torch.autograd.grad(values(context.loss, leaves, targets, precision).sum(), leaves)
    return gradient.ne(0).any(-1)
