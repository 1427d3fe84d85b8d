"""What the commands that put attributions to use share: removal, brittleness, mislabel, and the sweep of removal."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from attriboard.cli.shell import progress_bar
from attriboard.cli.workbench import Workbench

Word = TypeVar("Word", bound=str)

if TYPE_CHECKING:
    from attriboard.attribution.job import Described, Job
    from attriboard.attribution.limits import Limits
    from attriboard.downstream.parts import Part
    from attriboard.downstream.removal import Work
    from attriboard.record_model import Variant
    from attriboard.scoring.removal import Direction
    from attriboard.selection import Study

__all__ = [
    "AttributorNames",
    "Balanced",
    "DirectionOption",
    "Seeds",
    "Variants",
    "checked_direction",
    "chosen_variants",
    "one_of",
    "say_work",
    "variant_parts",
    "work_document",
]

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


def variant_parts(
    workbench: Workbench,
    name: str,
    variants: "Sequence[Variant]",
    out: Path,
    *,
    bounds: "Limits",
    **options: Any,
) -> "tuple[Job, Described, list[Part]]":
    """An attributor's configurations for variants; a selection that had to be made is recorded.

    Args:
        workbench: the task.
        name: the attributor.
        variants: wanted ones.
        out: folder of records, which may know the selection, and gets it.
        bounds: of the attributor's process.
        options: see `Workbench.job`.
    """
    from attriboard.attribution.runner import describe_attributor
    from attriboard.catalog import load_oracle
    from attriboard.downstream.parts import choose_parts
    from attriboard.records import write_record

    job = workbench.job(name, [{}], selectors=("surrogate",), **options)
    described = describe_attributor(job)

    def keep(study: "Study") -> None:
        for record in study.all_records:
            write_record(record, out)

    with progress_bar(f"λ of {name}") as progress:
        parts = choose_parts(
            workbench.task,
            workbench.grader_if_any,
            job,
            described,
            variants,
            [*workbench.records(out), *workbench.published_records],
            load_oracle(),
            keep=keep,
            limits=bounds,
            progress=progress,
        )
    return job, described, parts


def chosen_variants(given: Sequence[str] | None) -> "tuple[Variant, ...]":
    """Variants by name, in their usual order.

    Raises:
        InputError: an unknown one.
    """
    from attriboard.downstream.parts import VARIANTS
    from attriboard.errors import InputError

    if unknown := sorted(set(given or ()) - set(VARIANTS)):
        raise InputError(f"--variant {', '.join(unknown)}: must be among {', '.join(VARIANTS)}")
    return tuple(variant for variant in VARIANTS if not given or variant in given)


def one_of(option: str, text: str, words: tuple[Word, ...]) -> Word:
    """The word of an option, as the type of its alternatives.

    Raises:
        InputError: another word.
    """
    from attriboard.errors import InputError

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
