"""Entries: submissions to the leaderboard, each a folder that a pull request adds.

    <name>/method.yaml               the method card
    <name>/records/<record>.json     records, each named by its own digest
    <name>/scores/<digest>.safetensors  optional: the score matrices that records were graded from

Nothing in it is code. The folder's place in the repository is `leaderboard/entries/`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from safetensors.numpy import save

from attriboard.base.errors import FormatError, InputError
from attriboard.base.paths import write_atomically
from attriboard.base.scores import Scores, read_matrix, scores_digest
from attriboard.records.files import AnyRecord, read_record
from attriboard.records.method_card import MethodCard, load_method_card
from attriboard.records.model import AttributionRecord

CARD, RECORDS, SCORES = "method.yaml", "records", "scores"

MAX_FILES = 5_000  # a folder with more is a home folder, not results
MAX_NAMED = 20  # files at fault


@dataclass(frozen=True)
class Draft:
    """What an entry will be made of.

    Attributes:
        card: the method card, and its file.
        card_path: its file.
        records: record → its file.
        scores: digest → score matrix.
        others: how many records of other methods were left out.
    """

    card: MethodCard
    card_path: Path
    records: Sequence[tuple[AnyRecord, Path]]
    scores: dict[str, Scores]
    others: int


def scores_file(sha256: str) -> str:
    """What a score matrix is called inside an entry."""
    return f"{sha256[:16]}.safetensors"


def draft_entry(card_path: Path, places: Iterable[Path], score_paths: Iterable[Path]) -> Draft:
    """Collect the parts of an entry.

    Args:
        card_path: the method card.
        places: records, or folders of them; those of other methods are left out.
        score_paths: score matrices in safetensors files, each of one of the records.

    Raises:
        InputError: whatever is missing or wrong, a line for each.
    """
    problems: list[str] = []
    card = None
    try:
        card = load_method_card(card_path)
    except InputError as error:
        problems.append(str(error))
    found = _records(places, problems)
    records = {
        record.id: (record, path) for record, path in found if card is None or record.attributor.name == card.name
    }
    others = len({record.id for record, _ in found}) - len(records)
    if card is not None and not records:
        names = ", ".join(sorted({record.attributor.name for record, _ in found}))
        which = f"none of those given is of {card.name}, they are of {names}" if names else "none was found"
        problems.append(
            f"records: {which}; make one with attriboard score or attriboard run, or correct the card's name"
        )
    if card is not None and (problem := broken_promise(card, [record for record, _ in records.values()])):
        problems.append(f"{card_path}: {problem}")
    scores = _scores(score_paths, [record for record, _ in records.values()], problems)
    if problems or card is None:
        raise InputError("\n".join(problems))
    return Draft(card, card_path, list(records.values()), scores, others)


def broken_promise(card: MethodCard, records: Iterable[AnyRecord]) -> str | None:
    """What a card's protocol promises and its records do not show; `None` where nothing speaks against it."""
    variants = {record.variant for record in records if isinstance(record, AttributionRecord)}
    if card.protocol == "selected" and variants == {"default"}:
        return (
            "protocol = selected: every record has default hyperparameters; add the records that attriboard select "
            "wrote, or say protocol: default"
        )
    return None


def write_entry(draft: Draft, out: Path) -> Path:
    """Write an entry below `out`; parts that are there already stay, a changed card replaces the old one.

    Returns:
        The entry's folder.
    """
    folder = out / draft.card.name
    write_atomically(folder / CARD, draft.card_path.read_bytes())
    for record, path in draft.records:
        target = folder / RECORDS / record.path.name
        if not target.exists():
            write_atomically(target, path.read_bytes())
    for sha256, matrix in draft.scores.items():
        target = folder / SCORES / scores_file(sha256)
        if not target.exists():
            write_atomically(target, save({"scores": matrix}))
    return folder


def _records(places: Iterable[Path], problems: list[str]) -> list[tuple[AnyRecord, Path]]:
    found, faults = [], []
    for path in [path for place in places for path in _record_files(place, problems)]:
        try:
            found.append((read_record(path), path))
        except FormatError as error:
            faults.append(f"records: {error}")
    problems += faults[:MAX_NAMED]
    if len(faults) > MAX_NAMED:
        problems.append(f"records: and {len(faults) - MAX_NAMED} more files that are no records")
    return found


def _record_files(place: Path, problems: list[str]) -> list[Path]:
    if not place.is_dir():
        if not place.exists():
            problems.append(f"records: {place}: no such file or folder")
        return [place] * place.exists()
    files = list(islice(place.rglob("*.json"), MAX_FILES + 1))
    if len(files) > MAX_FILES:
        problems.append(
            f"records: {place}: more than {MAX_FILES} JSON files lie below it; name the folder of the records"
        )
        return []
    return sorted(files)


def _scores(paths: Iterable[Path], records: Sequence[AnyRecord], problems: list[str]) -> dict[str, Scores]:
    """Score matrices by digest, each of which is that of a record."""
    known = {record.scores_sha256 for record in records if isinstance(record, AttributionRecord)}
    matrices = {}
    for path in paths:
        try:
            matrix = read_matrix(path)
        except FormatError as error:
            problems.append(f"scores: {error}")
            continue
        sha256 = scores_digest(matrix)
        if sha256 not in known:
            problems.append(
                f"scores: {path}: SHA-256 {sha256[:12]}… is that of no record here; grade it first: "
                f"attriboard score TASK {path} --method CARD"
            )
        matrices[sha256] = matrix
    return matrices
