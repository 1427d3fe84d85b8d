"""Training on the device that the environment names."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import N_TRAIN, NormedTinyTask, tiny_card, tiny_task

from attriboard.base.errors import InputError
from attriboard.retraining.choosing import trainer_class
from attriboard.retraining.device import place, training_device
from attriboard.retraining.engine import retrain
from attriboard.retraining.loop import LoopTrainer
from attriboard.retraining.request import RetrainRequest, random_subset
from attriboard.retraining.store import RetrainStore


def test_without_a_name_it_is_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATTRIBOARD_DEVICE", raising=False)
    assert training_device() == torch.device("cpu")
    monkeypatch.setenv("ATTRIBOARD_DEVICE", "")
    assert training_device() == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cpu:x", "meta", "cuda:99"])
def test_a_device_that_is_not_to_be_had_is_an_error_that_names_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTRIBOARD_DEVICE", name)
    with pytest.raises(InputError, match=f"ATTRIBOARD_DEVICE = '{name}': must be a device that PyTorch can use here"):
        training_device()


def test_a_wrong_device_is_found_before_anything_is_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ATTRIBOARD_DEVICE", "gpu")
    task = tiny_task()
    with pytest.raises(InputError, match="ATTRIBOARD_DEVICE = 'gpu'"):
        retrain(task, [RetrainRequest(np.arange(9), 0)], RetrainStore(tmp_path, task.card.fingerprint))


def test_accelerators_train_one_model_after_the_other() -> None:
    assert trainer_class(tiny_task()) is not LoopTrainer
    assert trainer_class(tiny_task(), "cuda") is LoopTrainer


def test_placing_keeps_examples_and_their_order() -> None:
    data = tiny_task().load_data()
    placed = place(data, torch.device("cpu"))
    assert torch.equal(placed.train.inputs, data.train.inputs)
    assert torch.equal(placed.test.targets, data.test.targets)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_repeats_itself_and_agrees_with_the_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    task, request = NormedTinyTask(tiny_card()), RetrainRequest(random_subset(N_TRAIN, 22, 0, 0), 1, (3,))
    margins = []
    for number, device in enumerate(("cuda", "cuda", "cpu")):
        monkeypatch.setenv("ATTRIBOARD_DEVICE", device)
        store = RetrainStore(tmp_path / str(number), task.card.fingerprint)
        retrain(task, [request], store)
        margins.append(store.read("outputs/margin", [request.digest(store.fingerprint)])[0])
    assert np.array_equal(margins[0], margins[1])
    np.testing.assert_allclose(margins[0], margins[2], rtol=1e-3, atol=1e-3)
