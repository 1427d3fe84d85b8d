"""Where scores meet ground truth."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch
from scipy.stats import spearmanr
from tiny import N_TEST, N_TRAIN, tiny_task

from attriboard.attribution.job import Described, Job
from attriboard.attribution.plugins import PluginSpec
from attriboard.attribution.runner import Outcome
from attriboard.base.digests import digest_bytes, digest_file
from attriboard.base.errors import FormatError, InputError
from attriboard.base.scores import read_matrix
from attriboard.contracts.task import TaskSpec
from attriboard.evaluation.grader import Grader
from attriboard.groundtruth.bundle import read_ground_truth, write_ground_truth
from attriboard.records.files import read_record, write_record
from attriboard.records.provenance import provenance
from attriboard.scoring.lds import lds

N_MASKS, N_REPEATS = 12, 3


@pytest.fixture(scope="module")
def task():
    return tiny_task()


@pytest.fixture(scope="module")
def signal():
    """What each training example does to each target."""
    return np.random.default_rng(0).normal(size=(N_TEST, N_TRAIN)).astype(np.float32)


@pytest.fixture(scope="module")
def grader(task, signal, tmp_path_factory):
    """Ground truth by hand: sums of the signal over each mask, with a little noise per repeat."""
    draw = np.random.default_rng(1)
    masks = np.argsort(draw.random((N_MASKS, N_TRAIN)), axis=1) < N_TRAIN // 2
    margin = (masks @ signal.T)[:, None, :] + 0.5 * draw.normal(size=(N_MASKS, N_REPEATS, N_TEST))
    path = tmp_path_factory.mktemp("truth") / "tiny-groundtruth.safetensors"
    write_ground_truth(
        path,
        masks,
        np.arange(N_MASKS * N_REPEATS).reshape(N_MASKS, N_REPEATS),
        {"margin": margin.astype(np.float32), "loss": np.exp(-margin / 9).astype(np.float32)},
        fingerprint=task.card.fingerprint,
        task=task.card,
        created="2026-01-01T00:00:00Z",
        retrain_seconds=1.0,
        provenance=provenance(),
    )
    return Grader(read_ground_truth(path))


def test_split_is_the_cards_and_the_parts_do_not_overlap(grader, task):
    split = grader.split
    share = task.card.split.calibration
    assert len(split.calibration) == round(share * N_TEST)
    assert sorted([*split.calibration, *split.scoring]) == list(range(N_TEST))


def test_grade_is_spearman_against_mean_targets_on_scoring_points_alone(grader, signal):
    scores = signal + np.random.default_rng(2).normal(size=signal.shape).astype(np.float32)
    result = grader.grade(grader.predict(scores))
    points = grader.split.scoring
    sums = grader.truth.masks.astype(float) @ scores.T.astype(float)
    means = grader.truth.target.mean(axis=1)
    expected = [spearmanr(sums[:, point], means[:, point]).statistic for point in points]
    np.testing.assert_allclose(result.per_test, expected, atol=1e-6)
    assert result.mean == pytest.approx(np.mean(expected), abs=1e-6)
    assert result.mean == pytest.approx(lds(scores[points], grader.truth.masks, grader.truth.target[..., points]).mean)
    assert result.ci95[0] < result.mean < result.ci95[1]
    assert (result.n_scoring, result.n_degenerate, result.target) == (len(points), 0, "margin")
    assert len(result.mask_influence) == N_MASKS

    ruined = scores.copy()
    ruined[grader.split.calibration] *= -1
    assert grader.grade(grader.predict(ruined)) == result, "calibration points have no part in it"
    assert grader.mean_lds(grader.predict(ruined), grader.split.calibration) == pytest.approx(
        -grader.mean_lds(grader.predict(scores), grader.split.calibration)
    )


def test_points_of_a_sweep_go_without_the_long_vectors(grader, signal):
    full, short = (grader.grade(grader.predict(signal), in_full=flag) for flag in (True, False))
    assert short.per_test is None
    assert short.mask_influence is None
    assert (short.mean, short.ci95, short.pearson) == (full.mean, full.ci95, full.pearson)


def test_rows_with_nan_or_constant_scores_count_as_zero_and_are_counted(grader, signal):
    points = grader.split.scoring
    scores = signal.copy()
    scores[points[0], 3] = np.nan
    scores[points[1]] = 0
    scores[grader.split.calibration[0]] = np.nan
    result = grader.grade(grader.predict(scores))
    assert result.n_degenerate == 2
    assert result.per_test[:2] == (0.0, 0.0)


def test_another_shape_is_the_callers_error(grader, signal):
    with pytest.raises(InputError, match=r"scores are \(45, 13\), must be \(n_test, n_train\) = \(13, 45\)"):
        grader.predict(signal.T)


@pytest.fixture
def job(task, grader):
    return Job(
        task=TaskSpec.of(task),
        attributor=PluginSpec(name="mine", origin="file", location="/nowhere/mine.py"),
        configurations=({"width": 2},),
        checkpoints=grader.truth.path,
        seed=5,
    )


DESCRIBED = Described(
    name="mine", paper="a paper", family="control", code_sha256="a" * 64, configurations=({"width": 2},)
)


def test_a_record_has_the_threads_of_the_attributors_process(grader, task, job):
    outcome = Outcome(DESCRIBED, 0, {"width": 2}, "nan: everywhere")
    for threads in (1, 3):
        asked = job.model_copy(update={"threads": threads})
        assert grader.record(task, outcome, asked, variant="default").provenance.threads == threads


def test_record_says_what_was_run_on_what_with_what_result(task, grader, job, signal, tmp_path):
    outcome = Outcome(DESCRIBED, 0, {"width": 2}, None, signal, 1.5, 0.5, 1000)
    record = grader.record(task, outcome, job, variant="custom", criteria={"surrogate": 0.4})
    assert (record.status, record.reason, record.variant, record.seed) == ("ok", None, "custom", 5)
    assert (record.task.name, record.task.fingerprint) == ("tiny", task.card.fingerprint)
    assert record.ground_truth.sha256 == digest_file(grader.truth.path)
    assert (record.ground_truth.n_masks, record.ground_truth.n_repeats) == (N_MASKS, N_REPEATS)
    assert record.attributor.model_dump() == {
        "name": "mine", "origin": "file", "digest": "a" * 64, "paper": "a paper", "family": "control",
    }  # fmt: skip
    assert record.hyperparameters == {"width": 2}
    assert record.criteria == {"surrogate": 0.4}
    predictions = grader.predict(signal)
    assert record.lds == grader.grade(predictions)
    assert record.calibration == grader.mean_lds(predictions, grader.split.calibration)
    assert record.ceiling == grader.ceiling.mean > 0.9
    assert (record.fit_seconds, record.score_seconds, record.peak_bytes) == (1.5, 0.5, 1000)
    assert record.scores_sha256 == digest_bytes(signal.tobytes())
    assert record.checkpoints_sha256 == digest_file(job.checkpoints)
    assert read_record(write_record(record, tmp_path)) == record


def test_a_failure_becomes_a_record_with_its_reason(task, grader, job, tmp_path):
    outcome = Outcome(DESCRIBED, 0, {"width": 2}, "timeout: not finished after 5 s")
    record = grader.record(task, outcome, job, variant="default")
    assert (record.status, record.reason) == ("failed", "timeout: not finished after 5 s")
    assert (record.lds, record.calibration, record.scores_sha256, record.fit_seconds) == (None, None, None, None)
    assert record.ceiling is not None
    assert read_record(write_record(record, tmp_path)) == record


def test_a_record_of_scores_made_elsewhere_claims_no_code(task, grader, signal):
    record = grader.record_of_scores(task, signal, "foreign")
    assert (record.attributor.name, record.attributor.origin, record.attributor.digest) == ("foreign", "scores", None)
    assert record.lds == grader.grade(grader.predict(signal))
    assert (record.fit_seconds, record.peak_bytes, record.checkpoints_sha256) == (None, None, None)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_scores_of_every_float_are_read_as_they_are(task, signal, tmp_path, dtype):
    save_file({"scores": signal.astype(dtype)}, tmp_path / "s.safetensors")
    np.save(tmp_path / "s.npy", np.asfortranarray(signal.astype(dtype)))
    np.save(tmp_path / "swapped.npy", signal.astype(np.dtype(dtype).newbyteorder(">")))
    for name in ("s.safetensors", "s.npy", "swapped.npy"):
        scores = read_matrix(tmp_path / name, task.score_shape)
        assert scores.dtype == (np.float64 if dtype == np.float64 else np.float32)
        np.testing.assert_array_equal(scores, signal.astype(dtype))


@pytest.mark.parametrize("scale", [1e-50, 1e-300, 1e36, 1e290])
def test_the_scale_of_scores_changes_no_grade(grader, signal, scale):
    exact = signal.astype(np.float64)
    plain, scaled = (grader.grade(grader.predict(scores)) for scores in (exact, exact * scale))
    assert scaled.mean == pytest.approx(plain.mean, abs=1e-12)
    assert scaled.ci95 == pytest.approx(plain.ci95, abs=1e-12)
    assert scaled.pearson == pytest.approx(plain.pearson, abs=1e-9)
    assert scaled.n_degenerate == 0


def test_tensors_are_taken_whatever_their_type_strides_and_graph(grader, signal):
    import torch

    plain = grader.predict(signal)
    tensor = torch.from_numpy(signal.copy())
    for given in (tensor, tensor.T.contiguous().T, tensor.requires_grad_() * 1.0, tensor.detach().to_sparse()):
        np.testing.assert_array_equal(grader.predict(given), plain)
    for reduced in (torch.float16, torch.bfloat16):
        small = tensor.detach().to(reduced)
        np.testing.assert_array_equal(grader.predict(small), grader.predict(small.float().numpy()))
    np.testing.assert_array_equal(grader.predict(np.ones(signal.shape, int)), grader.predict(np.ones(signal.shape)))


@pytest.mark.parametrize(
    ("scores", "why"),
    [
        (np.ones((13, 45), complex), "scores are of type complex128: must be real numbers"),
        (np.full((13, 45), None), "scores are of type object: must be real numbers"),
        (np.ones((13, 45), bool), "scores are of type bool: must be real numbers"),
        (np.ones((13, 45), bool), "float16, bfloat16, float32, float64 or integers"),
        (torch.ones(13, 45).to(torch.float8_e4m3fn), "float16, bfloat16, float32, float64 or integers"),
        ([[1.0, 2.0], [3.0]], "a list is no array of numbers"),
    ],
)
def test_what_is_no_matrix_of_real_numbers_is_refused_with_the_reason(grader, scores, why):
    with pytest.raises(InputError, match=why):
        grader.predict(scores)


def test_files_that_people_take_for_scores_are_named_and_none_is_unpickled(task, signal, tmp_path):
    import torch

    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("it was unpickled",))

    torch.save({"scores": torch.from_numpy(signal)}, tmp_path / "s.pt")
    torch.save(torch.from_numpy(signal), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "s.pkl").write_bytes(pickle.dumps(Bomb()))
    np.savez(tmp_path / "s.npz", scores=signal)
    np.save(tmp_path / "objects.npy", np.full((13, 45), Bomb()), allow_pickle=True)
    for name, what in {
        "s.pt": "a file of torch.save is read where it holds one tensor",
        "old.pt": "a pickle, which can run code",
        "s.pkl": "a pickle, which can run code",
        "s.npz": "a file of numpy.savez",
        "objects.npy": "not a readable .npy file .*Python objects",
    }.items():
        with pytest.raises(FormatError, match=what):
            read_matrix(tmp_path / name, task.score_shape)


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.ones((45, 13)), r"scores are \(45, 13\) float64"),
        (np.ones((13, 45), int), r"scores are \(13, 45\) int64"),
        (np.ones(13 * 45), r"scores are \(585,\) float64"),
        (np.full((13, 45), np.nan), "every row of scores has NaN"),
        (np.ones((13, 45), "f4").astype([("x", "f4")]), "scores are"),
    ],
)
def test_an_array_file_that_is_no_score_matrix_is_refused(task, tmp_path, array, why):
    np.save(tmp_path / "s.npy", array)
    with pytest.raises(FormatError, match=why):
        read_matrix(tmp_path / "s.npy", task.score_shape)


def test_a_torn_array_file_is_refused_at_every_length(task, signal, tmp_path):
    np.save(tmp_path / "s.npy", signal)
    content = (tmp_path / "s.npy").read_bytes()
    for length in (6, 8, 9, 50, 127, 128, 129, len(content) - 1):
        (tmp_path / "torn.npy").write_bytes(content[:length])
        with pytest.raises(FormatError, match="not a readable"):
            read_matrix(tmp_path / "torn.npy", task.score_shape)


def broken(kind, signal, path):
    match kind:
        case "missing":
            return "no such file"
        case "foreign":
            path.write_bytes(b"PK\x03\x04 pickled things")
            return "not a readable safetensors file"
        case "empty":
            path.write_bytes(b"")
            return "not a readable safetensors file"
        case "torn":
            save_file({"scores": signal}, path)
            path.write_bytes(path.read_bytes()[:-9])
            return "not a readable safetensors file"
        case "folder":
            path.mkdir()
            return "cannot be read: Is a directory"
        case "bfloat16":
            import torch

            save_torch({"scores": torch.from_numpy(signal).bfloat16()}, path)
            return "BF16"
        case "no_tensor":
            save_file({}, path)
            return "holds tensors none"
        case "other_name":
            save_file({"tau": signal}, path)
            return "holds tensors tau"
        case "two":
            save_file({"scores": signal, "more": signal}, path)
            return "holds tensors (more, scores|scores, more)"
        case "transposed":
            save_file({"scores": np.ascontiguousarray(signal.T)}, path)
            return r"scores are \(45, 13\) F32"
        case "integers":
            save_file({"scores": signal.astype(np.int32)}, path)
            return r"scores are \(13, 45\) I32"
        case "nan":
            save_file({"scores": signal * np.float32("nan")}, path)
            return "every row of scores has NaN or infinity"


@pytest.mark.parametrize(
    "kind",
    [
        "missing", "foreign", "empty", "torn", "folder", "bfloat16", "no_tensor", "other_name", "two", "transposed",
        "integers", "nan",
    ],
)  # fmt: skip
def test_an_unusable_score_file_names_its_path_and_the_rule(task, signal, tmp_path, kind):
    path = tmp_path / "my scores ü.safetensors"
    problem = broken(kind, signal, path)
    with pytest.raises(FormatError, match=problem) as caught:
        read_matrix(path, task.score_shape)
    assert str(path) in str(caught.value)
    assert "must hold one tensor 'scores', (n_test, n_train) = (13, 45), of float16, float32" in str(caught.value)


def test_a_few_bad_rows_are_no_reason_to_refuse(task, signal, tmp_path):
    signal = signal.copy()
    signal[:3] = np.inf
    save_file({"scores": signal}, tmp_path / "s.safetensors")
    assert np.isinf(read_matrix(tmp_path / "s.safetensors", task.score_shape)).any(axis=1).sum() == 3
