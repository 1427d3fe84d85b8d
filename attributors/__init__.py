"""Attribution methods, one file each; this table is how they are known, and imports none of them."""

__all__ = ["ATTRIBUTORS"]

ATTRIBUTORS: dict[str, str] = {
    "random": "attriboard.attributors.random:Random",
    "input_similarity": "attriboard.attributors.input_similarity:InputSimilarity",
    "grad_dot": "attriboard.attributors.grad_dot:GradDot",
    "iffim": "attriboard.attributors.iffim:IFFIM",
    "trak": "attriboard.attributors.trak:TRAK",
}
"""Name → reference, in the order of listings: controls first."""
