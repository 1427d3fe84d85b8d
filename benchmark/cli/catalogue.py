"""`attriboard tasks` and `attriboard attributors`: what there is."""

from typing import Annotated, Any

import typer

from attriboard.base.terminal import note
from attriboard.cli.shell import DataDir, Json, command, emit, no_document, setting, show_table


@command
def tasks(
    data_dir: DataDir = None,
    template: Annotated[
        bool, typer.Option("--template", help="Print a Python file with a task of your own: > my_task.py")
    ] = False,
    json: Json = False,
) -> None:
    """List the tasks: sizes, and whether their data and ground truth are here; or print a file for one of your own."""
    if template:
        no_document("--template", json)
        from attriboard.evaluation.catalog import task_template

        print(task_template(), end="")
        return
    from attriboard.evaluation.catalog import load_task, task_names
    from attriboard.groundtruth.bundle import read_sizes
    from attriboard.groundtruth.listing import BundleRegistry

    registry = BundleRegistry()
    documents: list[dict[str, Any]] = []
    for name in task_names():
        task = load_task(name)
        card, entry = task.card, registry.find(task.card, "groundtruth")
        path = registry.place(entry) if entry else None
        planned = card.ground_truth.n_masks, card.ground_truth.n_repeats
        n_masks, n_repeats = read_sizes(path) if path else planned
        documents.append(
            {
                "name": name,
                "title": card.title,
                "n_train": card.data.n_train,
                "n_test": card.data.n_test,
                "data": "available" if task.data_available() else "missing",
                "groundtruth": "available" if path else "missing",
                "n_masks": n_masks,
                "n_repeats": n_repeats,
                "fingerprint": card.fingerprint,
            }
        )
    if json:
        emit(documents)
        return
    headings = ("task", "what", "train", "test", "data", "ground truth", "masks × repeats")
    rows = [
        (
            d["name"],
            d["title"],
            f"{d['n_train']:,}",
            f"{d['n_test']:,}",
            d["data"],
            d["groundtruth"],
            f"{d['n_masks']} × {d['n_repeats']}",
        )
        for d in documents
    ]
    show_table("Tasks", headings, rows, numeric=(2, 3, 6))
    if any(d["data"] == "missing" for d in documents):
        print("Missing data is fetched when a command needs it; --data-dir names an offline mirror.")
    print("Your own: attriboard tasks --template > my_task.py, then attriboard run my_task.py iffim")


@command
def attributors(json: Json = False) -> None:
    """List the attributors with their hyperparameters, defaults and the sources of the defaults."""
    from attriboard.base.errors import InputError
    from attriboard.evaluation.catalog import attributor_names, attributor_spec

    documents: list[dict[str, Any]] = []
    for name in attributor_names():
        try:
            attributor = attributor_spec(name).load_attributor()
        except InputError as error:  # a broken package must not hide the others
            note(f"left out: {error}")
            continue
        documents.append(
            {
                "name": name,
                "family": attributor.family,
                "paper": attributor.paper,
                "hyperparameters": [
                    {
                        "name": hp.name,
                        "stage": hp.stage,
                        "default": hp.default,
                        "grid": list(hp.grid),
                        "source": hp.source,
                        "description": hp.description,
                    }
                    for hp in attributor.hyperparameters
                ],
            }
        )
    if json:
        emit(documents)
        return
    headings = ("attributor", "hyperparameter", "stage", "default", "source of the default")
    rows = []
    for document in documents:
        knobs = [(hp["name"], hp["stage"], setting(hp["default"]), hp["source"]) for hp in document["hyperparameters"]]
        for position, knob in enumerate(knobs or [("none", "", "", "")]):
            rows.append((document["name"] if position == 0 else "", *knob))
    show_table("Attributors", headings, rows)


@command
def selectors(json: Json = False) -> None:
    """List the selectors: what they choose, and whether they need a spectrum or the ground truth."""
    from attriboard.evaluation.catalog import load_oracle, selector_names, selector_spec

    documents: list[dict[str, Any]] = []
    for name in selector_names():
        selector = selector_spec(name).load_selector()
        needs = "spectrum" if selector.needs_spectrum else "nothing"
        documents.append({"name": name, "chooses": selector.hyperparameter, "needs": needs, "source": selector.source})
    oracle = load_oracle()
    documents.append(
        {"name": oracle.name, "chooses": "regularization", "needs": "ground truth", "source": oracle.source}
    )
    if json:
        emit(documents)
        return
    rows = [(d["name"], d["chooses"], d["needs"], d["source"]) for d in documents]
    show_table("Selectors", ("selector", "chooses", "needs", "source"), rows)
