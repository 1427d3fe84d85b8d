"""Tasks: one YAML card each, dataset loaders, model definitions.

Four tables say what there is. Each maps a name to a reference, `module:attribute`, imported only when asked
for; a new task, data set, architecture or kind is one file and one row here.
"""

__all__ = ["DATASETS", "KINDS", "MODELS", "TASKS"]

TASKS: dict[str, str] = {
    "digits_mlp": "attriboard.tasks.catalogue:digits_mlp",
    "mnist_lr": "attriboard.tasks.catalogue:mnist_lr",
    "mnist_mlp": "attriboard.tasks.catalogue:mnist_mlp",
}
"""Task name → factory without arguments; the card is the YAML file of that name in this folder."""

KINDS: dict[str, str] = {
    "classification": "attriboard.tasks.classification:ClassificationTask",
}
"""`kind` of a card → class derived from `attriboard.contracts.Task`."""

DATASETS: dict[str, str] = {
    "digits": "attriboard.tasks.datasets.digits:DigitsLoader",
    "mnist": "attriboard.tasks.datasets.mnist:MnistLoader",
}
"""`data.dataset` of a card → class derived from `attriboard.tasks.datasets.sources.Loader`."""

MODELS: dict[str, str] = {
    "mlp": "attriboard.tasks.models.mlp:mlp",
}
"""`model.architecture` of a card → function from `model.options` to a module."""
