"""`attriboard demo`: the whole way on the embedded task, from attributors to a page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attriboard.base.terminal import note
from attriboard.cli.options import open_workspace, prepare_folder
from attriboard.cli.shell import Json, command, emit, show_table

if TYPE_CHECKING:
    from attriboard.evaluation.selection import Study

TASK = "digits_mlp"
ATTRIBUTORS = (
    "random",
    "input_similarity",
    "embedding_similarity",
    "grad_dot",
    "tracin",
    "ekfac",
    "iffim",
    "trak",
)
"""Controls, and the methods that take seconds here; `attriboard attributors` lists all."""


@command
def demo(
    out: Annotated[Path, typer.Option("--out", help="Output folder for records and site.", file_okay=False)] = Path(
        "demo"
    ),
    json: Json = False,
) -> None:
    """Score attributors on the embedded digits, choose λ without retraining, build a page: a few minutes."""
    from attriboard.evaluation.catalog import load_oracle
    from attriboard.evaluation.selection import study_selection
    from attriboard.leaderboard.board import build_board
    from attriboard.records.files import write_record
    from attriboard.records.model import HEADLINE_SELECTOR

    bench = open_workspace(TASK)
    prepare_folder(out)
    truth = bench.grader.truth.card
    note(f"{TASK}: {truth.n_masks} masks × {truth.n_repeats} repeats of ground truth, nothing to retrain")
    studies = []
    for position, name in enumerate(ATTRIBUTORS, start=1):
        note(f"[{position}/{len(ATTRIBUTORS)}] {name}")
        job = bench.job(name, selectors=(HEADLINE_SELECTOR,))
        study = study_selection(bench.task, bench.grader, job, load_oracle())
        for record in study.all_records:
            write_record(record, out / "results")
        studies.append(study)
    summary = build_board([out / "results"], out / "site")
    if json:
        records = [record.model_dump(mode="json") for study in studies for record in study.all_records]
        emit({"task": TASK, "records": records, "index": str(summary.index)})
        return
    _show(f"{bench.task.card.title}: LDS, noise ceiling {bench.grader.ceiling.mean:.3f}", studies)
    print("selected: λ by the surrogate ξ, without retraining; oracle: λ by the ground truth of calibration points")
    print(f"page: {summary.index.resolve()}")


def _show(title: str, studies: "list[Study]") -> None:
    """One line per attributor, best default first, failures last."""
    rows = []
    for study in studies:
        selection = study.selections[0]
        default = next(record for record in study.records if record.variant == "default")
        lds = default.lds
        seconds = (default.fit_seconds or 0.0) + (default.score_seconds or 0.0)
        cells = (
            default.attributor.name,
            f"{lds.mean:.3f}" if lds else f"failed: {default.reason}",
            f"{lds.ci95[0]:.3f} … {lds.ci95[1]:.3f}" if lds else "–",
            *(
                "–" if part is None or part.lds is None or selection.status == "failed" else f"{part.lds:.3f}"
                for part in (selection.selected, selection.oracle)
            ),
            f"{seconds:.1f}",
        )
        rows.append((-lds.mean if lds else 2.0, cells))
    headings = ("attributor", "default", "95 % interval", "selected", "oracle", "seconds")
    show_table(title, headings, [cells for _, cells in sorted(rows)], numeric=(1, 2, 3, 4, 5))
