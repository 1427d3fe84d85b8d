"""WikiText-2 (raw) as blocks of tokens of GPT-2's byte-level BPE, or of its first merges alone.

Source: Merity et al., *Pointer Sentinel Mixture Models*, ICLR 2017 (arXiv 1609.07843), without its `<unk>`. The rows
of a split are tokenized, their tokens joined, and cut into blocks of equal length; the remainder is dropped.

A small vocabulary is GPT-2's own, cut: token numbers are bytes first and then merges in the order in which BPE
learned them, so the first V of them are a byte-level BPE of V tokens. It needs no unknown token and no training.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from attriboard.base.digests import digest_file
from attriboard.base.errors import DataError
from attriboard.contracts.card import DataSpec
from attriboard.contracts.task import Dataset, Examples
from attriboard.tasks.datasets.arrays import ArrayLayout, Arrays
from attriboard.tasks.datasets.downloads import HubDataset
from attriboard.tasks.datasets.sources import Cache, Loader, Source
from attriboard.tasks.fields import Options
from attriboard.tasks.hub import Absent, HubRepository, import_extra
from attriboard.tasks.mirror import mirror_directory

HUB = HubDataset("Salesforce/wikitext", "b08601e04326c79dfdd32d625aee71d232d685c3", "wikitext-2-raw-v1")
TOKENIZER = HubRepository("openai-community/gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e")

_TOKENIZER_FOLDER = "gpt2_tokenizer"
_MIRROR_FILES = {"train": "train.txt", "validation": "valid.txt", "test": "test.txt"}
_N_BYTES = 256
Split = Literal["train", "validation", "test"]


class WikiText2Options(Options):
    """Options of the data set `wikitext2`."""

    train_split: Split
    test_split: Split
    length: int = Field(gt=1, description="tokens in a block")
    vocabulary: int = Field(ge=_N_BYTES, le=50_257, description="how many of GPT-2's tokens, from the first on")
    rows_per_group: int = Field(
        default=0, ge=0, description="rows whose tokens are joined before they are cut; 0: all rows of the split"
    )
    every: int = Field(default=1, gt=0, description="each how many-th block is an example")
    vocab_sha256: str = Field(description="digest of the tokenizer's vocab.json")
    merges_sha256: str = Field(description="digest of the tokenizer's merges.txt")


class WikiText2Loader(Loader):
    """WikiText-2 as blocks (n, length) int64, which are inputs and targets alike."""

    def __init__(self, spec: DataSpec) -> None:
        self._options = WikiText2Options.parse("data.options", spec.options)
        super().__init__(spec)

    @property
    def layout(self) -> Mapping[str, ArrayLayout]:
        """Two arrays of blocks."""
        blocks = ArrayLayout("int64", (self._options.length,))
        return {"train_blocks": blocks, "test_blocks": blocks}

    def sources(self) -> Sequence[Source]:
        """Mirror, cache, Hugging Face."""
        return (_FromMirror(self._options), Cache(self.spec, self.layout), _FromHub(self._options))

    def text(self, tokens: Sequence[int]) -> str | None:
        """What the tokens say; `None` without the tokenizer."""
        try:
            decoded: str = self._decoder.decode(list(tokens))
        except (Absent, DataError):
            return None
        return decoded

    @cached_property
    def _decoder(self) -> Any:
        source = _Text(self._options)
        tokenizer = cut_tokenizer(
            self._options, source.tokenizer_file("vocab.json"), source.tokenizer_file("merges.txt")
        )
        tokenizer.decoder = import_extra("tokenizers").decoders.ByteLevel()
        return tokenizer

    def prepare(self, arrays: Arrays) -> Dataset:
        """Blocks as they are."""
        import torch

        train, test = (torch.from_numpy(arrays[name].copy()) for name in self.layout)
        return Dataset(train=Examples(train, train), test=Examples(test, test))


class _Text(Source):
    """Text and tokenizer files from one kind of place, made into blocks."""

    def __init__(self, options: WikiText2Options) -> None:
        self._options = options

    def fetch(self) -> Arrays:
        options = self._options
        splits: dict[str, Split] = {"train_blocks": options.train_split, "test_blocks": options.test_split}
        rows = {name: self.rows(split) for name, split in splits.items()}
        tokens = cut_tokenizer(options, self.tokenizer_file("vocab.json"), self.tokenizer_file("merges.txt"))
        return {
            name: cut_blocks(tokens, rows[name], options.length, options.rows_per_group)[:: options.every]
            for name in splits
        }

    def rows(self, split: Split) -> list[str]:
        """The split's rows as the Hub has them."""
        raise NotImplementedError

    def tokenizer_file(self, name: str) -> Path:
        """A file of the tokenizer, from the mirror, its copy of the repository, or the Hub."""
        mirror = mirror_directory()
        if mirror is not None and (mirror / _TOKENIZER_FOLDER / name).is_file():
            return mirror / _TOKENIZER_FOLDER / name
        return TOKENIZER.file(name)


