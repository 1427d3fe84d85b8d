"""Score matrices on disk are plain safetensors, written and mapped without a copy."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from attriboard.base import scores as score_files
from attriboard.base.errors import FormatError
from attriboard.base.scores import map_scores, write_scores


@settings(deadline=None)
@given(rows=st.integers(1, 40), columns=st.integers(1, 40), block=st.integers(1, 4000))
def test_the_library_reads_what_we_write_and_we_map_it(
    tmp_path_factory: pytest.TempPathFactory, rows: int, columns: int, block: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "scores.safetensors"
    dtype = (np.float32, np.float64)[block % 2]
    scores = np.random.default_rng(rows * columns).normal(size=(columns, rows)).astype(dtype).T
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_files, "BLOCK_BYTES", block)
        write_scores(path, scores)
    np.testing.assert_array_equal(load_file(path)["scores"], scores)
    np.testing.assert_array_equal(map_scores(path), scores)
    assert map_scores(path).dtype == dtype


def test_torn_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.safetensors"
    write_scores(path, np.ones((3, 4), np.float32))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FormatError, match="torn"):
        map_scores(path)
    save_file({"other": np.ones(3, np.float32)}, path)
    with pytest.raises(FormatError, match="holds other, must hold one tensor 'scores'"):
        map_scores(path)
