"""The Python interface does what the command line does, on arrays."""

import importlib

import numpy as np
import pytest
import torch
from selecting import few_resamples

import attriboard as ab
from attriboard.attribution.job import Described
from attriboard.attribution.runner import Outcome, Runner
from attriboard.base.errors import AttriboardError, DataError, InputError, UnknownNameError
from attriboard.evaluation.grader import Grader
from attriboard.tasks.catalogue import task_from_file


@pytest.fixture(scope="module")
def task():
    return ab.load_task("digits_mlp")


@pytest.fixture(autouse=True)
def quick_intervals(monkeypatch):
    few_resamples(monkeypatch)


def test_all_is_sorted_and_every_name_is_there():
    assert ab.__all__ == sorted(ab.__all__)
    assert dir(ab) == sorted([*ab.__all__, "__version__"])
    for name in ab.__all__:
        assert getattr(ab, name) is getattr(importlib.import_module(ab._HOMES[name]), name)


def test_an_unknown_attribute_says_what_there_is():
    with pytest.raises(AttributeError, match=r"module 'attriboard' has no attribute 'atribute'; it has Attributor, "):
        _ = ab.atribute


def test_attribute_then_lds(task):
    scores = ab.attribute(task, "random", seed=2, threads=1)
    assert scores.dtype == np.float32
    assert scores.shape == (500, 1297)
    result = ab.lds(scores, task)
    assert abs(result.mean) < 0.02
    assert result.ci95[0] < result.mean < result.ci95[1]
    assert len(result.per_test) == result.n_scoring == 400
    assert ab.lds(torch.from_numpy(scores), "digits_mlp") == result
    generator = torch.Generator().manual_seed(2)
    np.testing.assert_array_equal(scores, torch.randn(500, 1297, generator=generator).numpy())


def test_hyperparameters_are_keywords_and_numpys_scalars_are_welcome(task):
    result = ab.lds(ab.attribute(task, "grad_dot", checkpoints=np.int64(1), threads=1), task)
    assert 0.05 < result.mean < Grader(ab.load_ground_truth(task)).ceiling.mean
    with pytest.raises(InputError, match="grad_dot has no hyperparameter 'lam'; it has: checkpoints"):
        ab.attribute(task, "grad_dot", lam=np.float32(0.5))


def test_a_failing_attributor_raises_its_reason(task, monkeypatch):
    described = Described(name="mine", code_sha256="")
    failed = Outcome(described, 0, {}, "error: ValueError: too wide", details="line 3, in fit")
    monkeypatch.setattr(Runner, "run", lambda self, job: [failed])
    with pytest.raises(AttriboardError, match="mine on digits_mlp failed: error: ValueError: too wide\nline 3, in fit"):
        ab.attribute(task, "random")


def test_unknown_names(task):
    with pytest.raises(UnknownNameError, match="did you mean digits_mlp"):
        ab.load_task("digit_mlp")
    with pytest.raises(UnknownNameError, match="did you mean grad_dot"):
        ab.attribute(task, "graddot")


def test_ground_truth_is_the_published_one(task):
    truth = ab.load_ground_truth("digits_mlp")
    assert truth.masks.shape == (200, 1297)
    assert truth.masks.sum(axis=1).tolist() == [1297 // 2] * 200
    assert truth.target.shape == (200, 5, 500)
    assert truth.card.fingerprint == task.card.fingerprint


def test_lds_of_another_shape_is_the_callers_error(task):
    with pytest.raises(InputError, match=r"scores are \(3, 4\), must be \(n_test, n_train\) = \(500, 1297\)"):
        ab.lds(np.zeros((3, 4)), task)


def test_a_task_from_a_card_file_is_the_same_task_or_has_no_ground_truth_yet(task, tmp_path):
    from tiny import small_digits_yaml

    path = small_digits_yaml(tmp_path)
    other = ab.load_task(path)
    assert other.card == task_from_file(path).card
    with pytest.raises(DataError, match="lists no groundtruth for small_digits"):
        ab.load_ground_truth(other)
