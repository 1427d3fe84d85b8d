"""`attriboard board`: the static site."""

from pathlib import Path
from typing import Annotated

import typer

from attriboard.base.terminal import counted, note
from attriboard.cli.options import RESULTS, prepare_folder
from attriboard.cli.shell import Json, command, emit

app = typer.Typer(help="Build the static site.", no_args_is_help=True)


@app.command()
@command
def build(
    results: Annotated[
        list[Path] | None,
        typer.Option("--results", help="Folder of records; repeatable. By default the published ones."),
    ] = None,
    groundtruth: Annotated[
        Path | None,
        typer.Option(
            help="Folder of bundles for the tasks' pages and downloads. By default the published one; with "
            "--results, none.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    with_my_results: Annotated[
        bool,
        typer.Option(
            "--with-my-results/--published-only",
            help="Whether records in attriboard-results, where run and select write them, appear beside the published "
            "ones, in rows marked as yours. Not with --results.",
        ),
    ] = True,
    url: Annotated[
        str,
        typer.Option(help="Address at which the site will be served, for permanent links, badges and the 404 page."),
    ] = "",
    out: Annotated[Path, typer.Option("--out", help="Output folder for the site.", file_okay=False)] = Path("site"),
    json: Json = False,
) -> None:
    """Turn records and bundles' cards into static pages that work from a folder, without a server or a network."""
    from attriboard.base.errors import InputError
    from attriboard.groundtruth.listing import published_folder
    from attriboard.leaderboard.board import build_board
    from attriboard.records.published import published_folders

    if groundtruth and not (groundtruth / "registry.json").is_file():
        raise InputError(f"--groundtruth {groundtruth}: no registry.json there, so it lists no bundles; leave it out")
    prepare_folder(out)
    mine = [RESULTS] if with_my_results and RESULTS.is_dir() and not results else []
    bundles = groundtruth if results or groundtruth else published_folder()
    summary = build_board(results or published_folders(), out, bundles, url=url, mine=mine)
    if json:
        emit({"index": str(summary.index), "tasks": list(summary.tasks), "n_records": summary.n_records,
              "n_mine": summary.n_mine})  # fmt: skip
    else:
        if mine:
            note(f"with {counted(summary.n_mine, 'record')} of yours in {RESULTS}; --published-only leaves them out")
        what = f"{counted(summary.n_records, 'record')} of {counted(len(summary.tasks), 'task')}"
        print(f"{what}; open {summary.index.resolve()}")


@app.command()
@command
def serve(
    folder: Annotated[Path, typer.Argument(help="A built site.")] = Path("site"),
    port: Annotated[int, typer.Option(help="Port on this machine; 0 takes a free one.", min=0, max=65535)] = 8000,
) -> None:
    """Serve a built site on this machine, for preview."""
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    from attriboard.base.errors import InputError

    if not (folder / "index.html").is_file():
        raise InputError(f"{folder}: no index.html there; build the site first: attriboard board build")
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    except OSError as error:
        raise InputError(f"port {port}: {error.strerror}; choose another with --port") from error
    with server:
        print(f"http://127.0.0.1:{server.server_port}/  (Ctrl-C ends it)", flush=True)
        server.serve_forever()
