"""The committed records, made again from the bundles, or a sample of them checked.

    python -m bench.records plan                             what is due, and hours of one core; makes nothing
    python -m bench.records make --hours 1                   the certain first, then the cheapest; stops in time
    python -m bench.records make --task digits_mlp --method iffim --before 2026-12-01T00:00:00Z
    python -m bench.records make --sample 3                  run so many records of each unit again, and make none
    python -m bench.records check --sample 12                run a random sample of all again and compare

`make` runs a unit again (see `bench.records_units`) and compares. Where its numbers hold, the records stay, and
`leaderboard/confirmed.json` says with which code they did; where they moved, new records supersede them on the board,
and the old ones stay readable. It resumes: what is done is not due any more. `make --sample` takes a fraction of the
time: where a unit's sample holds, the file says so and the unit comes last, or is no longer due where all its records
were in the sample; where it moved, all of it is worth making. The cheapest unit of each method is sampled first: what
holds there speaks for the method's code elsewhere, and the plan says so.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from attriboard.base.errors import AttriboardError, InputError
from attriboard.base.paths import leaderboard_folder
from attriboard.groundtruth.listing import BundleRegistry, published_folder
from attriboard.leaderboard.reading import read_bundles
from attriboard.records.files import AnyRecord, read_named, write_record
from attriboard.records.published import published_results
from bench.code_digest import History
from bench.records_confirmed import Confirmed
from bench.records_plan import Bundles, Due, plan
from bench.records_units import SCORES, Unit, current_records, sampled, unit_code, units

SHORT = "out_of_memory"
"""Category of a failure, as in `attriboard.attribution`."""
Maker = Callable[[Unit], Sequence[AnyRecord]]
"""Makes a unit's records again; see `bench.records_run.make`."""


class Remaking:
    """The committed records with what makes them again.

    Args:
        results: folder of records.
        confirmed: the file that says what was made again.
        bundles: today's.
        retrain_seconds: task → of one retrain.
        options: what is selected: `task`, `method`, `kind`, `before`.
    """

    def __init__(
        self,
        results: Path,
        confirmed: Path,
        bundles: Bundles,
        retrain_seconds: dict[str, float],
        options: argparse.Namespace,
    ) -> None:
        self._results, self._confirmed, self._bundles = results, Confirmed(confirmed), bundles
        self._retrain_seconds, self._options = retrain_seconds, options
        self.history = History(Path(__file__).parent)

    @cached_property
    def _committed(self) -> list[AnyRecord]:
        """All records; what is made here is added."""
        return [record for _, record in read_named([self._results])]

    def records(self) -> list[AnyRecord]:
        """The newest record of every question."""
        return [r for r in current_records(self._committed) if self._wanted(r.task.name, r.row)]

    def units(self) -> list[Unit]:
        """What the selected records are made in."""
        return units(self.records(), self._retrain_seconds)

    def due(self, every: Sequence[Unit]) -> list[Due]:
        """What of the selected is to be made again."""
        found = plan(every, self._confirmed, self._bundles, self.history, self._options.before)
        return [due for due in found if not self._options.kind or due.unit.kind in self._options.kind]

    def samples(self, every: Sequence[Unit]) -> list[Due]:
        """Of each unit whose code alone makes it due, the records to run again; nothing where such a sample holds."""
        asked = [due for due in self.due(every) if not due.certain and due.sample is None and due.unit.kind == SCORES]
        parts = [(due, sampled(due.unit, self._options.sample, self._retrain_seconds)) for due in asked]
        found = sorted((replace(due, unit=part) for due, part in parts if part), key=lambda due: due.unit.seconds)
        first = {due.unit.method: due for due in reversed(found)}  # the cheapest of each method
        return sorted(found, key=lambda due: (bool(due.elsewhere), first[due.unit.method] is not due))

    def make(self, maker: Maker, hours: float, clock: Callable[[], float] = time.monotonic) -> Iterator[str]:
        """Make what is due, one unit after another; the lines that say what came of it.

        After every unit the plan is made anew: scores that moved make their uses due. Samples make nothing due, and are
        planned once. What fails is not tried twice.

        Args:
            maker: see `Maker`.
            hours: a unit that would take longer than what is left of them is left out.
            clock: of the seconds.
        """
        end, tried = clock() + 3600 * hours, set[str]()
        samples = self.samples(self.units()) if self._options.sample else None
        while True:
            known = self.due(self.units()) if samples is None else samples
            found = [due for due in known if due.unit.name not in tried]
            fitting = [due for due in found if clock() + due.unit.seconds <= end]
            if not fitting:
                left = sum(due.unit.seconds for due in found) / 3600
                yield f"{len(found)} units left, about {left:.1f} hours of one core" if found else "nothing is left"
                return
            due = fitting[0]
            tried.add(due.unit.name)
            yield line(due)
            try:
                yield from (self._one if samples is None else self._sample)(due.unit, maker)
            except AttriboardError as error:
                yield f"          not made: {error}"

    def _one(self, unit: Unit, maker: Maker) -> Iterator[str]:
        from bench.records_run import outcome

        code, made = unit_code(unit), _enough_memory(unit, maker(unit))
        found = outcome(unit, made)
        written = made if self._options.before else found.news
        for record in written:
            write_record(record, self._results)
            self._committed.append(record)
        self._confirmed.add(unit.name, code, min(record.created for record in made), found.scores_moved)
        yield from (f"          moved: {what}" for what in found.moved)
        yield f"          {len(written)} new records" if written else "          the records hold"

    def _sample(self, part: Unit, maker: Maker) -> Iterator[str]:
        from bench.records_run import outcome

        made = _enough_memory(part, maker(part))
        moved = outcome(part, made).moved
        yield from (f"          moved: {what}" for what in moved)
        if not moved:
            self._confirmed.add_sample(part, min(record.created for record in made))
            yield f"          {len(part.records)} records hold"

    def _wanted(self, task: str, method: str) -> bool:
        options = self._options
        return (not options.task or task in options.task) and (not options.method or method in options.method)


