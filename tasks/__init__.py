"""Tasks: one YAML card each, dataset loaders, model definitions.

Five tables say what there is. Each maps a name to a reference, `module:attribute`, imported only when asked
for; a new task, data set, architecture or kind is one file and one row here.
"""

TASKS: dict[str, str] = {
    "digits_mlp": "attriboard.tasks.catalogue:digits_mlp",
    "digits_mlp_flipped": "attriboard.tasks.catalogue:digits_mlp_flipped",
    "mnist_lr": "attriboard.tasks.catalogue:mnist_lr",
    "mnist_mlp": "attriboard.tasks.catalogue:mnist_mlp",
    "mnist_mlp_flipped": "attriboard.tasks.catalogue:mnist_mlp_flipped",
    "cifar2_resnet9": "attriboard.tasks.catalogue:cifar2_resnet9",
    "cifar2_resnet9_mini": "attriboard.tasks.catalogue:cifar2_resnet9_mini",
    "wikitext2_gpt2": "attriboard.tasks.catalogue:wikitext2_gpt2",
    "wikitext2_gpt2_mini": "attriboard.tasks.catalogue:wikitext2_gpt2_mini",
    "wikitext2_gpt2_small": "attriboard.tasks.catalogue:wikitext2_gpt2_small",
}
"""Task name → factory without arguments; the card is the YAML file of that name in this folder."""

KINDS: dict[str, str] = {
    "classification": "attriboard.tasks.classification:ClassificationTask",
    "language_modeling": "attriboard.tasks.language_modeling:LanguageModelingTask",
    "regression": "attriboard.tasks.named:RegressionTask",
    "binary": "attriboard.tasks.named:BinaryTask",
    "multilabel": "attriboard.tasks.named:MultilabelTask",
}
"""`kind` of a card → class derived from `attriboard.contracts.task.Task`."""

DATASETS: dict[str, str] = {
    "cifar2": "attriboard.tasks.datasets.cifar2:Cifar2Loader",
    "digits": "attriboard.tasks.datasets.digits:DigitsLoader",
    "huggingface": "attriboard.tasks.datasets.columns:HuggingFaceLoader",
    "mnist": "attriboard.tasks.datasets.mnist:MnistLoader",
    "npz": "attriboard.tasks.datasets.columns:NpzLoader",
    "wikitext2": "attriboard.tasks.datasets.wikitext2:WikiText2Loader",
}
"""`data.dataset` of a card → class derived from `attriboard.tasks.datasets.sources.Loader`, or a `ColumnsLoader`."""

MODELS: dict[str, str] = {
    "gpt2": "attriboard.tasks.models.gpt2:gpt2",
    "mlp": "attriboard.tasks.models.mlp:mlp",
    "resnet9": "attriboard.tasks.models.resnet9:resnet9",
}
"""`model.architecture` of a card → function from `model.options` to a module; others are `module:function`."""

PRETRAINED: dict[str, str] = {
    "gpt2": "attriboard.tasks.models.gpt2:pretrained_gpt2",
}
"""Architectures that can start from a checkpoint → function that gives its parameters, or `None`; it takes
`model.options` and the card's folder."""
