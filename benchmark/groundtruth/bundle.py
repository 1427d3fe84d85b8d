"""The ground-truth bundle: masks, seeds and per-repeat outputs of many retrains, as one checked file.

Tensors: `masks` (n_masks, ⌈n_train/8⌉) uint8, bit-packed, first example in the highest bit; `seeds`
(n_masks, n_repeats) int64; `outputs/<name>` (n_masks, n_repeats, n_test) float32, among them `loss` and
`margin`. Repeats are kept, never averaged: the noise ceiling is made of their spread. The card of a ground truth that
asks another question than the usual one names it; see `attriboard.contracts.question`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from attriboard.base.digests import digest_file
from attriboard.base.errors import FormatError, InputError
from attriboard.base.tensors import read_header
from attriboard.contracts.question import Question
from attriboard.groundtruth.plan import split_of
from attriboard.groundtruth.sealed import (
    REMEDY,
    Layout,
    SealedCard,
    check_layout,
    content_digest,
    read_sealed,
    write_sealed,
)
from attriboard.scoring.ceiling import Ceiling, noise_ceiling, noiseless_ceiling
from attriboard.scoring.split import Split

FORMAT = "attriboard-groundtruth/1"


class GroundTruthCard(SealedCard):
    """Card of a ground-truth bundle.

    Attributes:
        n_masks, n_repeats, n_test: its sizes.
        question: name of the question that it asks; empty for the usual one.
        first_mask, nonce: in some published bundles; always these values.
    """

    n_masks: int = Field(gt=0)
    n_repeats: int = Field(gt=0)
    n_test: int
    question: str = ""
    first_mask: Literal[0] = Field(0, exclude=True)
    nonce: Literal[""] = Field("", exclude=True)

    @field_validator("question")
    @classmethod
    def _is_one(cls, name: str) -> str:
        try:
            return Question.parse(name).name if name else ""
        except InputError as error:
            raise ValueError(str(error)) from error

    @model_serializer(mode="wrap")
    def _without_the_usual_question(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in dump(self).items() if name != "question" or value}


@dataclass(frozen=True, eq=False, repr=False)
class GroundTruth:
    """A ground truth in memory.

    Attributes:
        masks: (n_masks, n_train) bool, which training examples each retrain saw.
        seeds: (n_masks, n_repeats) int64.
        outputs: name → (n_masks, n_repeats, n_test) float32.
        card: provenance and the task's card.
        path: the file.
    """

    masks: NDArray[np.bool_]
    seeds: NDArray[np.int64]
    outputs: Mapping[str, NDArray[np.float32]]
    card: GroundTruthCard
    path: Path

    def __repr__(self) -> str:
        n_masks, n_repeats, n_test = self.target.shape
        task = self.card.task
        ceiling = "unknown" if self.ceiling.mean is None else f"{self.ceiling.mean:.3f}"
        asked = f", {self.question.title}" if self.question else ""
        return (
            f"<ground truth of {task.name}{asked}: {n_masks} masks × {n_repeats} repeats, "
            f"n_train = {self.masks.shape[1]}, n_test = {n_test}, outputs {', '.join(self.outputs)}, ceiling {ceiling}>"
        )

    @cached_property
    def ceiling(self) -> Ceiling:
        """Noise ceiling on the scoring points: the LDS that a perfect predictor would get.

        With the same seed there is no noise: a retrain repeats, and a perfect predictor gets 1.
        """
        outputs = self.target[:, :, self.scoring]
        return noiseless_ceiling(outputs) if self.question and self.question.same_seed else noise_ceiling(outputs)

    @property
    def question(self) -> Question | None:
        """What it asks; `None` for the usual question."""
        return Question.parse(self.card.question) if self.card.question else None

    @cached_property
    def split(self) -> Split:
        """Calibration and scoring points, from the task's card."""
        return split_of(self.card.task)

    @property
    def calibration(self) -> NDArray[np.int64]:
        """Test points that selectors and the oracle may see, ascending."""
        return self.split.calibration

    @property
    def scoring(self) -> NDArray[np.int64]:
        """Test points that every published number is on, ascending."""
        return self.split.scoring

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the file."""
        return digest_file(self.path)

    @property
    def target(self) -> NDArray[np.float32]:
        """The attributed function f of every retrain, (n_masks, n_repeats, n_test), higher is better."""
        name, sign = self.card.task.target_output
        return self.outputs[name] if sign > 0 else -self.outputs[name]


def write_ground_truth(
    path: Path,
    masks: NDArray[np.bool_],
    seeds: NDArray[np.int64],
    outputs: Mapping[str, NDArray[np.float32]],
    *,
    card_type: type[GroundTruthCard] = GroundTruthCard,
    form: str = FORMAT,
    mode: int = 0o644,
    **card: Any,
) -> None:
    """Write a bundle with the permissions `mode`; `card` has the fields of its card that the arrays do not give.

    A published one is replaced only where it is extended: more masks or repeats, and no row of it changes.
    """
    tensors: dict[str, NDArray[Any]] = {"masks": np.packbits(masks, axis=1), "seeds": seeds}
    tensors |= {f"outputs/{name}": array for name, array in outputs.items()}
    n_masks, n_repeats, n_test = next(iter(outputs.values())).shape
    sizes = {"n_masks": n_masks, "n_repeats": n_repeats, "n_test": n_test}
    sealed = card_type(format=form, content_sha256=content_digest(tensors), **sizes, **card)
    made = GroundTruth(masks, seeds, outputs, sealed, path)
    write_sealed(path, tensors, sealed, mode, lambda: _extends(made, card_type, form))


def _extends(made: GroundTruth, card_type: type[GroundTruthCard], form: str) -> bool:
    """Whether the file that is there has the first masks and repeats of the one that was made, and nothing else."""
    try:
        old = read_ground_truth(made.path, card_type, form)
    except FormatError:
        return False
    n, r = old.seeds.shape
    return (
        (old.card.fingerprint, old.card.question) == (made.card.fingerprint, made.card.question)
        and old.outputs.keys() == made.outputs.keys()
        and np.array_equal(made.masks[:n], old.masks)
        and np.array_equal(made.seeds[:n, :r], old.seeds)
        and all(np.array_equal(made.outputs[name][:n, :r], old.outputs[name]) for name in old.outputs)
    )


def read_sizes(path: Path) -> tuple[int, int]:
    """Masks and repeats of a bundle, from its header; nothing else is read or checked.

    Raises:
        FormatError: it has no readable header, or no seeds.
    """
    seeds = read_header(path).get("seeds")
    if seeds is None or len(seeds["shape"]) != 2:
        raise FormatError(f"{path}: not a ground-truth bundle: it has no seeds, (n_masks, n_repeats); {REMEDY}")
    n_masks, n_repeats = seeds["shape"]
    return n_masks, n_repeats


def read_ground_truth(
    path: Path, card_type: type[GroundTruthCard] = GroundTruthCard, form: str = FORMAT
) -> GroundTruth:
    """Read and check a bundle; of another kind than the published ones by its card's type and format.

    Raises:
        FormatError: missing, torn, altered, or arrays that do not fit its card.
    """
    tensors, card = read_sealed(path, card_type, form)
    data = card.task.data
    if card.n_test != data.n_test:
        raise FormatError(f"{path}: {card.n_test} test points, its task card says {data.n_test}; {REMEDY}")
    shape = (card.n_masks, card.n_repeats, card.n_test)
    outputs = {name for name in tensors if name.startswith("outputs/")} | {"outputs/loss", "outputs/margin"}
    expected: dict[str, Layout] = {
        "masks": ((card.n_masks, -(-data.n_train // 8)), "uint8"),
        "seeds": (shape[:2], "int64"),
        **dict.fromkeys(outputs, (shape, "float32")),
    }
    check_layout(path, tensors, expected)
    for name in sorted(outputs):
        if not np.isfinite(tensors[name]).all():
            raise FormatError(
                f"{path}: {name} has NaN or infinity; a retrain diverged or the file was altered: {REMEDY}"
            )
    masks = np.unpackbits(tensors["masks"], axis=1, count=data.n_train).astype(bool)
    arrays = {name.removeprefix("outputs/"): tensors[name] for name in sorted(outputs)}
    return GroundTruth(masks, tensors["seeds"], arrays, card, path)
