"""With --json, standard output is exactly one JSON document; without it, readable text."""

import re
from pathlib import Path

import pytest
from selecting import few_resamples

from attriboard.attributors import ATTRIBUTORS
from attriboard.attributors.selectors import SELECTORS
from attriboard.groundtruth.listing import published_folder
from attriboard.records.files import read_record
from attriboard.tasks import TASKS

RESULT = {
    "task", "attributor", "hyperparameters", "status", "reason", "lds", "ceiling", "fit_seconds", "score_seconds",
    "peak_bytes", "notes", "record",
}  # fmt: skip
OWN = [name for name in ATTRIBUTORS if ":" not in name]  # the others need their libraries
BUNDLE = published_folder() / "digits_mlp-groundtruth.safetensors"

FAILING = """
from attriboard import Attributor, Hyperparameter


class Failing(Attributor):
    name = "failing"
    hyperparameters = (Hyperparameter("width", 2.0, source="here", grid=(1.0, 2.0)),)

    def fit(self, context, width):
        print("on standard output, where no document may be spoilt")
        raise ValueError(f"width {width} is too wide")

    def score(self, state):
        return state
"""


@pytest.fixture(autouse=True)
def quick_intervals(monkeypatch):
    few_resamples(monkeypatch)


def test_tasks(attriboard):
    documents = attriboard("tasks", "--json").document
    assert [d["name"] for d in documents][: len(TASKS)] == list(TASKS)
    for document in documents:
        assert {"name", "n_train", "n_test", "data", "groundtruth", "n_masks", "n_repeats"} <= document.keys()
        assert {document["data"], document["groundtruth"]} <= {"available", "missing"}
    digits = documents[0]
    assert (digits["n_train"], digits["n_test"], digits["n_masks"], digits["n_repeats"]) == (1297, 500, 200, 5)
    assert (digits["data"], digits["groundtruth"]) == ("available", "available")
    assert re.search(r"digits_mlp .* 1,297 .* 500 .* available .* available .* 200 × 5", attriboard("tasks").out)


def test_attributors(attriboard):
    documents = attriboard("attributors", "--json").document
    listed = [d["name"] for d in documents if d["name"] in OWN]
    assert listed == OWN
    for document in documents:
        assert {"name", "hyperparameters", "paper"} <= document.keys()
        for knob in document["hyperparameters"]:
            assert {"name", "stage", "default", "grid", "source"} <= knob.keys()
            assert knob["stage"] in ("fit", "score")
            assert knob["source"]
    text = attriboard("attributors").out
    assert all(name in text for name in OWN)


def test_selectors(attriboard):
    documents = attriboard("selectors", "--json").document
    assert [d["name"] for d in documents] == [*SELECTORS, "oracle"]
    assert [d["name"] for d in documents if d["needs"] == "ground truth"] == ["oracle"]
    text = attriboard("selectors").out
    assert all(name in text for name in [*SELECTORS, "oracle"])


def test_run_on_names_with_spaces_and_unicode(attriboard, tmp_path):
    out = tmp_path / "my résults ü"
    done = attriboard("run", "digits_mlp", "random", "--seed", 3, "--threads", 1, "--out", out, "--json")
    document = done.document
    assert done.code == 0
    assert document.keys() >= RESULT
    assert (document["task"]["name"], document["attributor"]["name"]) == ("digits_mlp", "random")
    assert (document["status"], document["reason"]) == ("ok", None)
    assert document["lds"]["ci95"][0] < 0.02
    assert document["lds"]["ci95"][1] > -0.02
    assert 0.5 < document["ceiling"] < 1
    record = read_record(Path(document["record"]))
    assert document == record.model_dump(mode="json") | {"record": document["record"]}
    assert Path(document["record"]).is_relative_to(out)
    assert (record.lds.mean, record.seed, record.variant) == (document["lds"]["mean"], 3, "default")
    assert [path for path in out.rglob("*") if path.is_file()] == [Path(document["record"])]


def test_a_failed_run_is_a_record_and_exit_code_1(attriboard, tmp_path):
    plugin = tmp_path / "my méthod.py"
    plugin.write_text(FAILING, encoding="utf-8")
    out = tmp_path / "out"
    log = tmp_path / "log.txt"
    done = attriboard("run", "digits_mlp", plugin, "--hp", "width=4", "--out", out, "--log", log, "--json")
    document = done.document
    assert done.code == 1
    assert document.keys() >= RESULT
    assert (document["attributor"]["name"], document["hyperparameters"]) == ("failing", {"width": 4})
    assert (document["status"], document["reason"]) == ("failed", "error: ValueError: width 4.0 is too wide")
    assert document["lds"] is None
    assert "on standard output, where no document may be spoilt" in log.read_text(encoding="utf-8")
    assert read_record(Path(document["record"])).variant == "custom"


