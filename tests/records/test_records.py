import copy
import json
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from attriboard.base.digests import digest
from attriboard.base.errors import FormatError
from attriboard.records import files as module
from attriboard.records.files import read_record, read_records, record_schema, write_record
from attriboard.records.model import AttributionRecord
from attriboard.records.uses import RemovalRecord

GOLDEN = Path(__file__).parents[1] / "golden" / "record-v1.json"
GOLDEN_ID = "db82d3f3221105db"
SCHEMA = Path(module.__file__).parent / "schemas" / "record-v1.json"


@pytest.fixture
def data():
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.fixture
def record(data):
    return AttributionRecord.model_validate(data)


def change(data, path, value):
    """A copy of `data` in which the dotted `path` holds `value`."""
    changed = copy.deepcopy(data)
    *parents, last = path.split(".")
    part = changed
    for parent in parents:
        part = part[parent]
    part[last] = value
    return changed


def failed(data, reason="timeout: 60 s"):
    return data | {"status": "failed", "reason": reason, "lds": None, "scores_sha256": None}


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


# Round trips

numbers = st.floats(allow_nan=False, allow_infinity=False)
correlations = st.floats(-1, 1)
texts = st.text(max_size=50)
integers = st.integers(-(2**53), 2**53)


@st.composite
def valid_records(draw):
    data = json.loads(GOLDEN.read_text(encoding="utf-8"))
    data |= {
        "seed": draw(integers),
        "hyperparameters": draw(st.dictionaries(texts, st.none() | st.booleans() | integers | numbers | texts)),
        "ceiling": draw(st.none() | correlations),
        "fit_seconds": draw(st.none() | st.floats(0, 1e9)),
        "peak_bytes": draw(st.none() | st.integers(0, 2**53)),
    }
    data["attributor"] |= {"paper": draw(texts), "family": draw(texts)}
    data["provenance"] |= {"git": None, "command_line": draw(st.lists(texts, max_size=4))}
    if draw(st.booleans()):
        return AttributionRecord.model_validate(failed(data))
    per_test = draw(st.lists(correlations, min_size=1, max_size=20))
    masks = draw(st.lists(numbers, min_size=2, max_size=20))
    data["ground_truth"]["n_masks"] = len(masks)
    data["lds"] |= {
        "mean": max(-1.0, min(1.0, sum(per_test) / len(per_test))),
        "ci95": sorted(draw(st.tuples(correlations, correlations))),
        "n_scoring": len(per_test),
        "per_test": per_test,
        "mask_influence": masks,
    }
    return AttributionRecord.model_validate(data)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(record=valid_records())
def test_what_is_written_is_read_back_with_the_same_id(tmp_path, record):
    path = write_record(record, tmp_path)
    again = read_record(path)
    assert again == record
    assert again.id == record.id
    assert path == tmp_path / record.path
    assert repr(again.hyperparameters) == repr({k: record.hyperparameters[k] for k in again.hyperparameters})


def test_number_lists_take_one_line_and_strings_are_untouched(data, tmp_path):
    text = "[\n 1,\n 2\n]"
    record = AttributionRecord.model_validate(change(data, "hyperparameters", {"text": text}))
    path = write_record(record, tmp_path)
    assert '"per_test": [0.5, 0.4, 0.35, 0.4]' in path.read_text(encoding="utf-8")
    assert read_record(path).hyperparameters["text"] == text


# Writing


