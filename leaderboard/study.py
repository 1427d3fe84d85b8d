"""Records → what the pages show: per task the current records, per attributor what it got and what was tried.

Of the records of one task only those on its current ground truth are compared: the published one where a registry
lists it, else that of the newest record. Per attributor and variant the newest record counts. Tasks' versions and
ground truths never share a table. What is on the ground truth of another question is a study of its
own.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import get_args

from attriboard.contracts.card import TaskCard
from attriboard.contracts.question import Question
from attriboard.contracts.selector import REGULARIZATION
from attriboard.groundtruth.listing import BundleKind
from attriboard.leaderboard.methods import default_hyperparameters
from attriboard.leaderboard.reading import Bundle, Entry, published_card
from attriboard.records.cost import SelectionCostRecord
from attriboard.records.files import AnyRecord, AnyUse
from attriboard.records.model import HEADLINE_SELECTOR, AttributionRecord, GroundTruthInfo, LdsResult, SelectionRecord
from attriboard.records.uses import ASKED

SIGN_FLIPPED = "sign_flipped"
CONTROLS = ("random", "input_similarity", "embedding_similarity", SIGN_FLIPPED)

Edition = tuple[int, str, str]  # version, fingerprint, ground truth
Scalar = bool | int | float | str | None


def doubt(entry: Entry[AttributionRecord]) -> str | None:
    """Why a record's LDS cannot be right: beyond the noise ceiling, or not what held-out masks give."""
    again = entry.verification
    if again is not None and again.status == "implausible":
        return again.reason
    return entry.record.doubt