def _enough_memory(unit: Unit, made: Sequence[AnyRecord]) -> Sequence[AnyRecord]:
    """What was made, unless memory was short for what had enough before: that says something of this machine alone.

    Raises:
        InputError: memory was short.
    """
    short = [_configuration(record) for record in unit.records if "memory" in _reason(record)]
    for record in made:
        if _reason(record).startswith(SHORT) and _configuration(record) not in short:
            raise InputError(f"{_reason(record)}; nothing is written: run it again where more memory is free")
    return made


def _reason(record: AnyRecord) -> str:
    """Why a record failed; nothing where it did not."""
    return getattr(record, "reason", None) or ""


def _configuration(record: AnyRecord) -> object:
    """Hyperparameters; of a selection, its selector."""
    return getattr(record, "hyperparameters", None) or getattr(record, "selector", record.kind)


def line(due: Due) -> str:
    """One unit of a plan."""
    unit = due.unit
    time = f"{unit.seconds / 3600:5.1f} h  " if unit.seconds >= 3600 else f"{unit.seconds / 60:5.1f} min"
    return f"{time} {unit.name}, {len(unit.records)} records: {due.reason}"


def summary(due: Sequence[Due], every: Sequence[Unit]) -> str:
    """The hours of a plan."""
    hours = sum(d.unit.seconds for d in due) / 3600
    every_hours = sum(unit.seconds for unit in every) / 3600
    counts = {
        "a sample holds": sum(d.sample is not None for d in due),
        "more a sample of the method elsewhere": sum(bool(d.elsewhere) for d in due),
    }
    known = ", ".join(f"of {count} {what}" for what, count in counts.items() if count)
    return (
        f"{len(due)} of {len(every)} units are due, about {hours:.1f} of {every_hours:.1f} hours of one core"
        f"{known and '; ' + known}; uses whose scores move come on top"
    )


def main(arguments: Sequence[str]) -> int:
    """The command line; the exit code is 1 where a check found something, or where no record was asked for."""
    options = parse(arguments)
    entries = sorted(BundleRegistry(published_folder()).entries, key=lambda entry: entry.version)
    bundles = {(entry.task, str(entry.kind), entry.question): entry for entry in entries}
    confirmed = options.confirmed or leaderboard_folder() / "confirmed.json"
    remaking = Remaking(options.results, confirmed, bundles, _retrain_seconds(), options)
    if not any(not options.kind or unit.kind in options.kind for unit in remaking.units()):
        return _nothing(options, ("task", "method", "kind"))
    if options.action == "check":
        return _check(remaking.records(), remaking.history, options)
    if options.action == "make":
        from bench.records_run import make

        for text in remaking.make(lambda unit: make(unit, options.threads), options.hours):
            print(text, flush=True)
        return 0
    every = remaking.units()
    due = remaking.due(every)
    print("\n".join([*map(line, due), summary(due, every)]))
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.records", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=("plan", "make", "check"))
    parser.add_argument("--task", action="append", default=[], help="of this task only; repeatable")
    parser.add_argument("--method", action="append", default=[], help="of this method only; repeatable")
    parser.add_argument("--kind", action="append", default=[], help="scores, removal, …; repeatable")
    parser.add_argument("--before", default="", metavar="TIME", help="units with records from before are due anyway")
    parser.add_argument("--hours", type=float, default=float("inf"), help="make: time that it may take")
    parser.add_argument("--threads", type=int, default=1, help="make: of attributors, so that times can be compared")
    parser.add_argument(
        "--sample",
        type=_count,
        metavar="N",
        help="check: how many records, by default 12; make: of each unit, and only these",
    )
    parser.add_argument("--seed", default=None, help="check: of the sample; by default the commit")
    parser.add_argument("--max-seconds", type=float, default=60, help="check: leave out what took longer")
    parser.add_argument("--results", type=Path, default=published_results(), help="folder of records")
    parser.add_argument("--confirmed", type=Path, default=None, help="what was made again; a file")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    """A number of records, 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number, 1 or more")
    return int(text)


def _nothing(options: argparse.Namespace, names: Sequence[str]) -> int:
    """Say that what was asked for leaves no record; the exit code."""
    given = {name: getattr(options, name) for name in names}
    asked = [f"--{name.replace('_', '-')} {value}" for name, found in given.items() for value in _each(found)]
    print(f"no record matches {' '.join(asked)} in {options.results}", file=sys.stderr)
    return 1


def _each(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else [value]


def _retrain_seconds() -> dict[str, float]:
    """Task → seconds per retrain, from its bundle's card."""
    found = {}
    for bundle in read_bundles(published_folder()):
        if bundle.listing.kind == "groundtruth" and not bundle.listing.question and bundle.facts:
            n = bundle.facts["n_masks"] * bundle.facts["n_repeats"]
            found[bundle.listing.task] = float(bundle.facts["retrain_seconds"]) / n
    return found


def _commit() -> str:
    """The commit that is checked out, so that another sample is drawn for each."""
    git = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return git.stdout.strip() or "0"


def _check(records: Sequence[AnyRecord], history: History, options: argparse.Namespace) -> int:
    from bench.records_run import check, sample

    seed = options.seed or _commit()
    drawn = sample(records, options.sample or 12, seed, options.max_seconds)
    if not drawn:
        return _nothing(options, ("task", "method", "max_seconds"))
    wrong = 0
    for checked in check(drawn, history):
        wrong += checked.problem is not None
        print(f"{'MOVED' if checked.problem else 'ok   '} {checked.record.path}: {checked.problem or checked.remark}",
              flush=True)  # fmt: skip
    print(f"{len(drawn) - wrong} of {len(drawn)} records repeat; drawn with --seed {seed}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
