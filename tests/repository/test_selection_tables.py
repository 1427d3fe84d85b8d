"""Tables of default, selected and best λ in the documents are those of the committed records.

`python tests/repository/test_selection_tables.py` writes them anew.
"""

from collections.abc import Iterable
from functools import partial

from generated import Passage, number, published

from attriboard.contracts.selector import REGULARIZATION
from attriboard.leaderboard.lds_table import regret
from attriboard.leaderboard.study import MethodStudy
from attriboard.records.model import AttributionRecord

CHOSEN = (
    *((task, method) for task in ("digits_mlp", "mnist_lr", "mnist_mlp") for method in ("iffim", "trak")),
    *((task, "ekfac") for task in ("digits_mlp", "mnist_lr", "mnist_mlp")),
    *((task, "logra") for task in ("digits_mlp", "mnist_lr", "mnist_mlp")),
    *(("cifar2_resnet9_mini", method) for method in ("iffim", "trak", "logra", "ekfac")),
)
SELECTORS = (
    "surrogate",
    "deflated_surrogate",
    "mean_eigenvalue",
    "mean_eigenvalue_10",
    "early_stopping",
    "training_horizon",
    "random_grid",
    "gcv",
    "default",
)
COSTS = tuple(
    (task, method)
    for task in ("digits_mlp", "mnist_lr", "mnist_mlp", "wikitext2_gpt2_mini")
    for method in ("iffim", "trak", "logra", "ekfac")
)


def chosen() -> str:
    """Default, ξ's λ and the oracle's, with the LDS of each."""
    lines = [
        "| task, method | default | ξ's λ | LDS there | oracle's λ | LDS there | regret of ξ | gap closed |",
        "|---" * 8 + "|",
    ]
    for task, name in CHOSEN:
        method = published()[task].methods[name]
        selected, oracle = method.variants["selected"].record, method.variants["oracle"].record
        assert method.selection is not None
        gap = method.selection.record.gap_closed if oracle.variant == "oracle" else None
        cells = (
            f"`{task}`, `{name}`",
            _lds(method, "default"),
            _strength(selected),
            _lds(method, "selected"),
            _strength(oracle),
            _lds(method, "oracle"),
            _regret(method),
            "–" if gap is None else f"{100 * gap:.0f} %".replace("-", "−"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def selectors() -> str:
    """Regret of every selector."""
    cases = [case for case in CHOSEN if case[1] in ("iffim", "trak")]
    lines = [
        f"| selector | {' | '.join(f'`{task}`, `{name}`' for task, name in cases)} |",
        "|---" * (len(cases) + 1) + "|",
    ]
    for selector in SELECTORS:
        cells = []
        for task, name in cases:
            entry = published()[task].methods[name].selections.get(selector)
            known = entry.record.regret if entry else None
            cells.append("–" if known is None else number(known.mean, 3))
        lines.append(f"| `{selector}`{' (one draw)' if selector == 'random_grid' else ''} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def retrains() -> str:
    """Regret of the λ that 4, 8 and 16 retrains choose."""
    lines = ["| task, method | ξ alone | ω at ξ's λ | largest LDS, 8 | 4 retrains | 8 | 16 |", "|---" * 7 + "|"]
    for task, name in COSTS:
        record = published()[task].methods[name].costs[(REGULARIZATION,)].record
        _, rule = record.headline
        free = record.picks["surrogate"].regret
        budgets = [record.budgets.index(k) for k in (4, 8, 16)]
        cells = (
            f"`{task}`, `{name}`",
            "–" if free is None else number(free, 3),
            number(record.omega.value, 2) if record.omega else "–",
            number(record.rules["best"].mean[budgets[1]], 4),
            *(f"{number(rule.mean[at], 4)} ({number(rule.p90[at], 4)})" for at in budgets),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def study(task: str, names: Iterable[str], cost: bool = False) -> str:
    """Default, selected and oracle of some methods on one task; `cost`: with the time and memory of the run."""
    heads = ["method", "default", "selected", "oracle", "regret of ξ", *(["seconds", "peak memory"] if cost else [])]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name in names:
        method = published()[task].methods[name]
        cells = [
            f"`{name}`",
            *(_lds(method, variant) for variant in ("default", "selected", "oracle")),
            _regret(method),
        ]
        lines.append(f"| {' | '.join(cells + (_cost(method) if cost else []))} |")
    return "\n".join(lines) + "\n"


def _cost(method: MethodStudy) -> list[str]:
    record = method.main.record if method.main else None
    if record is None or record.fit_seconds is None or record.peak_bytes is None:
        return ["–", "–"]
    return [f"{record.fit_seconds + (record.score_seconds or 0):.0f}", f"{record.peak_bytes / 1e9:.1f} GB"]


def _lds(method: MethodStudy, variant: str) -> str:
    lds = method.lds(variant)
    moved = variant == "selected" and method.selection is not None and method.selection.record.transferred
    return "–" if lds is None else number(lds.mean, 3) + (" (transferred)" if moved else "")


def _regret(method: MethodStudy) -> str:
    if (known := regret(method)) is None:
        return "–"
    low, high = known[0].ci95
    return "0" if low == high == 0 else f"{number(known[0].mean, 3)} [{number(low, 3)}, {number(high, 3)}]"


def _strength(record: AttributionRecord) -> str:
    value = record.hyperparameters.get(REGULARIZATION, record.hyperparameters.get("damping"))
    assert isinstance(value, float)
    mantissa, exponent = f"{value:.1e}".split("e")
    text = f"{value:.2g}".removeprefix("0") if value >= 0.1 else f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{text} (default)" if record.variant == "default" else text


MINI = "trak", "logra", "iffim", "ekfac", "datainf", "grad_dot", "grad_cos", "tracin", "input_similarity", "random"
LANGUAGE = "ekfac", "trak", "iffim", "datainf", "logra", "tracin"
END = "<!-- end -->\n"
PASSAGES = [
    Passage("findings/choosing.md", "<!-- records: λ -->\n", END, chosen),
    Passage("findings/choosing.md", "<!-- records: selectors -->\n", END, selectors),
    Passage("findings/choosing.md", "<!-- records: retrains -->\n", END, retrains),
    Passage("findings/no-lambda.md", "<!-- records -->\n", END, partial(study, "wikitext2_gpt2_mini", LANGUAGE)),
    Passage(
        "tasks/cifar2_resnet9_mini.md", "<!-- records -->\n", END, partial(study, "cifar2_resnet9_mini", MINI, True)
    ),
]


def test_the_tables_are_those_of_the_records() -> None:
    for passage in PASSAGES:
        assert passage.found() == passage.make(), (
            f"{passage.page}: run python tests/repository/test_selection_tables.py"
        )


if __name__ == "__main__":
    for passage in PASSAGES:
        passage.write()
