"""What the commands that put attributions to use share: removal, brittleness, mislabel, and the sweep of removal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

Word = TypeVar("Word", bound=str)

if TYPE_CHECKING:
    from attriboard.evaluation.removal import Work
    from attriboard.records.model import Variant
    from attriboard.scoring.removal import Direction

AttributorNames = Annotated[
    list[str], typer.Argument(metavar="ATTRIBUTOR…", help="Names, or paths of .py files; any number.")
]
Seeds = Annotated[int, typer.Option("--seeds", help="Retrains of every subset.", min=1, max=1000)]
DirectionOption = Annotated[
    str, typer.Option("--direction", metavar="helpful|harmful", help="Which examples are removed.")
]
Balanced = Annotated[bool, typer.Option("--balanced", help="Remove the same share of every class.")]
Variants = Annotated[
    list[str] | None,
    typer.Option("--variant", metavar="default|selected|oracle", help="Repeatable; by default all three."),
]


def chosen_variants(given: Sequence[str] | None) -> "tuple[Variant, ...]":
    """Variants by name, in their usual order.

    Raises:
        InputError: an unknown one.
    """
    from attriboard.base.errors import InputError
    from attriboard.evaluation.variants import VARIANTS

    if unknown := sorted(set(given or ()) - set(VARIANTS)):
        raise InputError(f"--variant {', '.join(unknown)}: must be among {', '.join(VARIANTS)}")
    return tuple(variant for variant in VARIANTS if not given or variant in given)


def one_of(option: str, text: str, words: tuple[Word, ...]) -> Word:
    """The word of an option, as the type of its alternatives.

    Raises:
        InputError: another word.
    """
    from attriboard.base.errors import InputError

    for word in words:
        if text == word:
            return word
    raise InputError(f"{option} {text}: must be {' or '.join(words)}")


def checked_direction(text: str) -> "Direction":
    """`helpful` or `harmful`; see `one_of`."""
    from attriboard.scoring.removal import DIRECTIONS

    return one_of("--direction", text, DIRECTIONS)


def work_document(work: "Work") -> dict[str, Any]:
    """What retraining took, as JSON-able data."""
    return {"asked": work.asked, "done": work.done, "seconds": round(work.seconds, 3)}


def say_work(work: "Work") -> None:
    """Print what retraining took."""
    print(f"{work.asked} retrains asked for, {work.done} done in {work.seconds:.1f} s, the others came from the store")
