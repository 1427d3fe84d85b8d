"""The history of a number: which records answer the same question, and why one was made again."""

from pathlib import Path

import pytest
from leaderboard_records import make_record, make_removal, make_selection, make_use

from attriboard.leaderboard.history import all_histories, histories, reasons, result
from attriboard.leaderboard.reading import Entry
from attriboard.leaderboard.study import studies

LATER = {"created": "2027-01-01T00:00:00Z"}


def study_of(*records, task: str = "digits_mlp"):
    return studies([Entry(record, record.id, Path()) for record in records], [])[task]


def test_query_loss_differences_of_another_fraction_are_another_question():
    study = study_of(make_use("qld"), make_use("qld", fraction=0.1, **LATER))
    assert histories(study, "iffim") == ()
    (history,) = histories(study_of(make_use("qld"), make_use("qld", **LATER)), "iffim")
    assert history.what == "Query loss difference, 1 % removed, default"


def test_a_number_that_was_made_again_has_a_history_with_the_newest_first():
    old = make_record("iffim", 0.3)
    new = make_record("iffim", 0.4, **LATER, attributor__digest="ee" * 32, scores_sha256="ff" * 32)
    study = study_of(new, old, make_record("trak", 0.5))
    (history,) = histories(study, "iffim")
    assert [version.entry.id for version in history.versions] == [new.id, old.id]
    assert [version.reason for version in history.versions] == ["The method's code changed.", "The first record."]
    assert history.what == "LDS, default"
    assert histories(study, "trak") == ()
    assert all_histories(study)[old.id] is all_histories(study)[new.id] is history


def test_scores_that_agree_to_the_last_bit_say_so():
    old, new = make_record("iffim"), make_record("iffim", **LATER)
    (history,) = histories(study_of(old, new), "iffim")
    expected = "Run again with the same code and inputs; the same scores to the last bit."
    assert history.versions[0].reason == expected
    moved = make_record("iffim", **LATER, scores_sha256="ee" * 32)
    (history,) = histories(study_of(old, moved), "iffim")
    assert history.versions[0].reason == "Run again with the same code and inputs."


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"task__version": 2}, ["task version 1 → 2"]),
        ({"ground_truth__sha256": "ee" * 32}, ["another ground truth"]),
        ({"checkpoints_sha256": "ee" * 32}, ["other trained models"]),
        ({"seed": 7}, ["seed 0 → 7"]),
        ({"provenance__threads": 8}, ["8 threads instead of 2"]),
        ({"provenance__attriboard": "9.0"}, ["AttriBoard 0.1.0 → 9.0"]),
        ({"hyperparameters": {"regularization": 3.16228e-05}}, ["regularization 0 → 3.16e-5"]),
        (
            {"variant": "selected", "selector": "surrogate", "hyperparameters": {"regularization": 0.25}},
            ["run again with the same code and inputs", "chosen regularization 0 → 0.25"],
        ),
    ],
)
def test_a_reason_is_what_differs_between_two_records(changes, expected):
    plain = {"hyperparameters": {"regularization": 0.0}}
    old = make_record("iffim", **plain, provenance__threads=2, provenance__attriboard="0.1.0")
    new = make_record("iffim", **({**plain, "provenance__threads": 2, "provenance__attriboard": "0.1.0"} | changes))
    assert list(reasons(old, new)) == expected


def test_other_questions_are_other_histories():
    records = [
        make_record("iffim", variant="sweep", hyperparameters={"regularization": 0.1}),
        make_record("iffim", variant="sweep", hyperparameters={"regularization": 0.2}, **LATER),
        make_record("iffim", variant="custom", hyperparameters={"regularization": 0.1}),
        make_record("iffim", variant="custom", hyperparameters={"regularization": 0.2}, **LATER),
        make_selection("iffim", "gcv"),
        make_selection("iffim", "surrogate", **LATER),
        make_removal("iffim"),
        make_removal("iffim", direction="harmful", **LATER),
        make_use("mislabel"),
    ]
    study = study_of(*records)
    assert histories(study, "iffim") == ()
    assert len({id(history) for history in all_histories(study).values()}) == len(records)


def test_points_of_a_sweep_have_their_history_on_their_own_pages_only():
    point = {"variant": "sweep", "hyperparameters": {"regularization": 0.1}}
    old, new = make_record("iffim", **point), make_record("iffim", **point, **LATER)
    study = study_of(old, new)
    assert histories(study, "iffim") == ()
    assert len(all_histories(study)[old.id].versions) == 2


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (make_record(status="failed", reason="not_applicable: no kernel"), "failed: not applicable"),
        (make_selection(), "regret 0.020"),
        (make_removal(level=0.9), "accuracy 85.0 with 50 % removed"),
        (make_use("mislabel"), "AUC 0.950"),
        (make_use("brittleness"), "11 removals"),
        (make_use("qld"), "drop 1.167"),
    ],
)
def test_a_result_is_said_in_a_few_words(record, expected):
    assert result(record) == expected
