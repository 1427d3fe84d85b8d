import json

import pytest
from golden_record import GOLDEN

from attriboard.records.model import AttributionRecord


@pytest.fixture
def data():
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


@pytest.fixture
def record(data):
    return AttributionRecord.model_validate(data)
