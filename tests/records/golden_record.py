"""The record that must keep loading, and variants of it."""

import copy
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden" / "record-v1.json"
GOLDEN_ID = "db82d3f3221105db"


def change(data, path, value):
    """A copy of `data` in which the dotted `path` holds `value`."""
    changed = copy.deepcopy(data)
    *parents, last = path.split(".")
    part = changed
    for parent in parents:
        part = part[parent]
    part[last] = value
    return changed


def failed(data, reason="timeout: 60 s"):
    return data | {"status": "failed", "reason": reason, "lds": None, "scores_sha256": None}
