"""The program as a process: start-up, help, pipes, locales and Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from selecting import few_resamples, run_inline

import attriboard as ab
from attriboard.cli import demo
from attriboard.cli.app import app

HEAVY = {
    "jinja2", "matplotlib", "numpy", "pandas", "pooch", "psutil", "pydantic", "rich", "safetensors", "scipy",
    "sklearn", "torch", "yaml",
}  # fmt: skip

HANGING = """
import os, time
from pathlib import Path
from attriboard import Attributor


class Hanging(Attributor):
    name = "hanging"

    def fit(self, context):
        Path(__file__).with_name("pid.txt").write_text(str(os.getpid()))
        time.sleep(600)

    def score(self, state):
        return state
"""


def commands(command, path=()):
    """Every command with its path, groups included."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*path, name))


def test_defining_the_commands_imports_nothing_heavy():
    script = "import sys, attriboard.cli; print(*sys.modules)"
    loaded = set(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.split())
    assert not HEAVY & loaded
    ours = {name for name in loaded if name.startswith("attriboard.")}
    others = {name for name in ours if not name.startswith("attriboard.cli")}
    aliases = {"attriboard.cards", "attriboard.errors"}
    light = {f"attriboard.base.{name}" for name in ("display", "errors", "terminal", "version")}
    assert others <= {"attriboard.base", *light, *aliases}


def test_help_of_every_command_names_each_option_and_says_what_it_is_for(attriboard):
    found = list(commands(typer.main.get_command(app)))
    assert {path[0] for path, _ in found if path} >= {"tasks", "attributors", "selectors", "run", "score", "check"}
    for path, command in found:
        done = attriboard(*path, "--help")
        assert done.code == 0
        assert "--help -h" in " ".join(done.out.split()), path
        assert command.help, path
        assert "\n" not in command.help.replace("\n\n", ""), "the terminal's width breaks lines, not the source's"
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.opts[0] in done.out, (path, parameter.opts)
            assert getattr(parameter, "help", None), (path, parameter.name)


def test_every_command_that_answers_has_json():
    answering = {path for path, command in commands(typer.main.get_command(app)) if not hasattr(command, "commands")}
    with_json = {
        path
        for path, command in commands(typer.main.get_command(app))
        if any("--json" in parameter.opts for parameter in command.params)
    }
    assert answering - with_json == {("board", "serve")}


def test_a_demo_prints_one_document(attriboard, tmp_path, monkeypatch):
    few_resamples(monkeypatch)
    run_inline(monkeypatch)
    monkeypatch.setattr(demo, "ATTRIBUTORS", ("random", "iffim"))
    document = attriboard("demo", "--out", tmp_path, "--json").document
    assert {record["attributor"]["name"] for record in document["records"]} == {"random", "iffim"}
    assert {record["kind"] for record in document["records"]} == {"attribution", "selection"}
    assert Path(document["index"]).is_file()


@pytest.mark.parametrize("command", ["tasks", "submit"])
def test_a_template_is_no_document(attriboard, command):
    done = attriboard(command, "--template", "--json")
    assert (done.code, done.document) == (2, {"error": "--template: prints a file, which is no JSON; leave --json out"})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "digits_mlp", "random", "--nope"), "No such option: --nope"),
        (("select", "digits_mlp", "trak", "--budget", "1"), "--budget"),
        (("groundtruth", "build"), "TASK"),
        (("nope",), "No such command 'nope'"),
    ],
)
def test_what_cannot_be_read_of_the_command_line_is_a_document_too(attriboard, words, message):
    done = attriboard(*words, "--json")
    assert done.code == 2
    assert list(done.document) == ["error"]
    assert message in done.document["error"]
    assert not attriboard(*words).out  # without --json, standard error has it all


def test_without_arguments_it_explains_itself(attriboard):
    for path in ([], ["groundtruth"], ["board"]):
        done = attriboard(*path)
        assert "Commands" in done.out + done.err
        assert "Usage: attriboard" in done.out + done.err


def test_version(attriboard):
    assert attriboard("--version").out == f"attriboard {ab.__version__}\n"


def test_a_reader_that_leaves_early_gets_no_traceback(program, tmp_path):
    command = f"'{program}' attributors --json | head -n 1"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout == "[\n"
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
@pytest.mark.parametrize("words", ["selectors --json", "selectors", "tasks --template", "check nothing.json --json"])
def test_where_nothing_can_be_printed_one_line_says_so(program, tmp_path, words):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [program, *words.split()], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120
        )
    missing = "nothing.json: no such file"
    said = (2, missing) if "nothing" in words else (1, "standard output: No space left on device")
    assert (done.returncode, done.stderr) == (said[0], f"error: {said[1]}\n")


def test_a_terminal_without_unicode_loses_no_result(shell):
    done = shell("tasks", env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert done.code == 0
    assert "200 \\xd7 5" in done.out
    name = os.fsdecode(b"odd \xff name.json")
    odd = shell("check", name, "--json", env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert odd.code == 2
    assert odd.document == {"error": f"{name}: no such file"}


def test_pdb_stops_at_the_exception_in_the_attributors_code(program, tmp_path):
    (tmp_path / "failing.py").write_text(HANGING.replace("        time.sleep(600)", "        1 / (len('ab') - 2)"))
    done = subprocess.run(
        [program, "run", "digits_mlp", "failing.py", "--pdb"],
        cwd=tmp_path, input="p len('abc'), self.name\nq\n", capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert "failing.py(12)fit()" in done.stdout
    assert "(3, 'hanging')" in done.stdout
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")
    assert not (tmp_path / "attriboard-results").exists()


def test_ctrl_c_ends_the_run_and_its_attributor_with_130(program, tmp_path):
    (tmp_path / "hanging.py").write_text(HANGING)
    pid = tmp_path / "pid.txt"
    running = subprocess.Popen(
        [program, "run", "digits_mlp", "./hanging.py", "--json"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with running:
        deadline = time.monotonic() + 90
        while not (pid.exists() and pid.read_text()):
            assert running.poll() is None, running.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert json.loads(out) == {"error": "interrupted"}
    assert "interrupted" in err
    assert "is kept" not in err  # a fit that was interrupted begins anew
    assert "Traceback" not in err
    assert not Path(f"/proc/{pid.read_text()}").exists()
