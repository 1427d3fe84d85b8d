"""The application and its commands in the order of the help text."""

from typing import Any

import typer
from typer.core import TyperGroup

from attriboard.cli import (
    board,
    catalogue,
    check,
    demo,
    groundtruth,
    qld,
    report,
    run,
    selection,
    store,
    sweeps,
    top,
    uses,
    verify,
)
from attriboard.cli.shell import emit

_USAGE: tuple[type[Exception], ...] = typer.BadParameter.__bases__
"""Click's `UsageError`. Some releases of Typer import it from Click, others carry a Click of their own."""


class _Program(TyperGroup):
    """All commands. What they cannot read of the command line is a JSON document as well, where one is asked for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.obj = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except _USAGE as error:
            if ctx.obj:
                emit({"error": error.format_message()})  # type: ignore[attr-defined]  # of every error of Click
            raise


app = typer.Typer(
    name="attriboard",
    cls=_Program,
    help="Benchmark training data attribution: ground-truth retrains, LDS with intervals, a static leaderboard.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("tasks")(catalogue.tasks)
app.command("attributors")(catalogue.attributors)
app.command("selectors")(catalogue.selectors)
app.command("run")(run.run)
app.command("sweep")(sweeps.sweep)
app.command("select")(selection.select)
app.command("top")(top.top)
app.command("removal")(uses.removal)
app.command("brittleness")(uses.brittleness)
app.command("qld")(qld.qld)
app.command("mislabel")(uses.mislabel)
app.command("score")(run.score)
app.command("check")(check.check)
app.command("submit")(check.submit)
app.command("verify")(verify.verify)
app.add_typer(groundtruth.app, name="groundtruth")
app.add_typer(store.app, name="store")
app.add_typer(report.app, name="report")
app.add_typer(board.app, name="board")


def _version(asked: bool) -> None:
    if asked:
        import attriboard

        print(f"attriboard {attriboard.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """Options of the program itself."""
