"""Questions: what a ground truth removes from the training set, and under which seeds it retrains.

How well scores predict retraining depends on which retraining: a small or a large part is removed, and the models have
the original seed or fresh ones. With the same seed, a retrain is the full-data run, with its initial parameters and its
order of examples, in which the removed examples have weight 0; nothing but the removal moves the output, and a retrain
repeats. With fresh seeds, a model is trained on what is left, and its output moves with the seed too. Removing one
example with the same seed is leave-one-out.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from attriboard.base.errors import InputError

MILLION = 10**6
_NAME = re.compile(r"(?:(one)|(\d{1,2}(?:\.\d{1,4})?)pct)-(same|fresh)")
_RULE = "must be Npct-same, Npct-fresh or one-same, with N the per cent that are removed, as in 1pct-same"


@dataclass(frozen=True)
class Question:
    """What is removed, and how the rest is trained again.

    Args:
        removed_ppm: how many of a million training examples are removed; 0 for a single example.
        seeds: `same`: the seed and order of the full-data run, with weight 0 on what is removed; `fresh`: others.
    """

    removed_ppm: int
    seeds: Literal["same", "fresh"]

    @classmethod
    def parse(cls, name: str) -> "Question":
        """The question of a name, such as `1pct-same`.

        Raises:
            InputError: no such name.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise InputError(f"question {name}: {_RULE}")
        ppm = 0 if match[1] else int(Fraction(match[2]) * MILLION / 100)
        found = cls(ppm, "same" if match[3] == "same" else "fresh")
        if found.name != name:
            raise InputError(f"question {name}: {_RULE}" + (f"; write {found.name}" if ppm else ""))
        return found

    @property
    def name(self) -> str:
        """Its name in file names and on the command line."""
        part = f"{self.removed_ppm * 100 / MILLION:g}pct" if self.removed_ppm else "one"
        return f"{part}-{self.seeds}"

    @property
    def short(self) -> str:
        """In as few words as a table's heading has room for."""
        part = f"{self.removed_ppm * 100 / MILLION:g} %" if self.removed_ppm else "one"
        return f"{part}, {self.seeds}"

    @property
    def title(self) -> str:
        """In words."""
        part = f"{self.removed_ppm * 100 / MILLION:g} %" if self.removed_ppm else "one example"
        return f"{part} removed, {'same seed' if self.seeds == 'same' else 'fresh seeds'}"

    @property
    def order(self) -> tuple[bool, int]:
        """A key to sort by: fresh seeds after the same one, small removals before large ones."""
        return not self.same_seed, self.removed_ppm

    @property
    def same_seed(self) -> bool:
        """Whether a retrain repeats the full-data run."""
        return self.seeds == "same"

    def n_kept(self, n_train: int) -> int:
        """How many of the training examples stay."""
        return (MILLION - self.removed_ppm) * n_train // MILLION if self.removed_ppm else n_train - 1
