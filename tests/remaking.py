"""What the tests of `python -m bench.records` share: two methods with records, and what makes them again."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leaderboard_records import make_record, make_removal

from attriboard.groundtruth.listing import BundleEntry
from attriboard.records.files import AnyRecord, write_record
from attriboard.records.model import AttributionRecord
from bench.code_digest import History
from bench.records import Remaking, parse
from bench.records_units import Unit, units

TASK = "digits_mlp"
TRUTH, CHECKPOINTS = "c0" * 32, "cd" * 32
HISTORY = History(Path(__file__).parent)
OLD, NEW = "2025-11-24T21:05:00Z", "2026-01-01T00:00:00Z"


def bundle(kind: str, sha256: str, **changes: Any) -> BundleEntry:
    fingerprint = make_record().task.fingerprint
    fields = {"task": TASK, "version": 1, "fingerprint": fingerprint, "kind": kind, "file": f"{kind}.safetensors"}
    return BundleEntry.model_validate(fields | {"sha256": sha256, "bytes": 9} | changes)


BUNDLES = {
    (TASK, "groundtruth", ""): bundle("groundtruth", TRUTH),
    (TASK, "checkpoints", ""): bundle("checkpoints", CHECKPOINTS),
}


def options(*arguments: str) -> argparse.Namespace:
    return parse(["make", *arguments])


def unit_of(*records: AnyRecord) -> Unit:
    (unit,) = units(records, {})
    return unit


def written(folder: Path) -> Path:
    """A folder with the records of two methods, one with a use of them."""
    for record in (
        make_record("grad_dot", 0.3, fit_seconds=5.0),
        make_record("iffim", 0.4, fit_seconds=50.0),
        make_removal("grad_dot"),
    ):
        write_record(record, folder)
    return folder


class Maker:
    """Makes every record again, later, with scores that moved by so much; stops when it has made some units."""

    def __init__(self, moved: float = 0.0, stop_after: int = 99) -> None:
        self.moved, self.left, self.made = moved, stop_after, list[str]()

    def __call__(self, unit: Unit) -> Sequence[AnyRecord]:
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.made.append(unit.name)
        return [self._again(record) for record in unit.records]

    def _again(self, record: AnyRecord) -> AnyRecord:
        if isinstance(record, AttributionRecord):
            assert record.lds is not None
            level = {"grad_dot": 0.3, "iffim": 0.4}[record.attributor.name] + self.moved
            task = {"task__name": record.task.name}
            return make_record(record.attributor.name, level, created=NEW, fit_seconds=record.fit_seconds, **task)
        return make_removal(record.attributor.name, created=NEW)


def remaking(results: Path, *arguments: str) -> Remaking:
    return Remaking(results, results.parent / "confirmed.json", BUNDLES, {TASK: 1.0}, options(*arguments))


def names(found: Remaking) -> list[str]:
    return [due.unit.name for due in found.due(found.units())]
