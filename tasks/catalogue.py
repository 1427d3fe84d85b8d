"""From a card to a live task, and the factories of the published tasks.

A task is registered as a factory without arguments. Third parties do the same: an entry point in the group
`attriboard.tasks` refers to a function or a class that, called without arguments, gives a `Task`; for a card
of known kind, `partial(task_from_file, PATH)` is all of it.
"""

from functools import partial
from pathlib import Path

from attriboard.contracts.card import TaskCard, load_card
from attriboard.contracts.task import Task
from attriboard.tasks import KINDS
from attriboard.tasks.fields import resolve


def task_from_card(card: TaskCard, folder: Path | None = None) -> Task:
    """Bring a card to life; reads no data and builds no model yet.

    Args:
        card: the validated card.
        folder: what paths and modules in it are relative to.

    Raises:
        CardError: the card names an unknown data set or architecture, or options that the data set lacks.
    """
    kind = resolve("kind", card.kind, KINDS)
    task: Task = kind(card) if folder is None else kind(card, folder)
    return task


def task_from_file(path: Path) -> Task:
    """Bring a card file to life.

    Raises:
        CardError: the file is no valid card.
    """
    return task_from_card(load_card(path), Path(path).absolute().parent)


_HERE = Path(__file__).parent
cifar2_resnet9 = partial(task_from_file, _HERE / "cifar2_resnet9.yaml")
cifar2_resnet9_mini = partial(task_from_file, _HERE / "cifar2_resnet9_mini.yaml")
digits_mlp = partial(task_from_file, _HERE / "digits_mlp.yaml")
mnist_lr = partial(task_from_file, _HERE / "mnist_lr.yaml")
digits_mlp_flipped = partial(task_from_file, _HERE / "digits_mlp_flipped.yaml")
mnist_mlp_flipped = partial(task_from_file, _HERE / "mnist_mlp_flipped.yaml")
mnist_mlp = partial(task_from_file, _HERE / "mnist_mlp.yaml")
wikitext2_gpt2 = partial(task_from_file, _HERE / "wikitext2_gpt2.yaml")
wikitext2_gpt2_mini = partial(task_from_file, _HERE / "wikitext2_gpt2_mini.yaml")
wikitext2_gpt2_small = partial(task_from_file, _HERE / "wikitext2_gpt2_small.yaml")
