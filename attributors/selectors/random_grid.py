"""`random_grid`: a random candidate. What a selector has to beat to be worth anything."""

import numpy as np

from attriboard.contracts.selector import Choice, Evidence, Selector


class RandomGrid(Selector):
    """Uniform over the candidates, by the run's seed."""

    name = "random_grid"
    source = "control"
    needs_spectrum = False

    def select(self, evidence: Evidence) -> Choice:
        """Draw one."""
        candidates = evidence.options("regularization")
        word = int(np.random.Philox(key=np.array([evidence.seed, 11], dtype=np.uint64)).random_raw())
        return Choice({"regularization": candidates[word % len(candidates)]})
