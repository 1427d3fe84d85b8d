"""Units of records: those that share their fits and are made again in one go.

A unit has all scores of a method on a task, or one kind of use of them.
"""

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from attriboard.attributors import ATTRIBUTORS
from attriboard.attributors.selectors import SELECTORS
from attriboard.contracts.selector import REGULARIZATION
from attriboard.leaderboard.study import question_of
from attriboard.records.cost import SelectionCostRecord
from attriboard.records.files import AnyRecord
from attriboard.records.model import AttributionRecord, SelectionRecord
from attriboard.records.uses import ASKED, BrittlenessRecord, QldRecord, RemovalRecord
from bench.code_digest import GRADING, Find, History, code_digest

SCORES = "scores"
START_SECONDS = 4.0  # of one core: a process that imports PyTorch


@dataclass(frozen=True)
class Unit:
    """What is made in one go.

    Attributes:
        task: its name.
        method: attributor, or `Record.row` where it attributes some parameters only.
        kind: `scores`, or the kind of a use.
        records: those that it makes again: the newest of every question.
        seconds: about how long that takes on one core, from the records.
        question: which ground truth they are on; see `question_of`.
    """

    task: str
    method: str
    kind: str
    records: tuple[AnyRecord, ...]
    seconds: float
    question: str = ""

    @property
    def name(self) -> str:
        """Names it in `confirmed.json`."""
        return "/".join(filter(None, (self.task, self.method, self.kind, self.question)))

    @property
    def oldest(self) -> str:
        """When the first of its records was made."""
        return min(record.created for record in self.records)


def current_records(records: Iterable[AnyRecord]) -> list[AnyRecord]:
    """The newest record of every question, but those whose code or scores are not here."""
    newest: dict[tuple[object, ...], AnyRecord] = {}
    for record in sorted(records, key=lambda record: (record.created, record.id)):
        negated = isinstance(record, AttributionRecord) and record.negates
        if record.attributor.origin in ("builtin", "entry_point") and not negated:
            newest[asked(record)] = record
    return list(newest.values())


def asked(record: AnyRecord) -> tuple[object, ...]:
    """What a record answers; the newest record with the same answers it now.

    "How good is what was chosen?" is one question, whatever was chosen.
    """
    shared = (record.kind, record.task.name, question_of(record), record.row, record.seed)
    if isinstance(record, AttributionRecord):
        chosen = record.variant in ("selected", "oracle")
        return (*shared, record.variant, record.selector, "" if chosen else _frozen(record.hyperparameters))
    if isinstance(record, SelectionRecord):
        return (*shared, record.selector, _frozen(record.default.hyperparameters), lambdas(record))
    if isinstance(record, SelectionCostRecord):
        return (*shared, record.swept)
    rates = tuple(point.rate for point in record.points) if isinstance(record, RemovalRecord) else ()
    words = (str(getattr(record, name, "")) for name in ASKED)
    return (*shared, record.variant, *words, rates, _frozen(record.hyperparameters))


def _frozen(hyperparameters: Mapping[str, object]) -> str:
    return json.dumps(dict(hyperparameters), sort_keys=True)


def units(records: Iterable[AnyRecord], retrain_seconds: Mapping[str, float]) -> list[Unit]:
    """Records in the units that make them, in the order of tasks, methods and kinds.

    Args:
        records: current ones.
        retrain_seconds: task → of one retrain.
    """
    groups: dict[tuple[str, str, str, str], list[AnyRecord]] = defaultdict(list)
    for record in records:
        kind = SCORES if isinstance(record, AttributionRecord | SelectionRecord) else record.kind
        groups[record.task.name, record.row, kind, question_of(record)].append(record)
    return [
        Unit(task, method, kind, tuple(group), _seconds(group, retrain_seconds.get(task, 1.0)), question)
        for (task, method, kind, question), group in sorted(groups.items())
    ]


def _seconds(records: Sequence[AnyRecord], retrain: float) -> float:
    """One fit for every time of a fit that the records name, and all scorings and retrains."""
    found = START_SECONDS
    scored = [record for record in records if isinstance(record, AttributionRecord)]
    found += sum({record.fit_seconds or 0.0 for record in scored})
    found += sum(record.score_seconds or 0.0 for record in scored)
    found += sum(time_limit(record) or 0.0 for record in scored)
    for record in records:
        if isinstance(record, AttributionRecord | SelectionRecord):
            continue
        found += START_SECONDS + retrains(record) * retrain
        if not isinstance(record, SelectionCostRecord):
            found += (record.fit_seconds or 0.0) + (record.score_seconds or 0.0)
    return found


