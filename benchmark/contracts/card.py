"""Task cards: everything that defines a task, as one validated YAML file.

A card's *fingerprint* is the SHA-256 of its canonical JSON. Fields that only describe (title, description,
license), the sizes of published artifacts (how many masks, how many checkpoints) and the ground truths beside the
usual one are left out of it: a corrected typo must not orphan a ground truth, and 200 masks extend 100. Fields at
their default are left out too, so that a field added to the schema later does not change the fingerprint of the cards
that do not use it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from attriboard.base.digests import digest
from attriboard.base.documents import parse_yaml, read_bounded
from attriboard.base.errors import CardError, FormatError, InputError
from attriboard.base.schema import TASK_NAME, Sha256, TaskName, in_words, matching
from attriboard.contracts.question import MILLION, Question

MAX_BYTES = 256 << 10  # of a card's file

Scalar = bool | int | float | str


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class DataSpec(_Spec):
    """Which examples a task has."""

    dataset: TaskName = Field(description="name of the dataset loader")
    n_train: int = Field(gt=1)
    n_test: int = Field(gt=1)
    options: dict[str, Scalar] = Field(default_factory=dict, description="arguments of the loader")
    sha256: dict[str, Sha256 | None] = Field(
        description="digest of each raw array's bytes (C order, little endian), whatever file it came from; null "
        "where the bytes were unavailable when the card was written, and the source's pinned revision is used instead"
    )


class ModelSpec(_Spec):
    """Which architecture is trained."""

    architecture: str = matching(
        rf"{TASK_NAME}|^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        "the name of an architecture, as in mlp, or a function of yours, as in my_package.networks:build",
        description="name of the model builder; or package.module:function of your own, beside the card or installed",
    )
    options: dict[str, Scalar | list[int]] = Field(default_factory=dict, description="arguments of the builder")

    @property
    def own(self) -> bool:
        """Whether a function of yours builds it, not one of AttriBoard's."""
        return ":" in self.architecture


class Recipe(_Spec):
    """How a model is trained; the loss is the task kind's own, averaged over each batch."""

    optimizer: Literal["sgd", "adamw", "none"] = Field(
        description="sgd: PyTorch's update, v ← μv + g, θ ← θ − ηv; adamw: PyTorch's, with β = (.9, .999), ε = 1e-8; "
        "none: the models were trained elsewhere, and nothing can be retrained"
    )
    learning_rate: float = Field(gt=0, description="the largest one, where a schedule or a warm-up changes it")
    momentum: float = Field(default=0.0, ge=0, lt=1, description="of sgd")
    weight_decay: float = Field(default=0.0, ge=0, description="added to the gradient by sgd, decoupled by adamw")
    epochs: int = Field(gt=0)
    batch_size: int = Field(gt=0, description="a short last batch is trained on, not dropped")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="how the learning rate falls after the warm-up, to 0 after the last step"
    )
    warmup: float = Field(
        default=0.0, ge=0, lt=1, description="fraction of the steps in which the learning rate rises linearly"
    )
    clip_norm: float | None = Field(
        default=None, gt=0, description="largest norm of the gradient of all parameters together; none: any"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="of products and convolutions in training (PyTorch's autocast); parameters, updates and outputs "
        "that are kept are float32 either way",
    )

    @model_validator(mode="after")
    def _momentum_is_sgds(self) -> "Recipe":
        if self.optimizer == "adamw" and self.momentum:
            raise ValueError(
                f"momentum = {self.momentum}: adamw has moments of its own; leave momentum out, or use sgd"
            )
        return self


UNTRAINED = Recipe(optimizer="none", learning_rate=1.0, epochs=1, batch_size=1)
"""The recipe of a task whose models were trained elsewhere."""


class SubsetSpec(_Spec):
    """The distribution of the training subsets: fixed size, uniform, without replacement."""

    fraction: float = Field(default=0.5, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)


class SplitSpec(_Spec):
    """The one split of the test points: selectors see calibration points, results are on scoring points."""

    calibration: float = Field(default=0.2, gt=0, lt=1, description="fraction of the test points")
    seed: int = Field(default=0, ge=0)


class GroundTruthSpec(_Spec):
    """The size of the published ground truth."""

    n_masks: int = Field(default=200, gt=2)
    n_repeats: int = Field(default=5, gt=0)


class CheckpointSpec(_Spec):
    """The models that attributors are given."""

    full: int = Field(default=5, gt=0, description="models trained on all training examples")
    half: int = Field(default=5, ge=0, description="models trained on random subsets of the task's fraction")
    epochs: list[int] = Field(min_length=1, description="epochs after which parameters are kept, ascending")
    stored: Literal["exact", "bfloat16"] = Field(
        default="exact",
        description="bfloat16: single-precision parameters are rounded, or, where training starts from pretrained "
        "ones, what it added to them is; the rounded model is the one that is attributed",
    )