def test_writing_twice_changes_nothing(record, tmp_path):
    path = write_record(record, tmp_path)
    before = path.stat()
    assert write_record(record, tmp_path) == path
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_a_different_file_is_never_overwritten(record, tmp_path):
    path = write_record(record, tmp_path)
    path.write_text("precious")
    with pytest.raises(FormatError, match="never overwritten"):
        write_record(record, tmp_path)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_torn_write_leaves_nothing(record, tmp_path, monkeypatch, broken):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if broken == "fsync" else (Path, "replace")), fail)
    with pytest.raises(OSError, match="No space"):
        write_record(record, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


# Hostile files

HOSTILE = {
    "empty": b"",
    "text": b"hello",
    "list": b"[]",
    "number": b"1",
    "null": b"null",
    "not UTF-8": b'{"kind": "\xff\xfe"}',
    "UTF-16": '{"kind": 1}'.encode("utf-16"),
    "NaN": b'{"seed": NaN}',
    "Infinity": b'{"seed": -Infinity}',
    "duplicate key": b'{"seed": 1, "seed": 2}',
    "deep list": b"[" * 1_000_000,
    "deep object": b'{"a":' * 200_000,
    "balanced deep list": b"[" * 900_000 + b"]" * 900_000,
    "huge integer": b'{"seed": ' + b"9" * 100_000 + b"}",
    "huge exponent": b'{"seed": 1e999999999}',
    "too large": b" " * (module.MAX_BYTES + 1),
    "lone surrogate": b'{"kind": "\\ud800"}',
    "trailing": b"{} {}",
    "NUL": b"\x00" * 100,
    "many keys": b"{" + b",".join(b'"%d": 1' % i for i in range(100_000)) + b"}",
    "long key": b'{"' + b"k" * 1_000_000 + b'": 1}',
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_refused_by_name_and_fast(tmp_path, content):
    path = tmp_path / "hostile.json"
    path.write_bytes(content)
    start = time.monotonic()
    with pytest.raises(FormatError, match=r"hostile\.json") as refusal:
        read_record(path)
    assert time.monotonic() - start < 5
    assert len(str(refusal.value)) < 5_000


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, 2500), junk=st.binary(max_size=8), cut=st.integers(0, 40))
def test_a_damaged_record_is_refused_or_has_another_id(tmp_path, position, junk, cut):
    content = GOLDEN.read_bytes()
    path = tmp_path / "damaged.json"
    path.write_bytes(content[:position] + junk + content[position + cut :])
    try:
        record = read_record(path)
    except FormatError:
        return
    assert record.id != GOLDEN_ID or record == read_record(GOLDEN)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", "0"),
        ("seed", 0.0),
        ("seed", True),
        ("ceiling", "0.8"),
        ("lds.ci95", "ab"),
        ("lds.per_test", {}),
    ],
)
def test_numbers_in_files_are_numbers(data, tmp_path, path, value):
    file = tmp_path / "record.json"
    file.write_text(json.dumps(change(data, path, value)))
    with pytest.raises(FormatError, match=path):
        read_record(file)


def test_every_broken_field_is_named(data, tmp_path):
    file = tmp_path / "record.json"
    file.write_text(json.dumps(change(change(data, "seed", "x"), "lds.mean", 2)))
    with pytest.raises(FormatError, match=r"record.json: .*seed = 'x': .*lds\.mean = 2: "):
        read_record(file)


def test_a_name_of_a_folder_or_of_nothing_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path, tmp_path / "absent.json", tmp_path / "pipe.json", tmp_path / "a\0b.json"):
        with pytest.raises(FormatError):
            read_record(path)


# Folders


def test_folders_are_read_in_a_fixed_order(data, tmp_path):
    later = change(data, "created", "2025-11-25T00:00:00Z")
    written = [AttributionRecord.model_validate(change(d, "attributor.name", n)) for n in "ba" for d in (later, data)]
    for record in written:
        write_record(record, tmp_path)
    read = read_records(tmp_path)
    assert read == sorted(written, key=lambda record: (record.attributor.name, record.created))


def test_an_altered_or_renamed_record_is_found(record, tmp_path):
    path = write_record(record, tmp_path)
    text = path.read_text(encoding="utf-8").replace('"seed": 0', '"seed": 1')
    path.write_text(text, encoding="utf-8")
    (tmp_path / "other.json").write_text("{", encoding="utf-8")
    with pytest.raises(FormatError, match="altered or renamed") as refusal:
        read_records(tmp_path)
    assert "other.json: not a readable JSON record" in str(refusal.value)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FormatError, match="absent: no such folder"):
        read_records(tmp_path / "absent")


def test_an_older_name_of_a_hyperparameter_is_read_as_todays_and_written_as_it_was(data, tmp_path):
    older = change(data, "hyperparameters", {"fisher": "true", "damping": 1e-8})
    path = tmp_path / "older.json"
    path.write_text(json.dumps(older))
    record = read_record(path)
    assert list(record.hyperparameters.items()) == [("fisher", "true"), ("regularization", 1e-8)]
    assert record.to_json()["hyperparameters"] == older["hyperparameters"]
    assert record.id == digest(older)[:16]
    written = write_record(record, tmp_path / "out")
    assert read_record(written) == record
    again = AttributionRecord.model_validate(older | {"hyperparameters": dict(record.hyperparameters)})
    assert again.to_json()["hyperparameters"] == {"fisher": "true", "regularization": 1e-8}


def test_an_older_name_beside_todays_is_another_hyperparameter(data):
    both = {"regularization": 1.0, "damping": 2.0}
    record = AttributionRecord.model_validate(change(data, "hyperparameters", both))
    assert record.hyperparameters == record.to_json()["hyperparameters"] == both


def test_a_character_that_was_lost_in_what_a_program_printed_can_be_written_and_read(tmp_path):
    record = read_record(GOLDEN)
    lost = type(record).model_validate(record.model_dump() | {"notes": ("a lost \ufffd character",)})
    assert lost.notes == ("a lost ? character",)
    assert read_record(write_record(lost, tmp_path)) == lost
