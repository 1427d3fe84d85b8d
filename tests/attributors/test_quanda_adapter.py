"""The adapter of quanda's explainers, with an explainer of its interface."""

from typing import Any

import torch
from dense import assert_rows_close, dense_gradients
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from attriboard.attributors.adapters.quanda import QuandaExplainer
from attriboard.contracts.attributor import Context


class GradientExplainer:
    """Inner products of gradients, by ordinary backward passes, as an explainer makes them."""

    def __init__(self, model: nn.Module, train_dataset: TensorDataset, context: Context) -> None:
        self.model, self.data, self.context = model, train_dataset, context

    def gradients(self, inputs: Tensor, targets: Tensor, function: Any) -> Tensor:
        rows = []
        for one, target in zip(inputs, targets, strict=True):
            value = function(self.model(one[None]), target[None]).sum()
            rows.append(torch.cat([g.flatten() for g in torch.autograd.grad(value, list(self.model.parameters()))]))
        return torch.stack(rows)

    def explain(self, test_data: Tensor, targets: Tensor) -> Tensor:
        train = self.gradients(*self.data.tensors, self.context.loss)
        return -self.gradients(test_data, targets, self.context.target) @ train.T


class Gradients(QuandaExplainer):
    """For tests."""

    name = "quanda_gradients"

    def explainer(self, model: nn.Module, dataset: TensorDataset, context: Context) -> GradientExplainer:
        return GradientExplainer(model, dataset, context)


def test_an_explainer_is_given_the_model_and_asked_for_all_test_points(double_context: Context) -> None:
    context, method = double_context, Gradients()
    scores = method.score(method.fit(context, **Gradients.configure({})))
    checkpoint = context.select_checkpoints()[0]
    G = dense_gradients(context, checkpoint, context.loss, context.train)
    g = dense_gradients(context, checkpoint, context.target, context.test)
    assert_rows_close(scores, -g @ G.T)
