"""What every registered attributor must do, whatever it computes."""

import copy
from dataclasses import fields, is_dataclass, replace

import pytest
import torch

from attriboard.attributors import ATTRIBUTORS
from attriboard.contracts import Attributor, Context, Examples, HyperparameterValue
from attriboard.errors import HyperparameterError
from attriboard.registry import Registry

REGISTRY: Registry[type[Attributor]] = Registry("attributor", ATTRIBUTORS, "attriboard.attributors")

# Its scores are drawn by position: they are no function of the examples.
BLIND_TO_EXAMPLES = {"random"}

# Where the published defaults take minutes.
QUICK: dict[str, dict[str, object]] = {"if_lissa": {"recursion_depth": 50}}

# Away from λ = 0, where the smallest kept eigenvalue amplifies rounding, and negative ones turn scores around; and
# without draws by position.
SETTINGS: dict[str, dict[str, object]] = {
    "if_explicit": {"regularization": 0.2},
    "if_lissa": {"batch_size": 60},
    "if_arnoldi": {"regularization": 1e-2},
    "ekfac": {"damping": 1e-4},
    "iffim": {"regularization": 1e-3},
    "trak": {"regularization": 1e-2, "projection_dim": None},
}


# Other libraries' attributors are what they are.
OURS = [name for name in ATTRIBUTORS if ":" not in name]


@pytest.fixture(params=OURS)
def method(request: pytest.FixtureRequest) -> type[Attributor]:
    return REGISTRY.load(request.param)


def configure(method: type[Attributor], **values: object) -> dict[str, HyperparameterValue]:
    return method.configure(QUICK.get(method.name, {}) | values)


def attribute(method: type[Attributor], context: Context, **values: object) -> torch.Tensor:
    configuration = configure(method, **values)
    attributor = method()
    state = attributor.fit(context, **method.stage(configuration, "fit"))
    return attributor.score(state, **method.stage(configuration, "score"))


def settled(method: type[Attributor], context: Context) -> torch.Tensor:
    return attribute(method, context, **SETTINGS.get(method.name, {}))


def test_name_is_the_tables_and_sources_are_given(method: type[Attributor]) -> None:
    assert ATTRIBUTORS[method.name].endswith(f":{method.__name__}")
    assert method.__doc__
    assert all(hp.source and hp.description for hp in method.hyperparameters)


def test_scores_have_the_contracts_shape_and_type_and_are_finite(method: type[Attributor], context: Context) -> None:
    scores = attribute(method, context)
    assert scores.shape == (len(context.test), len(context.train))
    assert scores.dtype == torch.float32
    assert torch.isfinite(scores).all()


def test_scores_repeat_under_one_seed(method: type[Attributor], context: Context) -> None:
    assert torch.equal(attribute(method, context), attribute(method, context))


def test_scoring_leaves_the_state_alone(method: type[Attributor], context: Context) -> None:
    configuration = configure(method)
    attributor = method()
    state = attributor.fit(context, **method.stage(configuration, "fit"))
    first = attributor.score(state, **method.stage(configuration, "score"))
    kept = first.clone()
    first.zero_()
    assert torch.equal(attributor.score(state, **method.stage(configuration, "score")), kept)


def test_context_is_not_changed(method: type[Attributor], context: Context) -> None:
    before = copy.deepcopy(context)
    attribute(method, context)
    assert same(before, context)
    assert all(not module._forward_hooks for module in context.model.modules())
    assert not any(value.requires_grad for c in context.checkpoints for value in c.parameters.values())


def test_unknown_hyperparameter_is_refused(method: type[Attributor]) -> None:
    with pytest.raises(HyperparameterError, match="no hyperparameter 'lambda'"):
        method.configure({"lambda": 1.0})


def test_every_default_and_grid_value_of_the_score_stage_gives_finite_scores(
    method: type[Attributor], context: Context
) -> None:
    attributor = method()
    state = attributor.fit(context, **method.stage(configure(method), "fit"))
    for hp in method.hyperparameters:
        if hp.stage == "score":
            for value in (hp.default, *hp.grid):
                values = method.stage(configure(method, **{hp.name: value}), "score")
                assert torch.isfinite(attributor.score(state, **values)).all(), (hp.name, value)


def test_permuting_training_examples_permutes_columns(method: type[Attributor], context: Context) -> None:
    if method.name in BLIND_TO_EXAMPLES:
        pytest.skip("its scores do not depend on the examples")
    order = torch.randperm(len(context.train), generator=torch.Generator().manual_seed(1))
    permuted = replace(context, train=context.train[order])
    expected = settled(method, context)[:, order]
    torch.testing.assert_close(settled(method, permuted), expected, rtol=1e-4, atol=scale(expected, 1e-5))


def test_permuting_test_examples_permutes_rows(method: type[Attributor], context: Context) -> None:
    if method.name in BLIND_TO_EXAMPLES:
        pytest.skip("its scores do not depend on the examples")
    order = torch.randperm(len(context.test), generator=torch.Generator().manual_seed(1))
    permuted = replace(context, test=context.test[order])
    expected = settled(method, context)[order]
    torch.testing.assert_close(settled(method, permuted), expected, rtol=1e-4, atol=scale(expected, 1e-5))


def test_scores_do_not_depend_on_the_number_of_threads(method: type[Attributor], context: Context) -> None:
    expected = settled(method, context)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        actual = settled(method, context)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=scale(expected, 1e-6))


def test_a_training_copy_of_a_test_point_helps_it(method: type[Attributor], context: Context) -> None:
    if method.name in BLIND_TO_EXAMPLES:
        pytest.skip("its scores do not depend on the examples")
    rows = torch.arange(len(context.test))
    twins = replace(context, test=Examples(context.train.inputs[rows], context.train.targets[rows]))
    scores = settled(method, twins)
    assert (scores[rows, rows] > 0).all()


def scale(scores: torch.Tensor, relative: float) -> float:
    return relative * float(scores.abs().max())


def same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, torch.nn.Module):
        assert isinstance(other, torch.nn.Module)
        return one.training == other.training and same(one.state_dict(), other.state_dict())
    if isinstance(one, dict):
        assert isinstance(other, dict)
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        assert isinstance(other, tuple)
        return len(one) == len(other) and all(map(same, one, other))
    if is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    return one is other or one == other