@dataclass(frozen=True, eq=False)
class MethodStudy:
    """One attributor on one task, with all parameters or with some: what attributes other parameters is another row.

    Attributes:
        name: the attributor, or its `row` where it attributes some parameters only or the records are your own.
        attributions: its current records, oldest first.
        selections: selector → its newest record, of those that start from the method's defaults if there are any.
        uses: its current records of data selection and other uses, oldest first.
        costs: its newest record of what choosing over each grid costs, by what the grid sweeps.
    """

    name: str
    attributions: Sequence[Entry[AttributionRecord]] = ()
    selections: Mapping[str, Entry[SelectionRecord]] = field(default_factory=dict)
    uses: Sequence[Entry[AnyUse]] = ()
    costs: Mapping[tuple[str, ...], Entry[SelectionCostRecord]] = field(default_factory=dict)

    @property
    def control(self) -> bool:
        """Whether it is there to compare methods with."""
        return self.attributor in CONTROLS

    @property
    def attributor(self) -> str:
        """Its name alone."""
        return self.newest.record.attributor.name if self.newest else self.name

    @property
    def title(self) -> str:
        """As it stands at the head of a row: with its parameters, where they are some only; your own says so."""
        return self.newest.title if self.newest else self.name

    @property
    def mine(self) -> bool:
        """Whether its records are your own; published ones have a row of their own."""
        return self.newest is not None and self.newest.mine

    @property
    def parent(self) -> str:
        """The row that it is a version of: of all parameters, and published; empty where it is that itself."""
        return "" if self.name == self.attributor else self.attributor

    @property
    def parameters(self) -> tuple[str, ...]:
        """Patterns of the attributed parameters; none for all."""
        return self.newest.record.parameters if self.newest else ()

    @property
    def family(self) -> str:
        """As its newest record has it."""
        return self.newest.record.attributor.family if self.newest else "control"

    @cached_property
    def variants(self) -> dict[str, Entry[AttributionRecord]]:
        """The newest record of each variant but sweeps.

        The oracle also considers the default and the selected configuration, which may lie outside its candidates.
        """
        found: dict[str, Entry[AttributionRecord]] = {
            e.record.variant: e for e in self.attributions if e.record.variant != "sweep"
        }
        if "oracle" in found:
            known = [found[name] for name in ("oracle", "default", "selected") if name in found]
            found["oracle"] = max(known, key=lambda entry: _calibration(entry.record))
        return found

    @cached_property
    def newest(self) -> Entry[AnyRecord] | None:
        """The last record of any kind."""
        every: list[Entry[AnyRecord]] = [
            *self.attributions,
            *self.selections.values(),
            *self.uses,
            *self.costs.values(),
        ]
        return max(every, key=lambda entry: entry.age, default=None)

    @property
    def main(self) -> Entry[AttributionRecord] | None:
        """The record that time, memory and provenance are taken from."""
        order = ("default", "custom", "selected", "oracle")
        return next((self.variants[name] for name in order if name in self.variants), None)

    @property
    def headline(self) -> Entry[AttributionRecord] | None:
        """What one gets without retraining: selected hyperparameters where they exist and work, else the default's."""
        return next((self.variants[name] for name in ("selected", "default") if self.lds(name)), None)

    @property
    def defaults(self) -> Mapping[str, Scalar]:
        """Its default hyperparameters: of their record, else as it declares them; empty where neither is known."""
        known = self.variants.get("default")
        return known.record.hyperparameters if known else default_hyperparameters(self.attributor)

    def beside(self, hyperparameters: Mapping[str, Scalar]) -> dict[str, Scalar]:
        """What differs from the defaults in a configuration, λ aside."""
        known = self.defaults
        return {
            name: value
            for name, value in hyperparameters.items()
            if name != REGULARIZATION and name in known and known[name] != value
        }

    @property
    def selection(self) -> Entry[SelectionRecord] | None:
        """The headline selector's report of a choice that starts from the defaults."""
        return None if self.elsewhere else self.selections.get(HEADLINE_SELECTOR)

    @property
    def elsewhere(self) -> Entry[SelectionRecord] | None:
        """The headline selector's report where its choice starts from other settings than the defaults, λ aside."""
        found = self.selections.get(HEADLINE_SELECTOR)
        return found if found and self.beside(found.record.default.hyperparameters) else None

    @property
    def failures(self) -> list[Entry[AttributionRecord | AnyUse]]:
        """Failed records that count, points of sweeps included."""
        return [e for e in (*self.points, *self.newest_uses.values()) if e.record.status == "failed"]

    @cached_property
    def newest_uses(self) -> dict[tuple[str, ...], Entry[AnyUse]]:
        """The newest record of every question, in the words of `asked`; sweeps left out."""
        asked = ("kind", "variant", *ASKED)
        return {
            tuple(str(getattr(entry.record, name, "")) for name in asked): entry
            for entry in self.uses
            if entry.record.variant != "sweep"
        }

    def lds(self, variant: str) -> LdsResult | None:
        """The result of a variant's newest record, unless it cannot be right."""
        entry = self.variants.get(variant)
        return entry.record.lds if entry and doubt(entry) is None else None

    @cached_property
    def surrogates(self) -> dict[str, float]:
        """Configuration → ξ̄, from the newest record that knows it."""
        return {
            configuration_key(entry.record.hyperparameters): entry.record.criteria[HEADLINE_SELECTOR]
            for entry in self.attributions
            if HEADLINE_SELECTOR in entry.record.criteria
        }

    @cached_property
    def points(self) -> list[Entry[AttributionRecord]]:
        """One record per configuration, in the order of configurations: those of the leaderboard, else the newest."""
        newest: dict[str, Entry[AttributionRecord]] = {}
        for entry in (*self.attributions, *self.variants.values()):
            newest[configuration_key(entry.record.hyperparameters)] = entry
        return [newest[key] for key in sorted(newest)]


