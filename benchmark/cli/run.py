"""`attriboard run`, `score` and `verify`: one configuration, or one score matrix, graded; a record run again."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attriboard.base.terminal import note
from attriboard.cli.options import (
    RESULTS,
    Fixed,
    OutDir,
    Process,
    Sources,
    TaskArgument,
    Untrusted,
    open_workspace,
    parse_assignments,
    prepare_folder,
    warn_of_taken_names,
)
from attriboard.cli.qld import show_qld
from attriboard.cli.selection import show_selections
from attriboard.cli.shell import Json, command, emit, setting
from attriboard.cli.ungraded import finish_ungraded, scores_saver
from attriboard.cli.uses import show_brittleness, show_mislabel, show_removal

if TYPE_CHECKING:
    from collections.abc import Callable

    from attriboard.attribution.job import Job
    from attriboard.attribution.runner import Outcome
    from attriboard.evaluation.workspace import Workspace
    from attriboard.groundtruth.bundle import GroundTruth
    from attriboard.records.files import AnyRecord
    from attriboard.records.model import AttributionRecord, Variant
    from attriboard.records.verifications import Verification


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
        help="Name of an attributor, or path of a .py file that defines one; with a record of a file, that file.",
    ),
]
HeldOutFile = Annotated[
    Path | None,
    typer.Option(
        "--held-out",
        help="File of held-out masks, whose SHA-256 the list of bundles names: grade on them too.",
        exists=True,
        dir_okay=False,
    ),
]


@command
def run(
    task: TaskOrRecord,
    method: MethodOfRun = "",
    hp: Fixed = None,
    out: OutDir = RESULTS,
    save_scores: Annotated[
        Path | None,
        typer.Option(
            "--save-scores", metavar="FILE", help="Safetensors file that gets the scores, as tensor 'scores'."
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

    With a record in the place of the task, its configuration and seed are run again, and a new record is written. On
    a task without ground truth there is no LDS and no record: scores, λ by ξ, seconds, memory, and what ground truth
    would cost.
    """
    values = parse_assignments(hp or [])
    if task.endswith(".json"):
        _refuse_beside_a_record(task, values, pdb, save_scores, process)
        _run_again(Path(task), Path(method) if method else None, out, process, sources, json)
        return
    _refuse_contradictions(method, pdb, json)
    save = scores_saver(save_scores)
    workspace = open_workspace(task, sources, process, isolated=not pdb)
    graded = workspace.bundles.graded or sources.groundtruth is not None
    if graded:
        workspace.grader  # noqa: B018  # one that is listed and missing is found before the work
    job = workspace.job(method, [values], selectors=() if graded else ("surrogate",))
    if pdb:
        _debug(workspace, job, graded, save)
    elif graded:
        _run_graded(workspace, job, "custom" if values else "default", out, save, json)
    else:
        from attriboard.evaluation.ungraded import run_ungraded  # PyTorch, which grading does without

        found = run_ungraded(workspace, job)
        save(found.outcome)
        finish_ungraded(workspace, job, found, scores=save_scores, json=json)


def _refuse_beside_a_record(
    record: str, values: "dict[str, Any]", pdb: bool, scores: Path | None, process: Process
) -> None:
    from attriboard.base.errors import InputError

    flags = {
        f"--hp {next(iter(values), '')}": values,
        "--pdb": pdb,
        "--save-scores": scores,
        "--parameters": process.parameters,
    }
    if given := next((flag for flag, value in flags.items() if value), None):
        raise InputError(f"{given}: {record} says what is run, and a record is written; leave {given.split()[0]} out")


def _refuse_contradictions(method: str, pdb: bool, json: bool) -> None:
    from attriboard.base.errors import InputError

    if not method:
        raise InputError("METHOD: give a name or a .py file; attriboard attributors lists the names")
    if pdb and json:
        raise InputError("--pdb: is a dialog on the terminal; leave --json out")


def _run_graded(
    workspace: "Workspace", job: "Job", variant: "Variant", out: Path, save: "Callable[[Outcome], None]", json: bool
) -> None:
    from attriboard.evaluation.grader import evaluate
    from attriboard.records.files import write_record

    prepare_folder(out)
    (record,) = evaluate(workspace.task, workspace.grader, job, [variant], workspace.runner, save)
    _finish(record, write_record(record, out), json)


