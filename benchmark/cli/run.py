"""`attriboard run` and `score`: one configuration, or one score matrix, graded; a record run again."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attriboard.cli.options import (
    RESULTS,
    Fixed,
    OutDir,
    Process,
    Questions,
    Sources,
    TaskArgument,
    open_workspace,
    parse_assignments,
    prepare_folder,
)
from attriboard.cli.qld import show_qld
from attriboard.cli.selection import show_selections
from attriboard.cli.shell import Json, command, emit, setting
from attriboard.cli.ungraded import finish_ungraded, scores_saver
from attriboard.cli.uses import show_brittleness, show_mislabel, show_removal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from attriboard.attribution.job import Job
    from attriboard.attribution.runner import Outcome
    from attriboard.evaluation.grader import Grader
    from attriboard.evaluation.workspace import Workspace
    from attriboard.records.files import AnyRecord
    from attriboard.records.model import AttributionRecord, Variant


TaskOrRecord = Annotated[
    str,
    typer.Argument(
        metavar="TASK|RECORD",
        help="Name of a task, path of a .yaml card or of my_task.py[:name]; or a record, .json, that is run again.",
    ),
]
MethodOfRun = Annotated[
    str,
    typer.Argument(
        metavar="METHOD",
        help="Name of an attributor, or path of a .py file that defines one; for a record made from a file, that file.",
    ),
]


@command
def run(
    task: TaskOrRecord,
    method: MethodOfRun = "",
    hp: Fixed = None,
    question: Questions = None,
    out: OutDir = RESULTS,
    save_scores: Annotated[
        Path | None,
        typer.Option(
            "--save-scores",
            metavar="FILE",
            help="Save the scores: to a .safetensors file (tensor 'scores'), or a .bergson folder in bergson's format.",
        ),
    ] = None,
    pdb: Annotated[
        bool, typer.Option("--pdb", help="Run in this process, with a debugger at the exception; writes no record.")
    ] = False,
    process: Process = Process(),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Attribute, score and write a record: LDS with its 95 % interval beside the noise ceiling.

    If you pass a record instead of a task, its configuration and seed are run again, and a new record is written. On
    a task without ground truth there is no LDS and no record: scores, λ by ξ, seconds, memory, and what ground truth
    would cost.
    """
    from attriboard.records.model import HEADLINE_SELECTOR

    values = parse_assignments(hp or [])
    if task.endswith(".json"):
        _refuse_beside_a_record(task, values, pdb, save_scores, process, question)
        _run_again(Path(task), Path(method) if method else None, out, process, sources, json)
        return
    _refuse_contradictions(method, pdb, process, json)
    save = scores_saver(save_scores)
    workspace = open_workspace(task, sources, process, isolated=not pdb)
    graded = workspace.bundles.graded or sources.groundtruth is not None or question is not None
    graders = workspace.graders(question or ()) if graded else []  # what is missing is found before the work
    job = workspace.job(method, [values], selectors=() if graded else (HEADLINE_SELECTOR,))
    if pdb:
        _debug(workspace, job, graders, save)
    elif graded:
        _run_graded(workspace, graders, job, "custom" if values else "default", out, save, json)
        if save_scores is not None and not json:
            print(f"scores: {save_scores}")
    else:
        from attriboard.evaluation.ungraded import run_ungraded  # PyTorch, which grading does without

        found = run_ungraded(workspace, job)
        save(found.outcome)
        finish_ungraded(task, workspace, job, found, scores=save_scores, json=json)


def _refuse_beside_a_record(
    record: str,
    values: "dict[str, Any]",
    pdb: bool,
    scores: Path | None,
    process: Process,
    question: list[str] | None,
) -> None:
    from attriboard.base.errors import InputError

    flags = {
        f"--hp {next(iter(values), '')}": values,
        "--pdb": pdb,
        "--save-scores": scores,
        "--parameters": process.parameters,
        "--question": question,
    }
    if given := next((flag for flag, value in flags.items() if value), None):
        raise InputError(f"{given}: {record} says what is run, and a record is written; leave {given.split()[0]} out")


