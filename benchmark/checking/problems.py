"""What a check found: problems with their places, as one report."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: the place in the file, and what to do."""

    where: str
    message: str


@dataclass(frozen=True)
class Report:
    """What a file claims to be, what is wrong with it, what a person should look at, and what was run again."""

    kind: str
    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()
    run_again: tuple[Problem, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.errors

    def document(self) -> dict[str, Any]:
        """As JSON-able data."""
        parts = {"errors": self.errors, "warnings": self.warnings}
        if self.run_again:
            parts["run_again"] = self.run_again
        lists = {name: [vars(problem) for problem in problems] for name, problems in parts.items()}
        return {"kind": self.kind, "ok": self.ok, **lists}