def _debug(workspace: "Workspace", job: "Job", graded: bool, save: "Callable[[Outcome], None]") -> None:
    """`attriboard run --pdb`: an exception of the attributor opens a debugger where it was raised."""
    import pdb
    import traceback

    from attriboard.base.errors import AttriboardError
    from attriboard.evaluation.grader import evaluate
    from attriboard.evaluation.ungraded import run_ungraded

    try:
        if not graded:
            save(run_ungraded(workspace, job).outcome)
            print("no exception; no LDS: the task has no ground truth")
            return
        (record,) = evaluate(workspace.task, workspace.grader, job, ["custom"], workspace.runner, save)
    except AttriboardError:
        raise
    except Exception as error:
        traceback.print_exception(error)
        pdb.post_mortem(error.__traceback__)
        raise typer.Exit(1) from None
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
    out: OutDir = RESULTS,
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Grade a score matrix (n_test, n_train) made elsewhere; no code of it is run."""
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
    record = workspace.grader.record_of_scores(workspace.task, matrix, called, card)
    _finish(record, write_record(record, out), json)


def _as_name(stem: str) -> str:
    """The nearest name that a record may carry."""
    import re

    name = re.sub(r"[^a-z0-9_-]+", "_", stem.lower()).strip("_-") or "scores"
    return (name if name[0].isalpha() else f"scores_{name}")[:64]


@command
def verify(
    record: Annotated[Path, typer.Argument(metavar="RECORD", help="A record of one configuration, JSON.")],
    by: Annotated[str, typer.Option("--by", help="Who runs this: a name that readers can ask.")],
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The method's .py file, where the record is of a file.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference in LDS that counts as none.", min=1e-9, max=1)
    ] = 0.005,
    held_out: HeldOutFile = None,
    out: OutDir = RESULTS,
    process: Untrusted = Untrusted(),
    sources: Sources = Sources(),
    json: Json = False,
) -> None:
    """Run a record's configuration and seed again and compare; exit code 1 where the numbers disagree.

    The result is a new file beside the record, which stays as it is. The board shows it.
    """
    from attriboard.base.errors import InputError
    from attriboard.evaluation.grader import evaluate
    from attriboard.evaluation.rerun import HeldOutExaminer, check_task, check_truth, method_of
    from attriboard.records.files import read_record
    from attriboard.records.model import AttributionRecord
    from attriboard.records.verifications import verify_record, write_verification

    claimed = read_record(record)
    if not isinstance(claimed, AttributionRecord):
        raise InputError(f"{record}: a record of a {claimed.kind}; verify the records of one configuration it rests on")
    method = method_of(claimed, file)
    if process.parameters:
        raise InputError(f"--parameters {process.parameters[0]}: the record says which; leave --parameters out")
    process = replace(process, seed=claimed.seed, parameters=list(claimed.parameters))
    workspace = open_workspace(claimed.task.name, sources, process)
    check_task(claimed, workspace)
    check_truth(claimed, workspace)
    job = workspace.job(method, [dict(claimed.hyperparameters)])
    examiner = HeldOutExaminer(_held_out_truth(held_out), workspace)
    prepare_folder(out)
    (again,) = evaluate(workspace.task, workspace.grader, job, ["custom"], workspace.runner, examiner)
    if again.attributor.name != claimed.attributor.name:
        raise InputError(f"{record}: is of {claimed.attributor.name}, {method} is {again.attributor.name}")
    verification = verify_record(claimed, again, by, tolerance, sandbox=process.sandbox, held_out=examiner.found)
    path = write_verification(verification, out)
    if json:
        emit(verification.to_json() | {"verification": str(path)})
    else:
        _show_verification(claimed, verification, path)
    if verification.status != "verified":
        raise typer.Exit(1)


def _held_out_truth(path: Path | None) -> "GroundTruth | None":
    if path is None:
        return None
    from attriboard.groundtruth.held_out import read_held_out  # PyTorch, not for grading

    return read_held_out(path)


def _show_verification(claimed: "AttributionRecord", verification: "Verification", path: Path) -> None:
    first, second = (f"{v:.4f}" if v is not None else "failed" for v in (verification.claimed, verification.found))
    print(f"{claimed.attributor.name} on {claimed.task.name}: LDS {first} claimed, {second} found")
    if verification.same_code is False:
        note("the attributor's code is not the record's: it has changed since, or is another file")
    print("scores are the same to the last bit" if verification.same_scores else "scores differ")
    if (held_out := verification.held_out) is not None:
        low, high = held_out.ci95
        print(f"on {held_out.n_masks} held-out masks: LDS {held_out.mean:.4f}, 95 % interval {low:.3f} … {high:.3f}")
    print(verification.reason or f"verified: within {verification.tolerance:g}")
    print(f"verification: {path}")


def _finish(record: "AnyRecord", path: Path, json: bool) -> None:
    """Report one record; a failed run ends with exit code 1."""
    warn_of_taken_names([record])
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
    lds = record.lds
    if lds is None:
        print(f"{title}: failed: {record.reason}")
    else:
        ceiling = "unknown (too few masks or repeats)" if record.ceiling is None else f"{record.ceiling:.3f}"
        print(f"{title}: LDS {lds.mean:.3f}, 95 % interval {lds.ci95[0]:.3f} … {lds.ci95[1]:.3f}")
        print(f"noise ceiling {ceiling}; Pearson {lds.pearson:.3f}; {lds.n_scoring} scoring points, ", end="")
        print(f"{record.ground_truth.n_masks} masks × {record.ground_truth.n_repeats} repeats")
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
        memory = f", peak memory {record.peak_bytes / 2**20:,.0f} MiB" if record.peak_bytes else ""
        print(f"fit {record.fit_seconds:.2f} s, score {record.score_seconds:.2f} s{memory}")
