"""Bounded, strict reading of JSON, YAML and safetensors headers: what was once accepted, or crashed, and must not."""

import json
import struct
from pathlib import Path

import pytest

from attriboard.base.documents import parse_json, parse_yaml
from attriboard.base.errors import FormatError
from attriboard.base.tensors import read_header


@pytest.mark.parametrize("parse", [parse_json, parse_yaml])
@pytest.mark.parametrize("text", ['{"a": ["x\ufffdy"]}', '{"a": {"\ufffd": 1}}', '{"a": "\\ufffd"}'])
def test_text_that_lost_characters_is_refused(parse: type, text: str) -> None:
    with pytest.raises(ValueError, match=r"U\+FFFD in place of lost characters"):
        parse(text)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "BF16", "object", None, ["F32"], 7])
def test_a_tensor_of_a_type_that_numpy_lacks_is_refused(tmp_path: Path, dtype: object) -> None:
    header = json.dumps({"scores": {"dtype": dtype, "shape": [4], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "scores.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(FormatError, match=r"tensor 'scores' is of .* which is none of BOOL, U8"):
        read_header(path)
