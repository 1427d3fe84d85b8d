"""`attriboard run` and `attriboard score`: one attributor, or one score matrix, graded."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attriboard.cli.options import (
    AttributorArgument,
    AttributorFile,
    Fixed,
    OutDir,
    Process,
    Sources,
    TaskArgument,
    chosen_attributor,
    open_workspace,
    parse_assignments,
    prepare_folder,
)
from attriboard.cli.shell import Json, command, emit, show_table

if TYPE_CHECKING:
    from attriboard.records.model import AttributionRecord


@command
def run(
    task: TaskArgument,
    attributor: AttributorArgument = "",
    attributor_file: AttributorFile = None,
    hp: Fixed = None,
    out: OutDir = Path("attriboard-results"),
    process: Process = Process(),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Attribute, score and write a record: LDS with its 95 % interval beside the noise ceiling."""
    from attriboard.evaluation.grader import evaluate
    from attriboard.records.files import write_record

    chosen = chosen_attributor(attributor, attributor_file)
    values = parse_assignments(hp or [])
    bench = open_workspace(task, sources, process)
    bench.grader  # noqa: B018  # a missing ground truth is found before the work
    job = bench.job(chosen, [values])
    prepare_folder(out)
    (record,) = evaluate(bench.task, bench.grader, job, ["custom" if values else "default"], bench.runner)
    _finish(record, write_record(record, out), json)


@command
def score(
    task: TaskArgument,
    scores: Annotated[Path, typer.Argument(metavar="SCORES", help="safetensors file with one tensor 'scores'.")],
    name: Annotated[
        str | None, typer.Option(help="What the method is called, as in my_method; by default the file's name.")
    ] = None,
    method: Annotated[
        Path | None, typer.Option("--method", help="Method card, YAML; attriboard submit --template prints one.")
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option("--held-out", help="A held-out shard to grade on as well; see groundtruth split.", dir_okay=False),
    ] = None,
    out: OutDir = Path("attriboard-results"),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Grade a score matrix (n_test, n_train) made elsewhere; no code of it is run."""
    from attriboard.base.errors import InputError
    from attriboard.base.scores import read_matrix
    from attriboard.groundtruth.split import read_held_out
    from attriboard.records.files import write_record
    from attriboard.records.method_card import load_method_card

    if name is not None and name != (usable := _as_name(name)):
        raise InputError(f"--name {name}: must be lower-case letters, digits, - and _, as in --name {usable}")
    card = load_method_card(method) if method else None
    if card and name not in (None, card.name):
        raise InputError(f"--name {name}: the method card says {card.name}; leave --name out")
    bench = open_workspace(task, sources)
    matrix = read_matrix(scores, bench.task.score_shape)
    shard = read_held_out(held_out, bench.bundles.registry, bench.grader.truth) if held_out else None
    prepare_folder(out)
    record = bench.grader.record_of_scores(
        bench.task, matrix, card.name if card else name or _as_name(scores.stem), card, shard
    )
    _finish(record, write_record(record, out), json)


def record_document(record: "AttributionRecord", path: Path) -> dict[str, Any]:
    """A record as the JSON document that `run` and `score` print."""
    lds = record.lds
    return {
        "task": record.task.name,
        "attributor": record.attributor.name,
        "hyperparameters": record.hyperparameters,
        "status": record.status,
        "reason": record.reason,
        "lds": {"mean": lds.mean, "ci95": list(lds.ci95), "pearson": lds.pearson} if lds else None,
        "ceiling": record.ceiling,
        "fit_seconds": record.fit_seconds,
        "score_seconds": record.score_seconds,
        "peak_bytes": record.peak_bytes,
        "notes": list(record.notes),
        "record": str(path),
    }


def show_records(title: str, records: "list[AttributionRecord]") -> None:
    """Print records as a table, best first, failures last."""
    ranked = sorted(records, key=lambda record: -record.lds.mean if record.lds else 2.0)
    show_table(title, HEADINGS, [record_row(record) for record in ranked], numeric=(1, 2, 3, 4, 5))


HEADINGS = ("attributor", "default LDS", "95 % interval", "ceiling", "seconds", "peak memory", "note")


def record_row(record: "AttributionRecord") -> tuple[str, ...]:
    """One line of the table."""
    lds = record.lds
    seconds = (record.fit_seconds or 0) + (record.score_seconds or 0)
    return (
        record.attributor.name,
        f"{lds.mean:.3f}" if lds else "failed",
        f"{lds.ci95[0]:.3f} … {lds.ci95[1]:.3f}" if lds else "–",
        "–" if record.ceiling is None else f"{record.ceiling:.3f}",
        f"{seconds:.1f}" if record.fit_seconds is not None else "–",
        f"{record.peak_bytes / 2**20:,.0f} MiB" if record.peak_bytes else "–",
        record.reason
        or (f"{lds.n_degenerate} constant or NaN test points count as 0" if lds and lds.n_degenerate else ""),
    )


def _finish(record: "AttributionRecord", path: Path, json: bool) -> None:
    """Report one record; a failed run ends with exit code 1."""
    if json:
        emit(record_document(record, path))
    else:
        lds, name = record.lds, f"{record.attributor.name} on {record.task.name}"
        if lds is None:
            print(f"{name}: failed: {record.reason}")
        else:
            ceiling = "unknown (one repeat)" if record.ceiling is None else f"{record.ceiling:.3f}"
            print(f"{name}: LDS {lds.mean:.3f}, 95 % interval {lds.ci95[0]:.3f} … {lds.ci95[1]:.3f}")
            print(
                f"noise ceiling {ceiling}; Pearson {lds.pearson:.3f}; {lds.n_scoring} scoring points, ",
                end="",
            )
            print(f"{record.ground_truth.n_masks} masks × {record.ground_truth.n_repeats} repeats")
            if lds.n_degenerate:
                print(f"{lds.n_degenerate} scoring points have constant or NaN scores and count as 0")
        for note in record.notes:
            print(f"note: {note}")
        if record.negates:
            print(f"the scores of {record.negates.attributor}, record {record.negates.record}, negated")
        if record.held_out:
            mean, (low, high) = record.held_out.mean, record.held_out.ci95
            print(f"on {record.held_out.n_masks} held-out masks: LDS {mean:.3f}, 95 % interval {low:.3f} … {high:.3f}")
        if record.hyperparameters:
            print("with " + ", ".join(f"{k} = {setting(v)}" for k, v in record.hyperparameters.items()))
        if record.fit_seconds is not None and record.score_seconds is not None:
            memory = f", peak memory {record.peak_bytes / 2**20:,.0f} MiB" if record.peak_bytes else ""
            print(f"fit {record.fit_seconds:.2f} s, score {record.score_seconds:.2f} s{memory}")
        print(f"record: {path}")
    if record.status == "failed":
        raise typer.Exit(1)


def setting(value: object) -> str:
    """A hyperparameter's value as the command line takes it."""
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _as_name(stem: str) -> str:
    """The nearest name that a record may carry."""
    import re

    name = re.sub(r"[^a-z0-9_-]+", "_", stem.lower()).strip("_-") or "scores"
    return (name if name[0].isalpha() else f"scores_{name}")[:64]
