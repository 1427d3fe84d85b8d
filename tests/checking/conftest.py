"""A small method with a score matrix on the embedded digits, its card, and an entry made of them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray
from safetensors.numpy import save_file

from attriboard.checking.entries import draft_entry, write_entry
from attriboard.checking.entry_check import check_entry
from attriboard.evaluation.catalog import load_task
from attriboard.evaluation.grader import Grader
from attriboard.groundtruth.bundle import read_ground_truth
from attriboard.groundtruth.listing import BundleRegistry
from attriboard.records.files import read_record, write_record
from attriboard.records.method_card import load_method_card
from attriboard.records.model import AttributionRecord

CARD = {
    "name": "class_neighbours",
    "paper": "https://arxiv.org/abs/0000.00000",
    "authors": ["Ada Lovelace", "Charles Babbage"],
    "protocol": "default",
    "code": "https://github.com/ada/class_neighbours",
    "commit": "0123abc",
    "family": "similarity",
}
TASK = "digits_mlp"


def write_card(path: Path, **changes: Any) -> Path:
    """A card file; a change to `...` leaves the field out."""
    fields = {key: value for key, value in (CARD | changes).items() if value is not ...}
    path.write_text(yaml.safe_dump(fields), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def grader() -> Grader:
    task = load_task(TASK)
    return Grader(read_ground_truth(BundleRegistry().locate(task.card, "groundtruth")))


@pytest.fixture(scope="session")
def matrix() -> NDArray[np.float32]:
    """Scores with a signal: similar inputs of the same class help."""
    data = load_task(TASK).load_data()
    train, test = (part.inputs.flatten(1).numpy() for part in (data.train, data.test))
    same = data.test.targets.numpy()[:, None] == data.train.targets.numpy()[None]
    return np.where(same, test @ train.T, -1.0).astype(np.float32)


@pytest.fixture(scope="session")
def graded(grader: Grader, matrix: NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory) -> AttributionRecord:
    card = load_method_card(write_card(tmp_path_factory.mktemp("card") / "method.yaml"))
    return grader.record_of_scores(load_task(TASK), matrix, card.name, card)


@dataclass(frozen=True)
class Made:
    """An entry in a folder of its own, and the files that it came from."""

    folder: Path
    card: Path
    record: Path
    scores: Path

    def errors(self, *published: Path) -> list[str]:
        report = check_entry(self.folder, published)
        assert report.ok == (not report.errors)
        return [f"{problem.where}: {problem.message}" for problem in report.errors]

    def warnings(self, *published: Path) -> list[str]:
        return [f"{p.where}: {p.message}" for p in check_entry(self.folder, published).warnings]

    def rewrite(self, change: Callable[[dict[str, Any]], None], rename: bool = True) -> Path:
        """Change the record, as a cheat would: under the name of its new content."""
        (path,) = (self.folder / "records").iterdir()
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))
        return path.replace(path.with_name(read_record(path).path.name)) if rename else path


@pytest.fixture
def made(graded: AttributionRecord, matrix: NDArray[np.float32], tmp_path: Path) -> Made:
    card, scores = write_card(tmp_path / "method.yaml"), tmp_path / "scores.safetensors"
    save_file({"scores": matrix}, scores)
    record = write_record(graded, tmp_path / "results")
    folder = write_entry(draft_entry(card, [tmp_path / "results"], [scores]), tmp_path / "entry")
    return Made(folder, card, record, scores)


@pytest.fixture
def bare(made: Made) -> Made:
    """The entry without its scores, which take a second to grade."""
    for path in (made.folder / "scores").iterdir():
        path.unlink()
    return made
