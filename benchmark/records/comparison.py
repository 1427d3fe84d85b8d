"""Two records of the same evaluation, number by number."""

from collections.abc import Iterator
from dataclasses import dataclass

from attriboard.records.model import AttributionRecord


@dataclass(frozen=True)
class Disagreement:
    """One number of which two records say different things; of a vector, the entry that differs most."""

    name: str
    claimed: float | int | None
    found: float | int | None

    def __str__(self) -> str:
        return f"{self.name} = {self.claimed}: {self.found} was found"


def compare_numbers(claimed: AttributionRecord, found: AttributionRecord, tolerance: float) -> list[Disagreement]:
    """Numbers that differ by more than a tolerance; what only one of the two gives is not compared.

    Args:
        claimed: a record.
        found: another of the same task, ground truth and scores.
        tolerance: the largest difference that counts as none.
    """
    return [
        Disagreement(name, first, second)
        for name, first, second in _numbers(claimed, found)
        if (first is None) != (second is None)
        or (first is not None and second is not None and abs(first - second) > tolerance)
    ]


def _numbers(
    claimed: AttributionRecord, found: AttributionRecord
) -> Iterator[tuple[str, float | int | None, float | int | None]]:
    yield "ceiling", claimed.ceiling, found.ceiling
    if claimed.calibration is not None and found.calibration is not None:
        yield "calibration", claimed.calibration, found.calibration
    first, second = claimed.lds, found.lds
    if first is None or second is None:
        return
    for name in ("mean", "pearson", "n_degenerate", "n_scoring"):
        yield f"lds.{name}", getattr(first, name), getattr(second, name)
    for end in (0, 1):
        yield f"lds.ci95.{end}", first.ci95[end], second.ci95[end]
    for name in ("per_test", "mask_influence"):
        ours, theirs = getattr(first, name), getattr(second, name)
        if ours is not None and theirs is not None:
            if len(ours) != len(theirs):
                yield f"the length of lds.{name}", len(ours), len(theirs)
                continue
            worst = max(range(len(ours)), key=lambda i: abs(ours[i] - theirs[i]))
            yield f"lds.{name}.{worst}", ours[worst], theirs[worst]
