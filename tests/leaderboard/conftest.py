"""Synthetic records: the golden record with parts replaced."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from attriboard.records import AttributionRecord

GOLDEN = Path(__file__).parent.parent / "golden" / "record-v1.json"
N_TEST, N_MASKS = 60, 40


def make_record(attributor: str = "iffim", level: float = 0.4, **changes: Any) -> AttributionRecord:
    """A valid record of `attributor` with an LDS near `level`; points and masks vary alike in all."""
    noise = random.Random(0)
    own = random.Random(attributor)
    shared = [0.15 * noise.gauss(0, 1) for _ in range(N_TEST)]
    per_test = [max(-1.0, min(1.0, level + s + 0.05 * own.gauss(0, 1))) for s in shared]
    mean = sum(per_test) / N_TEST
    data = json.loads(GOLDEN.read_text(encoding="utf-8"))
    data["attributor"]["name"] = attributor
    data["ground_truth"]["n_masks"] = N_MASKS
    data["lds"] |= {
        "mean": mean,
        "ci95": [mean - 0.05, mean + 0.05],
        "pearson": mean - 0.01,
        "n_scoring": N_TEST,
        "per_test": per_test,
        "mask_influence": [0.1 * noise.gauss(0, 1) + 0.02 * own.gauss(0, 1) for _ in range(N_MASKS)],
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        part = data
        for parent in parents:
            part = part[parent]
        part[last] = value
    if data["status"] == "failed":
        data |= {"lds": None, "scores_sha256": None}
    return AttributionRecord.model_validate(data)


@pytest.fixture(name="make_record")
def make_record_fixture() -> Callable[..., AttributionRecord]:
    return make_record