@dataclass(frozen=True, eq=False)
class TaskStudy:
    """Everything on one task.

    Attributes:
        name: the task.
        methods: by name; controls are there even when they were not run.
        bundles: kind → the published bundle.
        superseded: records on other versions or ground truths.
        questions: name of another question than the usual one → what is on its ground truth.
        entries: all of its records, those included, oldest first.
    """

    name: str
    methods: Mapping[str, MethodStudy]
    bundles: Mapping[str, Bundle]
    superseded: Sequence[Entry[AnyRecord]]
    questions: Mapping[str, "TaskStudy"] = field(default_factory=dict)
    entries: Sequence[Entry[AnyRecord]] = ()

    @property
    def every_bundle(self) -> list[Bundle]:
        """Ground truth, checkpoints, more models, the start, and the ground truths of other questions."""
        own = [self.bundles[kind] for kind in get_args(BundleKind) if kind in self.bundles]
        return own + [study.bundles[kind] for study in self.questions.values() for kind in sorted(study.bundles)]

    @cached_property
    def newest(self) -> Entry[AnyRecord] | None:
        """The last current record."""
        found = (method.newest for method in self.methods.values())
        return max((entry for entry in found if entry), key=lambda entry: entry.age, default=None)

    @property
    def all_superseded(self) -> list[Entry[AnyRecord]]:
        """Those of every question."""
        return [*self.superseded, *(entry for study in self.questions.values() for entry in study.superseded)]

    @cached_property
    def truth(self) -> GroundTruthInfo | None:
        """The ground truth that its records name; none where nothing is graded against retrains."""
        named = (
            e.record.ground_truth for m in self.methods.values() for e in (*m.attributions, *m.selections.values())
        )
        return next((truth for truth in named if truth), None)

    @cached_property
    def ceiling(self) -> float | None:
        """The noise ceiling, from the newest record that has one."""
        known = [e for m in self.methods.values() for e in m.attributions if e.record.ceiling is not None]
        return max(known, key=lambda entry: entry.age).record.ceiling if known else None

    @cached_property
    def negated(self) -> tuple[str, Entry[AttributionRecord]] | None:
        """The best method and its record, where the control `sign_flipped` has no record of its own.

        The LDS of negated scores is minus the LDS, so that the control needs no run.
        """
        if self.methods[SIGN_FLIPPED].attributions:
            return None
        found = [(m.name, m.headline) for m in self.methods.values() if not m.control and not m.mine and m.headline]
        return max(found, key=lambda pair: pair[1].record.lds.mean if pair[1].record.lds else -2.0, default=None)

    @property
    def costs(self) -> list[Entry[SelectionCostRecord]]:
        """What choosing λ alone costs, a record per method."""
        found = (method.costs.get((REGULARIZATION,)) for method in self.methods.values())
        return [entry for entry in found if entry]

    @property
    def run(self) -> list[MethodStudy]:
        """Methods with a record."""
        return [method for method in self.methods.values() if method.newest]

    def failures(self, kind: str) -> list[Entry[AttributionRecord | AnyUse]]:
        """Failed records of the leaderboard that has this kind; points of sweeps are on the attributors' pages."""
        shown = (e for m in self.methods.values() for e in (*m.variants.values(), *m.newest_uses.values()))
        return [entry for entry in shown if entry.record.kind == kind and entry.record.status == "failed"]

    @property
    def card(self) -> TaskCard | None:
        """The task's card, from a bundle; else the published one of the same fingerprint."""
        carried = next((bundle.card for bundle in self.bundles.values() if bundle.card), None)
        if carried or self.newest is None:
            return carried
        return published_card(self.name, self.newest.record.task.fingerprint)

    @property
    def title(self) -> str:
        """The card's title; empty where no card is at hand."""
        return self.card.title if self.card else ""


def studies(entries: Sequence[Entry[AnyRecord]], bundles: Sequence[Bundle]) -> dict[str, TaskStudy]:
    """One study per task that has records or bundles, by name."""
    by_task: dict[str, dict[str, list[Entry[AnyRecord]]]] = defaultdict(lambda: defaultdict(list))
    for entry in sorted(entries, key=lambda entry: entry.age):
        by_task[entry.record.task.name][question_of(entry.record)].append(entry)
    newest: dict[str, dict[str, dict[str, Bundle]]] = defaultdict(lambda: defaultdict(dict))
    for bundle in sorted(bundles, key=lambda bundle: bundle.listing.version):
        newest[bundle.listing.task][bundle.listing.question][bundle.listing.kind] = bundle
    return {name: _with_questions(name, by_task[name], newest[name]) for name in sorted({*by_task, *newest})}


