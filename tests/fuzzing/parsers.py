"""Every parser of what others may have written, with what it is fed."""

import json
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save

from attriboard import tasks
from attriboard.base.errors import InputError
from attriboard.base.scores import read_matrix
from attriboard.evaluation.catalog import load_task
from attriboard.groundtruth.bundle import read_ground_truth
from attriboard.groundtruth.checkpoints import read_checkpoints
from attriboard.groundtruth.listing import BundleRegistry, published_folder
from attriboard.groundtruth.starts import read_start
from attriboard.records.files import read_record
from attriboard.records.method_card import load_method_card
from fuzzing.hostile import Shape, hostile_json, hostile_safetensors, hostile_yaml

__all__ = ["PARSERS", "Parser"]

GOLDEN = Path(__file__).parents[1] / "golden"
METHOD_CARD = {
    "name": "my_method",
    "paper": "https://arxiv.org/abs/0000.00000",
    "authors": ["Ada Lovelace"],
    "protocol": "tuned",
    "tuned_on": "calibration points",
    "code": "https://github.com/ada/my_method",
    "commit": "0123abc",
}


@dataclass(frozen=True)
class Parser:
    """One parser.

    Attributes:
        inputs: what no call may accept.
        read: gets a folder of its own and an input; raises `InputError` where it refuses it.
        good: an input that it accepts, so that refusing everything is found out.
    """

    inputs: st.SearchStrategy[Any]
    read: Callable[[Path, Any], object]
    good: Any


def _file(name: str, read: Callable[[Path], object]) -> Callable[[Path, bytes], object]:
    def write_and_read(folder: Path, content: bytes) -> object:
        (folder / name).write_bytes(content)
        return read(folder / name)

    return write_and_read


def _card_of(path: Path) -> Any:
    with safe_open(path, framework="numpy") as file:
        return json.loads(file.metadata()["card"])


FREE = frozenset({"hyperparameters", "packages", "criteria", "options", "sha256"})
# In the card of a start, `sha256` is a single text, and these have their writer's keys.
START_FREE = frozenset({"packages", "recipe", "size"})
# Fields of task cards that have a default.
TASK_OPTIONAL = frozenset(
    {"version", "subsets", "split", "ground_truth", "momentum", "weight_decay", "fraction", "seed", "calibration",
     "n_masks", "n_repeats", "full", "half", "options"}
)  # fmt: skip
RECORD = json.loads((GOLDEN / "record-v1.json").read_text(encoding="utf-8"))
TASK = yaml.safe_load(Path(tasks.__file__).with_name("digits_mlp.yaml").read_text(encoding="utf-8"))
TRUTH, CHECKPOINTS = GOLDEN / "groundtruth-v1.safetensors", GOLDEN / "checkpoints-v1.safetensors"
START = GOLDEN / "start-v1.safetensors"
FINGERPRINT = _card_of(CHECKPOINTS)["fingerprint"]
REGISTRY = json.loads((published_folder() / "registry.json").read_text())
SCORES = save({"scores": np.random.default_rng(0).normal(size=(7, 11)).astype(np.float32)})


def _safetensors(path: Path) -> st.SearchStrategy[bytes]:
    free = START_FREE if path == START else FREE
    return hostile_safetensors(path.read_bytes(), Shape(_card_of(path), free, TASK_OPTIONAL))


# The command line: a word in the wrong place makes each of these wrong, whatever else it says.
WORDS = (
    "../../etc/passwd", "/dev/zero", "/proc/self/mem", "\u202ecod.gnp", "na\u200bme", "a" * 5000, "", " ", "-", ".",
    "..", "~", "*", "$(id)", "`id`", "%s%n", "\x1b[31m", "null", "None", "NaN", "1e999", "-1", "9" * 400, "0x10", "{}",
    "[]", "file:///etc/passwd", "http://127.0.0.1:9/x", "hf://datasets/a/b@c", "a=b", "=", "a=", "'", '"', "\\",
    "\udcff", "a\nb", "digits_mlpp", "Digits_mlp", "digits_mlp ", "x.yaml", "x.py", "x.json", "x.safetensors",
)  # fmt: skip
WORD = st.one_of(st.sampled_from(WORDS), st.text(max_size=12))
NO_TASK = WORD.filter(lambda word: not word.startswith("-") and word not in tasks.TASKS)
NUMBER = st.sampled_from(("NaN", "1e999", "--", "x", "-5", "", "9" * 30, "0x10", "1,5", "∞", "٣.٣"))
OPTION = st.sampled_from(
    ("--bogus", "--seed=x", "--threads=-1", "--time-limit=nan?", "--memory-limit=-4G", "--json=1", "-", "--out", "-x")
)


