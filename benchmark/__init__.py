"""AttriBoard: a benchmark suite and leaderboard for training data attribution.

    import attriboard as ab

    task = ab.load_task("mnist_mlp")
    scores = ab.attribute(task, "iffim", regularization=1e-3)  # (n_test, n_train), positive = helpful
    result = ab.lds(scores, task)                              # result.mean, result.ci95

Importing this package loads nothing heavy; names are fetched when they are used.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from attriboard.base.version import VERSION

if TYPE_CHECKING:
    from attriboard.contracts.attributor import Attributor as Attributor
    from attriboard.contracts.card import Recipe as Recipe
    from attriboard.contracts.context import Context as Context
    from attriboard.contracts.hyperparameter import Hyperparameter as Hyperparameter
    from attriboard.evaluation.api import attribute as attribute
    from attriboard.evaluation.api import build_ground_truth as build_ground_truth
    from attriboard.evaluation.api import evaluate as evaluate
    from attriboard.evaluation.api import lds as lds
    from attriboard.evaluation.api import load_ground_truth as load_ground_truth
    from attriboard.evaluation.api import qld as qld
    from attriboard.evaluation.api import select as select
    from attriboard.evaluation.api import self_influence as self_influence
    from attriboard.evaluation.api import top as top
    from attriboard.evaluation.catalog import define_task as define_task
    from attriboard.evaluation.catalog import load_task as load_task
    from attriboard.toolkit.regularization import select_regularization as select_regularization

__version__ = VERSION

_HOMES = {
    "Attributor": "attriboard.contracts.attributor",
    "Context": "attriboard.contracts.context",
    "Hyperparameter": "attriboard.contracts.hyperparameter",
    "Recipe": "attriboard.contracts.card",
    "attribute": "attriboard.evaluation.api",
    "build_ground_truth": "attriboard.evaluation.api",
    "define_task": "attriboard.evaluation.catalog",
    "evaluate": "attriboard.evaluation.api",
    "lds": "attriboard.evaluation.api",
    "load_ground_truth": "attriboard.evaluation.api",
    "load_task": "attriboard.evaluation.catalog",
    "qld": "attriboard.evaluation.api",
    "select": "attriboard.evaluation.api",
    "select_regularization": "attriboard.toolkit.regularization",
    "self_influence": "attriboard.evaluation.api",
    "top": "attriboard.evaluation.api",
}

__all__ = [
    "Attributor",
    "Context",
    "Hyperparameter",
    "Recipe",
    "attribute",
    "build_ground_truth",
    "define_task",
    "evaluate",
    "lds",
    "load_ground_truth",
    "load_task",
    "qld",
    "select",
    "select_regularization",
    "self_influence",
    "top",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'attriboard' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def _alias(name: str, home: str) -> ModuleType:
    """A module under a short public name whose contents are another module's, which is imported when it is used."""
    module = ModuleType(f"{__name__}.{name}", f"See `{home}`.")
    module.__getattr__ = lambda attribute: getattr(import_module(home), attribute)  # type: ignore[method-assign]
    sys.modules[module.__name__] = module
    return module


errors = _alias("errors", "attriboard.base.errors")
cards = _alias("cards", "attriboard.contracts.card")
