"""A small real problem: the conformance suite's, digits and a network, also in float64."""

import copy
from dataclasses import replace

import pytest

from attriboard.checking.conformance import small_context
from attriboard.contracts.attributor import Context
from attriboard.contracts.task import Examples


@pytest.fixture(scope="session")
def context() -> Context:
    return small_context()


@pytest.fixture(scope="session")
def double_context(context: Context) -> Context:
    """The same in float64, one full-data and one half-data model: what dense oracles are compared with."""
    kept = [context.select_checkpoints(1, data=data)[0] for data in ("full", "half")]
    return replace(
        context,
        train=Examples(context.train.inputs.double(), context.train.targets),
        test=Examples(context.test.inputs.double(), context.test.targets),
        model=copy.deepcopy(context.model).double(),
        checkpoints=tuple(
            replace(c, parameters={name: value.double() for name, value in c.parameters.items()}) for c in kept
        ),
    )
