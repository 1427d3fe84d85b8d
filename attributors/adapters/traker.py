"""traker's TRAK, as its users run it (traker 0.3.2; Park et al., ICML 2023, arXiv 2303.14186).

The library gets the task's model, checkpoints, margin and f, and computes; nothing of ours touches its numerics. Its
scores have our sign. What is translated: the axes, and λ. Its Gram matrix is ΦᵀΦ, not divided by n, of gradients that
are divided by √n_params and projected by a matrix of entries with variance one, which multiplies squares by d_proj:

    its lambda_reg = λ · n_train · d_proj / n_params,   without a projection λ · n_train / n_params

It divides every checkpoint's inverse by its mean absolute entry: scores have no scale, and checkpoints are averaged
with these weights. Its features of training and test examples are gradients of one model output; here it is given the
margin for the former and f for the latter. Intermediate results go through files in a temporary folder.
"""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from attriboard.attributors.adapters import require_whole_model
from attriboard.contracts.attributor import BatchFunction, Context, Hyperparameter
from attriboard.contracts.task import Examples
from attriboard.toolkit import knobs
from attriboard.toolkit.averaging import FixedScores
from attriboard.toolkit.gradients import count_parameters

try:
    from trak import TRAKer
    from trak.modelout_functions import AbstractModelOutput
    from trak.projectors import NoOpProjector
except ImportError as error:
    raise ImportError(f"needs pip install 'attriboard[trak]' ({error})") from error

LIBRARY = "traker 0.3.2 TRAKer"
BATCH_BYTES = 1 << 28
"""Gradients of one batch; scores do not depend on it."""


class TrakerTRAK(FixedScores):
    """traker's TRAKer; every λ is a run of its own here."""

    name = "traker-trak"
    paper = "arXiv:2303.14186"
    family = "traker"
    hyperparameters = (
        Hyperparameter(
            "regularization",
            0.0,
            f"{LIBRARY}: lambda_reg=0.0",
            grid=knobs.REGULARIZATION_GRID,
            minimum=0.0,
            description="λ, absolute, added to the curvature normalized by 1/n",
        ),
        knobs.projection_dim(2048, f"{LIBRARY}: proj_dim=2048"),
        knobs.checkpoints(5, "arXiv 2303.14186 averages over independent models; five is what a task card offers"),
        knobs.epoch(),
        Hyperparameter(
            "half_precision",
            False,
            "float32; traker's own default is float16, which is meant for GPUs",
            grid=(False, True),
            description="whether features are float16",
        ),
    )

    def fit(
        self,
        context: Context,
        *,
        regularization: float,
        projection_dim: int | None,
        checkpoints: int,
        epoch: int | None,
        half_precision: bool,
    ) -> Tensor:
        """Featurise the training set, score the test set."""
        require_whole_model(context, "traker")
        models = context.select_checkpoints(checkpoints, epoch=epoch, data="half")
        n_params = count_parameters(context)
        rows = max(1, BATCH_BYTES // (4 * n_params))
        problem = Problem(context)
        with tempfile.TemporaryDirectory() as folder, torch.no_grad():
            traker = TRAKer(
                model=copy.deepcopy(context.model),
                task=problem,
                train_set_size=len(context.train),
                save_dir=folder,
                device=context.device,
                projector=NoOpProjector(device=context.device) if projection_dim is None else None,
                proj_dim=projection_dim or 0,
                projector_seed=context.seed % 2**31,
                use_half_precision=half_precision,
                lambda_reg=regularization * len(context.train) * (projection_dim or 1) / n_params,
                logging_level=logging.WARNING,
            )
            for number, model in enumerate(models):
                traker.load_checkpoint({**model.parameters, **model.buffers}, model_id=number)
                for batch in batches(context.train, rows):
                    traker.featurize(batch=batch, num_samples=len(batch[0]))
            traker.finalize_features()
            problem.output = context.target
            for number, model in enumerate(models):
                state = {**model.parameters, **model.buffers}
                traker.start_scoring_checkpoint("test", state, number, len(context.test))
                for batch in batches(context.test, rows):
                    traker.score(batch=batch, num_samples=len(batch[0]))
            scores = torch.from_numpy(traker.finalize_scores("test").copy())
        return scores.T.float().contiguous().to(context.device)


class Problem(AbstractModelOutput):  # type: ignore[misc]  # traker is untyped
    """The task as traker sees it: a model output to take gradients of, and 1 − p."""

    output: BatchFunction

    def __init__(self, context: Context) -> None:
        self._margin = context.margin
        self.output = context.margin

    def get_output(
        self,
        model: torch.nn.Module,
        weights: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        inputs: Tensor,
        targets: Tensor,
    ) -> Tensor:
        """The output at one example, which comes without a batch axis."""
        outputs = torch.func.functional_call(model, (dict(weights), dict(buffers)), (inputs.unsqueeze(0),))
        return self.output(outputs, targets.unsqueeze(0)).squeeze(0)

    def get_out_to_loss_grad(
        self,
        model: torch.nn.Module,
        weights: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        batch: tuple[Tensor, Tensor],
    ) -> Tensor:
        """1 − p = 1/(1 + e^m) of a batch, (b, 1)."""
        inputs, targets = batch
        outputs = torch.func.functional_call(model, (dict(weights), dict(buffers)), (inputs,))
        return torch.sigmoid(-self._margin(outputs, targets)).unsqueeze(-1)


def batches(examples: Examples, rows: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The examples in their order."""
    for start in range(0, len(examples), rows):
        part = examples[start : start + rows]
        yield part.inputs, part.targets
