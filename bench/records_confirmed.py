"""What was made again with which code, in whole or in a sample: `leaderboard/confirmed.json`."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from attriboard.base.paths import write_atomically
from bench.records_units import Unit, scores_code, unit_code


@dataclass(frozen=True)
class Confirmation:
    """A unit was made again.

    Attributes:
        code: digest of the code that did it; see `bench.code_digest`.
        when: UTC.
        moved: when its scores last moved, so that new records superseded the old; none where they never did.
    """

    code: str
    when: str
    moved: str | None = None


@dataclass(frozen=True)
class Sample:
    """A few records of a unit were run again, and held.

    Attributes:
        code: digest of the code that scored them.
        when: UTC.
        records: how many.
    """

    code: str
    when: str
    records: int


class Confirmed:
    """`confirmed.json`: what was made again with which code. Every change is on disk at once.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Confirmation] = {}
        self._samples: dict[str, Sample] = {}
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        for name, fields in found.items():
            if sample := fields.pop("sample", None):
                self._samples[name] = Sample(**sample)
            if fields:
                self._known[name] = Confirmation(**fields)

    def get(self, name: str) -> Confirmation | None:
        """The last of a unit."""
        return self._known.get(name)

    def add(self, name: str, code: str, when: str, moved: bool) -> None:
        """A unit was made again; `moved`: its scores were others than before."""
        before = self.get(name)
        at = when if moved else before.moved if before else None
        self._known[name] = Confirmation(code, when, at)
        self._samples.pop(name, None)
        self._write()

    def sample(self, unit: Unit) -> Sample | None:
        """The records of a unit that held with today's code, where some were run again."""
        found = self._samples.get(unit.name)
        return found if found and found.code == scores_code(unit) else None

    def remade(self, unit: Unit) -> bool:
        """Whether a unit was made again with today's code."""
        known = self.get(unit.name)
        return known is not None and known.code == unit_code(unit)

    def holds(self, unit: Unit) -> bool:
        """Whether a unit was run again with today's code and held, in whole or in a sample."""
        return self.sample(unit) is not None or self.remade(unit)

    def add_sample(self, unit: Unit, when: str) -> None:
        """Some records of a unit, given as a unit, were run again and held."""
        self._samples[unit.name] = Sample(scores_code(unit), when, len(unit.records))
        self._write()

    def _write(self) -> None:
        data: dict[str, dict[str, object]] = {}
        for name in sorted({*self._known, *self._samples}):
            data[name] = asdict(self._known[name]) if name in self._known else {}
            if name in self._samples:
                data[name]["sample"] = asdict(self._samples[name])
        write_atomically(self._path, (json.dumps(data, indent=1) + "\n").encode())
