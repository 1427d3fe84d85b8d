"""Strategies for documents that no parser may accept: each is hostile by construction, not by chance.

A good document is taken and one thing in it is made wrong: a value of another kind, a number that is none, a key that
is missing, unknown or there twice, text that is torn, foreign, a bomb. Nothing that would leave it a valid document is
done, so that a single accepted input is a finding.
"""

import gzip
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import strategies as st

__all__ = ["Shape", "hostile_json", "hostile_safetensors", "hostile_yaml"]

Path = tuple[str | int, ...]
Draw = Callable[[st.SearchStrategy[Any]], Any]

# Numbers that the format or every schema lacks; the words of JSON are plain texts in YAML.
NUMBERS = ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400, "9" * 5000)
YAML_NUMBERS = (".nan", "-.inf", "9" * 400, "9" * 5000, "0x" + "f" * 5000)
DEEP = ("[" * 60 + "]" * 60, "[" * 3000 + "]" * 3000, '{"a":' * 3000 + "1" + "}" * 3000)
OBJECTS = ('{"a": 1}', '{"__proto__": {}}', "[[1]]", '[{"a": []}]')
MARK = "@@hostile@@"


@dataclass(frozen=True)
class Shape:
    """What a fuzzer must know of a format beside a good document.

    Attributes:
        good: the document.
        free: keys of mappings whose keys and numbers of values are their writer's business.
        optional: keys that a document may lack.
        numbers: texts of numbers that no document may have.
        places: paths of all values.
    """

    good: Any
    free: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()
    numbers: tuple[str, ...] = NUMBERS
    places: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.places.extend(_places(self.good))

    def structural(self) -> list[Path]:
        """Mappings whose keys the schema fixes."""
        return [p for p in self.places if isinstance(_at(self.good, p), dict) and not self.free & set(map(str, p))]


def _places(value: Any, path: Path = ()) -> list[Path]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    below = [place for key, child in list(inner)[:40] for place in _places(child, (*path, key))]
    return [path, *below]


def _at(value: Any, path: Path) -> Any:
    for key in path:
        value = value[key]
    return value


def _with(value: Any, path: Path, new: Any) -> Any:
    """A copy with another value at a place; only what lies on the way is copied."""
    if not path:
        return new
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _with(value[path[0]], path[1:], new)
    return copy


def _text(tree: Any, raw: str) -> str:
    return json.dumps(tree, ensure_ascii=False).replace(f'"{MARK}"', raw, 1)


def _wrong_value(draw: Draw, shape: Shape) -> str:
    """Another kind of value at a random place."""
    path = draw(st.sampled_from(shape.places))
    old = _at(shape.good, path)
    if isinstance(old, dict):
        raw = draw(st.sampled_from(("[1]", '"x"', "7", "true", *DEEP, *shape.numbers)))
    elif isinstance(old, list) and not shape.free & set(map(str, path)):
        raw = draw(st.sampled_from(('{"a": 1}', '"x"', "7", "true", *DEEP, *shape.numbers)))
    else:
        raw = draw(st.sampled_from((*OBJECTS, *DEEP, *shape.numbers)))
    return _text(_with(shape.good, path, MARK), raw)


def _missing_key(draw: Draw, shape: Shape) -> str:
    path = draw(st.sampled_from(shape.structural()))
    table = _at(shape.good, path)
    keys = [key for key in table if key not in shape.optional]
    if not keys:
        return _unknown_key(draw, shape)
    gone = draw(st.sampled_from(keys))
    return json.dumps(_with(shape.good, path, {key: value for key, value in table.items() if key != gone}))


def _unknown_key(draw: Draw, shape: Shape) -> str:
    path = draw(st.sampled_from(shape.structural()))
    table = _at(shape.good, path)
    key = draw(
        st.one_of(st.sampled_from(("__class__", "..", "\u202ename", "na\u200bme", "", "NAME")), st.text(max_size=20))
    )
    new = key if key not in table and key not in shape.optional else key + "\u0000?"
    return json.dumps(_with(shape.good, path, table | {new: draw(st.sampled_from((None, 0, "x", [], {})))}))


