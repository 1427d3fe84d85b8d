"""The side-by-side page as Markdown, from kept measurements."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

NOT_YET = "## mnist_mlp\n\nNot measured yet: `python -m bench peers` adds LDS, seconds, memory and correlations here."

Section = tuple[str, str, Sequence[str], str | None]

HEAD = """# Side by side with other libraries

Made by `python -m bench peers` (dattri 0.3.0, kronfluence 1.0.1 and traker 0.3.2 installed); numbers are from one run.
Every library's own code runs behind our adapters on the same checkpoints with the same λ (see [methods](methods.md)).
Where they differ, a dense float64 oracle shows which is right: the formula written out with explicit matrices.
"""

TOY = """
## A small problem with every matrix written out

{problem}

### EK-FAC against the exact empirical Fisher matrix

Pearson's correlation of the scores with −g_iᵀ(F + λI)⁻¹g′, F the exact empirical Fisher matrix, over all pairs.

{ekfac}

dattri uses the eigenvectors transposed. The error that remains in a correct EK-FAC is due to the Kronecker assumption
itself.

### Conjugate gradients against the explicit Hessian

λ = .2, 12 iterations, the training set in one batch or in several. *Size* is the norm of the scores divided by
that of the oracle's.

{cg}

dattri adds up the inverses of its cache batches' Hessians. Ours adds up Hessian products: between batches of 16, of
64 and of all examples, our scores differ by {between} of the largest. After 50 iterations, long after convergence,
{many_dattri} of dattri's scores are NaN or infinite, because its tolerance is not used; of ours, {many_ours} are.

### TRAK against the dense formula

One half-data model, λ = .01: correlation with φ(z′)ᵀ(ΦᵀΦ/n + λI)⁻¹φ_i (1 − p_i).

{trak}

### What the defaults give

The share of the scores that are NaN or infinite, or the error.

{defaults}
"""


def page(folder: Path, sections: Sequence[Section], points: int) -> str:
    """The whole page."""
    toy = json.loads((folder / "toy.json").read_text())
    parts = [HEAD, _toy(toy)]
    measured = [section for section in sections if sum((folder / f"{key}.json").exists() for key in section[2]) > 1]
    parts += [_intro(points), *(_section(folder, *section) for section in measured)] if measured else [NOT_YET]
    return "\n".join(part.strip("\n") + "\n" for part in parts)


def _toy(found: dict[str, Any]) -> str:
    sides = [side for side in ("ours", "kronfluence", "dattri") if side in next(iter(found["ekfac"].values()))]
    ekfac = _table(
        ("λ", *sides), [(value, *(f"{row[side]:.3f}" for side in sides)) for value, row in found["ekfac"].items()]
    )
    many = found["cg"].pop("not finite after many")
    batches = [(size, row) for size, row in found["cg"].items() if isinstance(row, dict)]
    cg = _table(
        ("examples per batch", "ours: correlation", "size", "dattri: correlation", "size"),
        [
            (
                size,
                *(
                    text
                    for side in ("ours", "dattri")
                    for text in (f"{row[side]['correlation']:.6f}", f"{row[side]['size']:.4f}")
                ),
            )
            for size, row in batches
        ],
    )
    pairs = [(name, f"{value:.6f}") for name, value in found["trak"].items()]
    trak = _table(("against the oracle", "correlation"), pairs)
    defaults = _table(
        ("method", "dattri", "ours"),
        [(name, *(_outcome(row[side]) for side in ("dattri", "ours"))) for name, row in found["defaults"].items()],
    )
    return TOY.format(
        problem="A network of 64-8-6-10 (644 parameters), trained on 300 of scikit-learn's digits or half of them; 12 "
        "test examples.",
        ekfac=ekfac,
        cg=cg,
        between=f"{found['cg']['ours between batch sizes']:.0e}",
        many_dattri=_outcome(many["dattri"]),
        many_ours=_outcome(many["ours"]),
        trak=trak,
        defaults=defaults,
    )


def _outcome(value: float | str) -> str:
    return f"{value:.0%}" if isinstance(value, float) else value


def _intro(points: int) -> str:
    return (
        f"## mnist_mlp\n\n109,386 parameters, 5,000 training examples; only the first {points} scoring points, because "
        "some libraries are slow for each\npoint. All runs use one thread of a shared machine, so seconds are "
        "comparable only within a factor of about two. *Memory* is\nthe peak resident memory minus what was resident "
        "before the fit. LDS is on the task's ground truth, at these points."
    )


def _section(folder: Path, title: str, text: str, keys: Sequence[str], oracle: str | None) -> str:
    found = {key: json.loads((folder / f"{key}.json").read_text()) for key in keys if (folder / f"{key}.json").exists()}
    columns = ["attributor", "hyperparameters", "LDS", "95 % interval", "seconds", "memory, MB"]
    columns += [f"correlation with {'the oracle' if oracle else 'ours'}"]
    rows = []
    for key, result in found.items():
        settings = ", ".join(f"{n} = {_value(v)}" for n, v in result["hyperparameters"].items() if n not in ("epoch",))
        name = f"`{result['attributor']}`" + (", the oracle" if key == oracle else "")
        if "failure" in result:
            rows.append((name, settings, "failed", result["failure"], "–", "–", "–"))
            continue
        rows.append(
            (
                name,
                settings,
                f"{result['lds']:.3f}" + (f" ({result['not_finite']:.0%} NaN)" if result["not_finite"] else ""),
                f"{result['ci95'][0]:.3f} … {result['ci95'][1]:.3f}",
                f"{result['seconds']:.0f}",
                f"{(result['peak_bytes'] - result['resident_before']) / 1e6:,.0f}",
                _correlation(folder, key, oracle or _ours(key)),
            )
        )
    missing = [key for key in keys if key not in found]
    note = f"\n\nNot measured: {', '.join(missing)}." if missing else ""
    return f"### {title}\n\n{text}\n\n{_table(columns, rows)}{note}"


def _ours(key: str) -> str:
    """The case of ours that a library's default is compared with."""
    return {"tracin dattri": "grad_dot"}.get(key, key.partition(" ")[0])


def _correlation(folder: Path, key: str, other: str) -> str:
    paths = [folder / f"{name}.safetensors" for name in (key, other)]
    if key == other or not all(path.exists() for path in paths):
        return "–"
    one, two = (load_file(path)["scores"].astype(np.float64).ravel() for path in paths)
    finite = np.isfinite(one) & np.isfinite(two)
    return f"{np.corrcoef(one[finite], two[finite])[0, 1]:.3f}" if finite.sum() > 1 else "–"


def _value(value: object) -> str:
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
