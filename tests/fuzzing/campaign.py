"""Feeding a parser: what became of every input, whatever that was."""

import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from attriboard.base.errors import AttriboardError
from fuzzing.parsers import Parser

__all__ = ["HANG", "Tally", "feed"]

HANG = 10.0  # CPU seconds for one input
LONGEST_MESSAGE = 50_000


@dataclass
class Tally:
    """Counts, and what was found."""

    tried: int = 0
    refused: int = 0
    slowest: float = 0.0
    accepted: list[str] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)


def feed(parser: Parser, folder: Path, inputs: int, tally: Tally, start: int = 0) -> None:
    """Feed a parser so many inputs and count what it does with them.

    Args:
        parser: the parser.
        folder: where its files go.
        inputs: how many.
        tally: what is counted into.
        start: seed of the choice.
    """

    @seed(start)
    @settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(parser.inputs)
    def one(given_input: object) -> None:
        shown = repr(given_input)
        shown = shown if len(shown) < 2000 else f"{shown[:1000]} … {shown[-1000:]}"
        started = time.process_time()
        tally.tried += 1
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                parser.read(folder, given_input)
            tally.accepted.append(shown)
        except AttriboardError as error:
            tally.refused += 1
            if len(str(error)) > LONGEST_MESSAGE:
                tally.crashed.append(f"a message of {len(str(error))} characters: {shown}")
        except Exception as error:
            tally.crashed.append(f"{type(error).__name__}: {str(error)[:300]}: {shown}")
        passed = time.process_time() - started
        tally.slowest = max(tally.slowest, passed)
        if passed > HANG:
            tally.slow.append(f"{passed:.1f} s: {shown}")

    one()
