"""`attriboard top`: the training examples that matter most for some test examples."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

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
)
from attriboard.cli.shell import Json, command, emit, setting, show_table


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
    k: Annotated[int, typer.Option("--k", help="How many helpful and how many harmful ones.", min=1)] = 8,
    selected: Annotated[bool, typer.Option("--selected", help="Choose λ by ξ first.")] = False,
    hp: Fixed = None,
    figure: Annotated[
        Path | None, typer.Option("--figure", metavar="FILE", help="PNG that gets a sheet of the images.")
    ] = None,
    process: Process = Process(),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Show the training examples that help and harm test examples most; of several, by their mean scores.

    No ground truth is needed. Tables are shown as rows, text with its tokens; --figure draws images.
    """
    from attriboard.base.errors import InputError
    from attriboard.evaluation.examples import contact_sheet, form_of, rows
    from attriboard.evaluation.proponents import find_proponents

    workspace = open_workspace(task, sources, process)
    if figure is not None:
        if figure.suffix != ".png" or not figure.parent.is_dir():
            raise InputError(f"--figure {figure}: must end in .png and lie in a folder that exists")
        if form_of(workspace.task, workspace.task.load_data().train) != "image":
            raise InputError(f"--figure {figure}: the inputs of {task} are no images; leave it out")
    found = find_proponents(
        workspace,
        method,
        test or [],
        where=_condition(where),
        k=k,
        selected=selected,
        fixed=parse_assignments(hp or []),
    )
    listed = rows(workspace.task, found)
    if figure is not None:
        contact_sheet(workspace.task, found).savefig(figure, dpi=150)
    if json:
        emit(
            {
                "task": workspace.task.card.name,
                "attributor": found.method,
                "hyperparameters": found.hyperparameters,
                "selected": selected,
                "tests": list(found.tests),
                **{side: [row for row in listed if row["side"] == side] for side in ("helpful", "harmful")},
                "figure": figure and str(figure),
            }
        )
        return
    shown = [row for row in listed if row["side"] != "test" or len(found.tests) <= k]
    if len(found.tests) > k:
        note(f"mean over {len(found.tests)} test examples")
    cells = [
        (r["side"], str(r["example"]), "" if r["score"] is None else f"{r['score']:+.3g}", r["target"], r["inputs"])
        for r in shown
    ]
    title = f"{found.method} on {workspace.task.card.name}, {_tests(found.tests)}"
    show_table(title, ("", "example", "score", "target", "inputs"), cells, numeric=(1, 2, 3))
    if found.hyperparameters:
        print("with " + ", ".join(f"{name} = {setting(value)}" for name, value in found.hyperparameters.items()))
    if figure is not None:
        print(f"figure: {figure}")


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
