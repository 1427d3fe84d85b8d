"""Checkpoint bundles whose definition is rounded to bfloat16, or that are relative to a pretrained start."""

from functools import cached_property
from pathlib import Path

import pytest
import torch
from tiny import TinyTask, tiny_card

from attriboard.base.errors import FormatError
from attriboard.groundtruth.build import build_checkpoints, open_store
from attriboard.groundtruth.checkpoints import read_checkpoints
from attriboard.retraining.trainer import initial_parameters

KEPT = {"full": 1, "half": 1, "epochs": [1, 3]}


class FineTuned(TinyTask):
    """A tiny task whose retrains start from one model."""

    start_seed = 77

    @cached_property
    def _start(self) -> dict[str, torch.Tensor]:
        return initial_parameters(TinyTask(self.card), self.start_seed)

    def pretrained(self) -> dict[str, torch.Tensor]:
        return self._start


def built(task: TinyTask, folder: Path, name: str) -> Path:
    path = folder / f"{name}.safetensors"
    build_checkpoints(task, path, open_store(task, folder / "store"))
    return path


@pytest.mark.parametrize("kind", [TinyTask, FineTuned])
def test_the_attributed_model_is_the_rounded_one(kind: type[TinyTask], tmp_path: Path) -> None:
    exact, rounded = (
        kind(tiny_card(hidden=[200], checkpoints=KEPT | {"stored": stored})) for stored in ("exact", "bfloat16")
    )
    assert exact.card.fingerprint == rounded.card.fingerprint
    files = [built(task, tmp_path, task.card.checkpoints.stored) for task in (exact, rounded)]
    assert files[1].stat().st_size < 0.6 * files[0].stat().st_size
    start = rounded.pretrained() or {}
    read = [
        read_checkpoints(path, task.card.fingerprint, pretrained=task.pretrained)
        for path, task in zip(files, (exact, rounded), strict=True)
    ]
    for one, other in zip(*read, strict=True):
        assert (one.epoch, one.seed) == (other.epoch, other.seed)
        for name, value in one.parameters.items():
            zero = start.get(name, torch.zeros(()))
            expected = zero + (value - zero).bfloat16().float()
            assert other.parameters[name].dtype == torch.float32
            assert torch.equal(other.parameters[name], expected)
            assert not torch.equal(value, expected)


def test_a_bundle_that_is_relative_to_another_start_is_refused(tmp_path: Path) -> None:
    task = FineTuned(tiny_card(checkpoints=KEPT | {"stored": "bfloat16"}))
    path = built(task, tmp_path, "relative")
    other = FineTuned(task.card)
    other.start_seed = 78
    for pretrained in (other.pretrained, lambda: None):
        with pytest.raises(FormatError, match="is relative to pretrained parameters"):
            read_checkpoints(path, task.card.fingerprint, pretrained=pretrained)