def time_limit(record: AnyRecord) -> float | None:
    """The seconds that a record ran out of, or was said to need more than, where that is why it failed."""
    match = re.match(r"timeout: (?:not finished after|.*the limit is) (\S+) s", getattr(record, "reason", None) or "")
    return float(match[1]) if match else None


def retrains(record: AnyRecord) -> int:
    """How many retrains a use takes at most; the store may have them."""
    if isinstance(record, RemovalRecord):
        return len(record.retrain_seeds) * (2 * len(record.points) + 1)
    if isinstance(record, BrittlenessRecord):
        steps = max(1, len(record.sizes)).bit_length() + 1
        return len(record.points) * (steps * len(record.search_seeds) + len(record.confirm_seeds))
    if isinstance(record, QldRecord):
        return 2 * len(record.test_points) * record.n_repeats
    return 0


def unit_code(unit: Unit, find: Find | None = None) -> str:
    """Digest of the code that a unit's scores and grades come from; of installed packages, their version.

    Args:
        unit: whose.
        find: the code; by default today's.
    """
    first = unit.records[0].attributor
    if first.origin != "builtin":
        return str(first.digest)
    references = {name.replace(":", "-"): reference for name, reference in ATTRIBUTORS.items()}
    chosen = {record.selector for record in unit.records if isinstance(record, SelectionRecord)}
    references |= SELECTORS
    names = [first.name, *sorted(chosen & set(SELECTORS))]
    return code_digest([*(references.get(name, "").partition(":")[0] for name in names), *GRADING], find)


def scores_code(unit: Unit) -> str:
    """Digest of the code of a unit's scores and grades alone, without that of selectors."""
    return unit_code(replace(unit, records=attributions(unit) or unit.records))


def made_with_todays_code(unit: Unit, history: History) -> bool:
    """Whether all attributions of a unit come from commits whose code of the method is today's."""
    states = {record.provenance.git for record in unit.records if not isinstance(record, SelectionRecord)}
    today = unit_code(unit)
    for state in states:
        find = history.at(state.commit) if state and not state.dirty else None
        if find is None or unit_code(unit, find) != today:
            return False
    return bool(states)


def attributions(unit: Unit) -> tuple[AttributionRecord, ...]:
    """The scores among a unit's records."""
    return tuple(record for record in unit.records if isinstance(record, AttributionRecord))


def sampled(unit: Unit, size: int, retrain_seconds: Mapping[str, float]) -> Unit | None:
    """At most so many of a unit's scores: the default's, the best, and others drawn at random by the unit's name.

    None where all of them ran into a time limit.
    """
    points = sorted((r for r in attributions(unit) if time_limit(r) is None), key=lambda record: record.id)
    random.Random(unit.name).shuffle(points)
    best = max((record.lds.mean for record in points if record.lds), default=None)
    points.sort(key=lambda r: (r.variant != "default", not r.lds or r.lds.mean != best))
    return units(points[:size], retrain_seconds)[0] if points else None


def lambdas(record: SelectionRecord) -> tuple[float, ...]:
    """The path of λ that a selection scored; none where its selector chose something else."""
    return record.candidates if record.hyperparameter == REGULARIZATION else ()


def paths_of_scores(unit: Unit) -> Iterator[tuple[list[SelectionRecord], list[AttributionRecord]]]:
    """A unit of scores in the runs that make it: selections with the points on their paths, then the other points.

    The first selection of each has the λ of the path, where any has; those of another hyperparameter join the newest.
    """
    left = [record for record in unit.records if isinstance(record, AttributionRecord)]
    selections = sorted((r for r in unit.records if isinstance(r, SelectionRecord)), key=lambda r: r.created)
    groups: dict[tuple[str, tuple[float, ...]], list[SelectionRecord]] = defaultdict(list)
    newest: dict[str, tuple[float, ...]] = {}
    for record in selections:
        if path := lambdas(record):
            start = _frozen(record.default.hyperparameters)
            groups[start, path].append(record)
            newest[start] = path
    for record in selections:
        if not lambdas(record):
            start = _frozen(record.default.hyperparameters)
            groups[start, newest.get(start, ())].append(record)
    for chosen in groups.values():
        covered = [point for point in left if _on_path(point, chosen)]
        left = [point for point in left if point not in covered]
        yield chosen, covered
    if left:
        yield [], left


def _on_path(point: AttributionRecord, chosen: Sequence[SelectionRecord]) -> bool:
    """Whether these selections make this configuration."""
    start, mine = dict(chosen[0].default.hyperparameters), dict(point.hyperparameters)
    if mine == start or any(choice.selected and mine == dict(choice.selected.hyperparameters) for choice in chosen):
        return True
    return mine.pop(REGULARIZATION, None) in lambdas(chosen[0]) and mine == {
        name: value for name, value in start.items() if name != REGULARIZATION
    }
