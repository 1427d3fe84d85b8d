"""WikiText-2 from the mirror and through Hugging Face's own libraries, offline: the same code as online."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from attriboard.base.digests import digest_bytes, digest_file
from attriboard.base.errors import CardError, DataError
from attriboard.contracts.card import TaskCard, load_card
from attriboard.contracts.task import Dataset
from attriboard.tasks.catalogue import task_from_card
from attriboard.tasks.datasets import wikitext2
from attriboard.tasks.datasets.wikitext2 import cut_blocks, text_rows

MERGES = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("Ġ", "a"), ("e", "r")]
CONFIGURATION = "wikitext-2-raw-v1"


@dataclass
class Place:
    """A mirror with everything, a card that fits it, and the blocks as plain Python makes them."""

    mirror: Path
    text: dict[str, str]
    card: TaskCard

    @property
    def repository(self) -> Path:
        return self.mirror / "Salesforce" / "wikitext"

    @property
    def tokenizer(self) -> Path:
        return self.mirror / "openai-community" / "gpt2"

    def load(self) -> Dataset:
        return task_from_card(self.card).load_data()


def plain_tokens(text: str, merges: list[tuple[str, str]], numbers: dict[str, int]) -> list[int]:
    """Byte-level BPE of lower-case words and single spaces, by its definition."""
    tokens = []
    for word in text.replace(" ", " Ġ").split(" "):
        pieces = [("Ċ" if letter == "\n" else letter) for letter in word]
        for left, right in merges:
            position = 0
            while position < len(pieces) - 1:
                if (pieces[position], pieces[position + 1]) == (left, right):
                    pieces[position : position + 2] = [left + right]
                position += 1
        tokens += [numbers[piece] for piece in pieces]
    return tokens


def write_tokenizer(folder: Path) -> dict[str, int]:
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = sorted(ByteLevel.alphabet())
    numbers = {token: number for number, token in enumerate([*alphabet, *(a + b for a, b in MERGES)])}
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps(numbers), encoding="utf-8")
    lines = "\n".join(f"{a} {b}" for a, b in MERGES)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{lines}\n", encoding="utf-8")
    return numbers


def write_repository(folder: Path, text: dict[str, str]) -> None:
    """A data set repository as the Hub has it: a README that names its Parquet files."""
    import pyarrow
    import pyarrow.parquet

    (folder / CONFIGURATION).mkdir(parents=True)
    files = [{"split": split, "path": f"{CONFIGURATION}/{split}-*"} for split in text]
    header = yaml.safe_dump({"configs": [{"config_name": CONFIGURATION, "data_files": files}]})
    (folder / "README.md").write_text(f"---\n{header}---\n")
    for split, whole in text.items():
        table = pyarrow.table({"text": text_rows(whole)})
        pyarrow.parquet.write_table(table, folder / CONFIGURATION / f"{split}-00000-of-00001.parquet")


@pytest.fixture
def place(tmp_path, monkeypatch) -> Place:
    rng = np.random.default_rng(0)
    words = ["the", "then", "in", "a", "tin", "hat", "other", "er", "her"]
    text = {
        split: "".join(f" {' '.join(rng.choice(words, 9))} \n \n" for _ in range(lines))
        for split, lines in (("validation", 12), ("test", 7))
    }
    mirror = tmp_path / "mirror"
    (mirror / "wikitext2" / "raw").mkdir(parents=True)
    for split, name in (("validation", "valid"), ("test", "test")):
        (mirror / "wikitext2" / "raw" / f"{name}.txt").write_text(text[split], encoding="utf-8")
    tokenizer = mirror / "gpt2_tokenizer"
    numbers = write_tokenizer(tokenizer)
    monkeypatch.setenv("ATTRIBOARD_DATA", str(mirror))
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    blocks = {}
    for name, split in (("train_blocks", "validation"), ("test_blocks", "test")):
        tokens = plain_tokens("".join(text_rows(text[split])), MERGES[:4], numbers)
        whole = np.array(tokens[: len(tokens) // 8 * 8], dtype=np.int64).reshape(-1, 8)[::2]
        blocks[name] = whole[: 10 if name == "train_blocks" else 5]
    options = {
        "train_split": "validation",
        "test_split": "test",
        "length": 8,
        "vocabulary": 260,
        "every": 2,
        "vocab_sha256": digest_file(tokenizer / "vocab.json"),
        "merges_sha256": digest_file(tokenizer / "merges.txt"),
    }
    raw = {
        "name": "pretend_wikitext",
        "title": "Pretend",
        "description": "Words.",
        "licence": "none",
        "kind": "language_modeling",
        "target": "negative_loss",
        "data": {
            "dataset": "wikitext2",
            "n_train": 10,
            "n_test": 5,
            "options": options,
            "sha256": {name: digest_bytes(array.tobytes()) for name, array in blocks.items()},
        },
        "model": {
            "architecture": "gpt2",
            "options": {"vocabulary": 260, "length": 8, "width": 32, "layers": 1, "heads": 1},
        },
        "recipe": {"optimizer": "adamw", "learning_rate": 1e-3, "epochs": 1, "batch_size": 4},
        "checkpoints": {"epochs": [1]},
    }
    return Place(mirror, text, load_card(raw))


@pytest.fixture
def hub_copy(place) -> Place:
    """The same, but with copies of the Hub's repositories instead of the mirror's own files."""
    write_repository(place.repository, place.text)
    place.tokenizer.parent.mkdir()
    (place.mirror / "gpt2_tokenizer").rename(place.tokenizer)
    for file in (place.mirror / "wikitext2" / "raw").iterdir():
        file.unlink()
    return place


def changed(card: TaskCard, **options: object) -> TaskCard:
    data = card.data.model_copy(update={"options": dict(card.data.options) | options})
    return card.model_copy(update={"data": data})


def test_the_mirror_gives_the_blocks_that_plain_python_makes(place):
    data = place.load()  # the card's digests are those of the plain blocks
    assert data.train.inputs.shape == (10, 8)
    assert data.test.targets is data.test.inputs
    assert task_from_card(place.card).data_available()


def test_a_copy_of_the_hubs_repositories_gives_the_same_bytes_and_is_cached(hub_copy, monkeypatch):
    task = task_from_card(hub_copy.card)
    assert task.data_available()
    first = task.load_data()
    monkeypatch.delenv("ATTRIBOARD_DATA")
    assert task.data_available()
    assert (task.load_data().train.inputs == first.train.inputs).all()


def test_the_tokenizer_is_gpt2s_where_nothing_is_cut(place, tmp_path):
    from transformers import GPT2TokenizerFast

    folder = place.mirror / "gpt2_tokenizer"
    theirs = GPT2TokenizerFast.from_pretrained(folder)
    rows = text_rows(place.text["test"])
    expected = [token for row in rows for token in theirs(row)["input_ids"]]
    options = wikitext2.WikiText2Options.parse("", dict(place.card.data.options) | {"vocabulary": 262})
    ours = wikitext2.cut_tokenizer(options, folder / "vocab.json", folder / "merges.txt")
    assert cut_blocks(ours, rows, 2, 0).ravel().tolist() == expected[: len(expected) // 2 * 2]


@given(st.lists(st.text(st.characters(exclude_characters="\n\r"), max_size=6), max_size=12))
def test_rows_are_the_lines_with_blank_ones_emptied(lines):
    rows = text_rows("".join(f"{line}\n" for line in lines))
    assert len(rows) == len(lines)
    assert rows == [line + "\n" if line.strip() else "" for line in lines]


class Letters:
    """A tokenizer with a token for each letter."""

    def encode_batch(self, rows):
        return [type("Encoding", (), {"ids": [ord(letter) for letter in row]}) for row in rows]


@given(
    st.lists(st.text("abc", max_size=7), max_size=9),
    st.integers(2, 5),
    st.integers(0, 4),
)
def test_blocks_hold_the_tokens_of_each_group_in_order_and_drop_its_remainder(rows, length, rows_per_group):
    size = rows_per_group or len(rows) or 1
    groups = ["".join(rows[start : start + size]) for start in range(0, len(rows), size)]
    expected = [group[i : i + length] for group in groups for i in range(0, len(group) - length + 1, length)]
    blocks = cut_blocks(Letters(), rows, length, rows_per_group)
    assert blocks.dtype == np.int64
    assert ["".join(map(chr, block)) for block in blocks] == expected


def truncated_parquet(place: Place) -> None:
    path = place.repository / CONFIGURATION / "test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-40])


def missing_split(place: Place) -> None:
    (place.repository / CONFIGURATION / "validation-00000-of-00001.parquet").unlink()


def another_configuration(place: Place) -> None:
    (place.repository / "README.md").write_text("---\nconfigs:\n- config_name: other\n  data_files: other/*\n---\n")


def no_merges(place: Place) -> None:
    (place.tokenizer / "merges.txt").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated_parquet, r"cannot read split \w+: .*this copy is partial or damaged: hf download Salesforce"),
        (missing_split, r"cannot read split \w+: .*partial or damaged"),
        (another_configuration, r"cannot read split \w+: .*partial or damaged"),
        (no_merges, r"gpt2: has no file merges\.txt; this copy is partial: hf download openai-community/gpt2"),
    ],
)
def test_a_partial_copy_is_an_error_that_says_how_to_replace_it(damage, message, hub_copy):
    damage(hub_copy)
    with pytest.raises(DataError, match=message):
        hub_copy.load()


def test_a_renamed_column_is_an_error(hub_copy, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: datasets.Dataset.from_dict({"words": ["a"]}))
    with pytest.raises(DataError, match="split validation must have a column `text`, it has words"):
        hub_copy.load()


@pytest.mark.parametrize("file", ["vocab.json", "merges.txt"])
def test_another_tokenizer_is_refused(file, place):
    path = place.mirror / "gpt2_tokenizer" / file
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(DataError, match=rf"{file}: has SHA-256 [0-9a-f]{{64}}, the card pins"):
        place.load()


def test_another_text_is_refused(place):
    path = place.mirror / "wikitext2" / "raw" / "valid.txt"
    path.write_text(path.read_text().replace("hat", "tin"))
    with pytest.raises(DataError, match=r"offline mirror: the first 10 rows of train_blocks have SHA-256"):
        place.load()


def test_text_that_is_no_utf8_is_an_error(place):
    (place.mirror / "wikitext2" / "raw" / "valid.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"valid\.txt: not readable as UTF-8"):
        place.load()


def test_too_little_text_is_an_error(place):
    short = changed(place.card, every=100)
    with pytest.raises(DataError, match=r"train_blocks is int64 \(1, 8\), must be int64 \(10, 8\) or longer"):
        task_from_card(short).load_data()


def test_unpinned_bytes_are_accepted_and_the_rest_is_still_checked(place):
    sha256 = dict(place.card.data.sha256) | {"train_blocks": None}
    data = place.card.data.model_copy(update={"sha256": sha256})
    task = task_from_card(place.card.model_copy(update={"data": data}))
    assert len(task.load_data().train) == 10
    (place.mirror / "wikitext2" / "raw" / "test.txt").write_text(place.text["validation"])
    with pytest.raises(DataError, match="test_blocks have SHA-256"):
        task.load_data()


def test_a_missing_extra_and_a_missing_network_are_reasons_in_one_message(place, monkeypatch):
    monkeypatch.delenv("ATTRIBOARD_DATA")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError) as caught:
        place.load()
    for part in (
        "offline mirror: ATTRIBOARD_DATA is not set",
        "Hugging Face Salesforce/wikitext at revision b08601e04326: the package `datasets` does not import",
        "a directory with wikitext2/raw/*.txt and gpt2_tokenizer/",
        "pip install 'attriboard[text]'",
        "hf download Salesforce/wikitext --repo-type dataset --revision b08601e04326c79dfdd32d625aee71d232d685c3",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 1}, "data.options.length = 1"),
        ({"vocabulary": 255}, "data.options.vocabulary = 255"),
        ({"train_split": "valid"}, "data.options.train_split = 'valid'"),
    ],
)
def test_options_out_of_range_are_refused(options, message, place):
    with pytest.raises(CardError, match=message):
        task_from_card(changed(place.card, **options))