def _key_twice(draw: Draw, shape: Shape) -> str:
    path = draw(
        st.sampled_from([p for p in shape.places if isinstance(_at(shape.good, p), dict) and _at(shape.good, p)])
    )
    table = _at(shape.good, path)
    key = draw(st.sampled_from(sorted(table)))
    pairs = [*table.items(), (key, draw(st.sampled_from((table[key], None, "x"))))]
    raw = "{" + ", ".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in pairs) + "}"
    return _text(_with(shape.good, path, MARK), raw) if path else raw


def _torn(draw: Draw, shape: Shape) -> bytes:
    text = json.dumps(shape.good, ensure_ascii=False).encode()
    return text[: draw(st.integers(0, len(text) - 1))]


def _foreign(draw: Draw, shape: Shape) -> bytes:
    text = json.dumps(shape.good).encode()
    position = draw(st.integers(1, len(text) - 2))
    choices = (
        lambda: text[:position] + b"\xff" + text[position:],
        lambda: text + b"{}",
        lambda: text + b"]",
        lambda: gzip.compress(text, 1),
        lambda: b"\x80\x04\x95" + text,
        lambda: b"PK\x03\x04" + text,
        lambda: text.decode().encode("utf-16")[2:],
        lambda: b"\0" * len(text),
        lambda: b"[" * 100_000,
        lambda: b'"' + b"a" * 100_000,
        lambda: b"7" * 100_000,
        lambda: b"",
    )
    return draw(st.sampled_from(choices))()


@st.composite
def hostile_json(draw: Draw, shape: Shape) -> bytes:
    """A JSON document that must be refused."""
    way = draw(st.sampled_from((_wrong_value, _wrong_value, _missing_key, _unknown_key, _key_twice, _torn, _foreign)))
    made = way(draw, shape)
    return made if isinstance(made, bytes) else made.encode("utf-8", "surrogatepass")


YAML_TRICKS = (
    '!!python/object/apply:os.system ["touch /tmp/attriboard-was-here"]',
    "!!python/name:os.system",
    "!<tag:yaml.org,2002:python/tuple> [1]",
    "&a [*a]",
    "&a {b: *a}",
    "*nobody",
    "!!binary =",
    "!!set {a, b}",
    "!!timestamp 2020-99-99",
    "2020-01-01",
    "{<<: {a: 1}}",
    "{[1, 2]: 3}",
    "{? {a: b} : c}",
    ".nan",
    "-.inf",
    "1:" * 2000 + "1",
    "0x" + "f" * 5000,
    "&x [&y [" + "*x, " * 50 + "*y]]",
    "|\n a: &b\n\t- c",
    "%YAML 9.9",
)
BOMB = "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" if level else "a0: &a0 [x, x, x, x]\n"
    for level in range(12)
)


@st.composite
def hostile_yaml(draw: Draw, shape: Shape) -> bytes:
    """A YAML document that must be refused: hostile JSON is some, and YAML has tricks of its own."""
    shape = replace(shape, numbers=YAML_NUMBERS, places=[])
    kind = draw(st.sampled_from(("json", "json", "trick", "bomb", "documents")))
    if kind == "json":
        return draw(hostile_json(shape))
    if kind == "bomb":
        return BOMB.encode() + json.dumps(shape.good).encode()[: draw(st.integers(0, 40))]
    if kind == "documents":
        return json.dumps(shape.good).encode() + draw(st.sampled_from((b"\n---\na: 1", b"\n...\n---\n{}", b"\n: x")))
    path = draw(st.sampled_from([place for place in shape.places if place and not shape.free & set(map(str, place))]))
    return _text(_with(shape.good, path, MARK), draw(st.sampled_from(YAML_TRICKS))).encode()


@dataclass(frozen=True)
class _Parts:
    """A good safetensors file, taken apart."""

    good: bytes
    card: Shape | None

    @property
    def length(self) -> int:
        """Bytes of the header."""
        return int(struct.unpack("<Q", self.good[:8])[0])

    @property
    def header(self) -> dict[str, Any]:
        """What it says."""
        header: dict[str, Any] = json.loads(self.good[8 : 8 + self.length])
        return header

    @property
    def body(self) -> bytes:
        """The tensors."""
        return self.good[8 + self.length :]

    @property
    def names(self) -> list[str]:
        """Of the tensors."""
        return [key for key in self.header if key != "__metadata__"]


