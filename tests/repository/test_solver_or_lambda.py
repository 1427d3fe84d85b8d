"""The tables of docs/findings/solver-or-lambda.md are those of the committed records.

`python tests/repository/test_solver_or_lambda.py` writes them anew.
"""

import json
import re
from functools import partial
from math import isclose
from pathlib import Path

from generated import Passage

from attriboard import leaderboard
from attriboard.records.files import read_records
from attriboard.records.model import AttributionRecord
from attriboard.records.published import published_results

CATALOGUE = Path(leaderboard.__file__).parent / "methods" / "catalogue.json"
TASKS = ("digits_mlp", "mnist_lr", "mnist_mlp")
METHODS = ("ekfac", "ekfac_cg", "astra", "if_cg", "if_explicit")
POWERS = range(-5, 0)


def lds(task: str) -> dict[tuple[str, int], float]:
    """(method, k) → LDS at λ = 10ᵏ, all else at its default; of several records the last one."""
    defaults = {
        row["name"]: {hp["name"]: hp["default"] for hp in row["hyperparameters"]}
        for row in json.loads(CATALOGUE.read_text(encoding="utf-8"))
    }
    found: dict[tuple[str, int], AttributionRecord] = {}
    for method in METHODS:
        folder = published_results() / task / method
        for record in read_records(folder) if folder.is_dir() else []:
            if not isinstance(record, AttributionRecord) or record.lds is None:
                continue
            if record.parameters or record.ground_truth.question or record.seed:
                continue
            values = dict(record.hyperparameters)
            λ = values.pop("regularization")
            if values != {name: value for name, value in defaults[method].items() if name != "regularization"}:
                continue
            for power in POWERS:
                if isinstance(λ, float) and isclose(λ, 10.0**power, rel_tol=1e-6):
                    earlier = found.get((method, power))
                    if earlier is None or earlier.created < record.created:
                        found[method, power] = record
    return {key: record.lds.mean for key, record in found.items() if record.lds}


def table(task: str) -> str:
    """λ by method; columns of methods without a record here are left out."""
    known = lds(task)
    methods = [method for method in METHODS if any(name == method for name, _ in known)]
    lines = [f"| λ | {' | '.join(f'`{method}`' for method in methods)} |", "|---" * (len(methods) + 1) + "|"]
    for power in POWERS:
        cells = [f"{known[method, power]:.3f}"[1:] if (method, power) in known else "–" for method in methods]
        lines.append(f"| 10{str(power).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\n"


def claims() -> dict[str, float]:
    """What the paragraph says of digits_mlp → the number."""
    known = lds("digits_mlp")
    best = {method: max(value for (name, _), value in known.items() if name == method) for method in METHODS[:2]}
    return {
        "the solver at 10⁻⁵": known["ekfac_cg", -5] - known["ekfac", -5],
        "the solver at 10⁻²": known["ekfac_cg", -2] - known["ekfac", -2],
        "λ for ekfac": known["ekfac", -2] - known["ekfac", -5],
        "λ for ekfac_cg": known["ekfac_cg", -2] - known["ekfac_cg", -5],
        "the best of each": best["ekfac_cg"] - best["ekfac"],
    }


PASSAGES = [
    Passage("findings/solver-or-lambda.md", f"<!-- records of {task} -->\n", "<!-- end -->\n", partial(table, task))
    for task in TASKS
]


def test_the_tables_are_those_of_the_records() -> None:
    for passage in PASSAGES:
        assert passage.found() == passage.make(), "run: python tests/repository/test_solver_or_lambda.py"


def test_the_differences_of_the_paragraph_are_those_of_the_records() -> None:
    (paragraph,) = re.findall(r"^\*\*How much.*?\n\n", PASSAGES[0].path.read_text(encoding="utf-8"), re.M | re.S)
    for what, value in claims().items():
        assert f" {abs(value):.3f}".replace(" 0.", " .") in paragraph.replace("\n", " "), what


if __name__ == "__main__":
    for passage in PASSAGES:
        passage.write()
