"""Bad input ends with exit code 2 and one message that names it; never with a traceback."""

import json
import os
import shutil
from pathlib import Path

import pytest

from attriboard.groundtruth.listing import published_folder

LISTED = ("registry.json", "digits_mlp-groundtruth.safetensors", "digits_mlp-checkpoints.safetensors")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("run digits_mlpp random", "no task named 'digits_mlpp'; did you mean digits_mlp"),
        ("run digits_mlp grad_dott", "no attributor named 'grad_dott'; did you mean grad_dot"),
        ("run digits_mlp", "METHOD: give a name or a .py file"),
        ("sweep digits_mlp", "Missing argument 'METHOD'"),
        ("run record.json", "record.json: no such file"),
        ("run record.json random --hp x=1", "--hp x: record.json says what is run"),
        ("run digits_mlp x.py", "x.py: no such file"),
        ("run digits_mlp random --hp x", "--hp x: must be NAME=VALUE"),
        ("run digits_mlp random --hp x=", "--hp x=: must be NAME=VALUE"),
        ("run digits_mlp random --hp x=1 --hp x=2", "--hp x=2: x is given twice"),
        ("run missing.yaml random", "missing.yaml: not a readable YAML card"),
        ("run digits_mlp random --out plain", "'--out': dir 'plain' is a file"),
        ("run digits_mlp random --out plain/inside", "--out plain/inside: cannot be made: Not a directory"),
        ("run digits_mlp random --out /proc/inside", "--out /proc/inside: cannot be made"),
        ("run digits_mlp random --groundtruth nowhere", "'--groundtruth': dir 'nowhere' does not exist"),
        ("run digits_mlp random --groundtruth .", "lists no groundtruth for digits_mlp"),
        ("run digits_mlp random --seed -1", "'--seed'"),
        ("run digits_mlp random --seed 99999999999999999999", "'--seed'"),
        ("run digits_mlp random --threads 0", "'--threads'"),
        ("run digits_mlp random --time-limit 0", "'--time-limit'"),
        ("run digits_mlp random --memory-limit 4", "--memory-limit 4: must be a size in M, G or T, as in 800M or 4G"),
        ("run digits_mlp random --memory-limit 9M", "--memory-limit 9M: PyTorch alone takes 256M; give more"),
        ("run digits_mlp trak --hp projection_dim=1e17", "projection_dim = 100000000000000000: must be within ±2^53"),
        ("sweep digits_mlp random --grid x=1", "has no hyperparameter 'x'"),
        ("check bundle .", ".: a folder without method.yaml, so it is no entry"),
        ("check cards plain", "give one file, or one of attributor, record"),
        ("sweep digits_mlp iffim --grid regularization=1,2 --out plain/inside", "--out plain/inside: cannot be made"),
        ("select digits_mlp iffim --out plain/inside", "--out plain/inside: cannot be made: Not a directory"),
        ("removal digits_mlp random --figure plain/x/y", "--figure plain/x: cannot be made: Not a directory"),
        ("removal digits_mlp random --latex plain/x/y.tex", "--latex plain/x: cannot be made: Not a directory"),
        ("removal digits_mlp random --latex .", "--latex .: is a folder; name a file in it"),
        ("brittleness digits_mlp random --figure plain/x/y", "--figure plain/x: cannot be made"),
        ("qld digits_mlp random --figure plain/x/y", "--figure plain/x: cannot be made"),
        ("mislabel digits_mlp_flipped random --figure plain/x/y", "--figure plain/x: cannot be made"),
        ("sweep digits_mlp iffim --grid regularization=1 --figure plain/x/y", "--figure plain/x: cannot be made"),
        ("report sensitivity digits_mlp --out plain/x", "--out plain/x: cannot be made"),
        ("report sensitivity digits_mlp --results plain/x", "--results plain/x: cannot be made"),
        ("report selection-cost digits_mlp --results plain/x", "--results plain/x: cannot be made"),
        ("report selection-cost digits_mlp --out plain/x", "--out plain/x: cannot be made"),
        ("report models digits_mlp --publish plain/x", "--publish plain/x: cannot be made"),
        ("report metasmoothness digits_mlp --results plain/x", "--results plain/x: cannot be made"),
        ("report questions digits_mlp --out plain/x", "--out plain/x: cannot be made"),
        ("groundtruth build digits_mlp --out plain/x", "--out plain/x: cannot be made"),
        ("groundtruth epochs digits_mlp 1 --out plain/x", "--out plain/x: cannot be made"),
        ("board build --out plain/x", "--out plain/x: cannot be made"),
        ("demo --out plain/x", "--out plain/x: cannot be made"),
        ("top digits_mlp random", "--test, --where: give one of them, as in --test 7 or --where label=3"),
        ("top digits_mlp random --test 1 --where label=3", "--test, --where: give one of them"),
        ("run digits_mlp random --pdb --time-limit 5", "--time-limit 5: is for an attributor's own process, and --pdb"),
        ("run digits_mlp random --pdb --memory-limit 4G", "--memory-limit 4G: is for an attributor's own process"),
        ("run digits_mlp random --pdb --log x.txt", "--log x.txt: is for an attributor's own process"),
        ("run digits_mlp random --pdb --sandbox", "in this one; leave --sandbox out"),
        ("sweep digits_mlp random --grid x=1 --metric mse", "--metric mse: must be lds or removal"),
        ("run digits_mlp random --bogus", "No such option: --bogus"),
        ("run", "Missing argument 'TASK|RECORD'"),
        ("score digits_mlp missing.safetensors", "missing.safetensors: no such file"),
        ("score digits_mlp plain", "plain: not a readable safetensors file"),
        ("score nope plain", "no task named 'nope'"),
        ("check missing.json", "missing.json: no such file"),
        ("check entry . --run-again me --held-out .", "'.' is a directory"),
        ("check plain", "plain: it has no ending, which says nothing of what it is; expected .json"),
        ("check .", ".: a folder without method.yaml, so it is no entry"),
        ("groundtruth info nope", "no task named 'nope'"),
        ("groundtruth verify digits_mlp --rows 0", "'--rows'"),
        ("groundtruth verify digits_mlp --seed -1", "'--seed'"),
        ("groundtruth build digits_mlp --masks 1", "'--masks'"),
        ("groundtruth build digits_mlp --executor host:1", "executor = 'host:1': must be tcp://host:port or tls://"),
        ("groundtruth verify digits_mlp --executor tcp://h:1 --workers 2", "--workers 2: with --executor, the cluster"),
        ("removal digits_mlp random --executor host:1", "executor = 'host:1': must be tcp://host:port or tls://"),
        ("removal digits_mlp random --executor tcp://h:1 --workers 2", "--workers 2: with --executor, the cluster"),
        ("brittleness digits_mlp random --executor host:1", "executor = 'host:1': must be tcp://host:port or tls://"),
        (
            "sweep digits_mlp iffim --grid regularization=1 --metric removal --executor h",
            "executor = 'h': must be tcp://",
        ),
        ("board build --results nowhere", "nowhere: no such folder of records"),
        ("board build --groundtruth nowhere", "'nowhere' does not exist"),
        ("board build --groundtruth .", "--groundtruth .: no registry.json there, so it lists no bundles"),
        ("board serve nowhere", "nowhere: no index.html there"),
        ("bogus", "No such command 'bogus'"),
    ],
)
def test_bad_input(attriboard, tmp_path, monkeypatch, command, message):
    monkeypatch.chdir(tmp_path)
    Path("plain").write_text("plain text")
    done = attriboard(*command.split())
    assert done.code == 2
    assert message in done.err
    assert done.out == ""