def _refuse_contradictions(method: str, pdb: bool, process: Process, json: bool) -> None:
    from attriboard.base.errors import InputError

    if not method:
        raise InputError("METHOD: give a name or a .py file; attriboard attributors lists the names")
    if pdb and json:
        raise InputError("--pdb: is a dialog on the terminal; leave --json out")
    confined = {
        f"--time-limit {process.time_limit or 0:g}": process.time_limit,
        f"--memory-limit {process.memory_limit}": process.memory_limit,
        f"--log {process.log}": process.log,
        "--sandbox": process.sandbox,
    }
    if pdb and (given := next((flag for flag, value in confined.items() if value), None)):
        raise InputError(
            f"{given}: is for an attributor's own process, and --pdb runs it in this one; leave {given.split()[0]} out"
        )


def _run_graded(
    workspace: "Workspace",
    graders: "Sequence[Grader]",
    job: "Job",
    variant: "Variant",
    out: Path,
    save: "Callable[[Outcome], None]",
    json: bool,
) -> None:
    from attriboard.evaluation.grader import evaluate
    from attriboard.records.files import write_record

    prepare_folder(out)
    records = list(evaluate(workspace.task, graders, job, [variant], workspace.runner, save))
    _finish_all([(record, write_record(record, out)) for record in records], json)


def _debug(workspace: "Workspace", job: "Job", graders: "Sequence[Grader]", save: "Callable[[Outcome], None]") -> None:
    """`attriboard run --pdb`: an exception of the attributor opens a debugger where it was raised."""
    import pdb
    import traceback

    from attriboard.base.errors import AttriboardError
    from attriboard.evaluation.grader import evaluate
    from attriboard.evaluation.ungraded import run_ungraded

    try:
        if not graders:
            save(run_ungraded(workspace, job).outcome)
            print("no exception; no LDS: the task has no ground truth")
            return
        records = list(evaluate(workspace.task, graders, job, ["custom"], workspace.runner, save))
    except AttriboardError:
        raise
    except Exception as error:
        traceback.print_exception(error)
        pdb.post_mortem(error.__traceback__)
        raise typer.Exit(1) from None
    for record in records:
        _show(record, f"{record.attributor.name} on {record.task.name}")
    print("no record: what runs in this process could see the ground truth")


def _run_again(path: Path, file: Path | None, out: Path, process: Process, sources: Sources, json: bool) -> None:
    """`attriboard run RECORD`."""
    from attriboard.evaluation.rerun import check_task, method_of, rerun
    from attriboard.groundtruth.build import open_store
    from attriboard.records.files import read_record

    record = read_record(path)
    method = method_of(record, file)
    workspace = open_workspace(record.task.name, sources, _as_recorded(record, process))
    check_task(record, workspace)
    prepare_folder(out)
    again, *_ = rerun(record, workspace, method, out, open_store(workspace.task, None))
    _finish(again, out / again.path, json)


def _as_recorded(record: "AnyRecord", process: Process) -> Process:
    """The seed and parameters of a record, and its number of threads where the command line names none.

    Raises:
        InputError: the command line names another seed.
    """
    from attriboard.base.errors import InputError

    if process.seed not in (0, record.seed):
        raise InputError(f"--seed {process.seed}: the record's is {record.seed}; leave --seed out")
    threads = process.threads or record.provenance.threads
    return replace(process, seed=record.seed, parameters=list(record.parameters), threads=threads)