class TaskCard(_Spec):
    """One task: data, model, training recipe, target function, evaluation protocol."""

    name: TaskName
    version: int = Field(default=1, gt=0)
    title: str
    description: str
    licence: str = Field(description="terms of the data")
    kind: Literal["classification", "language_modeling", "regression", "binary", "multilabel", "own"]
    target: Literal["margin", "negative_loss", "own"] = Field(
        description="the attributed function f of a test example; higher is better; own: a function of the task itself"
    )
    data: DataSpec
    model: ModelSpec
    recipe: Recipe
    subsets: SubsetSpec = SubsetSpec()
    split: SplitSpec = SplitSpec()
    ground_truth: GroundTruthSpec = GroundTruthSpec()
    checkpoints: CheckpointSpec
    questions: dict[str, GroundTruthSpec] = Field(
        default_factory=dict,
        description="ground truths beside the usual one, by the name of their question, as in 1pct-same",
    )

    @model_validator(mode="after")
    def _questions_can_be_asked(self) -> "TaskCard":
        for name, size in self.questions.items():
            try:
                question = Question.parse(name)
                self.check_size(question, size.n_masks, size.n_repeats)
            except InputError as error:
                raise ValueError(f"questions.{name}: {error}") from error
            if question == self.usual_question:
                raise ValueError(f"questions.{name}: is the usual ground truth already")
        return self

    @model_validator(mode="after")
    def _subsets_are_not_empty(self) -> "TaskCard":
        if self.subset_size < 1:
            raise ValueError(
                f"subsets.fraction = {self.subsets.fraction} of data.n_train = {self.data.n_train}: leaves no example"
            )
        return self

    @model_validator(mode="after")
    def _both_kinds_of_test_points_exist(self) -> "TaskCard":
        # The rounding is that of `attriboard.scoring.split`.
        n_calibration = round(self.split.calibration * self.data.n_test)
        if not 0 < n_calibration < self.data.n_test:
            kind = "scoring" if n_calibration else "calibration"
            raise ValueError(
                f"split.calibration = {self.split.calibration} of data.n_test = {self.data.n_test}: leaves no {kind} "
                "point; give more test points, or another fraction"
            )
        return self

    @model_validator(mode="after")
    def _checkpoint_epochs_exist(self) -> "TaskCard":
        epochs = self.checkpoints.epochs
        if epochs != sorted(set(epochs)) or epochs[0] < 1 or epochs[-1] != self.recipe.epochs:
            raise ValueError(
                f"checkpoints.epochs = {epochs}: must be ascending, start at 1 or later and end with the last "
                f"epoch, {self.recipe.epochs}"
            )
        return self

    @property
    def fingerprint(self) -> str:
        """SHA-256 over everything that influences a retrain or a score."""
        describing = {"title", "description", "licence", "ground_truth", "checkpoints", "questions"}
        return digest(self.model_dump(mode="json", exclude_defaults=True, exclude=describing))

    @property
    def target_output(self) -> tuple[str, int]:
        """Which measurement of a retrain the attributed function is, and its sign."""
        return {"margin": ("margin", 1), "negative_loss": ("loss", -1), "own": ("target", 1)}[self.target]

    @property
    def subset_size(self) -> int:
        """Number of training examples in each ground-truth subset."""
        return int(self.subsets.fraction * self.data.n_train)

    @property
    def usual_question(self) -> Question:
        """What the usual ground truth asks: random subsets of the card's fraction, fresh seeds."""
        return Question(round((1 - self.subsets.fraction) * MILLION), "fresh")

    def question(self, name: str | None) -> Question | None:
        """The question of a name; `None` for the usual one, by its name or without one.

        Raises:
            InputError: no such question.
        """
        question = Question.parse(name) if name else None
        return None if question == self.usual_question else question

    def asked(self, names: Sequence[str]) -> list[Question | None]:
        """Questions by name, each once; `all` are those that the card names; see `question`.

        Raises:
            InputError: no such question.
        """
        every = (None, *sorted(map(Question.parse, self.questions), key=lambda question: question.order))
        found = [q for name in names or ("",) for q in (every if name == "all" else (self.question(name),))]
        return list(dict.fromkeys(found))

    def size_of(self, question: Question | None) -> GroundTruthSpec:
        """How large the ground truth of a question is: as the card says, else 100 masks and the usual repeats."""
        if question is None:
            return self.ground_truth
        usual = GroundTruthSpec(
            n_masks=100 if question.removed_ppm else min(100, self.data.n_train),
            n_repeats=1 if question.same_seed else self.ground_truth.n_repeats,
        )
        return self.questions.get(question.name, usual)

    def check_size(self, question: Question, n_masks: int, n_repeats: int) -> None:
        """Check that a question can be asked so often.

        Raises:
            InputError: several repeats with the same seed, or more single examples than there are.
        """
        if question.same_seed and n_repeats != 1:
            raise InputError(
                f"repeats = {n_repeats} of {question.name}: the same seed and order give the same model each time; "
                "must be 1"
            )
        if question.removed_ppm == 0 and n_masks > self.data.n_train:
            raise InputError(
                f"masks = {n_masks} of {question.name}: there are {self.data.n_train} examples to leave out"
            )


def load_card(source: Path | str | dict[str, Any]) -> TaskCard:
    """Read and validate a card.

    Args:
        source: path of a YAML file, or the already parsed mapping.

    Raises:
        CardError: the file cannot be read, is no YAML mapping, or a field breaks a rule.
    """
    if isinstance(source, dict):
        origin, raw = "card", source
    else:
        origin = str(source)
        try:
            raw = parse_yaml(read_bounded(Path(source), MAX_BYTES, "a card"))
        except (FormatError, ValueError) as error:
            raise CardError(f"{origin}: not a readable YAML card: {str(error).removeprefix(f'{source}: ')}") from error
        if not isinstance(raw, dict):
            raise CardError(f"{origin}: a card is a YAML mapping, this is {type(raw).__name__}")
    try:
        return TaskCard.model_validate(raw)
    except ValidationError as error:
        raise CardError(f"{origin}: {in_words(error)}") from error
