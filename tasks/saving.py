"""Defined tasks in a folder, from which another process makes them: functions by name, tensors as safetensors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from attriboard.base.errors import InputError
from attriboard.contracts.card import TaskCard
from attriboard.contracts.task import Dataset, Examples
from attriboard.tasks.fitting import N_PROBED, CopiesOf
from attriboard.tasks.losses import LOSSES, NamedLoss
from attriboard.tasks.parts import Part

if TYPE_CHECKING:
    import torch

    PerExample = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

TOLERANCE = 1e-3  # relative to the largest value of a probe, see `attriboard.groundtruth.identity`


@dataclass(frozen=True, eq=False)
class Definition:
    """Everything that `define_task` was given, checked.

    Attributes:
        card: what it amounts to.
        build: makes a new model, or copies the trained one.
        data: training and test examples.
        loss: by name or as a function.
        target: the attributed function, where it is the task's own.
        trained: states of models that were trained elsewhere.
        vocabulary: token number → token.
    """

    card: TaskCard
    build: Callable[[], torch.nn.Module]
    data: Dataset
    loss: NamedLoss | PerExample
    target: PerExample | None
    trained: tuple[Mapping[str, torch.Tensor], ...]
    vocabulary: tuple[str, ...] = ()


class _Document(BaseModel):
    """What lies beside the tensors.

    Attributes:
        model, target: functions.
        loss: a function, or a name.
        n_trained: number of files of trained models.
        vocabulary: see `Definition`.
        path: where Python looks for modules.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Part
    loss: Part | str
    target: Part | None
    n_trained: int
    vocabulary: tuple[str, ...]
    path: tuple[str, ...]

    @property
    def parts(self) -> list[Part]:
        """The functions."""
        return [part for part in (self.model, self.loss, self.target) if isinstance(part, Part)]


def _document(definition: Definition) -> _Document:
    """The functions of a task by name.

    Raises:
        InputError: another process would not find one; the message says which and why.
    """
    loss = definition.loss
    if isinstance(definition.build, CopiesOf):
        raise InputError("model is an instance: give the function or class that builds it, and checkpoints=[model]")
    return _Document(
        model=Part.of("model", definition.build),
        loss=next(key for key, one in LOSSES.items() if one is loss)
        if isinstance(loss, NamedLoss)
        else Part.of("loss", loss),
        target=None if definition.target is None else Part.of("target", definition.target),
        n_trained=len(definition.trained),
        vocabulary=definition.vocabulary,
        path=tuple(str(Path(entry or ".").absolute()) for entry in sys.path),
    )


def write_definition(definition: Definition, folder: Path) -> tuple[Path, ...]:
    """Write a task into an empty folder, and try whether it comes back the same.

    Returns:
        Scripts and modules that define its functions.

    Raises:
        InputError: another process would not find a function, or the task does not come back the same.
    """
    from safetensors.torch import save_file

    document = _document(definition)
    data = definition.data
    save_file(
        {f"{side}_{name}": getattr(getattr(data, side), name).contiguous() for side, name in _TENSORS},
        folder / "examples.safetensors",
    )
    for number, state in enumerate(definition.trained):
        save_file({k: v.contiguous() for k, v in state.items()}, folder / f"trained-{number}.safetensors")
    probes = _probes(definition)
    # A model that is built differently each time cannot be compared; the engine says more about it.
    again = _probes(definition)
    if any(not _close(value, again[name]) for name, value in probes.items()):
        probes = {}
    save_file(probes, folder / "probes.safetensors")
    (folder / "task.json").write_text(document.model_dump_json(), encoding="utf-8")
    if any(part.script for part in document.parts):
        read_definition(definition.card, folder)
    return tuple(file for part in document.parts if (file := part.file) is not None)


_TENSORS = [(side, name) for side in ("train", "test") for name in ("inputs", "targets")]


def read_definition(card: TaskCard, folder: Path) -> Definition:
    """The task that a folder has.

    Args:
        card: its card.
        folder: as `write_definition` left it.

    Raises:
        InputError: a function is not there, or does not compute what it did.
    """
    from safetensors.torch import load_file

    if not (folder / "task.json").is_file():
        raise InputError(
            f"task {card.name}: {folder} is not on this machine, or gone; for a cluster put the task into a file that "
            "its workers have"
        )
    document = _Document.model_validate_json((folder / "task.json").read_text(encoding="utf-8"))
    sys.path += [entry for entry in document.path if entry not in sys.path]
    tensors = load_file(folder / "examples.safetensors")
    sides = [Examples(*(tensors[f"{side}_{name}"] for name in ("inputs", "targets"))) for side in ("train", "test")]
    definition = Definition(
        card,
        document.model.load(),
        Dataset(sides[0], sides[1]),
        LOSSES[document.loss] if isinstance(document.loss, str) else document.loss.load(),
        None if document.target is None else document.target.load(),
        tuple(load_file(folder / f"trained-{number}.safetensors") for number in range(document.n_trained)),
        document.vocabulary,
    )
    known = load_file(folder / "probes.safetensors")
    try:
        found = _probes(definition) if known else {}
    except Exception as error:  # other people's code, perhaps without what it refers to
        raise InputError(
            f"task {card.name}: {document.model.name} raises {type(error).__name__} elsewhere: {error}; put model, "
            "loss and target into a module of their own"
        ) from error
    for name, value in known.items():
        if name not in found or not _close(value, found[name]):
            raise InputError(
                f"task {card.name}: its {name} differ in another process; put model, loss and target into a module of "
                "their own"
            )
    return definition


def _probes(definition: Definition) -> dict[str, torch.Tensor]:
    """Outputs of a newly built model, losses and targets on a few examples; PyTorch's generator is left as it is."""
    import torch

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        model = definition.build().eval()
        few = definition.data.train[:N_PROBED]
        outputs = model(few.inputs.clone())
        loss = definition.loss.loss if isinstance(definition.loss, NamedLoss) else definition.loss
        found = {"outputs": outputs, "losses": loss(outputs, few.targets)}
        if definition.target is not None:
            found["targets"] = definition.target(outputs, few.targets)
    return {name: value.detach().double().clone().contiguous() for name, value in found.items()}


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape:
        return False
    one, other = one.nan_to_num(), other.nan_to_num()
    largest = float(one.abs().max()) if one.numel() else 0.0
    return bool((one - other).abs().le(TOLERANCE * max(largest, 1e-12)).all())
