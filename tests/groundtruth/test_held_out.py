"""Held-out ground truth: masks from a secret, a commitment in the public list, and what it does to a fitted method."""

import json
import stat

import numpy as np
import pytest
from commands import printed
from tiny import tiny_task

from attriboard.base.digests import digest_file
from attriboard.base.errors import FormatError, InputError
from attriboard.cli.bundles import list_bundles
from attriboard.evaluation.grader import Grader
from attriboard.groundtruth import held_out
from attriboard.groundtruth.build import build_ground_truth, open_store
from attriboard.groundtruth.bundle import read_ground_truth, write_ground_truth
from attriboard.groundtruth.held_out import (
    FORMAT,
    HeldOutCard,
    build_held_out,
    check_commitment,
    commitment,
    held_out_requests,
    read_held_out,
)
from attriboard.groundtruth.listing import BundleRegistry, entry_of, write_listing
from attriboard.groundtruth.plan import mask_indices, retrain_seed
from attriboard.records.verifications import fitted

N_MASKS, N_REPEATS = 50, 3


@pytest.fixture(scope="module")
def task():
    return tiny_task(hidden=[], epochs=10)


@pytest.fixture(scope="module")
def built(task, tmp_path_factory):
    """The file, what was printed of it, and the folder."""
    folder = tmp_path_factory.mktemp("held_out")
    path = folder / "tiny.safetensors"
    with pytest.MonkeyPatch.context() as monkeypatch:  # the same numbers every time
        monkeypatch.setattr(held_out.secrets, "token_hex", lambda n_bytes: "5e" * n_bytes)
        made = build_held_out(task, path, n_masks=N_MASKS, n_repeats=N_REPEATS)
    return path, made, folder


def test_masks_and_seeds_are_uniform_and_follow_from_the_secret_alone(task):
    size, n_train = task.card.subset_size, task.card.data.n_train
    requests = held_out_requests(task.card, "ab" * 32, 400, 2)
    assert len({(r.indices.tobytes(), r.seed) for r in requests}) == 800
    assert all(len(r.indices) == size for r in requests)
    assert all(
        first.indices.tobytes() == second.indices.tobytes()
        for first, second in zip(requests, requests[400:], strict=False)
    )
    counts = np.bincount(np.concatenate([r.indices for r in requests[:400]]), minlength=n_train)
    expected = 400 * size / n_train
    assert abs(counts - expected).max() < 5 * (expected * (1 - size / n_train)) ** 0.5
    again = held_out_requests(task.card, "ab" * 32, 400, 2)
    assert [r.digest("x") for r in again] == [r.digest("x") for r in requests]
    other = held_out_requests(task.card, "ac" + "ab" * 31, 400, 2)
    assert not {r.digest("x") for r in other} & {r.digest("x") for r in requests}
    public = {mask_indices(task.card, k).tobytes() for k in range(200)}
    assert not public & {r.indices.tobytes() for r in requests}
    assert min(r.seed for r in requests) >= 10**14 > retrain_seed(0, 10**6)


def test_the_file_is_its_owners_alone_and_the_list_has_its_digest(task, built, tmp_path):
    path, made, folder = built
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in folder.iterdir()] == [path.name], "neither the secret nor retrains stay beside it"
    assert made.sha256 == digest_file(path)
    truth = read_held_out(path)
    registry = BundleRegistry(tmp_path)
    with pytest.raises(InputError, match=r"does not name its SHA-256"):
        check_commitment(truth, task.card, registry)
    registry.commit(made)
    check_commitment(truth, task.card, BundleRegistry(tmp_path))
    text = (tmp_path / "registry.json").read_text()
    assert truth.card.secret not in text
    assert json.loads(text)["held_out"] == [made.model_dump(mode="json")]
    with pytest.raises(InputError, match="not of tiny"):
        check_commitment(truth, tiny_task(epochs=9).card, registry)


def test_the_list_of_bundles_names_commitments_in_either_form(built, tmp_path, capsys):
    _, made, _ = built
    BundleRegistry(tmp_path).commit(made)
    (document,) = printed(capsys, "groundtruth", "list", "--groundtruth", tmp_path)
    assert document == made.model_dump(mode="json") | {"kind": "held-out", "where": "its owner"}
    list_bundles(groundtruth=tmp_path)
    assert "held-out" in capsys.readouterr().out


def test_a_list_without_held_out_masks_is_written_as_before_and_one_with_them_keeps_them(task, built, tmp_path):
    path, made, _ = built
    write_listing(tmp_path, [entry_of(task.card, "groundtruth", path)])
    assert set(json.loads((tmp_path / "registry.json").read_text())) == {"schema_version", "bundles"}
    registry = BundleRegistry(tmp_path)
    registry.commit(made)
    registry.commit(made)
    assert BundleRegistry(tmp_path).held_out == (made,)
    assert BundleRegistry(tmp_path).entries == registry.entries


def test_masks_that_were_chosen_are_refused(built, tmp_path):
    truth = read_held_out(built[0])
    arrays = truth.masks.copy(), truth.seeds, truth.outputs
    arrays[0][0] = arrays[0][1]
    card = {name: getattr(truth.card, name) for name in
            ("fingerprint", "task", "created", "retrain_seconds", "provenance", "secret")}  # fmt: skip
    path = tmp_path / "chosen.safetensors"
    write_ground_truth(path, *arrays, card_type=HeldOutCard, form=FORMAT, **card)
    with pytest.raises(FormatError, match="do not follow from its secret"):
        read_held_out(path)
    with pytest.raises(FormatError, match="expected 'attriboard-groundtruth/1'"):
        read_ground_truth(built[0])


def test_an_interrupted_build_goes_on_with_its_secret(task, tmp_path):
    path = tmp_path / "tiny.safetensors"

    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_held_out(task, path, n_masks=4, n_repeats=2, progress=interrupt)
    secret = path.with_name("tiny.safetensors.secret")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    kept = secret.read_text()
    made = build_held_out(task, path, n_masks=4, n_repeats=2)
    assert read_held_out(path).card.secret == kept
    assert build_held_out(task, path, n_masks=4, n_repeats=2) == made == commitment(read_held_out(path))
    with pytest.raises(InputError, match="holds 4 masks × 2 repeats of tiny"):
        build_held_out(task, path, n_masks=5, n_repeats=2)


def test_a_method_that_was_fitted_to_the_published_masks_drops_on_held_out_ones(task, built, tmp_path):
    path = tmp_path / "public.safetensors"
    build_ground_truth(task, path, open_store(task, tmp_path / "store"), n_masks=30, n_repeats=N_REPEATS)
    public, secret = Grader(read_ground_truth(path)), Grader(read_held_out(built[0]))
    data = task.load_data()
    same = data.test.targets[:, None] == data.train.targets[None]
    honest = (data.test.inputs @ data.train.inputs.T).where(same, -data.test.inputs @ data.train.inputs.T).numpy()
    masks = public.truth.masks.astype(np.float64)
    fit = np.linalg.lstsq(masks, public.truth.target.mean(axis=1), rcond=None)[0].T
    noise = np.random.default_rng(0).normal(size=fit.shape) * 0.3 * fit.std()
    results = {
        name: (public.grade(public.predict(scores)), secret.held_out(scores))
        for name, scores in {"honest": honest, "fitted": fit + noise}.items()
    }
    assert results["honest"][1].mean > 0.1
    assert fitted(*results["honest"]) is None
    assert results["fitted"][0].mean > 0.8
    assert results["fitted"][1].mean < 0.65
    assert "fitted to the published ones" in fitted(*results["fitted"])
