"""The numbers of docs/findings/retrain-goals.md are those of the committed records.

`python tests/repository/test_retrain_goals.py` writes them anew.
"""

import math

from generated import Passage, number, published

from attriboard.records.cost import SelectionCostRecord

MEAN, HIGH, FREE, BUDGET = 0.005, 0.01, 0.01, 8


def costs() -> list[SelectionCostRecord]:
    """The newest record of every task and method, on the current ground truth."""
    return [entry.record for study in published().values() for entry in study.costs]


def tables() -> str:
    """Regret without retrains and with a few, case by case, beside how far off ξ is."""
    records = costs()
    free = [pick.regret for r in records if (pick := r.picks["surrogate"]).regret is not None]
    met = [record for record in records if reaches(record, BUDGET)]
    lines = [
        "| task, method | ξ alone | 8 retrains: mean | 90 % | goal met with | ω at ξ's pick | ξ's λ against the best |",
        "|---|---|---|---|---|---|---|",
        *map(_row, records),
    ]
    summary = (
        f"With {BUDGET} retrains, {len(met)} of {len(records)} cases meet both limits. Without any, the mean regret of "
        f"ξ is {number(sum(free) / len(free), 3)} over {len(free)} cases, and {sum(r <= FREE for r in free)} are at "
        f"most {number(FREE, 2)}."
    )
    return "\n".join(lines) + f"\n\n{summary}\n"


def reaches(record: SelectionCostRecord, budget: int) -> bool:
    """Whether mean and 90th percentile of the regret are within the goals at a number of retrains."""
    _, rule = record.headline
    at = record.budgets.index(budget)
    return rule.mean[at] <= MEAN and rule.p90[at] <= HIGH


def _row(record: SelectionCostRecord) -> str:
    _, rule = record.headline
    at, pick = record.budgets.index(BUDGET), record.picks["surrogate"]
    enough = next((k for k in record.budgets if all(reaches(record, b) for b in record.budgets if b >= k)), None)
    omega = "–"
    if record.omega:
        low, high = record.omega.ci95
        omega = f"{number(record.omega.value, 2)} [{number(low, 2)}, {number(high, 2)}]"
    cells = (
        f"`{record.task.name}`, `{record.title}`",
        "–" if pick.regret is None else number(pick.regret, 3),
        number(rule.mean[at], 4),
        number(rule.p90[at], 4),
        f"more than {record.budgets[-1]}" if enough is None else f"{enough} retrains",
        omega,
        _distance(record),
    )
    return f"| {' | '.join(cells)} |"


def _distance(record: SelectionCostRecord) -> str:
    """How far ξ's λ is from the best grid point, in decades."""
    chosen = record.picks["surrogate"].hyperparameters
    best = record.configurations[max(range(len(record.lds)), key=record.lds.__getitem__)]
    values = [(c or {}).get("regularization") for c in (chosen, best)]
    if not all(isinstance(value, float) and value > 0 for value in values):
        return "–"
    decades = round(2 * (math.log10(float(values[0] or 1)) - math.log10(float(values[1] or 1)))) / 2
    unit = "decade" if abs(decades) == 1 else "decades"
    return "the same" if decades == 0 else f"{abs(decades):g} {unit} {'above' if decades > 0 else 'below'}"


PASSAGE = Passage(
    "findings/retrain-goals.md", "<!-- records -->\n", "<!-- end of records -->\n", lambda: f"{tables()}\n"
)


def test_the_numbers_are_those_of_the_records() -> None:
    assert PASSAGE.found().strip() == tables().strip(), "run: python tests/repository/test_retrain_goals.py"


if __name__ == "__main__":
    PASSAGE.write()
