"""Every block of Python or commands in the documents runs, or says why it is not run here."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import typer.core
from documents import PAGES, ROOT, Block, blocks_of, name_of

from attriboard.cli.app import app

LANGUAGES = {"python", "yaml", "text", "mermaid", "bibtex", ""}
PROGRAMS = {"attriboard", "make", "python", "pip", "source", "export", "mkdir", "cp", "printf", "while", "dask", "hf"}
OWN_TEST = {  # pages whose blocks are run elsewhere in the suite, beside what else the page promises
    "docs/own-task.md",  # test_own_task_page
    "docs/submit.md",  # checking/test_submit_commands, checking/test_code_door
    "docs/choosing-lambda.md",  # toolkit/test_regularization
}
CHEAP = ["README.md", "docs/commands.md", "docs/groundtruth.md", "docs/groundtruth-format.md", "docs/questions.md"]
LONG = ["docs/first-attributor.md", "docs/data-selection.md", "docs/interchange.md", "docs/methods.md"]


def commands() -> list[tuple[str, list[str]]]:
    return [(name_of(page), words) for page in PAGES for block in blocks_of(page) for words in block.commands]


def test_every_block_is_of_a_known_kind_and_every_command_of_a_known_program():
    for page in PAGES:
        for block in blocks_of(page):
            assert block.language in LANGUAGES, f"{name_of(page)}: {block.language}"
    for page, words in commands():
        program = next(word for word in words if not re.fullmatch(r"[A-Z_]+=.*", word))
        assert program in PROGRAMS, f"{page}: {' '.join(words)}"


def test_every_command_line_has_the_options_that_it_uses():
    for page, words in commands():
        words = [word for word in words if not re.fullmatch(r"ATTRIBOARD_\w+=.*", word)]
        if words[0] != "attriboard":
            continue
        command = typer.main.get_command(app)
        rest = words[1:]
        while isinstance(command, typer.core.TyperGroup) and rest and not rest[0].startswith("-"):
            found = command.commands.get(rest[0])
            assert found, f"{page}: {' '.join(words)}: no command {rest[0]}"
            command, rest = found, rest[1:]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        used = {word for word in rest if re.fullmatch(r"--?[a-z-]+", word)}
        assert used <= known | {"--help", "--version"}, f"{page}: {' '.join(words)}: {used - known}"


def test_every_make_target_of_the_documents_exists():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for page, words in commands():
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", makefile, re.M), f"{page}: {' '.join(words)}"


def run_page(page: Path, folder: Path) -> str:
    """Do what a page says, from top to bottom, in one folder; Python blocks share their names."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment["ATTRIBOARD_CACHE"] = str(folder / "cache")
    printed, script = [], ""

    def run(command: list[str] | str) -> None:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            shell=isinstance(command, str),
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        printed.append(done.stdout)

    for block in blocks_of(page):
        if block.saved_as:
            (folder / block.saved_as).write_text(block.text, encoding="utf-8")
        elif block.language == "python" and not block.elsewhere:
            script += block.text + "\n"
    if script:
        run([sys.executable, "-c", script])
    for line in (line for block in blocks_of(page) if here(block) for line in block.text.splitlines()):
        run(line)
    return "\n".join(printed)


def here(block: Block) -> bool:
    return not block.language and not block.elsewhere


def prepare(page: str, folder: Path) -> None:
    """The files that a page takes for granted."""
    for name in ("groundtruth", "checkpoints"):
        bundle = f"digits_mlp-{name}.safetensors"
        (folder / bundle).symlink_to(ROOT / "leaderboard" / "groundtruth" / bundle)
    if page == "docs/methods.md":
        (folder / "my_method.py").write_text((ROOT / "docs" / "my_method.py").read_text("utf-8"), encoding="utf-8")


@pytest.mark.parametrize("page", [*CHEAP, *(pytest.param(page, marks=pytest.mark.slow) for page in LONG)])
def test_a_page_does_what_it_says(page, tmp_path):
    prepare(page, tmp_path)
    printed = run_page(ROOT / page, tmp_path)
    for block in blocks_of(ROOT / page):
        for expected in re.findall(
            r"print\(.*\)  # (\([\d, ()]+\))$", block.text if block.language == "python" else "", re.M
        ):
            assert expected in printed


def test_no_page_is_forgotten():
    """A page with blocks that run is in one of the lists; the others say of each block why it is not run."""
    for page in PAGES:
        runs = [b for b in blocks_of(page) if not b.elsewhere and b.language in ("", "python")]
        if name_of(page) not in {*CHEAP, *LONG, *OWN_TEST}:
            assert not runs, f"{name_of(page)}: add it to a list, or `<!-- elsewhere: REASON -->` before the block"


def test_links_between_documents_lead_somewhere():
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
        for link, anchor in re.findall(r"\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)", text):
            target = page.parent / link
            assert target.exists(), f"{name_of(page)}: {link}"
            if anchor:
                slugs = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.M)
                made = {"#" + re.sub(r"[^\w\- ]", "", slug.lower()).strip().replace(" ", "-") for slug in slugs}
                assert anchor in made, f"{name_of(page)}: {link}{anchor}"
