"""What is killed: builds of ground truth, a sweep, a pull, data selection; each small, each with many steps."""

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from faulty_server import serving
from selecting import GRID, make_job, run_inline, write_ridge
from tiny import PlainTinyTask, Published, tiny_card

from attriboard.attribution.runner import Runner
from attriboard.base.digests import digest_bytes
from attriboard.base.errors import FormatError
from attriboard.contracts.question import Question
from attriboard.evaluation.grader import Grader
from attriboard.evaluation.removal import RemovalBench, RemovalPlan
from attriboard.evaluation.sweeps import sweep
from attriboard.evaluation.variants import Part, attribute_parts
from attriboard.groundtruth.build import build_checkpoints, build_ground_truth, open_store
from attriboard.groundtruth.bundle import read_ground_truth
from attriboard.groundtruth.download import Patience, Pinned, fetch_file
from attriboard.groundtruth.listing import BundleRegistry
from attriboard.records.files import read_records, write_record
from attriboard.records.model import AttributionRecord
from attriboard.retraining.executors import InProcess
from attriboard.retraining.store import RetrainStore
from killing.campaign import Campaign

__all__ = ["WORKS"]

# Another task would stack: here every retrain is a shard of its own.
TASK = PlainTinyTask(tiny_card(epochs=12))
CONTENT = np.random.default_rng(0).bytes(4_000_000)
PINNED = Pinned(digest_bytes(CONTENT), len(CONTENT))


@cache
def _published() -> Published:
    folder = Path(tempfile.mkdtemp(prefix="attriboard-killing-"))
    made = Published(TASK, folder / "truth.safetensors", folder / "checkpoints.safetensors", folder / "store")
    store = open_store(TASK, made.store)
    build_ground_truth(TASK, made.truth, store)
    build_checkpoints(TASK, made.checkpoints, store)
    return made


@cache
def _grader() -> Grader:
    return Grader(read_ground_truth(_published().truth))


def _whole_or_absent(path: Path, read: Callable[[Path], object]) -> None:
    if path.exists():
        read(path)


def build() -> Campaign:
    """`groundtruth build`: the bundle's tensors."""

    def work(folder: Path) -> None:
        build_ground_truth(TASK, folder / "bundle.safetensors", open_store(TASK, folder / "store"), n_masks=16)

    def inspect(folder: Path) -> None:
        _whole_or_absent(folder / "bundle.safetensors", read_ground_truth)
        if damaged := RetrainStore(folder / "store", TASK.card.fingerprint).damaged:
            raise FormatError(f"torn shards: {damaged}")

    return Campaign(work, lambda folder: read_ground_truth(folder / "bundle.safetensors").card.content_sha256, inspect)


def questions() -> Campaign:
    """`groundtruth build --question all`: the tensors of every bundle."""
    asked = [Question.parse(name) for name in ("one-same", "10pct-same", "50pct-same", "10pct-fresh")]

    def work(folder: Path) -> None:
        store, registry = open_store(TASK, folder / "store"), BundleRegistry(folder)
        for question in asked:
            path = folder / registry.file_name(TASK.card, "groundtruth", question)
            build_ground_truth(TASK, path, store, question=question, n_masks=3)
            registry.register(TASK.card, "groundtruth", question)

    def inspect(folder: Path) -> None:
        for entry in BundleRegistry(folder).entries:
            if read_ground_truth(folder / entry.file).sha256 != entry.sha256:
                raise FormatError(f"{entry.file}: listed with other bytes")
        if damaged := RetrainStore(folder / "store", TASK.card.fingerprint).damaged:
            raise FormatError(f"torn shards: {damaged}")

    def result(folder: Path) -> object:
        entries = BundleRegistry(folder).entries
        return [(e.question, read_ground_truth(folder / e.file).card.content_sha256) for e in entries]

    return Campaign(work, result, inspect)


def sweeping() -> Campaign:
    """`sweep`: the numbers of every point."""
    made, grader = _published(), _grader()
    plugin = write_ridge(made.truth.parent, grid=GRID)
    values = [{"regularization": value, "power": power} for power in (1, 2) for value in (*GRID, 1e-5, 100.0)]

    def work(folder: Path) -> None:
        run_inline(pytest.MonkeyPatch())  # for good: it is a child's
        job = make_job(made, plugin, *values, selectors=())
        results = folder / "results"
        finished = read_records(results) if results.is_dir() else []
        with Runner().open(job) as attribution:
            for record in sweep(made.task, grader, attribution, finished):
                write_record(record, results)

    def result(folder: Path) -> object:
        records = [r for r in read_records(folder / "results") if isinstance(r, AttributionRecord)]
        return sorted((str(r.hyperparameters), r.scores_sha256, r.lds.mean if r.lds else None) for r in records)

    return Campaign(work, result, _records_are_whole)


def pull() -> Campaign:
    """`groundtruth pull`, from a server that takes its time: the file's bytes."""
    running = serving(CONTENT)
    server = running.__enter__()

    def work(folder: Path, _alive: object = running) -> None:
        fetch_file(folder / "x.bin", PINNED, [f"{server.url}/slow/x.bin"], patience=Patience(pause=0.05))

    def inspect(folder: Path) -> None:
        if (folder / "x.bin").exists() and (folder / "x.bin").read_bytes() != CONTENT:
            raise FormatError("x.bin is there and torn")

    return Campaign(work, lambda folder: digest_bytes((folder / "x.bin").read_bytes()), inspect)


def removing() -> Campaign:
    """`removal`: the accuracies of every row."""
    made, grader, plan = _published(), _grader(), RemovalPlan((0.2, 0.5), n_seeds=3)

    def work(folder: Path) -> None:
        run_inline(pytest.MonkeyPatch())  # for good: it is a child's
        bench = RemovalBench(made.task, grader, plan, open_store(TASK, folder / "store"))
        found = list(attribute_parts(make_job(made, "grad_dot"), [Part("default", None, {})], bench.rank))
        bench.retrain([each.made for each in found if each.made is not None], InProcess())
        for each in found:
            write_record(bench.record(each), folder / "results")

    def result(folder: Path) -> object:
        (record,) = read_records(folder / "results")
        return record.model_dump(include={"points", "full", "scores_sha256"})

    return Campaign(work, result, _records_are_whole)


def _records_are_whole(folder: Path) -> None:
    if (folder / "results").is_dir():
        read_records(folder / "results")


WORKS: dict[str, Callable[[], Campaign]] = {
    "groundtruth build": build,
    "questions build": questions,
    "sweep": sweeping,
    "groundtruth pull": pull,
    "removal": removing,
}