@command
def score(
    task: TaskArgument,
    scores: Annotated[
        Path,
        typer.Argument(
            metavar="SCORES",
            help="safetensors file with one tensor 'scores', .npy file, tensor of torch.save (not unpickled), or a "
            "folder of scores of bergson.",
        ),
    ],
    name: Annotated[
        str | None, typer.Option(help="What the method is called, as in my_method; by default the file's name.")
    ] = None,
    method: Annotated[
        Path | None, typer.Option("--method", help="Method card, YAML; attriboard submit --template prints one.")
    ] = None,
    question: Questions = None,
    out: OutDir = RESULTS,
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Grade a score matrix (n_test, n_train) made elsewhere; no submitted code is run."""
    from attriboard.base.errors import InputError
    from attriboard.base.scores import read_matrix
    from attriboard.records.files import write_record
    from attriboard.records.method_card import load_method_card

    if name is not None and name != (usable := _as_name(name)):
        raise InputError(f"--name {name}: must be lower-case letters, digits, - and _, as in --name {usable}")
    card = load_method_card(method) if method else None
    if card and name not in (None, card.name):
        raise InputError(f"--name {name}: the method card says {card.name}; leave --name out")
    workspace = open_workspace(task, sources)
    matrix = read_matrix(scores, workspace.task.score_shape)
    prepare_folder(out)
    called = card.name if card else name or _as_name(scores.stem)
    graders = workspace.graders(question or ())
    records = [grader.record_of_scores(workspace.task, matrix, called, card) for grader in graders]
    _finish_all([(record, write_record(record, out)) for record in records], json)


def _as_name(stem: str) -> str:
    """The nearest name that a record may carry."""
    import re

    name = re.sub(r"[^a-z0-9_-]+", "_", stem.lower()).strip("_-") or "scores"
    return (name if name[0].isalpha() else f"scores_{name}")[:64]


def _finish_all(made: "Sequence[tuple[AttributionRecord, Path]]", json: bool) -> None:
    """Report the records of one configuration, one for each question; a failed run ends with exit code 1."""
    if len(made) == 1:
        _finish(*made[0], json)
        return
    if json:
        emit([record.model_dump(mode="json") | {"record": str(path)} for record, path in made])
    else:
        for record, path in made:
            _show(record, f"{record.attributor.name} on {record.task.name}")
            print(f"record: {path}")
    if any(record.status != "ok" for record, _ in made):
        raise typer.Exit(1)


def _finish(record: "AnyRecord", path: Path, json: bool) -> None:
    """Report one record; a failed run ends with exit code 1."""
    title = f"{record.attributor.name} on {record.task.name}"
    if json:
        emit(record.model_dump(mode="json") | {"record": str(path)})
    else:
        match record.kind:
            case "attribution":
                _show(record, title)
            case "selection":
                show_selections([record])
            case "removal":
                show_removal([record], [point.rate for point in record.points] or [0.5], title)
            case "brittleness":
                show_brittleness([record], title)
            case "qld":
                show_qld([record], title)
            case "mislabel":
                show_mislabel([record], title)
            case "selection_cost":
                for name, rule in record.rules.items():
                    regrets = ", ".join(f"{k}: {r:.3f}" for k, r in zip(record.budgets, rule.mean, strict=True))
                    print(f"{title}: mean regret by retrains, rule {name}: {regrets}")
        print(f"record: {path}")
    if record.kind != "selection_cost" and record.status != "ok":
        raise typer.Exit(1)


def _show(record: "AttributionRecord", title: str) -> None:
    """Print one graded configuration."""
    from attriboard.contracts.question import Question
    from attriboard.contracts.selector import REGULARIZATION
    from attriboard.scoring.ceiling import LEAST

    lds = record.lds
    if asked := record.ground_truth.question:
        title += f", {Question.parse(asked).title}"
    if lds is None:
        print(f"{title}: failed: {record.reason}")
    else:
        ceiling = "unknown (too few masks or repeats)" if record.ceiling is None else f"{record.ceiling:.3f}"
        print(f"{title}: LDS {lds.mean:.3f}, 95 % interval {lds.ci95[0]:.3f} … {lds.ci95[1]:.3f}")
        print(f"noise ceiling {ceiling}; Pearson {lds.pearson:.3f}; {lds.n_scoring} scoring points, ", end="")
        print(f"{record.ground_truth.n_masks} masks × {record.ground_truth.n_repeats} repeats")
        if record.ceiling is not None and record.ceiling < LEAST:
            print(f"a ceiling below {LEAST}: mostly noise of single retrains; it ranks no method")
        if lds.n_degenerate:
            print(f"{lds.n_degenerate} scoring points have constant or NaN scores and count as 0")
    if record.status == "implausible":
        print(f"{record.reason}; the record never ranks")
    for text in record.notes:
        print(f"note: {text}")
    if record.parameters:
        print(f"of parameters {', '.join(record.parameters)}")
    if record.hyperparameters:
        print("with " + ", ".join(f"{k} = {setting(v)}" for k, v in record.hyperparameters.items()))
    if record.fit_seconds is not None and record.score_seconds is not None:
        memory = f", peak memory {record.peak_bytes / 1e6:,.0f} MB" if record.peak_bytes else ""
        print(f"fit {record.fit_seconds:.2f} s, score {record.score_seconds:.2f} s{memory}")
    if record.variant == "default" and REGULARIZATION in record.hyperparameters:
        print("λ is the method's default; `attriboard select` chooses one without retraining")
