"""Records: those that must keep loading, their digests, and the rules that their parts follow."""

import copy
import json
from pathlib import Path

import pytest
from golden_record import GOLDEN, GOLDEN_ID, change, failed
from pydantic import ValidationError

from attriboard.base.digests import digest
from attriboard.base.errors import FormatError
from attriboard.records import files as module
from attriboard.records.files import read_record, record_schema
from attriboard.records.model import AttributionRecord
from attriboard.records.uses import RemovalRecord

SCHEMA = Path(module.__file__).parent / "schemas" / "record-v1.json"


# Files that must keep loading


def test_the_golden_record_keeps_loading_with_its_id():
    record = read_record(GOLDEN)
    assert record.id == GOLDEN_ID
    assert record.lds.mean == 0.4125
    assert record.to_json() == json.loads(GOLDEN.read_text(encoding="utf-8"))


def test_the_golden_record_of_some_parameters_keeps_loading_with_its_id():
    path = GOLDEN.with_name("record-v1-parameters.json")
    record = read_record(path)
    assert record.id == "4ac9e89879474408"
    assert record.parameters == ("head.*", "norm?.weight")
    assert record.row == f"{record.attributor.name}-of-f31b0540"
    assert record.to_json() == json.loads(path.read_text(encoding="utf-8"))
    assert record.model_copy(update={"parameters": ()}).id == GOLDEN_ID


def test_the_golden_removal_keeps_loading_with_its_id():
    path = GOLDEN.with_name("removal-v1.json")
    record = read_record(path)
    assert record.id == "eae06a6b526ed531"
    assert record.points[1].measured["correct"][1] == 0.85
    assert record.to_json() == json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("kind", "identity"),
    [("brittleness", "2d64a6c6378e09d7"), ("qld", "2494a2592c79a372"), ("mislabel", "f47d18f97309483d")],
)
def test_golden_records_of_other_uses_keep_loading_with_their_ids(kind, identity):
    path = GOLDEN.with_name(f"{kind}-v1.json")
    record = read_record(path)
    assert (record.kind, record.id) == (kind, identity)
    assert record.to_json() == json.loads(path.read_text(encoding="utf-8"))


def test_brittleness_is_summed_up_with_points_that_never_flip_counted_as_beyond():
    record = read_record(GOLDEN.with_name("brittleness-v1.json"))
    assert (record.median_removed, record.share_confirmed) == (11.0, 0.5)
    assert record.share_flipped == pytest.approx(2 / 3)
    beyond = record.model_copy(update={"points": record.points[1:]})
    assert beyond.median_removed is None


def test_a_query_loss_difference_is_summed_up_over_points():
    record = read_record(GOLDEN.with_name("qld-v1.json"))
    assert record.drops == (3.0, 0.75, -0.25)
    assert record.share_harmed == pytest.approx(2 / 3)
    assert record.loss_rise == pytest.approx((0.07481 + 0.009534 - 0.188667) / 3)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("qld", {"drop": None}, "drop and ci95: required where status = ok"),
        ("qld", {"drop": 1.3}, "is not the mean of random - removed"),
        ("qld", {"ci95": [2.0, 3.0]}, "must lie in ci95"),
        ("qld", {"n_repeats": 6}, "there are 5 seeds"),
        ("qld", {"random": {"target": [1.0, 2.0, 3.0]}}, "must be target and loss"),
        ("qld", {"removed": {"target": [1.0], "loss": [1.0]}}, "a value for each of 3 test points"),
        ("qld", {"test_points": [], "removed": {}, "random": {}}, "there are some where status = ok"),
        ("brittleness", {"points": []}, "there are some where status = ok"),
        ("brittleness", {"sizes": [1, 2]}, "must be a size tried"),
        ("brittleness", {"search_seeds": [1]}, "more retrains were wrong than there are seeds"),
        ("brittleness", {"confirm_seeds": []}, "more retrains were wrong than there are seeds"),
        ("mislabel", {"auc": None}, "required where status = ok"),
        ("mislabel", {"recall": [0.5]}, "1 values for 2 shares"),
        ("mislabel", {"auc": 1.5}, "less than or equal to 1"),
        ("mislabel", {"by": "guess"}, "self"),
    ],
)
def test_other_uses_whose_parts_disagree_are_refused(tmp_path, kind, change, message):
    data = json.loads(GOLDEN.with_name(f"{kind}-v1.json").read_text(encoding="utf-8"))
    file = tmp_path / "record.json"
    file.write_text(json.dumps(data | change))
    with pytest.raises(FormatError, match=message):
        read_record(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "failed", "reason": "nan: all", "scores_sha256": None}, "there are no points"),
        ({"full": None}, "points and full are required"),
        ({"reason": "nan: all"}, "ok has scores_sha256 and no reason"),
        ({"scores_sha256": None}, "ok has scores_sha256 and no reason"),
        ({"variant": "selected"}, "the selector is required"),
        ({"retrain_seeds": [1, 2]}, "a value for each seed"),
        ({"full": {"loss": [1.0, 2.0, 3.0]}}, "the same names"),
        ({"direction": "up"}, "helpful"),
    ],
)
def test_a_removal_whose_parts_disagree_is_refused(change, message):
    data = json.loads(GOLDEN.with_name("removal-v1.json").read_text(encoding="utf-8"))
    with pytest.raises(ValidationError, match=message):
        RemovalRecord.model_validate(data | change)