def test_run_says_it_in_words(attriboard, tmp_path):
    done = attriboard("run", "digits_mlp", "grad_dot", "--threads", 1, "--out", tmp_path)
    assert done.code == 0
    lines = done.out.splitlines()
    assert re.fullmatch(r"grad_dot on digits_mlp: LDS 0\.\d{3}, 95 % interval 0\.\d{3} … 0\.\d{3}", lines[0])
    assert re.fullmatch(
        r"noise ceiling 0\.\d{3}; Pearson 0\.\d{3}; 400 scoring points, 200 masks × 5 repeats", lines[1]
    )
    assert lines[2].startswith("with checkpoints = ")
    assert re.fullmatch(r"fit [\d.]+ s, score [\d.]+ s, peak memory [\d,]+ MB", lines[3])
    assert Path(lines[4].removeprefix("record: ")).is_file()


@pytest.mark.parametrize(
    ("stem", "name"),
    [("scores", "scores"), ("My Method-v2", "my_method-v2"), ("2nd try", "scores_2nd_try"), ("é", "scores")],
)
def test_score_names_the_method_after_the_file(attriboard, scores, tmp_path, stem, name):
    path = scores.rename(tmp_path / f"{stem}.safetensors")
    done = attriboard("score", "digits_mlp", path, "--out", tmp_path / "out", "--json")
    assert done.code == 0, done.err
    document = done.document
    assert document.keys() >= RESULT
    assert (document["attributor"]["name"], document["status"], document["fit_seconds"]) == (name, "ok", None)
    assert read_record(Path(document["record"])).attributor.origin == "scores"


def test_score_in_words_and_under_a_name(attriboard, scores, tmp_path):
    done = attriboard("score", "digits_mlp", scores, "--name", "mine", "--out", tmp_path / "out")
    assert done.code == 0
    assert re.match(r"mine on digits_mlp: LDS -?0\.0\d\d, 95 % interval", done.out)
    refused = attriboard("score", "digits_mlp", scores, "--name", "My Method", "--out", tmp_path / "out")
    assert refused.code == 2
    assert "--name My Method: must be lower-case letters, digits, - and _, as in --name my_method" in refused.err


def test_groundtruth_info(attriboard):
    document = attriboard("groundtruth", "info", "digits_mlp", "--json").document
    keys = {"task", "fingerprint", "sha256", "bytes", "n_masks", "n_repeats", "n_test", "ceiling", "card"}
    assert document.keys() >= keys
    assert document["bytes"] == BUNDLE.stat().st_size
    assert document["card"]["task"]["name"] == document["task"] == "digits_mlp"
    text = attriboard("groundtruth", "info", "digits_mlp").out
    assert document["sha256"] in text
    assert "200 masks × 5 repeats, 500 test points" in text


def test_groundtruth_verify(attriboard):
    done = attriboard("groundtruth", "verify", "digits_mlp", "--rows", 2, "--seed", 1, "--workers", 1, "--json")
    document = done.document
    assert (done.code, document["task"], document["ok"]) == (0, "digits_mlp", True)
    assert len(document["rows"]) == 2
    assert all({"mask", "repeat", "rank_correlation", "max_abs_z"} <= row.keys() for row in document["rows"])


def test_check(attriboard, tmp_path):
    good = attriboard("check", BUNDLE, "--json")
    assert (good.code, good.document) == (0, {"kind": "ground-truth bundle", "ok": True, "errors": [], "warnings": []})
    bad = tmp_path / "record.json"
    bad.write_text("{}")
    done = attriboard("check", bad, "--json")
    assert done.code == 2
    assert (done.document["kind"], done.document["ok"]) == ("record", False)
    assert done.document["errors"][0].keys() == {"where", "message"}
    text = attriboard("check", bad)
    assert text.code == 2
    assert text.out.endswith(f"{bad}: not a valid record\n")
    assert attriboard("check", BUNDLE).out == f"{BUNDLE}: a valid ground-truth bundle\n"


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("bundle", "record.json", "is a record, not a bundle"),
        ("scores", BUNDLE, "is a ground-truth bundle, not scores"),
        ("attributor", "card.yaml", "is a method card, not an attributor"),
        ("record", "plugin.py", "is an attributor, not a record"),
        ("record", "scores.npy", "is a score matrix, not a record"),
        ("card", ".", "is an entry, not a card"),
    ],
)
def test_a_file_of_another_kind_than_the_one_named_fails(attriboard, tmp_path, monkeypatch, kind, name, message):
    monkeypatch.chdir(tmp_path)
    for file in ("record.json", "plugin.py", "card.yaml", "method.yaml", "scores.npy"):
        Path(file).write_text("name: mine")  # a plugin that is not even imported
    done = attriboard("check", kind, name)
    assert (done.code, done.err) == (1, f"error: {name}: {message}\n")
    document = attriboard("check", kind, name, "--json").document
    assert (document["ok"], document["errors"]) == (False, [{"where": "kind", "message": message}])


def test_a_kind_that_is_named_is_checked(attriboard):
    assert attriboard("check", "bundle", BUNDLE).out == f"{BUNDLE}: a valid ground-truth bundle\n"


def test_an_error_is_a_document_too(attriboard):
    done = attriboard("run", "digits_mlpp", "random", "--json")
    assert done.code == 2
    assert done.document.keys() == {"error"}
    assert done.document["error"].startswith("no task named 'digits_mlpp'; did you mean digits_mlp")
    assert done.err == f"error: {done.document['error']}\n"
