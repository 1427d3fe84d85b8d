"""Which of the committed records are to be made again, and why.

A unit of records (see `bench.records_units`) is due where

- *inputs*: its task, ground truth or checkpoints are others than those of its records;
- *scores moved*: it is a use, and scores of its method on its task moved after it was made;
- *code*: its scores were neither made nor run again with today's code of the method.

A record names the commit that it was made with, and the repository has that commit's code. What was run again with
which code is in `leaderboard/confirmed.json`. Where neither is known, running the scores again shows whether they hold.
A few of a unit's records can be run again first (`sampled`). Where these hold, the plan says so, and the unit stays due
behind those of which nothing is known. Where nothing of a unit was run again, another unit of the same method may have
been, on another task or question, with the same code: that is weaker evidence, and the plan says so too.

Uses take hours of retraining and follow their scores; those that have no scores beside them (tasks without ground
truth) are due like scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attriboard.groundtruth.listing import BundleEntry
from bench.code_digest import History
from bench.records_confirmed import Confirmed, Sample
from bench.records_units import SCORES, Unit, made_with_todays_code, scores_code

Bundles = Mapping[tuple[str, str, str], BundleEntry]
"""(task, kind, question) → today's bundle."""


@dataclass(frozen=True)
class Due:
    """A unit that is to be made again, and why."""

    unit: Unit
    reason: str
    certain: bool
    sample: Sample | None = None  # that holds with today's code
    elsewhere: str = ""  # a unit of the method that holds with today's code, in whole or in a sample


def plan(
    every: Sequence[Unit],
    confirmed: Confirmed,
    bundles: Bundles,
    history: History,
    before: str = "",
) -> list[Due]:
    """What is due, the certain first and then the cheapest.

    Args:
        every: all units.
        confirmed: what was made again.
        bundles: today's.
        history: the code of the past.
        before: a time; units with older records are due in any case.
    """
    scored = {(unit.task, unit.method) for unit in every if unit.kind == SCORES and not unit.question}
    held = {
        (unit.method, scores_code(unit)): unit.name for unit in every if unit.kind == SCORES and confirmed.holds(unit)
    }
    found = []
    for unit in every:
        if unit.oldest < before:
            found.append(Due(unit, f"older than {before}", True))
        elif reason := changed_inputs(unit, bundles):
            found.append(Due(unit, reason, True))
        elif unit.kind != SCORES and (unit.task, unit.method) in scored:
            known = confirmed.get(f"{unit.task}/{unit.method}/{SCORES}")
            if known and known.moved and unit.oldest < known.moved:
                found.append(Due(unit, "scores moved", True))
        else:
            if confirmed.remade(unit) or made_with_todays_code(unit, history):
                continue
            known = confirmed.get(unit.name)
            reason, sample = f"code: changed since {known.when if known else unit.oldest}", confirmed.sample(unit)
            if sample and sample.records == len(unit.records):
                continue
            elsewhere = "" if sample else held.get((unit.method, scores_code(unit)), "")
            if sample:
                reason += f"; {sample.records} of its records hold"
            elif elsewhere:
                reason += f"; {elsewhere} holds"
            found.append(Due(unit, reason, False, sample, elsewhere))
    return sorted(found, key=_urgency)


def _urgency(due: Due) -> tuple[bool, bool, bool, float, str]:
    """The certain first, then those of whose method nothing is known, those of which nothing is, and the cheapest."""
    return not due.certain, due.sample is not None, bool(due.elsewhere), due.unit.seconds, due.unit.name


def changed_inputs(unit: Unit, bundles: Bundles) -> str | None:
    """Which input of a unit's records is another one today, where one is."""
    truth = bundles.get((unit.task, "groundtruth", unit.question))
    checkpoints, models = (bundles.get((unit.task, kind, "")) for kind in ("checkpoints", "models"))
    given = {entry.sha256 for entry in (checkpoints, models) if entry}
    for record in unit.records:
        known = getattr(record, "checkpoints_sha256", None)
        if truth and truth.fingerprint != record.task.fingerprint:
            return "inputs: another version of the task"
        if truth and record.ground_truth and record.ground_truth.sha256 != truth.sha256:
            return "inputs: other ground truth"
        if checkpoints and known and known not in given:
            return "inputs: other checkpoints"
    return None
