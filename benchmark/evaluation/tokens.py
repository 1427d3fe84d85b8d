"""Tokens with their scores, as people look at them: colored text for terminals, HTML and PNG."""

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attriboard.base.errors import AttriboardError, InputError
from attriboard.contracts.task import Task
from attriboard.evaluation.proponents import Proponents

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

_BLUE, _ORANGE = (31, 119, 180), (255, 127, 14)  # helpful, harmful: told apart by people who see red and green alike
_WIDTH = 110  # characters in a line of the PNG
_INCH = 0.6 * 8 / 72  # width of a character of eight points


@dataclass(frozen=True)
class TokenLine:
    """One example's tokens.

    Attributes:
        side: test, helpful or harmful.
        example: its position.
        score: of the whole example; `None` of test examples.
        tokens: in their order.
        scores: of each, which add up to `score`; empty for test examples.
    """

    side: str
    example: int
    score: float | None
    tokens: tuple[str, ...]
    scores: tuple[float, ...]

    @property
    def colors(self) -> tuple[str, ...]:
        """A background for each token, `#rrggbb`: blue helps, orange harms, white does nothing."""
        largest = max(map(abs, self.scores), default=0.0)
        return tuple(_color(score / largest if largest else 0.0) for score in self.scores)

    @property
    def heading(self) -> str:
        """What stands before the tokens."""
        return f"{self.side} {self.example}" + ("" if self.score is None else f"  {self.score:+.3g}")


def token_lines(task: Task, found: Proponents) -> list[TokenLine]:
    """The test examples, then the helpful and the harmful training examples, each with its tokens.

    Args:
        task: whose examples they are.
        found: with scores of tokens.

    Raises:
        InputError: there are none; find them with tokens.
    """
    if not found.tokens:
        raise InputError("tokens: these examples were found without scores of tokens; give tokens=True")
    data = task.load_data()
    lines = [TokenLine("test", at, None, token_texts(task, data.test.inputs[at]), ()) for at in found.tests]
    for side, examples, scores in (
        ("helpful", found.helpful, found.helpful_scores),
        ("harmful", found.harmful, found.harmful_scores),
    ):
        lines += [
            TokenLine(side, at, score, token_texts(task, data.train.inputs[at]), found.tokens[at])
            for at, score in zip(examples, scores, strict=True)
        ]
    return lines


def token_texts(task: Task, inputs: "torch.Tensor") -> tuple[str, ...]:
    """Each token of an example in words, or its number where nobody knows what it means."""

    def text(position: int) -> str:
        try:
            found = task.text(inputs[position : position + 1])
        except AttriboardError:  # without a tokenizer the number is still there
            found = None
        return f"{int(inputs[position])} " if found is None else found

    return tuple(text(position) for position in range(len(inputs)))


def tokens_html(lines: Sequence[TokenLine], title: str) -> str:
    """A page that stands by itself."""
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>',
        "<style>body{font:15px/1.9 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}"
        "p{white-space:pre-wrap}span{padding:.15em 0;border-radius:.2em;color:#000}b{margin-right:.6em}</style>",
        f"<h1>{html.escape(title)}</h1><p>Blue tokens raise the target of the test example, orange ones lower it; "
        "each line has its own scale. The scores of the tokens of an example add up to its score.</p>",
    ]
    for line in lines:
        parts.append(f"<p><b>{html.escape(line.heading)}</b>{''.join(_spans(line))}</p>")
    return "\n".join([*parts, "</html>"]) + "\n"


def _spans(line: TokenLine) -> Iterator[str]:
    if not line.scores:
        yield html.escape("".join(line.tokens))
        return
    for token, score, color in zip(line.tokens, line.scores, line.colors, strict=True):
        yield f'<span style="background:{color}" title="{score:+.3g}">{html.escape(token)}</span>'


def tokens_figure(lines: Sequence[TokenLine], title: str) -> "Figure":
    """The same as a picture, in lines of fixed width."""
    from matplotlib.figure import Figure

    rows: list[list[tuple[str, str | None]]] = []
    for line in lines:
        rows.append([(line.heading, None)])
        rows += _wrapped(line)
    height = 0.19 * len(rows) + 0.5
    figure = Figure(figsize=(_WIDTH * _INCH / 0.98, height))
    axes = figure.add_axes((0.01, 0.0, 0.98, 1 - 0.4 / height))
    axes.set_axis_off()
    axes.set_xlim(0, _WIDTH)
    axes.set_ylim(len(rows), 0)
    for y, row in enumerate(rows):
        x = 0
        for text, color in row:
            box = None if color is None else {"facecolor": color, "edgecolor": "none", "pad": 0.8}
            weight = "bold" if row[0][1] is None and len(row) == 1 else "normal"
            shown = text.replace("$", r"\$")  # a formula to Matplotlib
            axes.text(x, y + 0.75, shown, family="monospace", fontsize=7.9, bbox=box, weight=weight)
            x += len(text)
    figure.suptitle(title.replace("$", r"\$"), fontsize=9)
    return figure


def _wrapped(line: TokenLine) -> Iterator[list[tuple[str, str | None]]]:
    """Tokens with their colors, in lines of at most `_WIDTH` characters."""
    row: list[tuple[str, str | None]] = []
    for token, color in zip(line.tokens, line.colors or ("#ffffff",) * len(line.tokens), strict=True):
        printable = "".join(c if c.isprintable() else "·" for c in token)[:_WIDTH]
        if row and sum(len(text) for text, _ in row) + len(printable) > _WIDTH:
            yield row
            row = []
        row.append((printable, color))
    yield row


def _color(weight: float) -> str:
    """White at 0, blue at 1, orange at −1."""
    full = _BLUE if weight >= 0 else _ORANGE
    mixed = (round(255 + (channel - 255) * 0.75 * min(1.0, abs(weight))) for channel in full)
    return "#" + "".join(f"{channel:02x}" for channel in mixed)