class _FromMirror(_Text):
    name = "offline mirror"
    remedy = f"ATTRIBOARD_DATA=DIR, a directory with wikitext2/raw/*.txt and {_TOKENIZER_FOLDER}/"

    def present(self) -> bool:
        return all(self._file(split) is not None for split in (self._options.train_split, self._options.test_split))

    def rows(self, split: Split) -> list[str]:
        path = self._file(split)
        if path is None:
            mirror = mirror_directory()
            raise Absent(f"{mirror} has no {self._path(split)}" if mirror else "ATTRIBOARD_DATA is not set")
        try:
            return text_rows(path.read_bytes().decode("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: not readable as UTF-8 text ({error}); replace this copy") from error

    def _file(self, split: Split) -> Path | None:
        mirror = mirror_directory()
        path = mirror / self._path(split) if mirror else None
        return path if path and path.is_file() else None

    def _path(self, split: Split) -> str:
        return f"wikitext2/raw/{_MIRROR_FILES[split]}"


class _FromHub(_Text):
    remedy = f"pip install 'attriboard[text]', and a network or a copy: {HUB.repository.remedy}"
    remote = True

    def __init__(self, options: WikiText2Options) -> None:
        super().__init__(options)
        self.name = str(HUB)

    def present(self) -> bool:
        mirror = mirror_directory()
        tokenizer = TOKENIZER.copy() or (mirror and (mirror / _TOKENIZER_FOLDER).is_dir())
        return HUB.repository.copy() is not None and bool(tokenizer)

    def rows(self, split: Split) -> list[str]:
        table = HUB.rows(split)
        if "text" not in table.column_names:
            raise DataError(f"{HUB}: split {split} must have a column `text`, it has {', '.join(table.column_names)}")
        return cast("list[str]", list(table["text"]))


def text_rows(text: str) -> list[str]:
    """A split's file cut into the rows that the Hub has: lines with their end, blank ones as "".

    Args:
        text: the whole file.
    """
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [f"{line}\n" if line.strip() else "" for line in lines]


def cut_blocks(tokenizer: Any, rows: Sequence[str], length: int, rows_per_group: int) -> NDArray[np.int64]:
    """Tokenize rows, join their tokens, cut them; the remainder of each group is dropped.

    Args:
        tokenizer: a `tokenizers.Tokenizer`.
        rows: text.
        length: tokens in a block.
        rows_per_group: see `WikiText2Options`.

    Returns:
        (n_blocks, length).
    """
    size = rows_per_group or max(len(rows), 1)
    groups = (rows[start : start + size] for start in range(0, len(rows), size))
    blocks = [_whole_blocks(_tokens(tokenizer, group), length) for group in groups]
    return np.concatenate(blocks) if blocks else np.empty((0, length), np.int64)


def _tokens(tokenizer: Any, rows: Sequence[str]) -> Iterator[int]:
    return (token for encoding in tokenizer.encode_batch(list(rows)) for token in encoding.ids)


def _whole_blocks(tokens: Iterator[int], length: int) -> NDArray[np.int64]:
    flat = np.fromiter(tokens, np.int64)
    return flat[: len(flat) // length * length].reshape(-1, length)


def cut_tokenizer(options: WikiText2Options, vocab: Path, merges: Path) -> Any:
    """GPT-2's byte-level BPE, cut to the first tokens, a `tokenizers.Tokenizer`.

    Args:
        options: how many tokens, and the digests of the files.
        vocab: the tokenizer's `vocab.json`.
        merges: its `merges.txt`.

    Raises:
        DataError: a file is not the pinned one.
        Absent: the package `tokenizers` does not import.
    """
    for path, pinned in ((vocab, options.vocab_sha256), (merges, options.merges_sha256)):
        found = digest_file(path)
        if found != pinned:
            raise DataError(
                f"{path}: has SHA-256 {found}, the card pins {pinned}; this copy is damaged or of another version: "
                f"replace it by that of {TOKENIZER}"
            )
    tokenizers = import_extra("tokenizers")
    numbers: dict[str, int] = json.loads(vocab.read_text(encoding="utf-8"))
    lines = merges.read_text(encoding="utf-8").split("\n")[1:]
    pairs = [tuple(line.split(" ")) for line in lines if line][: options.vocabulary - _N_BYTES]
    kept = {token: number for token, number in numbers.items() if number < options.vocabulary}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=kept, merges=pairs))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer
