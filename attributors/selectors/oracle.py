"""`oracle`: the candidate with the highest mean LDS on calibration points.

What a selector could reach with hundreds of retrains. It is shown beside the others and never ranked.
"""

from collections.abc import Sequence

from attriboard.contracts.selector import GroundTruthSelector


class Oracle(GroundTruthSelector):
    """Tune on the calibration points' ground truth."""

    name = "oracle"
    source = "the ground truth of the calibration points"

    def select(self, lds: Sequence[float]) -> int:
        """The first of the best."""
        return max(range(len(lds)), key=lds.__getitem__)
