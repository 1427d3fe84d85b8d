"""What a pull request with an entry is checked for, without running anything of it.

Names and kinds of files, card and records by their schemas, the task and ground truth that are current, no record
twice, scores that are the records', numbers that come out again from the scores, and nobody else's scores under a new
name.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import numpy as np

from attriboard.base.errors import AttriboardError, FormatError
from attriboard.base.scores import Scores, read_matrix, scores_digest
from attriboard.checking.entries import CARD, RECORDS, SCORES, broken_promise, scores_file
from attriboard.checking.problems import Problem, Report
from attriboard.contracts.task import Task
from attriboard.evaluation.catalog import attributor_names, load_task, task_names
from attriboard.evaluation.grader import Grader
from attriboard.groundtruth.bundle import read_ground_truth
from attriboard.groundtruth.listing import BundleRegistry
from attriboard.records.files import AnyRecord, read_record
from attriboard.records.method_card import MethodCard, load_method_card
from attriboard.records.model import AttributionRecord
from attriboard.records.verifications import compare_numbers

TOLERANCE = 1e-6  # between a claimed number and the one that comes out again
NEAR = 0.01  # LDS, root mean square over scoring points, under which two methods' results are called the same
MAX_FILES = 5000
CLOCKS = timedelta(days=1)  # that a record may be ahead of this machine


def check_entry(folder: Path, published: Sequence[Path], registry: BundleRegistry | None = None) -> Report:
    """Check an entry.

    Args:
        folder: the entry.
        published: folders of the records that there are already; the entry may lie in one of them.
        registry: the current bundles; by default the published ones.

    Raises:
        FormatError: the published records cannot be read.
    """
    check = _Check(folder, published, registry or BundleRegistry())
    check.run()
    return Report("entry", tuple(check.errors), tuple(check.warnings))


@dataclass(frozen=True)
class _Known:
    """A published record, and its file."""

    record: AnyRecord
    path: Path


class _Check:
    """One check of one folder: problems pile up, nothing is raised."""

    def __init__(self, folder: Path, published: Sequence[Path], registry: BundleRegistry) -> None:
        self._folder = folder
        self._published = published
        self._registry = registry
        self._graders: dict[tuple[str, str], tuple[Task, Grader] | None] = {}
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []

    def run(self) -> None:
        """Check everything."""
        files = self._files()
        if files is None:
            return
        card = self._card()
        records = dict(self._records(path for path in files if path.parent.name == RECORDS))
        if not records:
            self._wrong(RECORDS, "no valid record; an entry has at least one")
        for where, record in records.items():
            self._check_record(where, record, card)
        if card is not None and (problem := broken_promise(card, records.values())):
            self._wrong(CARD, problem)
        matrices = self._matrices([path for path in files if path.parent.name == SCORES], list(records.values()))
        for where, record in records.items():
            if isinstance(record, AttributionRecord):
                self._score_again(where, record, matrices)
                self._look_for_twins(where, record)
                self._doubt(where, record)

    def _wrong(self, where: str, message: str) -> None:
        self.errors.append(Problem(where, message))

    def _odd(self, where: str, message: str) -> None:
        self.warnings.append(Problem(where, message))

    def _files(self) -> list[Path] | None:
        """The entry's files; `None` where it has so many that looking on makes no sense."""
        found = []
        for position, path in enumerate(sorted(self._folder.rglob("*"))):
            where = path.relative_to(self._folder).as_posix()
            if position >= MAX_FILES:
                self._wrong("folder", f"more than {MAX_FILES} files")
                return None
            if path.is_symlink():
                self._wrong(where, "a symbolic link; an entry has plain files only")
            elif path.is_dir():
                if where not in (RECORDS, SCORES):
                    self._wrong(where, f"does not belong here; the folders are {RECORDS} and {SCORES}")
            elif not path.is_file():
                self._wrong(where, "neither a file nor a folder")
            elif where == CARD or (path.parent.name, path.suffix) in ((RECORDS, ".json"), (SCORES, ".safetensors")):
                found.append(path)
            else:
                self._wrong(
                    where, f"does not belong here: {CARD}, {RECORDS}/*.json and {SCORES}/*.safetensors do; remove it"
                )
        return found

    def _card(self) -> MethodCard | None:
        try:
            card = load_method_card(self._folder / CARD)
        except AttriboardError as error:
            self._wrong(CARD, str(error))
            return None
        if card.name != self._folder.resolve().name:
            self._wrong(CARD, f"name = {card.name}: the folder is called {self._folder.resolve().name}; rename one")
        return card

    def _records(self, paths: Iterable[Path]) -> Iterator[tuple[str, AnyRecord]]:
        for path in paths:
            where = path.relative_to(self._folder).as_posix()
            try:
                record = read_record(path)
            except FormatError as error:
                self._wrong(where, str(error))
                continue
            if path.name != record.path.name:
                self._wrong(where, f"altered or renamed: its content belongs to {record.path.name}")
            yield where, record

    def _check_record(self, where: str, record: AnyRecord, card: MethodCard | None) -> None:
        name = record.attributor.name
        if card is not None and name != card.name:
            self._wrong(where, f"attributor = {name}: the entry is of {card.name}")
        if name in attributor_names() and record.attributor.origin != "builtin":
            self._wrong(where, f"attributor = {name}: a built-in method has this name; choose another")
        method = record.method if isinstance(record, AttributionRecord) else None
        if card is not None and method is not None and method.card_sha256 != card.sha256:
            self._wrong(
                where,
                f"was graded with another method card ({method.card_sha256[:12]}…) than {CARD} ({card.sha256[:12]}…); "
                "grade the scores again, or put the old card back",
            )
        if datetime.fromisoformat(record.created) > datetime.now(UTC) + CLOCKS:
            self._wrong(where, f"created = {record.created}: lies in the future; set the clock and make it again")
        if twin := self._known_by_id.get(record.id):
            self._wrong(where, f"is published already, as {twin.path.name}; records are never handed in twice")
        self._check_identity(where, record)

    def _check_identity(self, where: str, record: AnyRecord) -> None:
        """The task's fingerprint and the ground truth must be the current ones."""
        task = record.task
        if task.name not in task_names():
            self._wrong(where, f"task = {task.name}: there is no such task; there are {', '.join(task_names())}")
            return
        card = load_task(task.name).card
        if (task.version, task.fingerprint) != (card.version, card.fingerprint):
            self._wrong(
                where,
                f"task = {task.name} version {task.version}, fingerprint {task.fingerprint[:12]}…: the current one is "
                f"version {card.version}, {card.fingerprint[:12]}…; evaluate again on it",
            )
            return
        truth = record.ground_truth
        if truth is None:
            return
        entry = self._registry.find(card, "groundtruth", card.question(truth.question))
        if entry is None or truth.sha256 != entry.sha256:
            current = f"the current one has {entry.sha256[:12]}…" if entry else "none is published"
            self._wrong(
                where,
                f"ground truth {truth.sha256[:12]}… of {task.name}: {current}; evaluate again on the published one",
            )

    def _grader(self, task: str, question: str) -> tuple[Task, Grader] | None:
        if (task, question) not in self._graders:
            try:
                live = load_task(task)
                path = self._registry.locate(live.card, "groundtruth", live.card.question(question))
                self._graders[task, question] = live, Grader(read_ground_truth(path))
            except AttriboardError as error:
                self._odd(RECORDS, f"nothing of {task} was scored again: {error}")
                self._graders[task, question] = None
        return self._graders[task, question]

    def _matrices(self, paths: Sequence[Path], records: Sequence[AnyRecord]) -> dict[str, Scores]:
        """Score matrices that some record claims, by digest."""
        claims = {r.scores_sha256: r.task.name for r in records if isinstance(r, AttributionRecord) and r.scores_sha256}
        named = {scores_file(sha256): sha256 for sha256 in claims}
        matrices = {}
        for path in paths:
            where = path.relative_to(self._folder).as_posix()
            claimed = named.get(path.name)
            if claimed is None:
                self._wrong(where, "belongs to no record: its name must begin with the scores_sha256 of one; remove it")
                continue
            if claims[claimed] not in task_names():
                continue
            try:
                matrix = read_matrix(path, load_task(claims[claimed]).score_shape)
            except FormatError as error:
                self._wrong(where, str(error))
                continue
            if (found := scores_digest(matrix)) != claimed:
                self._wrong(where, f"SHA-256 {found[:12]}…, the record says {claimed[:12]}…; these are other scores")
                continue
            matrices[claimed] = matrix
        return matrices

    def _score_again(self, where: str, record: AttributionRecord, matrices: Mapping[str, Scores]) -> None:
        """Scores that are there must give the record's numbers."""
        if record.scores_sha256 is None:
            return
        if record.scores_sha256 not in matrices:
            self._odd(
                where,
                f"its scores are not in {SCORES}/, so its numbers are taken on trust; `run --save-scores` keeps them, "
                "`submit --scores` adds them",
            )
            return
        opened = self._grader(record.task.name, record.ground_truth.question)
        if opened is None or opened[1].truth.sha256 != record.ground_truth.sha256:
            return
        task, grader = opened
        again = grader.record_of_scores(task, matrices[record.scores_sha256], record.attributor.name)
        for disagreement in compare_numbers(record, again, TOLERANCE):
            self._wrong(where, f"{disagreement} when the scores were graded again")

    def _doubt(self, where: str, record: AttributionRecord) -> None:
        """What no method can get is said, and must not be called ok."""
        if record.status == "implausible":
            self._odd(where, f"{record.reason}; it never ranks")
        elif record.doubt:
            self._wrong(where, f"status = {record.status}, but it is {record.doubt}")

    @cached_property
    def _known(self) -> list[_Known]:
        """Published records outside of this folder."""
        mine = self._folder.resolve()
        paths = [path for folder in self._published if folder.is_dir() for path in sorted(folder.rglob("*.json"))]
        return [_Known(read_record(path), path) for path in paths if mine not in path.resolve().parents]

    @cached_property
    def _known_by_id(self) -> dict[str, _Known]:
        return {known.record.id: known for known in self._known}

    def _look_for_twins(self, where: str, record: AttributionRecord) -> None:
        """Other methods whose results are these, or next to these."""
        if record.lds is None:
            return
        for known in self._known:
            other = known.record
            if not isinstance(other, AttributionRecord) or other.attributor.name == record.attributor.name:
                continue
            if (other.task, other.ground_truth) != (record.task, record.ground_truth) or other.lds is None:
                continue
            whose = f"{other.attributor.name} ({known.path.stem.rpartition('-')[2]})"
            if other.scores_sha256 == record.scores_sha256:
                self._wrong(where, f"duplicate: the scores are those of {whose}")
            elif (distance := _distance(record, other)) is not None and distance < NEAR:
                self._odd(
                    where,
                    f"near-duplicate: over scoring points its LDS differs from that of {whose} by {distance:.4f} (root "
                    f"mean square); say in the pull request how the two methods differ",
                )


def _distance(one: AttributionRecord, other: AttributionRecord) -> float | None:
    """Root mean square over scoring points of the difference in LDS; `None` where a record keeps no vector."""
    first, second = (record.lds.per_test if record.lds else None for record in (one, other))
    if first is None or second is None or len(first) != len(second):
        return None
    return float(np.sqrt(np.mean((np.array(first) - np.array(second)) ** 2)))
