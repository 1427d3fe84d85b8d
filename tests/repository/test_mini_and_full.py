"""The tables of docs/findings/mini-and-full.md and docs/tasks/cifar2_resnet9.md are those of the committed records.

`python tests/repository/test_mini_and_full.py` writes them anew.
"""

from dataclasses import dataclass
from functools import cache

from generated import Passage, number, published
from scipy.stats import spearmanr

from attriboard.contracts.selector import REGULARIZATION
from attriboard.leaderboard.study import SIGN_FLIPPED, MethodStudy, TaskStudy

MINI, FULL = "cifar2_resnet9_mini", "cifar2_resnet9"
SURROGATE, DEFLATED = "surrogate", "deflated_surrogate"


@dataclass(frozen=True)
class Row:
    """One method on one task: LDS and λ of the default, of ξ, of ξ without outlying eigenvalues, and of the oracle."""

    lds: tuple[float | None, ...]
    strengths: tuple[float | None, ...] = ()

    @property
    def headline(self) -> float:
        """Without retraining: of ξ's λ where it chooses one, else of the default."""
        default, selected = self.lds[:2]
        found = default if selected is None else selected
        assert found is not None
        return found


def row(method: MethodStudy) -> Row | None:
    """From the selections where there are any, whatever other hyperparameters they start from."""
    found = {name: entry.record for name, entry in method.selections.items() if entry.record.status == "ok"}
    if SURROGATE not in found:
        result = method.lds("default")
        return Row((result.mean, None, None, None)) if result else None
    chosen = found[SURROGATE]
    graded = chosen.default, chosen.selected, found[DEFLATED].selected if DEFLATED in found else None, chosen.oracle
    strengths = (one.hyperparameters.get(REGULARIZATION) if one else None for one in graded)
    return Row(
        tuple(one.lds if one else None for one in graded),
        tuple(value if isinstance(value, float) else None for value in strengths),
    )


def both() -> tuple[TaskStudy, TaskStudy]:
    return published()[MINI], published()[FULL]


@cache
def rows() -> dict[str, tuple[Row, Row]]:
    """Method → its row on the mini and on the full task, the best on the full task first."""
    mini, full = both()
    pairs = {name: (row(mini.methods[name]), row(full.methods[name])) for name in full.methods if name in mini.methods}
    known = {name: (one, other) for name, (one, other) in pairs.items() if one and other and name != SIGN_FLIPPED}
    return dict(sorted(known.items(), key=lambda item: -(item[1][1].lds[-1] or item[1][1].headline)))


def table() -> str:
    """LDS in per cent of the ceiling, and λ."""
    lines = ["| method | mini, LDS in % of the ceiling | full | mini, λ | full |", "|---" * 5 + "|"]
    for name, pair in rows().items():
        shares = (_shares(one, study.ceiling or 1.0) for one, study in zip(pair, both(), strict=True))
        lines.append(f"| `{name}` | {' | '.join([*shares, *map(_strengths, pair)])} |")
    ceilings = " and ".join(f"{study.ceiling:.3f}" for study in both())
    headlines = [[one.headline for one in column] for column in zip(*rows().values(), strict=True)]
    best = [[one.lds[-1] or one.headline for one in column] for column in zip(*rows().values(), strict=True)]
    usual, possible = spearmanr(*headlines).statistic, spearmanr(*best).statistic
    return (
        "\n".join(lines)
        + f"\n\nCeilings: {ceilings}. Spearman's correlation of the {len(rows())} methods' LDS on the two "
        f"tasks: {usual:.2f} without retraining, {possible:.2f} with the oracle's λ.\n\n"
    )


def _shares(one: Row, ceiling: float) -> str:
    shown = ["–" if lds is None else str(round(100 * lds / ceiling)).replace("-", "−") for lds in one.lds]
    return " / ".join(shown) if one.strengths else shown[0]


def _strengths(one: Row) -> str:
    return " / ".join("–" if value is None else f"{value:.2g}" for value in one.strengths[1:]) or "–"


def methods() -> str:
    """The full task's LDS, with the time and memory of the run."""
    _, full = both()
    lines = ["| method | default | ξ | ξ, deflated | best λ | minutes | peak memory |", "|---" * 7 + "|"]
    for name, (_, one) in rows().items():
        shown = ["–" if lds is None else number(lds, 3) for lds in one.lds]
        entry = full.methods[name].main
        assert entry is not None
        assert entry.record.fit_seconds is not None
        assert entry.record.peak_bytes is not None
        seconds = entry.record.fit_seconds + (entry.record.score_seconds or 0.0)
        cost = f"{seconds / 60:.1f} | {entry.record.peak_bytes / 1e9:.1f} GB"
        lines.append(f"| `{name}` | {' | '.join(shown)} | {cost} |")
    return "\n".join(lines) + "\n"


PASSAGES = [
    Passage("findings/mini-and-full.md", "<!-- records -->\n", "<!-- end -->\n", table),
    Passage("tasks/cifar2_resnet9.md", "<!-- records -->\n", "<!-- end -->\n", methods),
]


def test_the_tables_are_those_of_the_records() -> None:
    for passage in PASSAGES:
        assert passage.found() == passage.make(), "run: python tests/repository/test_mini_and_full.py"


if __name__ == "__main__":
    for passage in PASSAGES:
        passage.write()
