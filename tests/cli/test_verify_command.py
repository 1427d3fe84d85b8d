"""`attriboard verify`: runs a published record's method again; tests/test_verifications.py has what is judged."""

import pytest
from selecting import few_resamples

from attriboard.records.files import read_record, write_record
from attriboard.records.published import published_results
from attriboard.records.verifications import read_verification


def published(attributor: str):
    found = [read_record(path) for path in (published_results() / "digits_mlp" / attributor).glob("*.json")]
    return next(r for r in found if r.kind == "attribution" and r.variant == "default")


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
