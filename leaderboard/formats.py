"""How values are written on pages: the one place for rounding, units and signs."""

import math
import re
import shlex
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from attriboard.base.terminal import counted as counted
from attriboard.contracts.question import Question
from attriboard.records.files import AnyRecord, AnyUse
from attriboard.records.model import AttributionRecord

Scalar = bool | int | float | str | None


def fixed(value: float, digits: int = 3) -> str:
    """A correlation, with a true minus sign; what rounds to zero has no sign."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def category(reason: str | None) -> str:
    """The first word of a reason, for reading; where a method says in one word why it does not apply, that word."""
    first, *rest = [part.strip() for part in (reason or "").split(":")]
    word = rest[0] if first == "not_applicable" and len(rest) > 1 else ""
    return word if word.isalpha() else first.replace("_", " ")


def unbroken(text: str) -> str:
    """A note whose lines do not break within an interval, a setting or a percentage."""
    return re.sub(r" (to|=) |(?<=%:) | (?=%)", lambda space: space[0].replace(" ", "\N{NO-BREAK SPACE}"), text)


def percent(value: float) -> str:
    """A fraction, as a whole percent."""
    return f"{100 * value:.0f} %".replace("-", "−")


def gap(closed: float) -> str:
    """A share of the gap between default and oracle; far below the default only that."""
    return percent(closed) if closed >= -1 else "< −100\u00a0%"


def seconds(value: float) -> str:
    """A duration in seconds, to two or three digits."""
    if value < 0.005:
        return "< 0.01"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def process_time(value: float) -> str:
    """What processes took together: in hours, in seconds where that is less than a tenth of one."""
    return f"{value / 3600:,.1f} process-hours" if value >= 360 else f"{seconds(value)} process-seconds"


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


def short(value: Scalar) -> str:
    """A hyperparameter's value where there is little room: numbers to three digits."""
    if not isinstance(value, float):
        return setting(value)
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def chosen_regularization(hyperparameters: Mapping[str, Scalar]) -> str:
    """`λ = 0.01`, of a configuration that has a λ; else nothing."""
    value = hyperparameters.get("regularization")
    if "regularization" not in hyperparameters:
        return ""
    return "λ: method's rule" if value is None else f"λ = {short(value)}"


def configuration(beside: Mapping[str, Scalar], hyperparameters: Mapping[str, Scalar]) -> str:
    """What tells a configuration from the defaults, then its λ: `fisher = empirical, λ = 1e-8`."""
    chosen = chosen_regularization(hyperparameters)
    return ", ".join([*([settings(beside)] if beside else []), *([chosen] if chosen else [])])


def settings(hyperparameters: Mapping[str, Scalar]) -> str:
    """A whole configuration on one line."""
    return ", ".join(f"{name} = {plain(value)}" for name, value in hyperparameters.items()) or "none"


def question(name: str) -> str:
    """A question by its name, in words."""
    return Question.parse(name).title


def judged(measured: Mapping[str, Sequence[float]]) -> list[float]:
    """What retrained models are judged by: accuracy in percent, or perplexity where there is no right answer."""
    if "correct" in measured:
        return [100 * value for value in measured["correct"]]
    return [math.exp(value) for value in measured["loss"]]


def mean_and_error(values: Sequence[float]) -> str:
    """Mean ± standard error."""
    text = fixed(fmean(values), 2)
    return f"{text} ± {stdev(values) / math.sqrt(len(values)):.2f}" if len(values) > 1 else text


def original_command(record: AnyRecord) -> str:
    """The command that made a record, without the folder that it wrote to."""
    words = list(record.provenance.command_line)
    while "--out" in words[:-1]:
        at = words.index("--out")
        del words[at : at + 2]
    return shlex.join(words)


def variant(record: AttributionRecord | AnyUse) -> str:
    """How a record's hyperparameters came about."""
    if record.variant == "oracle":
        return "with the oracle's λ"
    return f"{record.variant} by {record.selector}" if record.selector else record.variant


def reproducing_command(record: AnyRecord) -> str:
    """The command that runs a record's configuration again, from the record's file; a score matrix is graded again."""
    if record.attributor.origin == "scores":
        return f"attriboard score {record.task.name} SCORES.safetensors"
    again = record.id
    if isinstance(record, AttributionRecord) and record.negates:
        again = record.negates.record
    file = [f"{record.attributor.name}.py"] * (record.attributor.origin == "file")
    return shlex.join(["attriboard", "run", f"{again}.json", *file])
