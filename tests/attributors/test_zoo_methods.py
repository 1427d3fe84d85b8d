"""Every method on every kind of model in the zoo: the number that its definition gives, or a refusal in a sentence."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from dense import REGISTRY, assert_rows_close, fitted
from torch import Tensor
from torch.nn.functional import normalize
from zoo import ROWS
from zoo_oracle import Oracle, context_of

from attriboard.attributors import ATTRIBUTORS
from attriboard.base.errors import NotApplicableError
from attriboard.contracts.attributor import Context
from attriboard.toolkit.factored import layer_parameters

BY_NAME = {row.name: row for row in ROWS}

KINDS = (
    "class weights", "RMSNorm", "PReLU", "a scalar parameter", "an unused layer", "generated weights",
    "weights in a plain list", "a frozen layer", "float32 inside", "a leading axis of one", "tokens first", "GRU",
    "grouped convolution", "tied embeddings", "DataParallel", "a dictionary of outputs", "GPT-2",
)  # fmt: skip

REFUSED = ("BatchNorm without running statistics", "noise in evaluation", "a mean over the batch",
           "one example less the mean of its batch")  # fmt: skip

OURS = [name for name in ATTRIBUTORS if ":" not in name]
BLIND = {"random", "input_similarity", "bm25"}  # look at no model
DRAWN = {"ekfac", "kfac", "shampoo", "ekfac_cg", "astra"}  # draw labels by position where they are many
FEW = {"bm25": 2, "rps": 2, "dual_svm": 2, "less": 0, "magic": 0, "source": 0, "dvemb": 0}
"""How many kinds some methods take; those with 0 need the training run, which the zoo does not have."""

λ, SCALING, DEPTH, STEPS = 0.3, 60.0, 3, 3

SETTINGS: dict[str, dict[str, object]] = {
    "if_explicit": {"regularization": λ},
    "if_cg": {"regularization": λ, "max_iterations": STEPS, "tolerance": 0.0},
    "if_lissa": {"regularization": λ, "batch_size": 9, "recursion_depth": DEPTH, "scaling": SCALING},
    "if_arnoldi": {"regularization": λ, "max_iterations": 4},
    "datainf": {"regularization": λ},
    "iffim": {"regularization": λ},
    "trak": {"regularization": λ, "checkpoints": 1, "checkpoint_data": "full", "projection_dim": None},
    "rps": {"max_iterations": 20},
    "dual_svm": {"max_iterations": 100},
    "ekfac_cg": {"regularization": λ},
    "astra": {"regularization": λ, "max_iterations": 10},
}


@cache
def problem(kind: str) -> Context:
    return context_of(BY_NAME[kind])


class Definitions:
    """Scores written out, with gradients and Hessian products of single examples; the zoo's f is minus the loss."""

    def __init__(self, kind: str) -> None:
        self.context = problem(kind)
        self.oracle = Oracle(self.context)
        self.G = self.oracle.gradients(self.context.train)
        self.g = -self.oracle.gradients(self.context.test)

    def grad_dot(self) -> Tensor:
        return -self.g @ self.G.T

    tracin = grad_dot

    def grad_cos(self) -> Tensor:
        return -normalize(self.g) @ normalize(self.G).T

    def loss_change(self) -> Tensor:
        train = self.context.train
        losses = torch.stack([self.oracle.loss(train[i : i + 1]).detach() for i in range(len(train))])
        return losses.expand(len(self.g), -1)

    def iffim(self) -> Tensor:
        n, n_params = self.G.shape
        F = self.G.T @ self.G / n + λ * torch.eye(n_params, dtype=torch.float64)
        return -self.g @ torch.linalg.solve(F, self.G.T)

    def trak(self) -> Tensor:
        losses = self.loss_change()[0].double()
        return self.iffim() * torch.sigmoid(losses)  # φ is f: both gradients change their sign, and that of τ stays

    def datainf(self) -> Tensor:
        total = torch.zeros(len(self.g), len(self.G), dtype=torch.float64)
        start = 0
        for shapes in layer_parameters(self.context).values():
            stop = start + sum(torch.Size(shape).numel() for shape in shapes.values())
            G, g = self.G[:, start:stop], self.g[:, start:stop]
            inverses = [torch.linalg.inv(torch.outer(row, row) + λ * torch.eye(len(row)).double()) for row in G]
            total -= g @ torch.stack(inverses).mean(0) @ G.T
            start = stop
        return total

    def curved(self, directions: Tensor) -> Tensor:
        """X (H + λI)."""
        return self.oracle.hessian_products(self.context.train, directions) + λ * directions

    def if_explicit(self) -> Tensor:
        H = self.curved(torch.eye(self.G.shape[1], dtype=torch.float64))
        return -self.g @ torch.linalg.solve((H + H.T) / 2, self.G.T)

    def if_cg(self) -> Tensor:
        """A few steps of conjugate gradients for one test point after another."""
        solutions = []
        for b in self.g:
            x, r = torch.zeros_like(b), b.clone()
            p = r.clone()
            for step in range(STEPS):
                curved = self.curved(p[None])[0]
                if p @ curved <= 0:
                    x = x if step else b
                    break
                length = (r @ r) / (p @ curved)
                x, following = x + length * p, r - length * curved
                p, r = following + (following @ following) / (r @ r) * p, following
            solutions.append(x)
        return -torch.stack(solutions) @ self.G.T

    def if_lissa(self) -> Tensor:
        v = self.g.clone()
        for _ in range(DEPTH):
            v = self.g + v - self.curved(v) / SCALING
        return -v / SCALING @ self.G.T


