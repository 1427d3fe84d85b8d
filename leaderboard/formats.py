"""How values are written on pages: the one place for rounding, units and signs."""

import shlex
from collections.abc import Iterable, Mapping

from attriboard.records.files import AnyRecord
from attriboard.records.model import AttributionRecord
from attriboard.records.uses import BrittlenessRecord, MislabelRecord, RemovalRecord

Scalar = bool | int | float | str | None


def fixed(value: float, digits: int = 3) -> str:
    """A correlation, with a true minus sign; what rounds to zero has no sign."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def percent(value: float) -> str:
    """A fraction, as a whole per cent."""
    return f"{100 * value:.0f} %".replace("-", "−")


def seconds(value: float) -> str:
    """A duration in seconds, to two or three digits."""
    if value < 0.005:
        return "< 0.01"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def megabytes(value: int) -> str:
    """Bytes as whole megabytes."""
    return f"{value / 1e6:,.0f}"


def size(value: int) -> str:
    """Bytes with the unit that suits them."""
    if value >= 1e9:
        return f"{value / 1e9:,.1f} GB"
    return f"{value / 1e6:,.1f} MB" if value >= 1e6 else f"{value / 1e3:,.0f} kB"


def count(value: int) -> str:
    """A whole number with thousands separators."""
    return f"{value:,}"


def setting(value: Scalar) -> str:
    """A hyperparameter's value as one types it on the command line."""
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def plain(value: Scalar) -> str:
    """A hyperparameter's value for reading: numbers to six digits."""
    return f"{value:g}" if isinstance(value, float) else setting(value)


def settings(hyperparameters: Mapping[str, Scalar]) -> str:
    """A whole configuration on one line."""
    return ", ".join(f"{name} = {plain(value)}" for name, value in hyperparameters.items()) or "none"


def reproducing_command(record: AnyRecord) -> str:
    """The command that makes a record again, or the selection that it is part of."""
    task, attributor = record.task.name, record.attributor.name
    if record.attributor.origin == "scores":
        return f"attriboard score {task} SCORES.safetensors"
    method = f"--attributor {attributor}.py" if record.attributor.origin == "file" else attributor
    words = ["attriboard", "run", task, *method.split()]
    if isinstance(record, AttributionRecord) and record.negates:
        return shlex.join(words)  # configuration and seed are the negated record's
    if isinstance(record, RemovalRecord):
        return shlex.join(_removal(record, method))
    if isinstance(record, BrittlenessRecord | MislabelRecord):
        return shlex.join(_use(record, method))
    if isinstance(record, AttributionRecord):
        words += _options(f"{name}={setting(value)}" for name, value in record.hyperparameters.items())
    else:
        words[1] = "select"
        words += ["--selector", "all"]
    if record.seed:
        words += ["--seed", str(record.seed)]
    return shlex.join(words)


def _removal(record: RemovalRecord, method: str) -> list[str]:
    """The words of a removal, or of the sweep that a point is of; a file is named like an attributor there."""
    task, attributor = record.task.name, method.split()[-1]
    rates = [f"{point.rate:g}" for point in record.points] or ["0.5"]
    if record.variant == "sweep":
        grids = [f"{name}={setting(value)}" for name, value in record.hyperparameters.items()]
        words = ["attriboard", "sweep", task, attributor, "--metric", "removal", "--rate", rates[0]]
        words += [word for grid in grids for word in ("--grid", grid)]
    else:
        words = ["attriboard", "removal", task, attributor, "--rates", *rates, "--variant", record.variant]
    words += ["--seeds", str(len(record.retrain_seeds))]
    words += ["--direction", record.direction] * (record.direction != "helpful") + ["--balanced"] * record.balanced
    return words + (["--seed", str(record.seed)] if record.seed else [])


def _use(record: BrittlenessRecord | MislabelRecord, method: str) -> list[str]:
    words = ["attriboard", record.kind, record.task.name, method.split()[-1], "--variant", record.variant]
    if isinstance(record, MislabelRecord):
        words += ["--by", record.by]
    else:
        n_points, (n_search, n_fresh) = len(record.points), map(len, (record.search_seeds, record.confirm_seeds))
        words += [
            "--points",
            str(n_points + record.n_degenerate or 1),
            "--seeds",
            str(n_search),
            "--confirm",
            str(n_fresh),
        ]
    return words + (["--seed", str(record.seed)] if record.seed else [])


def _options(pairs: Iterable[str]) -> list[str]:
    return [word for pair in pairs for word in ("--hp", pair)]
