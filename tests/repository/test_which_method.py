"""The numbers of docs/which-method.md are those of the committed records.

`python tests/repository/test_which_method.py` writes them anew.
"""

from generated import Passage, published

from attriboard.contracts.selector import REGULARIZATION
from attriboard.leaderboard.lds_table import headline_result
from attriboard.leaderboard.study import SIGN_FLIPPED, TaskStudy


def tables() -> str:
    """Share of the ceiling and seconds, method by task."""
    graded = {name: study for name, study in published().items() if study.ceiling}
    return f"{_shares(graded)}\n{_ceilings(graded)}\n\n{_seconds(graded)}\n"


def _shares(graded: dict[str, TaskStudy]) -> str:
    share: dict[str, dict[str, float]] = {}
    untuned = set()
    for task, study in graded.items():
        for method in study.methods.values():
            if (lds := headline_result(method)) and method.name != SIGN_FLIPPED:
                share.setdefault(method.name, {})[task] = 100 * lds.mean / (study.ceiling or 1.0)
                assert method.headline is not None
                record = method.headline.record
                if record.variant == "default" and REGULARIZATION in record.hyperparameters:
                    untuned.add((method.name, task))
    best = {task: max(row[task] for row in share.values() if task in row) for task in graded}
    order = sorted(share, key=lambda name: (-sum(share[name].values()) / len(graded), name))
    lines = [
        f"| LDS, % of the ceiling | {' | '.join(f'`{task}`' for task in graded)} |",
        "|---" * (len(graded) + 1) + "|",
    ]
    for name in order:
        cells = []
        for task in graded:
            value = share[name].get(task)
            text = "–" if value is None else f"{value:.0f}".replace("-", "−")
            mark = " †" if (name, task) in untuned else ""
            cells.append((f"**{text}**" if value == best[task] else text) + mark)
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _ceilings(graded: dict[str, TaskStudy]) -> str:
    return "Ceilings: " + ", ".join(f"`{name}` {study.ceiling:.3f}" for name, study in graded.items()) + "."


def _seconds(graded: dict[str, TaskStudy]) -> str:
    """Time of the default run, with the threads that it had."""
    lines = [f"| seconds (threads) | {' | '.join(f'`{task}`' for task in graded)} |", "|---" * (len(graded) + 1) + "|"]
    names = sorted({m.name for s in graded.values() for m in s.run if not m.control})
    for name in names:
        cells = []
        for study in graded.values():
            entry = study.methods[name].variants.get("default") if name in study.methods else None
            record = entry.record if entry else None
            known = record and record.status == "ok" and record.fit_seconds is not None
            cells.append(
                f"{record.fit_seconds + (record.score_seconds or 0):.1f} ({record.provenance.threads})"
                if record and known and record.fit_seconds is not None
                else "–"
            )
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


PASSAGE = Passage("which-method.md", "<!-- records -->\n", "<!-- end of records -->\n", lambda: f"{tables()}\n")


def test_the_numbers_are_those_of_the_records() -> None:
    assert PASSAGE.found().strip() == tables().strip(), "run: python tests/repository/test_which_method.py"


if __name__ == "__main__":
    PASSAGE.write()