def _with_questions(
    name: str, entries: Mapping[str, list[Entry[AnyRecord]]], bundles: Mapping[str, Mapping[str, Bundle]]
) -> TaskStudy:
    """A task's study with those of its other questions, in their usual order."""

    def of(question: str) -> TaskStudy:
        return _study(name, list(entries.get(question, ())), bundles.get(question, {}))

    others = sorted({*entries, *bundles} - {""}, key=lambda text: Question.parse(text).order)
    return replace(of(""), questions={question: of(question) for question in others})


def _study(name: str, entries: list[Entry[AnyRecord]], bundles: Mapping[str, Bundle]) -> TaskStudy:
    if "groundtruth" in bundles:
        listing = bundles["groundtruth"].listing
        current: Edition | None = (listing.version, listing.fingerprint, listing.sha256)
    else:
        # Where nothing is graded, only the version counts.
        published = [entry for entry in entries if not entry.mine] or entries
        graded = [entry for entry in published if truth_of(entry.record)] or published
        current = _edition(graded[-1].record) if graded else None
    superseded = [entry for entry in entries if not _is_current(entry.record, current)]
    attributions: dict[str, list[Entry[AttributionRecord]]] = {control: [] for control in CONTROLS}
    selections: dict[str, list[Entry[SelectionRecord]]] = defaultdict(list)
    uses: dict[str, list[Entry[AnyUse]]] = defaultdict(list)
    costs: dict[str, dict[tuple[str, ...], Entry[SelectionCostRecord]]] = defaultdict(dict)
    for entry in entries:
        record = entry.record
        if not _is_current(record, current):
            continue
        method = entry.row
        attributions.setdefault(method, [])
        if isinstance(record, AttributionRecord):
            attributions[method].append(entry.holding(record))
        elif isinstance(record, SelectionRecord):
            selections[method].append(entry.holding(record))
        elif isinstance(record, SelectionCostRecord):
            costs[method][record.swept] = entry.holding(record)
        else:
            uses[method].append(entry.holding(record))
    methods = {
        m: MethodStudy(m, attributions[m], _by_selector(selections[m], attributions[m]), uses[m], costs[m])
        for m in sorted(attributions)
    }
    return TaskStudy(name, methods, bundles, superseded, entries=entries)


def _by_selector(
    selections: Sequence[Entry[SelectionRecord]], attributions: Sequence[Entry[AttributionRecord]]
) -> dict[str, Entry[SelectionRecord]]:
    """Selector → the last of the selections, given oldest first; those from the defaults come after all others."""
    defaults = {configuration_key(e.record.hyperparameters) for e in attributions if e.record.variant == "default"}
    ordered = sorted(selections, key=lambda e: configuration_key(e.record.default.hyperparameters) in defaults)
    return {entry.record.selector: entry for entry in ordered}


def question_of(record: AnyRecord) -> str:
    """Name of the question that a record's ground truth asks; empty for the usual one, and where it needs none."""
    return record.ground_truth.question if record.ground_truth else ""


def truth_of(record: AnyRecord) -> str:
    """SHA-256 of the ground truth that a record names; empty where it needs none."""
    return record.ground_truth.sha256 if record.ground_truth else ""


def _edition(record: AnyRecord) -> Edition:
    return record.task.version, record.task.fingerprint, truth_of(record)


def _is_current(record: AnyRecord, current: Edition | None) -> bool:
    """Whether a record is on the task's current version and ground truth; one that needs none is on any."""
    return current is not None and _edition(record) in (current, (*current[:2], ""))


def _calibration(record: AttributionRecord) -> float:
    """Mean LDS on calibration points, which the oracle goes by; what failed comes last."""
    return -2.0 if record.calibration is None else record.calibration


def configuration_key(hyperparameters: Mapping[str, Scalar]) -> str:
    """One text per configuration, whatever the order of its hyperparameters."""
    return json.dumps(hyperparameters, sort_keys=True)


def facts(methods: Iterable[MethodStudy]) -> tuple[str, str]:
    """Family and paper of an attributor, from its newest record."""
    newest = max((m.newest for m in methods if m.newest), key=lambda entry: entry.age, default=None)
    return (newest.record.attributor.family, newest.record.attributor.paper) if newest else ("control", "")
