"""Loops say how far they are: nested, rarely, and without a trace where nobody listens."""

import pytest

from attriboard.contracts import progress as module
from attriboard.contracts.progress import listening, progress, track


@pytest.fixture
def heard(monkeypatch):
    """Everything that is said, however fast."""
    monkeypatch.setattr(module, "EVERY_SECONDS", 0.0)
    found = []
    with listening(lambda *event: found.append(event)):
        yield found


def test_a_loop_counts_finished_steps(heard):
    assert list(track("abc", "letters")) == ["a", "b", "c"]
    assert heard == [(0, 3, "letters"), (1, 3, "letters"), (2, 3, "letters")]


def test_an_inner_loop_refines_the_outer_one(heard):
    for _ in track(range(2), "models"):
        for _ in track((n for n in range(3)), "batches", total=3):
            pass
    inside = [event for event in heard if event[1] == 6]
    assert inside == [(steps, 6, "models, batches") for steps in range(6)]
    assert [event for event in heard if event[1] == 2] == [(0, 2, "models"), (1, 2, "models")]


def test_a_loop_that_is_left_early_is_over(heard):
    for _ in track(range(5)):
        break
    progress(1, 4, "steps")
    assert heard[-1] == (1, 4, "steps")


def test_what_nobody_hears_costs_nothing_and_says_nothing():
    assert list(track(range(3), "steps")) == [0, 1, 2]
    progress(1, 2)


def test_a_listener_hears_at_most_every_so_often(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    found = []
    with listening(lambda *event: found.append(event)):
        for _ in track(range(100)):
            now[0] += 0.06
    assert [done for done, _, _ in found] == [9, 18, 27, 36, 45, 54, 63, 72, 81, 90, 99]