def _other_length(draw: Draw, parts: _Parts) -> bytes:
    n = parts.length
    known = st.sampled_from((0, 1, 2**31, 2**31 - 1, 2**63, 2**64 - 1, n - 1, n + 1, n + 8))
    return struct.pack("<Q", draw(known | st.integers(0, 2**64 - 1).filter(lambda m: m != n))) + parts.good[8:]


def _other_header(draw: Draw, parts: _Parts) -> bytes:
    text = draw(hostile_json(Shape(parts.header, free=frozenset({"__metadata__"}))))
    return _file(b"[" if text.strip() in (b"", b"{}") else text, parts.body)


def _torn_file(draw: Draw, parts: _Parts) -> bytes:
    return parts.good[: draw(st.integers(0, len(parts.good) - 1))]


def _longer(draw: Draw, parts: _Parts) -> bytes:
    return parts.good + draw(st.binary(min_size=1, max_size=100))


def _other_tensor(draw: Draw, parts: _Parts) -> bytes:
    name = draw(st.sampled_from(parts.names))
    info = dict(parts.header[name])
    begin, end = info["data_offsets"]
    wrong: dict[str, tuple[Any, ...]] = {
        "dtype": ("I8", "BOOL", "F8_E4M3", "C64", "object", "", None, 7),
        "shape": ([], [0], [-1], [2**63], [2**32, 2**32], [1.5], ["1"], [*info["shape"], 2], None),
        "data_offsets": ([begin, end + 1], [begin + 1, end], [end, begin], [-1, end], [begin, 2**63], [begin], None),
    }
    key = draw(st.sampled_from(tuple(wrong)))
    info[key] = draw(st.sampled_from(wrong[key]))
    return _file(json.dumps(parts.header | {name: info}).encode(), parts.body)


def _tensor_twice(draw: Draw, parts: _Parts) -> bytes:
    name, inner = parts.names[0], json.dumps(parts.header)[1:]
    again = f"{{{json.dumps(name)}: {json.dumps(parts.header[name])}, {inner}"
    return _file(again.encode(), parts.body + parts.body[:1])


def _other_name(draw: Draw, parts: _Parts) -> bytes:
    old = draw(st.sampled_from(parts.names))
    names = ("../../x", "/etc/passwd", "a\u0000b", "\u202e" + old, old + " ", old.upper(), "", "__metadata__x")
    new = draw(st.sampled_from([name for name in names if name != old]))
    renamed = {(new if key == old else key): value for key, value in parts.header.items()}
    return _file(json.dumps(renamed).encode(), parts.body)


def _other_card(draw: Draw, parts: _Parts) -> bytes:
    assert parts.card is not None
    text = draw(hostile_json(parts.card)).decode("utf-8", "replace")
    metadata = parts.header["__metadata__"] | {"card": text}
    return _file(json.dumps(parts.header | {"__metadata__": metadata}).encode(), parts.body)


def _flipped_bits(draw: Draw, parts: _Parts) -> bytes:
    content = bytearray(parts.good)
    content[draw(st.integers(len(parts.good) - len(parts.body), len(content) - 1))] ^= draw(st.integers(1, 255))
    return bytes(content)


_WAYS = (_other_length, _other_header, _torn_file, _longer, _other_tensor, _tensor_twice, _other_name)
_WAYS_WITH_CARD = (*_WAYS, _other_card, _other_card, _flipped_bits)


@st.composite
def hostile_safetensors(draw: Draw, good: bytes, card: Shape | None) -> bytes:
    """A safetensors file that must be refused.

    Args:
        draw: of hypothesis.
        good: a good file.
        card: the shape of the JSON card in its metadata, which is made hostile too; `None` for a file without a card,
            whose tensors are not covered by a digest.
    """
    return draw(st.sampled_from(_WAYS_WITH_CARD if card else _WAYS))(draw, _Parts(good, card))


def _file(header: bytes, body: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + body