DEFINED = [name for name in vars(Definitions) if name in ATTRIBUTORS]


@pytest.mark.parametrize("kind", KINDS)
def test_methods_give_what_their_definitions_give_on_any_model(kind: str) -> None:
    """Second derivatives only of small models, where one example after the other takes no time."""
    definitions = Definitions(kind)
    for name in DEFINED:
        if name.startswith("if_") and definitions.G.shape[1] > (200 if name == "if_explicit" else 500):
            continue
        expected = getattr(definitions, name)()
        actual = fitted(name, definitions.context, **SETTINGS.get(name, {}))()
        # Scores are float32, and so are methods that do not promise more; a score near zero is a difference.
        assert_rows_close(actual, expected, 1e-4 if name.startswith("if_") else 1e-5)


def scores_or_refusal(name: str, context: Context) -> Tensor | str:
    try:
        return fitted(name, context, **SETTINGS.get(name, {}))()
    except NotApplicableError as error:
        return str(error)


@pytest.mark.parametrize("name", [name for name in OURS if name not in DEFINED])
def test_other_methods_score_any_model_or_say_what_they_need(name: str) -> None:
    """The same twice, and for examples in another order, as long as no noise is drawn by position."""
    scored = 0
    for kind in KINDS:
        context = problem(kind)
        order = torch.arange(len(context.train) - 1, -1, -1)
        scores = scores_or_refusal(name, context)
        if isinstance(scores, str):
            assert len(scores) > 20, kind
            assert "\n" not in scores, kind
            continue
        scored += 1
        assert scores.shape == (len(context.test), len(context.train))
        assert torch.isfinite(scores).all(), kind
        again = replace(context, train=context.train[order])
        if name not in ("random", "logra") and not (name in DRAWN and context.train.targets.dim() == 2):
            assert_rows_close(fitted(name, again, **SETTINGS.get(name, {}))()[:, order], scores, 1e-3)
    assert scored >= FEW.get(name, 9), scored


@pytest.mark.parametrize("kind", REFUSED)
def test_every_method_refuses_a_model_without_right_numbers(kind: str) -> None:
    for name in OURS:
        if name not in BLIND:
            attributor = REGISTRY.load(name)()
            values = attributor.configure(SETTINGS.get(name, {}))
            attributor.memory_need(problem(kind), **attributor.stage(values, "fit"))
            with pytest.raises(NotApplicableError):
                attributor.fit(problem(kind), **attributor.stage(values, "fit"))
