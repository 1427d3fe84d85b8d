"""`attriboard groundtruth`: build, inspect, verify, fetch and publish ground truth."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attriboard.base.terminal import progress_bar
from attriboard.cli.building import build, epochs, plan
from attriboard.cli.bundles import list_bundles, pull, push_ready
from attriboard.cli.options import Questions, Retraining, Sources, TaskArgument, open_workspace
from attriboard.cli.shell import Json, command, emit, show_table

if TYPE_CHECKING:
    from attriboard.contracts.question import Question
    from attriboard.evaluation.grader import Grader
    from attriboard.evaluation.workspace import Workspace
    from attriboard.groundtruth.verify import RowCheck

app = typer.Typer(help="Build, inspect, verify, fetch and publish ground truth.", no_args_is_help=True)
app.command()(build)
app.command()(plan)
app.command()(epochs)


@app.command()
@command
def info(task: TaskArgument, question: Questions = None, sources: Sources = Sources(), json: Json = False) -> None:
    """Show what a task's ground truth is and where it comes from."""
    workspace = open_workspace(task, sources)
    documents = [_described(workspace.grader_of(one), json) for one in workspace.task.card.asked(question or ())]
    if json:
        emit(documents[0] if len(documents) == 1 else documents)


def _described(grader: "Grader", json: bool) -> dict[str, Any]:
    """A ground truth as a document, and on the terminal."""
    truth, card = grader.truth, grader.truth.card
    asked = truth.question
    document: dict[str, Any] = {
        "task": card.task.name,
        "question": card.task.usual_question.name if asked is None else asked.name,
        "fingerprint": card.fingerprint,
        "sha256": truth.sha256,
        "bytes": truth.path.stat().st_size,
        "n_masks": card.n_masks,
        "n_repeats": card.n_repeats,
        "n_test": card.n_test,
        "ceiling": grader.ceiling.mean,
        "card": card.model_dump(mode="json"),
    }
    if json:
        return document
    ceiling = f"{grader.ceiling.mean:.3f}" if grader.ceiling.mean is not None else grader.ceiling.reason
    origin = card.provenance
    if asked is not None and asked.same_seed:
        ceiling += ", because retrains with the same seed repeat"
    rows = [
        ("question", (asked or card.task.usual_question).title),
        ("file", f"{truth.path}, {document['bytes']:,} bytes"),
        ("SHA-256", truth.sha256),
        ("fingerprint", card.fingerprint),
        ("retrains", f"{card.n_masks} masks × {card.n_repeats} repeats, {card.n_test} test points"),
        ("outputs", ", ".join(sorted(truth.outputs))),
        ("noise ceiling", ceiling),
        (
            "made",
            f"{card.created}, attriboard {origin.attriboard}, torch {origin.packages.get('torch', '?')}",
        ),
        ("on", f"{origin.hardware.cpu}, {origin.hardware.cores} cores"),
    ]
    show_table(f"Ground truth of {card.task.name}", ("what", "value"), rows)
    return document


@app.command()
@command
def verify(
    task: TaskArgument,
    rows: Annotated[int, typer.Option(help="How many random rows to retrain.", min=1)] = 4,
    deep: Annotated[
        int | None,
        typer.Option(help="Instead of single rows: this many random masks with every repeat of each.", min=1),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Seed of the choice of rows; by default a new one each time.", min=0)
    ] = None,
    question: Questions = None,
    retraining: Retraining = Retraining(),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Retrain a few random rows of the bundle and compare; exit code 1 if they disagree."""
    from attriboard.groundtruth.verify import choose_masks, choose_rows

    workspace = open_workspace(task, sources, retraining=retraining)
    asked = workspace.task.card.asked(question or ())
    documents = []
    for one in asked:
        truth = workspace.bundles.truth_of(one)
        chosen = choose_masks(truth, deep, seed) if deep else choose_rows(truth, rows, seed)
        documents.append(_verified(workspace, one, chosen, json))
    if json:
        emit(documents[0] if len(asked) == 1 else documents)
    if not all(document["ok"] for document in documents):
        raise typer.Exit(1)


def _verified(
    workspace: "Workspace", question: "Question | None", chosen: "list[tuple[int, int]]", json: bool
) -> dict[str, Any]:
    """Rows of one ground truth, retrained and compared: a document, and on the terminal."""
    from attriboard.groundtruth.build import open_store
    from attriboard.groundtruth.verify import SAME_SEED_SPREAD, check_plan, verify_rows

    live, truth = workspace.task, workspace.bundles.truth_of(question)
    check_plan(truth, live)
    title = live.card.name + (f", {question.title}" if question else "")
    # A store of its own: what another one holds would be believed, not retrained.
    with (
        tempfile.TemporaryDirectory(prefix="attriboard-verify-") as folder,
        progress_bar(f"verifying {title}") as progress,
    ):
        store = open_store(live, Path(folder))
        where = workspace.executor(progress.say)
        checks = verify_rows(truth, live, store, chosen, executor=where, progress=progress)
    ok = all(check.ok for check in checks)
    if not json:
        same = question is not None and question.same_seed
        _show_checks(title, checks, "over masks" if same else "of seed noise")
        within = f"{SAME_SEED_SPREAD} deviations of it" if same else "seed noise"
        print(f"ok: every row is nearest to its own mask, within {within}" if ok else "FAILED")
    named = {"question": question.name} if question else {}
    return {"task": live.card.name, **named, "rows": [vars(check) for check in checks], "ok": ok}


def _show_checks(task: str, checks: "list[RowCheck]", unit: str) -> None:
    headings = ("mask", "repeat", "bit for bit", "rank correlation", "distance", "max |z|", "")
    cells = [
        (
            str(c.mask),
            str(c.repeat),
            "yes" if c.exact else "no",
            f"{c.rank_correlation:.4f}",
            f"{c.distance:.3f}",
            f"{c.max_abs_z:.2f}",
            "ok" if c.ok else "FAILED",
        )
        for c in checks
    ]
    title = f"Retrained rows of {task} (distances in standard deviations {unit})"
    show_table(title, headings, cells, numeric=(0, 1, 3, 4, 5))


app.command("list")(list_bundles)
app.command()(pull)
app.command()(push_ready)