def test_rates_of_a_removal_ascend():
    data = json.loads(GOLDEN.with_name("removal-v1.json").read_text(encoding="utf-8"))
    with pytest.raises(ValidationError, match="must ascend"):
        RemovalRecord.model_validate(data | {"points": data["points"][::-1]})


def test_the_id_is_the_digest_of_the_files_canonical_json(data, record):
    assert record.id == digest(data)[:16]
    assert record.path == Path("digits_mlp", "iffim", f"digits_mlp-iffim-{GOLDEN_ID}.json")


def test_a_field_added_later_leaves_old_ids_alone(data, record):
    class Later(AttributionRecord):
        verified_by: str | None = None

    assert Later.model_validate(data).id == record.id
    assert Later.model_validate(data | {"verified_by": "someone"}).id != record.id


def test_the_committed_schema_is_current():
    message = f"run: python -m attriboard.records.files > {SCHEMA.name}"
    assert SCHEMA.read_text(encoding="utf-8") == record_schema(), message


def test_every_field_of_version_1_is_required(data):
    def remove(part, path):
        for key, value in part.items():
            if (*path, key) not in {("schema_version",), ("kind",)}:
                without = copy.deepcopy(data)
                holder = without
                for parent in path:
                    holder = holder[parent]
                del holder[key]
                with pytest.raises(ValidationError):
                    AttributionRecord.model_validate(without)
            if isinstance(value, dict) and key not in {"hyperparameters", "packages"}:
                remove(value, (*path, key))

    remove(data, ())


# Rules


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("status", "failed", "a reason is required"),
        ("reason", "nan: 3 of 500 rows", "reason is null"),
        ("lds", None, "lds and scores_sha256 are required"),
        ("scores_sha256", None, "lds and scores_sha256 are required"),
        ("variant", "selected", "the selector is required"),
        ("lds.ci95", [0.5, 0.3], "lower end comes first"),
        ("lds.mean", 0.5, "is not the mean of per_test"),
        ("lds.mean", 1.5, "less than or equal to 1"),
        ("lds.pearson", -1.01, "greater than or equal to -1"),
        ("lds.n_degenerate", 5, "there are 4 scoring points"),
        ("lds.n_scoring", 5, "4 values for 5"),
        ("lds.mask_influence", [0.1, 0.2], "2 values for 4 masks"),
        ("lds.mask_influence", [0.1, 0.2, 0.3, float("inf")], "finite"),
        ("ceiling", float("nan"), "finite|less than"),
        ("fit_seconds", -1.0, "greater than or equal to 0"),
        ("peak_bytes", 2**60, "less than or equal"),
        ("created", "2025-11-24 21:05:00", "pattern"),
        ("created", "2025-13-24T21:05:00Z", "month"),
        ("schema_version", 2, "Input should be 1"),
        ("kind", "selection", "'attribution'"),
        ("task.name", "../../etc/passwd", "pattern"),
        ("attributor.name", "<script>", "pattern"),
        ("attributor.name", "a" * 65, "pattern"),
        ("attributor.digest", "1.0", "pattern"),
        ("hyperparameters", {"λ": 10**400}, "less than or equal|Unable to parse"),
        ("hyperparameters", {"λ": float("nan")}, "finite"),
        ("hyperparameters", {"λ": [1]}, "valid"),
        ("provenance.git.commit", "main", "pattern"),
        ("provenance.hardware.hostname", "node17", "not permitted"),
        ("unknown", 1, "not permitted"),
    ],
)
def test_a_rule_that_is_broken_is_named(data, path, value, message):
    with pytest.raises(ValidationError, match=message):
        AttributionRecord.model_validate(change(data, path, value))


@pytest.mark.parametrize("reason", ["timeout", "nan: 3 of 500 rows", "crash: line one\nline two"])
def test_a_failure_has_a_category_and_a_text(data, reason):
    assert AttributionRecord.model_validate(failed(data, reason)).reason == reason


@pytest.mark.parametrize("reason", ["", "Out of memory", "timeout:", None])
def test_a_failure_without_a_category_is_refused(data, reason):
    with pytest.raises(ValidationError):
        AttributionRecord.model_validate(failed(data, reason))


def test_records_are_frozen(record):
    with pytest.raises(ValidationError, match="frozen"):
        record.seed = 1
    with pytest.raises(ValidationError, match="frozen"):
        record.lds.mean = 0.9
