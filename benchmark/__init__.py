"""AttriBoard: a benchmark suite and leaderboard for training data attribution.

    import attriboard as ab

    task = ab.load_task("mnist_mlp")
    scores = ab.attribute(task, "iffim", regularization=1e-3)  # (n_test, n_train), positive = helpful
    result = ab.lds(scores, task)                              # result.mean, result.ci95

Importing this package loads nothing heavy; names are fetched when they are used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attriboard.api import attribute as attribute
    from attriboard.api import lds as lds
    from attriboard.api import load_ground_truth as load_ground_truth
    from attriboard.catalog import load_task as load_task
    from attriboard.contracts import Attributor as Attributor
    from attriboard.contracts import Context as Context
    from attriboard.contracts import Hyperparameter as Hyperparameter
    from attriboard.regularization import select_regularization as select_regularization

__version__ = "0.1.0"

_HOMES = {
    "Attributor": "attriboard.contracts",
    "Context": "attriboard.contracts",
    "Hyperparameter": "attriboard.contracts",
    "attribute": "attriboard.api",
    "lds": "attriboard.api",
    "load_ground_truth": "attriboard.api",
    "load_task": "attriboard.catalog",
    "select_regularization": "attriboard.regularization",
}

__all__ = [
    "Attributor",
    "Context",
    "Hyperparameter",
    "attribute",
    "lds",
    "load_ground_truth",
    "load_task",
    "select_regularization",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'attriboard' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
