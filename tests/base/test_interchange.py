"""Scores of other libraries are read without running anything: bergson's folders, tensors of torch.save."""

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attriboard.base.errors import FormatError
from attriboard.base.interchange import is_bergson, read_bergson, read_torch, write_bergson
from attriboard.base.scores import read_matrix

SCORES = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)


def bergson_store(folder: Path, scores: np.ndarray, **changes: Any) -> Path:
    """A store as bergson 2.5 lays it out: pairs of number and flag, each filling a power of two of bytes."""
    folder.mkdir()
    count, rows = scores.shape
    size = scores.dtype.itemsize
    pair = 1 << size.bit_length()
    names, formats, offsets = [], [], []
    for j in range(count):
        names += [f"score_{j}", f"written_{j}"]
        formats += [scores.dtype.name, "bool"]
        offsets += [j * pair, j * pair + size]
    layout = {"names": names, "formats": formats, "offsets": offsets, "itemsize": -(-count * pair // 8) * 8}
    table = np.zeros(rows, np.dtype(layout))
    for j in range(count):
        table[f"score_{j}"], table[f"written_{j}"] = scores[j], True
    table.tofile(folder / "scores.bin")
    info = {"attribute_tokens": False, "num_items": rows, "num_rows": rows, "num_scores": count, "dtype": layout}
    (folder / "info.json").write_text(json.dumps({**info, **changes}))
    return folder


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_stores_of_bergson_are_read_with_their_sign(tmp_path: Path, dtype: type) -> None:
    scores = SCORES.astype(dtype)
    folder = bergson_store(tmp_path / "store", scores)
    assert is_bergson(folder)
    np.testing.assert_array_equal(read_bergson(folder), -scores)
    (folder / "config.yaml").write_text("steps:\n- score:\n    score_cfg:\n      query_path: runs/q\n")
    np.testing.assert_array_equal(read_bergson(folder), scores)
    (folder / "config.yaml").write_text("steps:\n- score:\n    score_cfg:\n      higher_is_better: false\n")
    np.testing.assert_array_equal(read_matrix(folder, (3, 5)), -scores)


@settings(deadline=None, max_examples=25)
@given(rows=st.integers(1, 6), columns=st.integers(1, 6), double=st.booleans())
def test_what_is_written_for_bergson_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, rows: int, columns: int, double: bool
) -> None:
    scores = np.random.default_rng(rows).normal(size=(rows, columns)).astype(np.float64 if double else np.float32)
    folder = tmp_path_factory.mktemp("store")
    write_bergson(folder, scores)
    found = read_bergson(folder)
    assert found.dtype == scores.dtype
    np.testing.assert_array_equal(found, scores)


def test_damaged_stores_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="has scores of tokens"):
        read_bergson(bergson_store(tmp_path / "tokens", SCORES, attribute_tokens=True))
    torn = bergson_store(tmp_path / "torn", SCORES)
    (torn / "scores.bin").write_bytes((torn / "scores.bin").read_bytes()[:-1])
    with pytest.raises(FormatError, match=r"scores\.bin must be 5 records of 24 bytes long"):
        read_bergson(torn)
    unfinished = bergson_store(tmp_path / "unfinished", SCORES)
    content = bytearray((unfinished / "scores.bin").read_bytes())
    content[4] = 0
    (unfinished / "scores.bin").write_bytes(content)
    with pytest.raises(FormatError, match=r"1 scores were never written"):
        read_bergson(unfinished)
    layout = {"names": ["score_0", "written_0"], "formats": ["O", "bool"], "offsets": [0, 8], "itemsize": 16}
    with pytest.raises(FormatError, match="no floating-point numbers and flags"):
        read_bergson(bergson_store(tmp_path / "objects", SCORES, num_scores=1, dtype=layout))
    with pytest.raises(FormatError, match="other fields than score_j"):
        read_bergson(bergson_store(tmp_path / "other", SCORES, dtype={}))
    nothing = {"names": [], "formats": [], "offsets": [], "itemsize": 24}
    with pytest.raises(FormatError, match="num_rows = 5, num_scores = 0: no scores"):
        read_bergson(bergson_store(tmp_path / "empty", SCORES, num_scores=0, dtype=nothing))


@pytest.mark.parametrize("text", ["steps: [", "steps: {a: 1, a: 2}", "\0"])
def test_a_configuration_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    folder = bergson_store(tmp_path / "store", SCORES)
    (folder / "config.yaml").write_text(text)
    with pytest.raises(FormatError, match=r"config\.yaml: "):
        read_bergson(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize("view", ["whole", "transposed", "slice", "parameter"])
def test_saved_tensors_are_read_without_unpickling(
    tmp_path: Path, dtype: torch.dtype, view: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = torch.from_numpy(SCORES).to(dtype)
    tensor = {"whole": whole, "transposed": whole.T, "slice": whole[1:, 1:4], "parameter": whole.requires_grad_()}[view]
    torch.save(tensor, tmp_path / "scores.pt")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "Unpickler", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    np.testing.assert_array_equal(read_torch(tmp_path / "scores.pt"), tensor.detach().numpy())


def test_saved_tensors_are_taken_as_dattri_has_them(tmp_path: Path) -> None:
    """(n_train, n_test), unless they fit the other way round alone."""
    for name, tensor in (("dattri.pt", SCORES.T.copy()), ("ours.pt", SCORES)):
        torch.save(torch.from_numpy(tensor), tmp_path / name)
        np.testing.assert_array_equal(read_matrix(tmp_path / name, (3, 5)), SCORES)
    with pytest.raises(FormatError, match=r"scores are \(5, 3\)"):
        read_matrix(tmp_path / "ours.pt", (4, 5))


class Malicious:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return eval, ("open('/tmp/never', 'w')",)


@pytest.mark.parametrize(
    "saved",
    [
        {"scores": torch.ones(2, 2)},
        [torch.ones(2, 2)],
        torch.ones(3),
        torch.ones(2, 2, dtype=torch.int64),
        torch.eye(2).to_sparse(),
        Malicious(),
        torch.ones(2, 2, dtype=torch.bfloat16),
    ],
    ids=["mapping", "list", "vector", "integers", "sparse", "malicious", "bfloat16"],
)
def test_anything_but_one_plain_matrix_is_refused(tmp_path: Path, saved: object) -> None:
    path = tmp_path / "scores.pt"
    torch.save(saved, path)
    with pytest.raises(FormatError, match=r"a file of torch.save is read where it holds one tensor"):
        read_torch(path)
    assert not Path("/tmp/never").exists()


def test_sizes_that_lie_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.pt"
    torch.save(torch.ones(2, 2), path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for name, content in members.items():
        if name.endswith("data.pkl"):
            members[name] = content.replace(b"K\x02K\x02\x86", b"K\x02K\x7f\x86", 1)
            assert members[name] != content
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(FormatError, match=r"a tensor \(2, 127\)"):
        read_torch(path)
