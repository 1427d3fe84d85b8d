"""The history of a number: the records that answer the same question, the newest first, and why each was made again.

A reason is read off two neighboring records: what differs between the inputs, the code or the machine that they name.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean
from typing import Any

from attriboard.leaderboard import formats
from attriboard.leaderboard.reading import Entry
from attriboard.leaderboard.study import TaskStudy, configuration_key
from attriboard.records.cost import SelectionCostRecord
from attriboard.records.files import AnyRecord
from attriboard.records.model import AttributionRecord, SelectionRecord
from attriboard.records.uses import ASKED, BrittlenessRecord, MislabelRecord, QldRecord, RemovalRecord

ONE_CONFIGURATION = ("sweep", "custom")  # variants of which each configuration is a question of its own
CHOSEN = ("selected", "oracle")  # variants whose hyperparameters are a result


@dataclass(frozen=True)
class Version:
    """One record of a history: its result in words, why it was made again, and whether its scores are the last one's.

    Attributes:
        entry: the record.
        result: what it found.
        why: what differs from the record before it; empty for the first.
        same: whether the scores agree with those of the record before it to the last bit.
    """

    entry: Entry[AnyRecord]
    result: str
    why: tuple[str, ...]
    same: bool

    @property
    def reason(self) -> str:
        """Why it was made, as a sentence."""
        text = "; ".join(self.why) or "the first record"
        return f"{text[0].upper()}{text[1:]}{'; the same scores to the last bit' * self.same}."


@dataclass(frozen=True)
class History:
    """All records of one question, the newest first.

    Attributes:
        row: name of the row.
        what: the question, as in "LDS, default".
        point: whether it is a point of a sweep, which has no cell on a leaderboard.
        versions: at least one.
    """

    row: str
    what: str
    point: bool
    versions: Sequence[Version]


@lru_cache(maxsize=64)
def all_histories(study: TaskStudy) -> dict[str, History]:
    """Id of every record of a task → the history that it belongs to."""
    groups: dict[tuple[str, ...], list[Entry[AnyRecord]]] = defaultdict(list)
    for entry in study.entries:
        groups[entry.row, *_question(entry.record)].append(entry)
    found: dict[str, History] = {}
    for entries in groups.values():
        entries.sort(key=lambda entry: entry.age)
        before = [None, *entries[:-1]]
        versions = [_version(old, new) for old, new in zip(before, entries, strict=True)]
        record = entries[-1].record
        point = getattr(record, "variant", "") == "sweep"
        history = History(entries[-1].row, what(record), point, versions[::-1])
        found |= {entry.id: history for entry in entries}
    return found


@lru_cache(maxsize=2048)
def histories(study: TaskStudy, row: str) -> tuple[History, ...]:
    """What a leaderboard's row has that was made again; points of sweeps have their histories on their own pages."""
    known = {id(h): h for h in all_histories(study).values() if h.row == row and not h.point and len(h.versions) > 1}
    return tuple(sorted(known.values(), key=lambda history: history.what))


def _question(record: AnyRecord) -> tuple[str, ...]:
    """What a record answers, without what may change from one version of the answer to the next."""
    asked = ["kind", "variant", *ASKED, "n_repeats", "swept"]
    if isinstance(record, SelectionRecord) or getattr(record, "variant", "") == "selected":
        asked.append("selector")
    question = [str(getattr(record, name, "")) for name in asked]
    if getattr(record, "variant", "") in ONE_CONFIGURATION:
        question.append(configuration_key(_settings(record)))
    if isinstance(record, SelectionRecord):
        question.append(configuration_key(record.default.hyperparameters))
    if isinstance(record, RemovalRecord):
        question += [str(point.rate) for point in record.points]
    return tuple(question)


def what(record: AnyRecord) -> str:
    """What a record answers, as in `LDS, default`."""
    if isinstance(record, SelectionRecord):
        return f"Choice of {record.selector}"
    if isinstance(record, SelectionCostRecord):
        return f"Cost of choosing {', '.join(record.swept)}"
    if isinstance(record, AttributionRecord):
        name = "LDS"
    else:
        names = {"removal": "Data selection", "qld": "Query loss difference", "mislabel": "Mislabel detection"}
        name = names.get(record.kind, record.kind.capitalize())
    details = [f"by {record.influence}"] if isinstance(record, MislabelRecord) else []
    if isinstance(record, RemovalRecord):
        details = [f"{record.direction}{' of every class' * record.balanced}"]
    if isinstance(record, QldRecord):
        details = [f"{100 * record.fraction:g} % removed"]
    return ", ".join([name, *details, record.variant])


def _version(before: Entry[AnyRecord] | None, entry: Entry[AnyRecord]) -> Version:
    if before is None:
        return Version(entry, result(entry.record), (), same=False)
    scores = [getattr(one.record, "scores_sha256", None) for one in (before, entry)]
    same = scores[0] is not None and scores[0] == scores[1]
    return Version(entry, result(entry.record), tuple(reasons(before.record, entry.record)), same)


def result(record: AnyRecord) -> str:
    """What a record found, in a few words."""
    if getattr(record, "status", "ok") == "failed":
        return f"failed: {formats.category(getattr(record, 'reason', None))}"
    found = _RESULTS.get(record.kind)
    return found(record) if found else "measured"


def _removed(record: RemovalRecord) -> str:
    last = record.points[-1]
    quantity = "accuracy" if "correct" in last.measured else "perplexity"
    return f"{quantity} {fmean(formats.judged(last.measured)):.1f} with {formats.percent(last.rate)} removed"


def _median(record: BrittlenessRecord) -> str:
    median = record.median_removed
    return f"more than {record.sizes[-1]:,} removals" if median is None else f"{median:g} removals"


def _cost(record: SelectionCostRecord) -> str:
    return (
        f"regret {formats.fixed(record.headline[1].mean[-1], 4)} with {formats.counted(record.budgets[-1], 'retrain')}"
    )


_RESULTS: dict[str, Callable[[Any], str]] = {
    "attribution": lambda record: f"LDS {formats.fixed(record.lds.mean)}" if record.lds else "no LDS",
    "selection": lambda record: f"regret {formats.fixed(record.regret.mean)}" if record.regret else "no regret",
    "selection_cost": _cost,
    "removal": _removed,
    "brittleness": _median,
    "qld": lambda record: f"drop {formats.fixed(record.drop)}" if record.drop is not None else "no drop",
    "mislabel": lambda record: f"AUC {formats.fixed(record.auc)}" if record.auc is not None else "no AUC",
}


def reasons(before: AnyRecord, after: AnyRecord) -> Iterator[str]:
    """What a later record of the same question was made from that an earlier one was not."""
    found = [*_inputs(before, after), *_code(before, after), *_machine(before, after)]
    yield from found or ["run again with the same code and inputs"]
    if getattr(after, "variant", "") in CHOSEN:
        yield from (f"chosen {change}" for change in _changed(before, after))


def _inputs(before: AnyRecord, after: AnyRecord) -> Iterator[str]:
    if before.task.version != after.task.version:
        yield f"task version {before.task.version} → {after.task.version}"
    elif before.task.fingerprint != after.task.fingerprint:
        yield "another card of the task"
    truths = [record.ground_truth.sha256 if record.ground_truth else None for record in (before, after)]
    if truths[0] != truths[1]:
        yield "another ground truth"
    trained = [getattr(record, "checkpoints_sha256", None) for record in (before, after)]
    if trained[0] and trained[1] and trained[0] != trained[1]:
        yield "other trained models"
    if before.seed != after.seed:
        yield f"seed {before.seed} → {after.seed}"
    if getattr(after, "variant", "") not in CHOSEN:
        yield from _changed(before, after)


def _changed(before: AnyRecord, after: AnyRecord) -> Iterator[str]:
    """Hyperparameters that differ."""
    old, new = _settings(before), _settings(after)
    for name in sorted({*old, *new}):
        if name not in old:
            yield f"new hyperparameter {name} = {formats.short(new[name])}"
        elif name not in new:
            yield f"without the hyperparameter {name}"
        elif old[name] != new[name]:
            yield f"{name} {formats.short(old[name])} → {formats.short(new[name])}"


def _code(before: AnyRecord, after: AnyRecord) -> Iterator[str]:
    if before.attributor.digest != after.attributor.digest:
        yield "the method's code changed"
    versions = before.provenance.attriboard, after.provenance.attriboard
    if versions[0] != versions[1]:
        yield f"AttriBoard {versions[0]} → {versions[1]}"


def _machine(before: AnyRecord, after: AnyRecord) -> Iterator[str]:
    old, new = before.provenance, after.provenance
    for name in sorted(old.packages.keys() & new.packages.keys()):
        if old.packages[name] != new.packages[name]:
            yield f"{name} {old.packages[name]} → {new.packages[name]}"
    if old.threads != new.threads:
        yield f"{new.threads} thread{'s' * (new.threads > 1)} instead of {old.threads}"
    if old.hardware.cpu != new.hardware.cpu:
        yield "another CPU"


def _settings(record: AnyRecord) -> dict[str, Any]:
    return dict(getattr(record, "hyperparameters", {}))
