"""Ours and other libraries' attributors against dense float64 oracles on a small problem.

The problem is a network of 64-8-6-10 (644 parameters) trained on 300 of scikit-learn's digits, or on half of them, and
12 test examples: small enough to write out every matrix.
"""

import importlib.util
import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev
from torch.nn.functional import cross_entropy

from attriboard.attributors.adapters import dattri as adapter
from attriboard.checking.conformance import small_context
from attriboard.contracts.attributor import BatchFunction, Checkpoint, Context
from attriboard.contracts.task import Examples
from attriboard.evaluation.catalog import attributor_spec
from attriboard.toolkit.curvature import TrainingLoss
from attriboard.toolkit.gradients import per_example_gradients
from attriboard.toolkit.krylov import lanczos

N_TRAIN, N_TEST, STEPS = 300, 12, 300
CG = {"regularization": 0.2, "max_iterations": 12}
"""λ far above the size of the Hessian's most negative eigenvalue, and iterations enough."""

TOO_MANY = 50
"""CG iterations long after convergence."""

KRONFLUENCE = importlib.util.find_spec("kronfluence") is not None
TRAKER = importlib.util.find_spec("trak") is not None


def measure() -> dict[str, Any]:
    """Everything, as sections of named numbers."""
    warnings.simplefilter("ignore")  # other libraries' warnings are theirs
    context = toy()
    return {
        "ekfac": ekfac(context),
        "cg": conjugate_gradients(context),
        "trak": trak(context),
        "defaults": defaults(context),
    }


def toy() -> Context:
    """The problem: one model of all training examples, one of every second."""
    digits = load_digits()
    inputs, targets = torch.from_numpy(digits.data / 16).float(), torch.from_numpy(digits.target)
    train = Examples(inputs[:N_TRAIN], targets[:N_TRAIN])
    test = Examples(inputs[N_TRAIN : N_TRAIN + N_TEST], targets[N_TRAIN : N_TRAIN + N_TEST])
    halves = torch.arange(0, N_TRAIN, 2)
    checkpoints = (trained(train, None), trained(train[halves], halves))
    return replace(small_context(), train=train, test=test, checkpoints=checkpoints)


def trained(examples: Examples, indices: Tensor | None) -> Checkpoint:
    """A network after full-batch gradient descent."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(STEPS):
        optimizer.zero_grad()
        cross_entropy(model(examples.inputs), examples.targets).backward()
        optimizer.step()
    parameters = {name: value.detach().clone() for name, value in model.named_parameters()}
    return Checkpoint(parameters, STEPS, 0, indices)


def attribute(name: str, context: Context, **values: Any) -> Tensor:
    """Scores of a registered attributor, float64."""
    method = attributor_spec(name).load_attributor()
    configuration = method.configure(values)
    attributor = method()
    state = attributor.fit(context, **method.stage(configuration, "fit"))
    return attributor.score(state, **method.stage(configuration, "score")).double()


def correlation(one: Tensor, other: Tensor) -> float:
    """Pearson's, over all scores."""
    return float(torch.corrcoef(torch.stack([one.flatten().double(), other.flatten().double()]))[0, 1])


def dense(context: Context, function: BatchFunction, examples: Examples, data: str = "full") -> Tensor:
    """Gradients (n, n_params), float64, by reverse-mode differentiation of all outputs at once."""
    (model,) = context.select_checkpoints(1, data="half" if data == "half" else "full")
    network, shapes = _double(context), dict(model.parameters)
    parameters = {name: value.double() for name, value in shapes.items()}

    def values(parameters: dict[str, Tensor]) -> Tensor:
        return function(functional_call(network, parameters, (examples.inputs.double(),)), examples.targets)

    rows = jacrev(values)(parameters)
    return torch.cat([rows[name].flatten(1) for name, _ in context.model.named_parameters()], dim=1)


def dense_hessian(context: Context) -> Tensor:
    """Of the mean training loss, (n_params, n_params), float64."""
    (model,) = context.select_checkpoints(1)
    network = _double(context)
    named = [(name, value.shape) for name, value in context.model.named_parameters()]
    flat = torch.cat([model.parameters[name].double().flatten() for name, _ in named])

    def mean(flat: Tensor) -> Tensor:
        pieces = flat.split([shape.numel() for _, shape in named])
        parameters = {name: piece.view(shape) for (name, shape), piece in zip(named, pieces, strict=True)}
        outputs = functional_call(network, parameters, (context.train.inputs.double(),))
        return context.loss(outputs, context.train.targets).mean()

    return jacrev(grad(mean))(flat)  # type: ignore[no-any-return]


def ekfac(context: Context) -> dict[str, Any]:
    """EK-FAC's correlation with the influence that the exact empirical Fisher matrix gives."""
    G, g = dense(context, context.loss, context.train), dense(context, context.target, context.test)
    fisher, identity = G.T @ G / len(G), torch.eye(G.shape[1], dtype=G.dtype)
    found = {}
    for value in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1):
        exact = -g @ torch.linalg.solve(fisher + value * identity, G.T)
        ours = attribute("ekfac", context, damping=value, fisher="empirical")
        row = {
            "ours": correlation(ours, exact),
            "dattri": correlation(attribute("dattri:ekfac", context, damping=value), exact),
        }
        if KRONFLUENCE:
            theirs = attribute("kronfluence:ekfac", context, damping=value, fisher="empirical")
            row |= {"kronfluence": correlation(theirs, exact), "ours with kronfluence": correlation(ours, theirs)}
        found[f"{value:g}"] = row
    return found


