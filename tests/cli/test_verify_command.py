"""`attriboard verify`: runs a published record's method again; tests/test_verifications.py has what is judged."""

import shutil

import pytest
from selecting import few_resamples, retrain_inline

from attriboard.base.digests import digest_file
from attriboard.groundtruth.listing import BundleRegistry, published_folder, write_listing
from attriboard.records.files import read_record, write_record
from attriboard.records.published import published_results
from attriboard.records.verifications import read_verification


def published(attributor: str):
    found = [read_record(path) for path in (published_results() / "digits_mlp" / attributor).glob("*.json")]
    usual = [r for r in found if r.kind == "attribution" and not r.ground_truth.question]
    return next(r for r in usual if r.variant == "default")


@pytest.fixture(autouse=True)
def quick_intervals(monkeypatch):
    few_resamples(monkeypatch)


def test_a_published_record_is_run_again_and_verified(attriboard, tmp_path):
    record = published("random")
    path = write_record(record, tmp_path / "results")
    done = attriboard("verify", path, "--by", "Grace Hopper", "--no-sandbox", "--out", tmp_path / "results", "--json")
    assert (done.code, done.document["status"]) == (0, "verified")
    verification = read_verification(path.parent / done.document["verification"].rpartition("/")[2])
    assert (verification.record, verification.by) == (record.id, "Grace Hopper")


def test_what_cannot_be_run_again_says_why(attriboard, tmp_path):
    record = published("random")
    foreign = record.model_copy(update={"attributor": record.attributor.model_copy(update={"origin": "file"})})
    other = record.model_copy(update={"task": record.task.model_copy(update={"fingerprint": "0" * 64})})
    for changed, message in (
        (foreign, "random came from a file and is not installed here; give its .py file after the record"),
        (other, "nothing can be compared"),
    ):
        done = attriboard("verify", write_record(changed, tmp_path), "--by", "x", "--no-sandbox", "--out", tmp_path)
        assert done.code == 2
        assert message in done.err
    done = attriboard("verify", write_record(record, tmp_path))
    assert (done.code, "--by" in done.err) == (2, True)


def test_a_re_run_is_graded_on_held_out_masks_that_were_committed_to(attriboard, tmp_path, monkeypatch):
    retrain_inline(monkeypatch)
    bundles, file = tmp_path / "bundles", tmp_path / "held_out" / "digits.safetensors"
    shutil.copytree(published_folder(), bundles, ignore=lambda folder, names: [n for n in names if "digits" not in n])
    write_listing(bundles, [entry for entry in BundleRegistry().entries if entry.task == "digits_mlp"])
    build = ("groundtruth", "build", "digits_mlp", "--held-out", 6, "--repeats", 2, "--held-out-file", file, "--json")
    elsewhere = attriboard(*build, "--out", tmp_path / "elsewhere").document
    assert elsewhere["sha256"] == digest_file(file)
    record = published("random")
    path = write_record(record, tmp_path / "results")
    verify = ("verify", path, "--by", "x", "--no-sandbox", "--held-out", file, "--groundtruth", bundles, "--json")
    done = attriboard(*verify, "--out", tmp_path)
    assert (done.code, "does not name its SHA-256" in done.err) == (2, True)
    assert attriboard(*build, "--out", bundles).document["sha256"] == elsewhere["sha256"], "it is built once"
    done = attriboard(*verify, "--out", tmp_path)
    assert (done.code, done.document["status"], done.document["sandbox"]) == (0, "verified", False)
    found = done.document["held_out"]
    assert (found["sha256"], found["n_masks"]) == (elsewhere["sha256"], 6)
    assert abs(found["mean"]) < 0.2
