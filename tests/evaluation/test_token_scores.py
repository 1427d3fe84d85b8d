"""Scores of tokens from `top`: their sums, their words, and what is drawn of them."""

import json
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import attriboard as ab
from attriboard.base.errors import AttriboardError, InputError
from attriboard.cli.app import app
from attriboard.cli.top import show_tokens
from attriboard.evaluation.catalog import load_task
from attriboard.evaluation.tokens import TokenLine, token_lines, tokens_figure, tokens_html

SOURCE = """
import torch
from torch import nn
import attriboard as ab

words = ["<s>", "cats & dogs", "sleep", "<run>", "$"]
blocks = torch.randint(5, (26, 6), generator=torch.Generator().manual_seed(0))

def build():
    return nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5))

def loss(outputs, targets):
    return nn.functional.cross_entropy(outputs[:, :-1].transpose(1, 2), targets[:, 1:], reduction="none").mean(1)

task = ab.define_task(
    "language", model=build, train=(blocks[:18], blocks[:18]), test=(blocks[18:], blocks[18:]), loss=loss,
    checkpoints=[build()], vocabulary=words,
)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTRIBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "language.py"
    path.write_text(textwrap.dedent(SOURCE))
    return path


def test_top_splits_scores_over_tokens_and_draws_them(file: Path, tmp_path: Path, capsys: Any) -> None:
    page = tmp_path / "tokens.html"
    arguments = ["top", str(file), "grad_dot", "--test", "1", "--k", "2", "--threads", "1", "--tokens"]
    with pytest.raises(SystemExit) as end:
        app([*arguments, "--figure", str(page), "--json"], prog_name="attriboard")
    out, err = capsys.readouterr()
    assert not end.value.code, err
    document = json.loads(out)
    listed = {str(row["example"]): row["score"] for side in ("helpful", "harmful") for row in document[side]}
    assert document["tokens"].keys() == listed.keys()
    for example, tokens in document["tokens"].items():
        assert sum(token["score"] for token in tokens) == pytest.approx(listed[example], rel=1e-5)
        assert {token["token"] for token in tokens} <= {"<s>", "cats & dogs", "sleep", "<run>", "$"}
    text = page.read_text()
    assert text.count("<p><b>") == 5
    assert "&lt;run&gt;" in text
    assert "<run>" not in text


def small(**changes: Any) -> Any:
    random = np.random.default_rng(0)
    blocks = torch.from_numpy(random.integers(5, size=(20, 4)))
    given: dict[str, Any] = {
        "model": lambda: nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5)),
        "train": (blocks[:14], blocks[:14]),
        "test": (blocks[14:], blocks[14:]),
        "loss": lambda o, t: nn.functional.cross_entropy(o.transpose(1, 2), t, reduction="none").mean(1),
    }
    given |= changes
    return ab.define_task("blocks", checkpoints=[given["model"]()], **given)


def test_tokens_without_words_are_numbers_and_lines_have_their_own_colors(tmp_path: Path) -> None:
    task = small()
    found = ab.top(task, "iffim", [0, 2], k=2, tokens=True, regularization=0.1, threads=1)
    lines = token_lines(task, found)
    assert [line.side for line in lines] == ["test", "test", "helpful", "helpful", "harmful", "harmful"]
    assert lines[0].tokens == tuple(f"{n} " for n in task.load_data().test.inputs[0].tolist())
    assert lines[0].colors == ()
    for line in lines[2:]:
        assert sum(line.scores) == pytest.approx(line.score, rel=1e-3)
        strongest = max(range(4), key=lambda at, line=line: abs(line.scores[at]))
        assert line.colors[strongest] == ("#5799c7" if line.scores[strongest] > 0 else "#ff9f4a")
    tokens_figure(lines, "of $ and _").savefig(tmp_path / "tokens.png")
    assert (tmp_path / "tokens.png").read_bytes().startswith(b"\x89PNG")
    assert "<script" not in tokens_html(lines, "<script>")


def test_tokens_that_look_like_markup_are_printed_as_they_are(capsys: Any) -> None:
    tokens = ("[/", "]", "[sep]", ":smile:")
    show_tokens([TokenLine("helpful", 3, 1.0, tokens, (0.4, 0.3, 0.2, 0.1))])
    assert capsys.readouterr().out.splitlines() == [
        "helpful 3  +1  [/][sep]:smile:",
        "    strongest: [/ +0.4, ] +0.3, [sep] +0.2, :smile: +0.1",
    ]


def test_what_has_no_token_scores_says_why() -> None:
    with pytest.raises(AttriboardError, match="grad_cos gives no direction, so its scores have no parts for tokens"):
        ab.top(small(), "grad_cos", 0, k=1, tokens=True, threads=1)
    pooled = small(
        model=lambda: nn.Sequential(nn.EmbeddingBag(5, 3), nn.Linear(3, 4)),
        loss=lambda o, t: nn.functional.cross_entropy(o, t[:, 0].clamp(max=3), reduction="none"),
    )
    with pytest.raises(AttriboardError, match="not_applicable"):
        ab.top(pooled, "grad_dot", 0, k=1, tokens=True, threads=1)
    task = small()
    with pytest.raises(InputError, match="give tokens=True"):
        token_lines(task, ab.top(task, "grad_dot", 0, k=1, threads=1))


def test_an_option_for_tokens_is_needed_for_a_picture_of_text(file: Path, tmp_path: Path, capsys: Any) -> None:
    assert load_task(file).card.name == "language"
    for more, message in (([], "add --tokens"), (["--tokens"], "must end in .png or .html")):
        figure = "sheet.png" if not more else "sheet.pdf"
        with pytest.raises(SystemExit) as end:
            app(["top", str(file), "random", "--test", "1", "--figure", str(tmp_path / figure), *more])
        assert end.value.code == 2
        assert message in capsys.readouterr().err