def conjugate_gradients(context: Context) -> dict[str, Any]:
    """Scores of CG against the explicit Hessian, with the training set in one batch and in several."""
    G, g = dense(context, context.loss, context.train), dense(context, context.target, context.test)
    hessian = dense_hessian(context) + CG["regularization"] * torch.eye(G.shape[1], dtype=G.dtype)
    exact = -g @ torch.linalg.solve(hessian, G.T)
    found: dict[str, Any] = {}
    for rows in (N_TRAIN, 64, 16):
        ours = _cg_in_passes_of(rows, context)
        theirs = attribute("dattri:if_cg", context, **CG, cache_batch_size=rows)
        found[str(rows)] = {
            side: {
                "correlation": correlation(scores, exact),
                "size": float(scores.norm() / exact.norm()),
                "largest difference": float((scores - exact).abs().max() / exact.abs().max()),
            }
            for side, scores in (("ours", ours), ("dattri", theirs))
        }
    many = CG | {"max_iterations": TOO_MANY}
    found["not finite after many"] = {
        side: _outcome(lambda name=name: attribute(name, context, **many))
        for side, name in (("ours", "if_cg"), ("dattri", "dattri:if_cg"))
    }
    all_at_once = _cg_in_passes_of(N_TRAIN, context)
    found["ours between batch sizes"] = max(
        float((_cg_in_passes_of(rows, context) - all_at_once).abs().max() / all_at_once.abs().max())
        for rows in (16, 64)
    )
    return found


def trak(context: Context) -> dict[str, Any]:
    """TRAK of one half-data model without a projection, λ = .01, against the dense formula; sizes are compared too."""
    value = 1e-2
    G, g = (dense(context, context.margin, side, "half") for side in (context.train, context.test))
    (model,) = context.select_checkpoints(1, data="half")
    outputs = functional_call(context.model, dict(model.parameters), (context.train.inputs,))
    weights = torch.sigmoid(-context.margin(outputs, context.train.targets).double())
    gram = G.T @ G / len(G) + value * torch.eye(G.shape[1], dtype=G.dtype)
    exact = g @ torch.linalg.solve(gram, G.T) * weights
    values = {"regularization": value, "checkpoints": 1}
    runs = {
        "ours": ("trak", None),
        "ours, projected to 512": ("trak", 512),
        "dattri, projected to 512": ("dattri:trak", 512),
    }
    if TRAKER:
        runs |= {"traker": ("traker:trak", None), "traker, projected to 512": ("traker:trak", 512)}
    return {
        key: correlation(attribute(name, context, **values, projection_dim=dimension), exact)
        for key, (name, dimension) in runs.items()
    }


def defaults(context: Context) -> dict[str, Any]:
    """What defaults give: the fraction of scores that are NaN or infinite, or why there are none."""
    from dattri.algorithm import influence_function as theirs

    few = replace(context, test=context.test[:4])
    pairs: list[tuple[str, Callable[[], Tensor], str]] = [
        ("explicit", lambda: _dattri(theirs.IFAttributorExplicit, few), "if_explicit"),
        ("CG", lambda: _dattri(theirs.IFAttributorCG, few), "if_cg"),
        ("Arnoldi", lambda: _dattri(theirs.IFAttributorArnoldi, few), "if_arnoldi"),
        ("DataInf", lambda: _dattri(theirs.IFAttributorDataInf, few), "datainf"),
        ("EK-FAC", lambda: attribute("dattri:ekfac", few), "ekfac"),
        ("TRAK", lambda: attribute("dattri:trak", few, checkpoints=1), "trak"),
    ]
    return {
        name: {"dattri": _outcome(run), "ours": _outcome(lambda method=method: _ours(method, few))}
        for name, run, method in pairs
    }


def _ours(method: str, context: Context) -> Tensor:
    return attribute(method, context, **({"checkpoints": 1} if method == "trak" else {}))


def _cg_in_passes_of(rows: int, context: Context) -> Tensor:
    (model,) = context.select_checkpoints(1)
    loss = TrainingLoss(context, model, torch.float64, rows=rows)
    blocks = per_example_gradients(context, model, context.target, context.test)
    solution = lanczos(loss, torch.cat([block.double() for block in blocks]), int(CG["max_iterations"]))
    return solution.scores(CG["regularization"], 1e-7).double()


def _dattri(kind: Any, context: Context) -> Tensor:
    models = context.select_checkpoints(1)
    attributor = kind(task=adapter.task(adapter.copied(context), models, context.loss, context.target), device="cpu")
    attributor.cache(adapter.loader(context.train, N_TRAIN))
    with torch.no_grad():
        scores: Tensor = attributor.attribute(
            adapter.loader(context.train, N_TRAIN), adapter.loader(context.test, N_TRAIN)
        )
    return adapter.translated(-scores)


def _outcome(run: Callable[[], Tensor]) -> float | str:
    try:
        scores = run()
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
    return float((~torch.isfinite(scores)).float().mean())


def _double(context: Context) -> torch.nn.Module:
    import copy

    return copy.deepcopy(context.model).double()


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
