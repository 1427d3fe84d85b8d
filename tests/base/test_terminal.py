"""What progress says: counts and the time left, in units that people use."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attriboard.base import terminal
from attriboard.base.terminal import State, Terminal, counted, duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "1 s"), (40.4, "40 s"), (59.4, "59 s"), (59.5, "1 min"), (200, "3 min"), (3569, "59 min"), (3571, "1 h"),
     (7800, "2 h 10 min"), (3 * 86400, "3 days")],
)  # fmt: skip
def test_a_duration_has_the_unit_that_suits_it(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_one_is_not_several() -> None:
    assert [counted(n, "record") for n in (0, 1, 2, 1297)] == ["0 records", "1 record", "2 records", "1,297 records"]


@given(st.floats(0.5, 1e7))
def test_a_duration_is_off_by_at_most_a_tenth_of_it_or_half_a_unit(seconds: float) -> None:
    units = {"s": 1, "min": 60, "h": 3600, "days": 86400}
    words = duration(seconds).split()
    said = sum(int(count) * units[unit] for count, unit in zip(words[::2], words[1::2], strict=True))
    assert abs(said - seconds) <= max(0.25 * seconds, 0.5 * units[words[-1]])


def test_the_time_left_is_that_of_the_pace_so_far() -> None:
    state = State()
    assert state(2, 26, 0.0) == "2 of 26"  # two were finished before it began
    assert state(3, 26, 500.0) == "3 of 26"  # with the fit that all share
    assert state(13, 26, 630.0) == "13 of 26, about 3 min left"  # 13 s each
    assert state(26, 26, 300.0) == "26 of 26"


def test_no_time_is_promised_before_the_pace_has_settled() -> None:
    state = State()
    state(0, 100, 0.0)
    state(1, 100, 5.0)
    assert state(2, 100, 7.9) == "2 of 100"
    assert state(3, 100, 8.0) == "3 of 100, about 2 min left"


def test_another_piece_of_work_has_a_pace_of_its_own() -> None:
    state = State()
    state(0, 10, 0.0)
    state(9, 10, 900.0)
    assert state(0, 10, 1000.0) == "0 of 10"
    assert state(1, 10, 1001.0) == "1 of 10"
    assert state(5, 10, 1005.0) == "5 of 10, about 5 s left"
    assert state(6, 600, 1010.0) == "6 of 600"


def test_bytes_are_said_in_megabytes() -> None:
    state = State("bytes")
    state(0, 75_000_000, 0.0)
    assert state(25_000_000, 75_000_000, 60.0) == "25.0 of 75.0 MB, about 2 min left"


def test_logs_get_at_most_one_line_in_ten_seconds_and_the_last_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now)
    with Terminal().progress("work") as progress:
        for done in range(31):
            progress.say("gradients")
            progress(done, 30)
            now += 1.0
    assert capsys.readouterr().err.splitlines() == [
        "work: gradients",
        "work: 9 of 30, about 21 s left; gradients",
        "work: 19 of 30, about 11 s left; gradients",
        "work: 29 of 30, about 1 s left; gradients",
        "work: 30 of 30; gradients",
    ]


def test_work_that_ends_before_its_last_step_is_said_to_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal().progress("work") as progress:
        progress(3, 30)
    assert capsys.readouterr().err.splitlines() == ["work: 3 of 30", "work: done"]


def test_work_that_fails_is_not_said_to_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        with Terminal().progress("work") as progress:
            progress(3, 30)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        broken()
    assert capsys.readouterr().err.splitlines() == ["work: 3 of 30"]


def test_names_in_brackets_stay_whole_in_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal.sys.stderr, "isatty", lambda: True, raising=False)
    with Terminal().progress("a[/b].py on my[old]task") as progress:
        progress.say("worker [red]")
        progress(1, 2)
    shown = capsys.readouterr().err
    assert "a[/b].py on my[old]task" in shown
    assert "1 of 2; worker [red]" in shown
