"""Verification: a re-run is judged, kept beside the record, and shown on the board."""

import json
from pathlib import Path

import pytest
from leaderboard_records import make_record

from attriboard.base.errors import FormatError
from attriboard.leaderboard.board import build_board
from attriboard.leaderboard.reading import read_entries
from attriboard.records.files import write_record
from attriboard.records.model import AttributionRecord, HeldOut
from attriboard.records.verifications import read_verification, verify_record, write_verification

RECORD = make_record()


def moved(by: float, record: AttributionRecord = RECORD, **changes: object) -> AttributionRecord:
    """A record again, with an LDS that differs by so much, everywhere."""
    lds = record.lds
    numbers = {
        "mean": lds.mean + by,
        "pearson": lds.pearson + by,
        "per_test": tuple(value + by for value in lds.per_test),
    }
    again = record.model_copy(update={"lds": lds.model_copy(update=numbers), "created": "2026-02-03T04:05:06Z"})
    return again.model_copy(update={"scores_sha256": "1" * 64, **changes})


@pytest.mark.parametrize(("by", "status"), [(0.0, "verified"), (0.0049, "verified"), (0.0051, "failed")])
def test_a_re_run_is_judged_by_its_lds(by: float, status: str) -> None:
    verification = verify_record(RECORD, moved(by), "Grace Hopper")
    assert verification.status == status
    assert (verification.reason is None) == (status == "verified")
    assert verification.found == pytest.approx(RECORD.lds.mean + by)
    assert (verification.same_code, verification.same_scores) == (True, False)
    assert (verification.by, verification.created) == ("Grace Hopper", "2026-02-03T04:05:06Z")


def test_a_failure_is_verified_by_a_failure_of_its_kind() -> None:
    failed = make_record(status="failed", reason="timeout: not finished after 60 s")
    same = make_record(status="failed", reason="timeout: not finished after 61 s")
    other = make_record(status="failed", reason="crash: exit code 3")
    assert verify_record(failed, same, "x").status == "verified"
    assert "crash: exit code 3) was found" in verify_record(failed, other, "x").reason
    assert "ok is claimed, failed (crash: exit code 3) was found" in verify_record(RECORD, other, "x").reason
    assert verify_record(failed, RECORD, "x").status == "failed"


def held_out(mean: float, half: float = 0.02) -> HeldOut:
    return HeldOut(sha256="2" * 64, n_masks=50, mean=mean, ci95=(mean - half, mean + half))


def test_scores_that_fit_the_published_masks_much_better_than_held_out_ones_are_implausible() -> None:
    low, high = RECORD.lds.ci95
    deviation = ((high - low) ** 2 + 0.04**2) ** 0.5 / 3.92
    near, far = (held_out(RECORD.lds.mean - deviations * deviation) for deviations in (2.9, 3.1))
    assert verify_record(RECORD, moved(0.0), "x", held_out=near).status == "verified"
    assert verify_record(RECORD, moved(0.0), "x", held_out=held_out(0.9)).status == "verified"
    caught = verify_record(RECORD, moved(0.0), "x", held_out=far)
    assert (caught.status, caught.held_out) == ("implausible", far)
    assert "on 50 held-out masks; so the scores were fitted to the published ones" in caught.reason
    assert verify_record(RECORD, moved(0.1), "x", held_out=far).status == "failed", "other numbers come first"


def test_fields_that_a_later_version_added_do_not_change_the_name_of_a_file() -> None:
    old = verify_record(RECORD, moved(0.0), "x")
    assert not {"sandbox", "held_out"} & old.to_json().keys()
    new = verify_record(RECORD, moved(0.0), "x", sandbox=True)
    assert new.to_json()["sandbox"] is True
    assert new.id != old.id


def test_it_is_kept_beside_the_record_and_betrays_every_edit(tmp_path: Path) -> None:
    record = write_record(RECORD, tmp_path)
    before = record.read_bytes()
    verification = verify_record(RECORD, moved(0.0), "Grace Hopper")
    path = write_verification(verification, tmp_path)
    assert path.parent == record.parent
    assert read_verification(path) == verification
    assert write_verification(verification, tmp_path) == path
    assert record.read_bytes() == before
    data = json.loads(path.read_text())
    for change in ({"by": "Another Person"}, {"status": "failed"}, {"found": 2}, {"more": 1}, {"record": "x"}):
        path.write_text(json.dumps(data | change))
        with pytest.raises(FormatError):
            read_verification(path)
    path.write_text('{"by": "a", "by": "b"}')
    with pytest.raises(FormatError, match="stands twice"):
        read_verification(path)


def test_the_board_shows_the_newest_verification_and_by_whom(tmp_path: Path) -> None:
    """Three methods: one that nobody ran again, one that came out again, one that did so once and then did not."""
    results, site = tmp_path / "results", tmp_path / "site"
    never, once, twice = RECORD, make_record("grad_dot"), make_record("tracin")
    assert len({never.attributor.name, once.attributor.name, twice.attributor.name}) == 3
    for record in (never, once, twice):
        write_record(record, results)
    later = "2026-03-03T04:05:06Z"
    write_verification(verify_record(once, moved(0.0, once), "Grace Hopper"), results)
    write_verification(verify_record(twice, moved(0.0, twice), "Ada Lovelace"), results)
    write_verification(verify_record(twice, moved(0.1, twice, created=later), "<b>Mallory</b>"), results)
    build_board([results], site)
    (board,) = (path.read_text() for path in (site / "leaderboards").glob("*-lds.html"))
    never_page, once_page, twice_page = ((site / f"records/{r.id}.html").read_text() for r in (never, once, twice))
    assert "Run again by" not in never_page
    assert board.count("verified</span>") == 1
    assert "by Grace Hopper, 2026-02-03" in board
    assert "Run again by Grace Hopper" in once_page
    assert "not reproduced" in board
    assert "&lt;b&gt;Mallory&lt;/b&gt;" in twice_page
    found = {entry.record.id: entry.verification for entry in read_entries([results])}
    assert found[never.id] is None
    assert (found[once.id].status, found[twice.id].status) == ("verified", "failed")
