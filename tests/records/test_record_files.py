"""Files of records: written and read back, never overwritten, refused where they are hostile or damaged."""

import json
import os
import time
from pathlib import Path

import pytest
from golden_record import GOLDEN, GOLDEN_ID, change, failed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attriboard.base.digests import digest
from attriboard.base.errors import FormatError
from attriboard.records.files import MAX_BYTES, read_record, read_records, write_record
from attriboard.records.model import AttributionRecord

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
    "too large": b" " * (MAX_BYTES + 1),
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


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            "{}",
            "kind is missing; must be attribution, selection, selection_cost, removal, brittleness, qld or mislabel",
        ),
        ('{"kind": "scores"}', "kind = 'scores': must be attribution, selection, selection_cost, removal, "),
        ('{"kind": 1}', "kind = '1': must be attribution"),
    ],
)
def test_json_that_is_no_record_is_told_which_kinds_there_are(tmp_path, content, problem):
    path = tmp_path / "package.json"
    path.write_text(content)
    with pytest.raises(FormatError) as refusal:
        read_record(path)
    assert str(refusal.value).startswith(f"{path}: {problem}")


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
