"""Examples as people look at them: images on a sheet, text with its tokens, tables as rows."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from attriboard.base.errors import AttriboardError, InputError
from attriboard.contracts.task import Examples, Task
from attriboard.evaluation.proponents import Proponents

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Form = Literal["image", "text", "row"]
MAX_VALUES = 12  # numbers of a row that are shown
_CHANNELS = (1, 3)


def form_of(task: Task, examples: Examples) -> Form:
    """What the inputs of a task are: images by shape or by the name of the raw array, whole numbers as tokens."""
    inputs = examples.inputs
    if "train_images" in task.card.data.sha256:
        return "image"
    if not inputs.is_floating_point():
        return "text" if inputs.dim() == 2 else "row"
    pixels = inputs.shape[1:]
    return "image" if len(pixels) == 2 or (len(pixels) == 3 and pixels[0] in _CHANNELS) else "row"


def written(task: Task, example: Any, form: Form) -> str:
    """An example's inputs in words.

    Args:
        task: whose example it is.
        example: inputs of one example.
        form: what they are.
    """
    if form == "text":
        try:
            text = task.text(example)
        except AttriboardError:  # without a tokenizer the numbers are still there
            text = None
        return text if text is not None else " ".join(str(token) for token in example.tolist())
    if form == "image":
        return f"image {' × '.join(map(str, example.shape))}"
    values = example.double().flatten().tolist()
    return ", ".join(f"{value:.4g}" for value in values[:MAX_VALUES]) + (", …" if len(values) > MAX_VALUES else "")


def label_of(examples: Examples, position: int) -> str:
    """An example's label in words; of several numbers, nothing."""
    label = examples.targets[position]
    return "" if label.numel() != 1 else f"{float(label):g}"


def rows(task: Task, found: Proponents) -> list[dict[str, Any]]:
    """The test examples, then the helpful and the harmful training examples, one row each.

    Returns:
        Rows with `side` (test, helpful, harmful), `example` (position), `score`, `label`, `inputs` in words.
    """
    data = task.load_data()
    form = form_of(task, data.train)
    listed: list[tuple[str, Examples, int, float | None]] = [
        *(("test", data.test, at, None) for at in found.tests),
        *(("helpful", data.train, at, s) for at, s in zip(found.helpful, found.helpful_scores, strict=True)),
        *(("harmful", data.train, at, s) for at, s in zip(found.harmful, found.harmful_scores, strict=True)),
    ]
    return [
        {
            "side": side,
            "example": at,
            "score": score,
            "label": label_of(examples, at),
            "inputs": written(task, examples.inputs[at], form),
        }
        for side, examples, at, score in listed
    ]


def contact_sheet(task: Task, found: Proponents) -> "Figure":
    """The test example, the most helpful and the most harmful training examples as pictures.

    Raises:
        InputError: the task's inputs are no images.
    """
    from matplotlib.figure import Figure

    data = task.load_data()
    if form_of(task, data.train) != "image":
        raise InputError(f"task {task.card.name}: its inputs are no images, so there is no contact sheet")
    k = len(found.helpful)
    lines: list[tuple[str, Examples, Sequence[int], Sequence[float | None]]] = [
        ("test", data.test, found.tests[:k], [None] * k),
        ("helpful", data.train, found.helpful, found.helpful_scores),
        ("harmful", data.train, found.harmful, found.harmful_scores),
    ]
    figure = Figure(figsize=(1.1 * k + 0.9, 4.2), layout="constrained")
    axes = figure.subplots(3, k, squeeze=False)
    for line, (name, examples, positions, scores) in zip(axes, lines, strict=True):
        for axis in line:
            axis.axis("off")
        line[0].text(-0.25, 0.5, name, transform=line[0].transAxes, rotation=90, va="center", ha="right")
        for axis, position, score in zip(line, positions, scores, strict=False):
            axis.imshow(pixels(examples.inputs[position].numpy()), cmap="gray")
            label = label_of(examples, position)
            shown = f"{position}" + f", label {label}" * bool(label) + ("" if score is None else f"\n{score:+.2g}")
            axis.set_title(shown, fontsize=7)
    settings = ", ".join(
        f"{name} = {value:.3g}" if isinstance(value, float) else f"{name} = {value}"
        for name, value in found.hyperparameters.items()
        if value is not None
    )
    figure.suptitle(f"{found.method} on {task.card.name}" + (f", {settings}" if settings else ""), fontsize=8)
    return figure


def pixels(image: NDArray[Any]) -> NDArray[np.float64]:
    """An image between 0 and 1, (height, width) or (height, width, 3); flat ones are square.

    Raises:
        InputError: a flat image that is not square.
    """
    if image.ndim == 1:
        side = round(len(image) ** 0.5)
        if side * side != len(image):
            raise InputError(f"images of {len(image)} values are not square; give them as (n, height, width)")
        image = image.reshape(side, side)
    if image.ndim == 3:
        image = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    low, high = float(image.min()), float(image.max())
    return (image.astype(np.float64) - low) / (high - low or 1.0)
