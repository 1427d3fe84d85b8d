"""The work that methods declare is a lower bound of what they do, and not far below it."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from dense import attribute
from runs import context_of
from tiny import TinyTask, tiny_card
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from attriboard.attributors.astra import ASTRA
from attriboard.attributors.dvemb import DVEmb
from attriboard.attributors.ekfac_cg import EKFACCG
from attriboard.attributors.magic import MAGIC
from attriboard.contracts.attributor import Attributor, Context
from attriboard.toolkit import effort
from attriboard.toolkit.effort import TooLongError, forward_operations, require_time

METHODS: dict[type[Attributor], dict[str, Any]] = {
    MAGIC: {},
    DVEmb: {},
    EKFACCG: {"regularization": 0.01, "max_iterations": 20, "tolerance": 0.0},
    ASTRA: {"max_iterations": 30, "learning_rate": 1e-3, "batch_size": 45},
}


def in_place(into: torch.Size, one: torch.Size, other: torch.Size, **others: Any) -> int:
    """Operations of a product that is added where it is wanted, which the counter leaves out."""
    return 2 * one[0] * one[1] * other[1]


class WideTask(TinyTask):
    """Large layers, beside whose products all else is small."""

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(5, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3))


@pytest.fixture(scope="module")
def context() -> Iterator[Context]:
    torch.set_default_dtype(torch.float64)
    yield context_of(WideTask(tiny_card()))
    torch.set_default_dtype(torch.float32)


def test_operations_of_a_forward_pass_are_two_for_each_weight(context: Context) -> None:
    assert forward_operations(context) == 2 * (5 * 40 + 40 * 40 + 40 * 3)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_declared_work_is_a_lower_bound_of_what_is_done(context: Context, method: type[Attributor]) -> None:
    values = METHODS[method]
    declared = sum((method().work_need(context, **method.configure(values)) or {}).values())
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: in_place}) as counter:
        attribute(method.name, replace(context), **values)
    assert 0.2 * counter.get_total_flops() < declared < counter.get_total_flops()


def test_what_fits_or_is_not_counted_may_begin_and_what_does_not_names_its_parts(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effort, "operations_per_second", lambda *args: 2e10)
    need = {"products": 3e12, "small": 1e6, "training": 1e11}
    for fitting, limit in ((None, 1.0), ({}, 1.0), (need, None), (need, 156.0)):
        require_time(fitting, context, limit)
    rule = (
        r"^needs at least 155 s \(products 3\.0e\+12 operations, training 1\.0e\+11 operations, "
        r"at 20·10⁹ a second\); the limit is 150 s$"
    )
    with pytest.raises(TooLongError, match=rule):
        require_time(need, context, 150)