def test_hyperparameters_that_the_method_does_not_have(attriboard, tmp_path):
    done = attriboard("run", "digits_mlp", "random", "--hp", "x=1", "--out", tmp_path, "--json")
    assert done.code == 2
    assert done.document == {"error": "random has no hyperparameter 'x'; it has: none"}


@pytest.fixture
def bundles(tmp_path):
    """A copy of the published bundles of digits_mlp."""
    folder = tmp_path / "bundles"
    folder.mkdir()
    for name in LISTED:
        shutil.copy(published_folder() / name, folder)
    return folder


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def other_bytes_listed(folder: Path) -> None:
    path = folder / "registry.json"
    listing = json.loads(path.read_text())
    for entry in listing["bundles"]:
        entry["sha256"] = "0" * 64
    path.write_text(json.dumps(listing))


DAMAGE = {
    "registry_torn": (lambda f: os.truncate(f / "registry.json", 90), "registry.json: not a registry of bundles"),
    "registry_of_others": (lambda f: (f / "registry.json").write_text("[1]"), "not a registry of bundles"),
    "truth_missing": (lambda f: (f / LISTED[1]).unlink(), "listed but not here; fetch it"),
    "truth_torn": (lambda f: os.truncate(f / LISTED[1], 1000), "the file is torn or altered"),
    "truth_altered": (lambda f: flip_a_bit(f / LISTED[1]), "the file is torn or altered"),
    "checkpoints_altered": (lambda f: flip_a_bit(f / LISTED[2]), "the file is torn or altered"),
    "other_bytes_listed": (other_bytes_listed, "the registry says 000000000000…"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_bundles(attriboard, bundles, tmp_path, damage):
    spoil, message = DAMAGE[damage]
    spoil(bundles)
    out = tmp_path / "out"
    done = attriboard("run", "digits_mlp", "random", "--groundtruth", bundles, "--out", out, "--json")
    assert done.code == 2
    assert message in done.document["error"]
    assert not out.exists(), "nothing was run"


def test_an_unwritable_folder_is_found_out_before_the_work(attriboard, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # the superuser may write anywhere
    done = attriboard("run", "digits_mlp", "random", "--out", tmp_path)
    assert done.code == 2
    assert done.err == f"error: --out {tmp_path}: not writable\n"
    scores = attriboard("run", "digits_mlp", "random", "--save-scores", tmp_path / "x.safetensors")
    assert (scores.code, scores.err) == (2, f"error: --save-scores {tmp_path}: not writable\n")