@st.composite
def _command_lines(draw: Callable[[st.SearchStrategy[Any]], Any]) -> list[str]:
    word, task = draw(WORD), draw(NO_TASK)
    forms: tuple[list[str], ...] = (
        [word],
        [word, task],
        ["run", task, "random"],
        ["run", task, word, "--hp", word],
        ["run", "digits_mlp", "random", draw(OPTION)],
        ["run", "digits_mlp", "random", "--memory-limit", draw(NUMBER)],
        ["run", "digits_mlp", "random", "--seed", draw(NUMBER)],
        ["run", "digits_mlp", "no_such_" + word],
        ["sweep", "digits_mlp", "random", "--grid", draw(NUMBER)],
        ["sweep", task, "iffim", "--grid", "regularization=1:2:3"],
        ["select", task, "iffim", "--selector", word],
        ["score", task, word],
        ["score", "digits_mlp", "scores-" + word],
        ["score", "digits_mlp", "scores-x", "--method", "card-" + word],
        ["check", "file-" + word],
        ["check", word, word, word],
        ["check", "record", "file-" + word + ".json"],
        ["submit", word, "--method", "card-" + word],
        ["submit", "--scores", word],
        ["groundtruth", "info", task],
        ["groundtruth", "verify", task, "--rows", draw(NUMBER)],
        ["groundtruth", "pull", task],
        ["groundtruth", "push-ready", task],
        ["groundtruth", word],
        ["board", "serve", "folder-" + word],
        ["board", "build", "--results", "folder-" + word],
        ["report", word],
    )
    return [part.replace("\0", "") for part in draw(st.sampled_from(forms))]


def _run(folder: Path, arguments: list[str]) -> object:
    """Run a command in this process; exit codes 1 and 2 with one message are refusals, all else is a result."""
    import typer.main

    from attriboard.cli.app import app

    global _COMMAND
    if _COMMAND is None:
        _COMMAND = typer.main.get_command(app)
    out, err, before = StringIO(), StringIO(), Path.cwd()
    os.chdir(folder)
    try:
        with redirect_stdout(out), redirect_stderr(err):
            _COMMAND.main(arguments, prog_name="attriboard")
        code: object = 0
    except SystemExit as end:
        code = end.code
    finally:
        os.chdir(before)
    said = err.getvalue()
    if "Traceback" in said or len(said) > 50_000:
        raise RuntimeError(f"{arguments!r}: {said[-2000:]}")
    if code in (1, 2) and (said or '"errors"' in out.getvalue() or "not a valid" in out.getvalue()):
        raise InputError(said)
    return code


_COMMAND: Any = None

PARSERS = {
    "record": Parser(
        hostile_json(Shape(RECORD, FREE, frozenset({"schema_version", "calibration", "criteria"}))),
        _file("x.json", read_record),
        json.dumps(RECORD).encode(),
    ),
    "task card": Parser(
        hostile_yaml(Shape(TASK, FREE, TASK_OPTIONAL)), _file("x.yaml", load_task), json.dumps(TASK).encode()
    ),
    "method card": Parser(
        hostile_yaml(Shape(METHOD_CARD, frozenset(), frozenset({"family"}))),
        _file("x.yaml", load_method_card),
        json.dumps(METHOD_CARD).encode(),
    ),
    "registry": Parser(
        hostile_json(Shape(REGISTRY, frozenset(), frozenset({"schema_version", "urls", "bundles"}))),
        _file("registry.json", lambda path: BundleRegistry(path.parent)),
        json.dumps(REGISTRY).encode(),
    ),
    "ground-truth bundle": Parser(_safetensors(TRUTH), _file("x.safetensors", read_ground_truth), TRUTH.read_bytes()),
    "checkpoint bundle": Parser(
        _safetensors(CHECKPOINTS),
        _file("x.safetensors", lambda path: read_checkpoints(path, FINGERPRINT)),
        CHECKPOINTS.read_bytes(),
    ),
    "start bundle": Parser(_safetensors(START), _file("x.safetensors", read_start), START.read_bytes()),
    "score matrix": Parser(
        hostile_safetensors(SCORES, None), _file("x.safetensors", lambda path: read_matrix(path, (7, 11))), SCORES
    ),
    "command line": Parser(_command_lines(), _run, ["tasks"]),
}
