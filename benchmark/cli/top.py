"""`attriboard top`: the training examples that matter most for some test examples."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attriboard.base.terminal import note
from attriboard.cli.options import (
    Fixed,
    MethodArgument,
    Process,
    Sources,
    TaskArgument,
    open_workspace,
    parse_assignments,
    prepare_file,
)
from attriboard.cli.shell import Json, command, emit, setting, show_table

if TYPE_CHECKING:
    from attriboard.contracts.task import Task
    from attriboard.evaluation.proponents import Proponents
    from attriboard.evaluation.tokens import TokenLine

N_STRONGEST = 5  # tokens of an example whose scores are printed


@command
def top(
    task: TaskArgument,
    method: MethodArgument,
    test: Annotated[
        list[int] | None, typer.Option("--test", metavar="N", help="A test example, from 0 on; repeatable.", min=0)
    ] = None,
    where: Annotated[
        str | None, typer.Option("--where", metavar="label=VALUE", help="All test examples with a label, instead.")
    ] = None,
    k: Annotated[int, typer.Option("--k", help="Number of helpful and of harmful examples.", min=1)] = 8,
    selected: Annotated[bool, typer.Option("--selected", help="Choose λ by ξ first.")] = False,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Which tokens of these examples matter; of language models.")
    ] = False,
    hp: Fixed = None,
    figure: Annotated[
        Path | None,
        typer.Option(
            "--figure", metavar="FILE", help="PNG with a sheet of the images; PNG or HTML with colored tokens."
        ),
    ] = None,
    process: Process = Process(),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Show the training examples that help and harm test examples most; of several, by their mean scores.

    No ground truth is needed. Tables are shown as rows, text with its tokens; --figure draws images. --tokens
    says which tokens of these examples matter: their scores add up to that of the example.
    """
    from attriboard.base.errors import InputError
    from attriboard.evaluation.examples import form_of, rows
    from attriboard.evaluation.proponents import find_proponents
    from attriboard.evaluation.tokens import token_lines

    condition = _condition(where)
    if bool(test) == bool(condition):
        raise InputError("--test, --where: give one of them, as in --test 7 or --where label=3")
    workspace = open_workspace(task, sources, process)
    if figure is not None:
        _check_figure(figure, tokens, form_of(workspace.task, workspace.task.load_data().train))
    found = find_proponents(
        workspace,
        method,
        test or [],
        where=condition,
        k=k,
        selected=selected,
        fixed=parse_assignments(hp or []),
        tokens=tokens,
    )
    lines = token_lines(workspace.task, found) if tokens else []
    title = f"{found.method} on {workspace.task.card.name}, {_tests(found.tests)}"
    if figure is not None:
        _draw(figure, workspace.task, found, lines, title)
    listed = rows(workspace.task, found)
    if json:
        emit(_document(workspace.task, found, listed, lines) | {"selected": selected, "figure": figure and str(figure)})
        return
    _show(title, found, listed, lines, k)
    if figure is not None:
        print(f"figure: {figure}")


def _draw(figure: Path, task: "Task", found: "Proponents", lines: "Sequence[TokenLine]", title: str) -> None:
    """Tokens where there are any, else a sheet of the images."""
    from attriboard.base.paths import replacing, write_atomically
    from attriboard.evaluation.examples import contact_sheet
    from attriboard.evaluation.tokens import tokens_figure, tokens_html

    if lines and figure.suffix == ".html":
        write_atomically(figure, tokens_html(lines, title).encode())
        return
    drawn = tokens_figure(lines, title) if lines else contact_sheet(task, found)
    with replacing(figure) as place:
        drawn.savefig(place, dpi=150)


def _document(
    task: "Task", found: "Proponents", listed: Sequence[Mapping[str, Any]], lines: "Sequence[TokenLine]"
) -> dict[str, Any]:
    """What `--json` prints of the examples."""
    return {
        "task": task.card.name,
        "attributor": found.method,
        "hyperparameters": found.hyperparameters,
        "tests": list(found.tests),
        **{side: [row for row in listed if row["side"] == side] for side in ("helpful", "harmful")},
        "tokens": {
            str(line.example): [{"token": t, "score": v} for t, v in zip(line.tokens, line.scores, strict=True)]
            for line in lines
            if line.scores
        },
    }


def _show(
    title: str,
    found: "Proponents",
    listed: Sequence[Mapping[str, Any]],
    lines: "Sequence[TokenLine]",
    k: int,
) -> None:
    """Print the examples, or their tokens where there are any; of more than k test examples not each."""
    if len(found.tests) > k:
        note(f"mean over {len(found.tests)} test examples")
        listed = [row for row in listed if row["side"] != "test"]
    if lines:
        print(title)
        show_tokens(lines)
    else:
        show_table(title, ("", "example", "score", "label", "inputs"), list(map(_cells, listed)), numeric=(1, 2, 3))
    if found.hyperparameters:
        print("with " + ", ".join(f"{name} = {setting(value)}" for name, value in found.hyperparameters.items()))


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    score = "" if row["score"] is None else f"{row['score']:+.3g}"
    return row["side"], str(row["example"]), score, row["label"], row["inputs"]


def show_tokens(lines: "Sequence[TokenLine]") -> None:
    """Print tokens on a background that says what they do; without colors, the strongest ones with their scores."""
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True, highlight=False)
    for line in lines:
        text = Text(f"{line.heading}  ", style="bold")
        if not line.scores:
            text.append("".join(line.tokens), style="not bold")
        for token, color in zip(line.tokens, line.colors, strict=False):
            text.append(token, style=f"not bold black on {color}")
        console.print(text)
        strongest = sorted(range(len(line.scores)), key=lambda at: -abs(line.scores[at]))[:N_STRONGEST]
        if strongest:
            shown = ", ".join(
                f"{line.tokens[at].strip() or repr(line.tokens[at])} {line.scores[at]:+.2g}" for at in strongest
            )
            console.print(Text(f"    strongest: {shown}"))  # as Text: a token in brackets is no markup


def _check_figure(path: Path, tokens: bool, form: str) -> None:
    """Whether a figure can be made there, before the work.

    Raises:
        InputError: it cannot.
    """
    from attriboard.base.errors import InputError

    endings = (".png", ".html") if tokens else (".png",)
    if path.suffix not in endings or not path.parent.is_dir():
        raise InputError(f"--figure {path}: must end in {' or '.join(endings)} and lie in a folder that exists")
    prepare_file(path, "--figure")
    if not tokens and form != "image":
        remedy = "add --tokens, or leave it out" if form == "text" else "leave it out"
        raise InputError(f"--figure {path}: the inputs of this task are no images; {remedy}")


def _condition(where: str | None) -> dict[str, str]:
    """`NAME=VALUE` as a mapping.

    Raises:
        InputError: another form.
    """
    from attriboard.base.errors import InputError

    if where is None:
        return {}
    name, equals, value = where.partition("=")
    if not (name and equals and value):
        raise InputError(f"--where {where}: must be label=VALUE, as in --where label=3")
    return {name: value}


def _tests(tests: Sequence[int]) -> str:
    return f"test example {tests[0]}" if len(tests) == 1 else f"{len(tests)} test examples together"
