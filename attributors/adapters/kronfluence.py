"""kronfluence's EK-FAC, as its users run it (kronfluence 1.0.1; Grosse et al., arXiv 2308.03296).

What is translated: the task, and the sign (its scores are ⟨∇L, (F̂ + λI)⁻¹ ∇f⟩, ours are minus that). Its
`damping_factor` is our λ: absolute, added to a curvature that is a mean over training examples; none is 0.1 × a layer's
mean eigenvalue. Labels of the true Fisher matrix are sampled, one per example, with the context's seed. Factors go
through files in a temporary folder that is removed afterwards.
"""

from __future__ import annotations

import copy
import tempfile
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from attriboard.attributors.adapters import require_whole_model
from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Context, Hyperparameter
from attriboard.contracts.task import Examples
from attriboard.toolkit import knobs
from attriboard.toolkit.averaging import FixedScores
from attriboard.toolkit.layerwise import layer_regularization

try:
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task
except ImportError as error:
    raise ImportError(f"needs pip install 'attriboard[kronfluence]' ({error})") from error

BATCH_SIZE = 500
"""Examples per batch; scores do not depend on it."""


class KronfluenceEKFAC(FixedScores):
    """kronfluence's Analyzer with strategy `ekfac`; every λ is a run of its own here."""

    name = "kronfluence-ekfac"
    paper = "arXiv:2308.03296"
    family = "kronfluence"
    hyperparameters = (
        layer_regularization(
            1e-8, "kronfluence 1.0.1 ScoreArguments: damping_factor=1e-8", stage="fit", aliases=("damping",)
        ),
        Hyperparameter(
            "fisher",
            "true",
            "kronfluence 1.0.1 FactorArguments: use_empirical_fisher=False",
            choices=("true", "empirical"),
            grid=("true", "empirical"),
            description="labels sampled from the model, or the training labels",
        ),
        knobs.epoch(),
    )

    def fit(self, context: Context, *, regularization: float | None, fisher: str, epoch: int | None) -> Tensor:
        """Fit factors, then scores of all pairs.

        Raises:
            NotApplicableError: targets are not one class per example.
        """
        require_whole_model(context, "kronfluence")
        if context.train.targets.dim() != 1 or context.train.targets.is_floating_point():
            raise NotApplicableError(
                "targets are not one class per example, and kronfluence does not see GPT-2's Conv1D layers; use ekfac"
            )
        (checkpoint,) = context.select_checkpoints(1, epoch=epoch)
        model = copy.deepcopy(context.model).requires_grad_(True)
        model.load_state_dict({**checkpoint.parameters, **checkpoint.buffers})
        problem = problem_of(context)
        train, test = dataset(context.train), dataset(context.test)
        with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
            torch.manual_seed(context.seed)
            analyzer = Analyzer(
                analysis_name="attriboard",
                model=prepare_model(model, problem),
                task=problem,
                cpu=context.device == "cpu",
                output_dir=folder,
                disable_tqdm=True,
            )
            analyzer.fit_all_factors(
                factors_name="factors",
                dataset=train,
                per_device_batch_size=BATCH_SIZE,
                factor_args=FactorArguments(strategy="ekfac", use_empirical_fisher=fisher == "empirical"),
            )
            analyzer.compute_pairwise_scores(
                scores_name="scores",
                factors_name="factors",
                query_dataset=test,
                train_dataset=train,
                per_device_query_batch_size=BATCH_SIZE,
                per_device_train_batch_size=BATCH_SIZE,
                score_args=ScoreArguments(damping_factor=regularization),
            )
            scores: Tensor = analyzer.load_pairwise_scores("scores")["all_modules"]
        return -scores.to(context.device, torch.float32)


def problem_of(context: Context) -> Any:
    """The task as kronfluence sees it: sums over a batch."""

    class Problem(Task):  # type: ignore[misc]  # kronfluence is untyped
        def compute_train_loss(self, batch: list[Tensor], model: nn.Module, sample: bool = False) -> Tensor:
            inputs, targets = batch
            outputs = model(inputs)
            if sample:
                targets = torch.multinomial(outputs.detach().softmax(1), 1).squeeze(1)
            return context.loss(outputs, targets).sum()

        def compute_measurement(self, batch: list[Tensor], model: nn.Module) -> Tensor:
            inputs, targets = batch
            return context.target(model(inputs), targets).sum()

    return Problem()


def dataset(examples: Examples) -> TensorDataset:
    """The examples in their order."""
    return TensorDataset(examples.inputs, examples.targets)
