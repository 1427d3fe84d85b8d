"""One small ground truth and its checkpoints, built once."""

import pytest
from tiny import Published, tiny_task

from attriboard.groundtruth.build import build_checkpoints, build_ground_truth, open_store


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Do not write to these files; copy them."""
    folder, task = tmp_path_factory.mktemp("published"), tiny_task(hidden=[], epochs=10)
    made = Published(
        task, folder / "tiny-groundtruth.safetensors", folder / "tiny-checkpoints.safetensors", folder / "store"
    )
    store = open_store(task, made.store)
    build_ground_truth(task, made.truth, store)
    build_checkpoints(task, made.checkpoints, store)
    return made
