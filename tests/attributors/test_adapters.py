"""Other libraries' attributors through our door: signs, axes and λ are translated, and a missing library is said."""

import importlib.util
import sys
from dataclasses import replace

import pytest
import torch
from dense import assert_proportional, assert_rows_close, attribute, dense_gradients
from torch import Tensor

from attriboard.attributors import ATTRIBUTORS
from attriboard.base.errors import InputError, NotApplicableError
from attriboard.contracts.attributor import Context
from attriboard.contracts.task import Examples
from attriboard.evaluation.catalog import attributor_spec

pytestmark = pytest.mark.filterwarnings("default")  # other libraries' warnings are theirs

ADAPTERS = [name for name in ATTRIBUTORS if ":" in name]
MODULES = {"traker": "trak"}  # where a library's module is not called like the library; the extra is

dattri = pytest.mark.skipif(importlib.util.find_spec("dattri") is None, reason="dattri is not installed")
kronfluence = pytest.mark.skipif(importlib.util.find_spec("kronfluence") is None, reason="kronfluence is not installed")
traker = pytest.mark.skipif(importlib.util.find_spec("trak") is None, reason="traker is not installed")


def correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


@pytest.mark.parametrize("name", ADAPTERS)
def test_missing_library_is_named_with_the_way_to_install_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    library = name.partition(":")[0]
    imported = MODULES.get(library, library)
    for module in [m for m in sys.modules if m.partition(".")[0] == imported]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, imported, None)
    monkeypatch.delitem(sys.modules, f"attriboard.attributors.adapters.{library}", raising=False)
    with pytest.raises(InputError, match=rf"needs pip install 'attriboard\[{imported}\]'"):
        attributor_spec(name).load_attributor()


@pytest.mark.parametrize("name", ADAPTERS)
def test_record_name_is_the_name_with_a_hyphen(name: str) -> None:
    library = name.partition(":")[0]
    if importlib.util.find_spec(MODULES.get(library, library)) is None:
        pytest.skip("not installed")
    assert attributor_spec(name).load_attributor().name == name.replace(":", "-")


@dattri
def test_dattri_tracin_is_grad_dot_and_grad_cos_through_a_projection(context: Context) -> None:
    values = {"projection_dim": 8192, "batch_size": 25}
    assert correlation(attribute("dattri:tracin", context, **values), attribute("grad_dot", context)) > 0.99
    normalized = attribute("dattri:tracin", context, **values, normalize=True)
    assert correlation(normalized, attribute("grad_cos", context)) > 0.99


@dattri
def test_dattri_trak_means_the_same_by_lambda(context: Context) -> None:
    ours = attribute("trak", context, projection_dim=None, regularization=1e-1) / len(context.train)
    theirs = attribute("dattri:trak", context, projection_dim=1024, regularization=1e-1)
    assert correlation(theirs, ours) > 0.98
    assert float(theirs.norm() / ours.norm()) == pytest.approx(1, abs=0.1)


@dattri
def test_dattri_cg_is_the_explicit_hessian_with_one_cache_batch_only(context: Context) -> None:
    assert attributor_spec("dattri:if_cg").load_attributor().curvature == "hessian"
    values = {"regularization": 0.1, "max_iterations": 100}
    expected = attribute("if_explicit", context, regularization=0.1)
    assert_rows_close(attribute("dattri:if_cg", context, **values), expected, 1e-3)
    batches = attribute("dattri:if_cg", context, **values, cache_batch_size=16)
    assert float(batches.norm() / expected.norm()) > 3


@dattri
def test_dattri_ekfac_is_ours_where_curvature_does_not_matter_and_farther_from_the_fisher_elsewhere(
    context: Context,
) -> None:
    ours = attribute("ekfac", context, regularization=1e4, fisher="empirical")
    assert_proportional(attribute("dattri:ekfac", context, regularization=1e4), ours, 1e-3)
    exact = attribute("iffim", context, regularization=1e-2)
    ours = attribute("ekfac", context, regularization=1e-2, fisher="empirical")
    assert correlation(ours, exact) > correlation(attribute("dattri:ekfac", context, regularization=1e-2), exact) + 0.3


@kronfluence
@pytest.mark.parametrize("damping", [None, 1e-4, 1e-1])
def test_kronfluence_ekfac_is_ours(context: Context, damping: float | None) -> None:
    ours = attribute("ekfac", context, regularization=damping, fisher="empirical")
    assert_rows_close(attribute("kronfluence:ekfac", context, regularization=damping, fisher="empirical"), ours, 1e-4)


@kronfluence
def test_kronfluence_ekfac_refuses_a_label_at_every_position(context: Context) -> None:
    positions = Examples(context.train.inputs, context.train.targets[:, None])
    with pytest.raises(NotApplicableError, match=r"not one class per example.*use ekfac"):
        attribute("kronfluence:ekfac", replace(context, train=positions))


@traker
@pytest.mark.parametrize("regularization", [1e-2, 1.0])
def test_traker_without_a_projection_is_ours_and_the_dense_formula_up_to_scale(
    context: Context, regularization: float
) -> None:
    values = {"projection_dim": None, "regularization": regularization, "checkpoints": 1}
    theirs = attribute("traker:trak", context, **values)
    assert_proportional(theirs, attribute("trak", context, **values), 3e-3)
    (model,) = context.select_checkpoints(1, data="half")
    G, g = (dense_gradients(context, model, context.margin, e).double() for e in (context.train, context.test))
    gram = G.T @ G / len(G) + regularization * torch.eye(G.shape[1])
    margins = context.margin(
        torch.func.functional_call(context.model, dict(model.parameters), (context.train.inputs,)),
        context.train.targets,
    )
    exact = g @ torch.linalg.solve(gram, G.T) * torch.sigmoid(-margins.double())
    assert_proportional(theirs, exact, 3e-3)


@traker
def test_traker_means_the_same_by_lambda_through_its_projection(context: Context) -> None:
    ours = attribute("trak", context, projection_dim=None, regularization=1e-1, checkpoints=1)
    theirs = attribute("traker:trak", context, projection_dim=1024, regularization=1e-1, checkpoints=1)
    assert correlation(theirs, ours) > 0.98
    elsewhere = attribute("trak", context, projection_dim=None, regularization=1e-3, checkpoints=1)
    assert correlation(theirs, elsewhere) < correlation(theirs, ours) - 0.05


@traker
def test_traker_is_given_f_for_test_examples(context: Context) -> None:
    doubled = replace(context, target=lambda outputs, targets: 2 * context.margin(outputs, targets))
    values = {"projection_dim": None, "regularization": 1.0}
    expected = 2 * attribute("traker:trak", context, **values)
    assert_rows_close(attribute("traker:trak", doubled, **values), expected, 1e-5)


@dattri
@traker
@pytest.mark.parametrize("name", ["dattri:trak", "traker:trak"])
def test_a_library_that_attributes_everything_refuses_a_part(name: str, context: Context) -> None:
    first = next(n for n, _ in context.model.named_parameters())
    with pytest.raises(NotApplicableError, match=r"attributes every parameter, and \d+ of \d+ are left out"):
        attribute(name, replace(context, parameters=(first,)))
