"""quanda's explainers, as they are (quanda 0.5; Bareeva et al., arXiv 2410.07158): a base class for your own adapter.

An explainer is made of a model and a data set and has `explain(test_data, targets)` → (n, n_train). A subclass says
how it is made; the task's model with a checkpoint's parameters, its examples and where scores go are ours:

    class Similarity(QuandaExplainer):
        name = "quanda_similarity"

        def explainer(self, model, dataset, context):
            return CaptumSimilarity(model=model, train_dataset=dataset, …)

Nothing of quanda is imported here. Scores keep their sign: an explainer whose positive scores stand for harm must be
negated.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from attriboard.attributors.adapters import require_whole_model
from attriboard.contracts.attributor import Checkpoint, Context
from attriboard.toolkit import knobs
from attriboard.toolkit.averaging import MeanOfScores

ROWS = 64
"""Test points that are explained together."""


class Explainer(Protocol):
    """What quanda calls an explainer."""

    def explain(self, test_data: Tensor, targets: Tensor) -> Tensor:
        """Scores (n, n_train)."""


class QuandaExplainer(MeanOfScores):
    """An attributor that asks an explainer."""

    family = "library"
    hyperparameters = knobs.ONE_MODEL

    @abstractmethod
    def explainer(self, model: nn.Module, dataset: TensorDataset, context: Context) -> Explainer:
        """The explainer.

        Args:
            model: with a checkpoint's parameters, in evaluation mode.
            dataset: the training examples: (input, target) pairs.
            context: everything else.
        """

    def fit_one(self, context: Context, checkpoint: Checkpoint, stream: int, *args: Any, **values: Any) -> Tensor:
        """Explain all test points at one checkpoint."""
        require_whole_model(context, "quanda")
        model = copy.deepcopy(context.model)
        model.load_state_dict({**checkpoint.parameters, **checkpoint.buffers}, strict=False)
        model.requires_grad_(True)
        with torch.enable_grad():
            made = self.explainer(model.eval(), TensorDataset(context.train.inputs, context.train.targets), context)
            found = []
            for start in range(0, len(context.test), ROWS):
                few = context.test[start : start + ROWS]
                found.append(made.explain(few.inputs.clone(), few.targets.clone()).detach().to(context.device).float())
        return torch.cat(found)
