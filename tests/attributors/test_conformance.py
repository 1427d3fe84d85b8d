"""What every registered attributor must do, whatever it computes."""

import pytest

from attriboard.attribution.plugins import Registry
from attriboard.attributors import ATTRIBUTORS
from attriboard.checking.conformance import CHECKS, Check, Subject, small_context
from attriboard.contracts.attributor import Attributor

REGISTRY: Registry[type[Attributor]] = Registry("attributor", ATTRIBUTORS, "attriboard.attributors")

# Where the published defaults take minutes.
QUICK: dict[str, dict[str, object]] = {
    "if_lissa": {"recursion_depth": 12},
    "if_arnoldi": {"max_iterations": 15},
    "astra": {"max_iterations": 5},
    "rps": {"max_iterations": 200},
}

# Away from λ = 0, where the smallest kept eigenvalue amplifies rounding, and negative ones turn scores around; and
# without draws by position.
SETTINGS: dict[str, dict[str, object]] = {
    "if_explicit": {"regularization": 0.2},
    "if_lissa": {"batch_size": 60},
    "if_arnoldi": {"regularization": 1e-2},
    "ekfac": {"regularization": 1e-4},
    "astra": {"batch_size": 60},
    "iffim": {"regularization": 1e-3},
    "trak": {"regularization": 1e-2, "projection_dim": None},
    "dual_svm": {"regularization": 10.0},  # every example is a support vector
}

TEXT = {"bm25"}

# Other libraries' attributors are what they are.
OURS = [name for name in ATTRIBUTORS if ":" not in name]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.rule)
@pytest.mark.parametrize("name", OURS)
def test_attributor_conforms(name: str, check: Check) -> None:
    method = REGISTRY.load(name)
    problem = small_context(tokens=name in TEXT, ordered=method.order_sensitive)
    subject = Subject(method, problem, QUICK.get(name, {}), SETTINGS.get(name, {}))
    assert check.find(subject) is None


@pytest.mark.parametrize("name", OURS)
def test_name_is_the_tables_and_sources_are_given(name: str) -> None:
    method = REGISTRY.load(name)
    assert method.name == name
    assert ATTRIBUTORS[name].endswith(f":{method.__name__}")
    assert method.__doc__
    assert all(hp.source and hp.description for hp in method.hyperparameters)
