"""The codec is strict, exact, and agrees with the standard library wherever that is right."""

from __future__ import annotations

import enum
import json
import math
from collections import namedtuple
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from pipeline.core.codec import BadJson, NotJson, canonical, decode, encode, encode_line
from pipeline.core.state import Message


class Plan(BaseModel):
    steps: list[str]
    score: float = 0.5


class Colour(enum.Enum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Point:
    y: int
    x: int


Pair = namedtuple("Pair", "left right")

texts = st.text(st.characters())  # surrogates included
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=25)


@given(values)
def test_what_is_encoded_is_decoded_to_the_same_value(value: object) -> None:
    assert decode(encode(value)) == _without_split_pairs(value)


@given(values)
def test_one_line_of_json_never_holds_a_line_end(value: object) -> None:
    assert encode_line(value).index(b"\n") == len(encode_line(value)) - 1


@given(st.dictionaries(texts, values))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    assert canonical(dict(reversed(value.items()))) == canonical(value)


@given(st.binary(max_size=60) | st.text('[]{}",:0123456789.eE+-\\ud8ntrfals NaIy\n', max_size=60).map(str.encode))
def test_any_bytes_are_decoded_as_the_standard_library_does_or_are_located(data: bytes) -> None:
    try:
        value = decode(data)
    except BadJson as error:
        refusal = error
    else:
        assert value == json.loads(data.decode())
        return
    assert 0 <= refusal.offset <= len(data)
    assert 1 <= refusal.column <= len(data) + 1
    assert str(refusal) == f"column {refusal.column}: {refusal.reason}"


@pytest.mark.parametrize(
    ("value", "data"),
    [
        ({"b": 1, "a": 2}, b'{"b":1,"a":2}'),
        ("é😀", '"é😀"'.encode()),
        (2**64, b"18446744073709551616"),
        (-(2**63) - 1, b"-9223372036854775809"),
        ("a\ud800", b'"a\\ud800"'),
        ({"\udfff": ["\ud800", 1e16, True, None]}, b'{"\\udfff":["\\ud800",1e+16,true,null]}'),
        ((1, (2,)), b"[1,[2]]"),
        (Pair(1, [2]), b"[1,[2]]"),
        (MappingProxyType({"a": MappingProxyType({})}), b'{"a":{}}'),
        (Plan(steps=["x"]), b'{"steps":["x"],"score":0.5}'),
        (Point(1, 2), b'{"y":1,"x":2}'),
        (Message("user", "hi"), b'{"role":"user","content":"hi","name":null,"tool_calls":[],"tool_call_id":null}'),
        (Colour.RED, b'"red"'),
        ({1: "a"}, b'{"1":"a"}'),
        ({Colour.RED: 1, False: 2}, b'{"red":1,"false":2}'),
        (datetime(2026, 1, 2, 3, 4, 5), b'"2026-01-02T03:04:05"'),
        (UUID(int=1), b'"00000000-0000-0000-0000-000000000001"'),
        (range(3), b"[0,1,2]"),
    ],
)
def test_values_are_written_alike_on_the_fast_and_on_the_slow_path(value: object, data: bytes) -> None:
    assert encode(value) == data
    assert encode([value, 2**64]) == b"[" + data + b",18446744073709551616]"
    assert encode([None, value]) == b"[null," + data + b"]"


def cyclic() -> list[object]:
    value: list[object] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "the value: nan is not a JSON number"),
        ({"outputs": {"draft": [1, -math.inf]}}, "outputs.draft[1]: -inf is not a JSON number"),
        ({"plan": Plan(steps=[], score=math.nan)}, "plan.score: nan is not a JSON number"),
        ({"p": MappingProxyType({"q": (math.inf,)})}, "p.q[0]: inf is not a JSON number"),
        ({"a": {1, 2}}, "a: a set has no order and no JSON form; give a sorted list"),
        ([b"x"], "[0]: bytes has no JSON form; decode it to text first"),
        ([object()], "[0]: object has no JSON form; give text, numbers, lists or mappings"),
        ({"a": {(1, 2): 3}}, "a: a key is tuple (1, 2); JSON keys are text"),
        ({1: 1, "1": 2}, "the value: two keys are both written as '1'"),
        ([10**5000], "[0]: an integer has more digits than Python converts"),
        (cyclic(), "[0][0][0]: nested deeper than 254 (or it contains itself)"),
    ],
)
def test_a_value_without_a_json_form_is_refused_by_its_place(value: object, text: str) -> None:
    with pytest.raises(NotJson) as caught:
        encode(value)
    assert str(caught.value) == text
    with pytest.raises(NotJson):
        canonical(value)


@pytest.mark.parametrize(
    ("data", "column", "offset"),
    [
        (b"", 1, 0),
        (b"{", 2, 1),
        (b"NaN", 1, 0),
        (b"[1, Infinity]", 5, 4),
        (b"[1e999]", 2, 1),
        ('{"a":"é", x}'.encode(), 11, 11),
        (b'{"a":"\xff"}', 7, 6),
        (b"\xef\xbb\xbf1", 1, 0),
        (b'["\\ud800", x]', 12, 11),
        (b'["\\ud800", 1e999]', 12, 11),
        (b"[1, " + b"9" * 5000 + b"]", 5, 4),
        (b"[" * 255 + b"]" * 255, 255, 254),
        (b"[" * 100_000, 255, 254),
        (b'["' + b"\\[" * 300 + b'"]', 3, 2),
    ],
)
def test_what_is_not_json_is_refused_with_its_column_and_byte(data: bytes, column: int, offset: int) -> None:
    with pytest.raises(BadJson) as caught:
        decode(data)
    assert (caught.value.column, caught.value.offset) == (column, offset)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"18446744073709551616", 2**64),
        (b"1" + b"0" * 400, 10**400),
        (b'["\\ud800"]', ["\ud800"]),
        (b'{"a":1,"a":2}', {"a": 2}),
        (b" [1.0, -0.5e3]\r\n", [1.0, -500.0]),
        (b"[" * 254 + b"]" * 254, None),
        (b'"' + b"[" * 5000 + b'"', "[" * 5000),
        (b'["12345678901234567890"]', ["12345678901234567890"]),
    ],
)
def test_what_is_json_is_kept_exactly(data: bytes, value: object) -> None:
    assert value is None or decode(data) == value
    assert decode(encode(decode(data))) == decode(data)


def test_the_depth_limit_can_be_lower_than_what_can_be_written() -> None:
    assert decode(b"[[]]", max_depth=2) == [[]]
    with pytest.raises(BadJson, match="column 3: nested deeper than 2"):
        decode(b"[[[]]]", max_depth=2)


def _without_split_pairs(value: object) -> object:
    """Two halves of a pair that stand side by side become the character they spell; JSON cannot tell them apart."""
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        case list():
            return [_without_split_pairs(member) for member in value]
        case dict():
            return {_without_split_pairs(key): _without_split_pairs(member) for key, member in value.items()}
        case _:
            return value
