"""Values to JSON bytes and back: strict, exact, and as fast as orjson whenever orjson is exact.

The only door of orjson. The fast path is one call; what it refuses (integers beyond 64 bits, lone surrogates, odd keys)
is done again by `plain_json`, and what it silently changes (NaN to null, long integers to floats) is looked for, with a
test that costs nothing for the usual record.
"""

from __future__ import annotations

import json
import re
from typing import cast

import orjson

from pipeline.core import plain_json
from pipeline.core.errors import ItemError
from pipeline.core.plain_json import MAX_DEPTH, Unreadable, Unwritable, hides_nan, plain


class NotJson(ItemError):
    """A value has no JSON form. `path` says where in it, such as `outputs.draft[3]`; empty for the value itself."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path or 'the value'}: {reason}")
        self.path = path
        self.reason = reason


class BadJson(ItemError):
    """Bytes are not JSON. `column` counts characters from 1, `offset` counts bytes from 0."""

    def __init__(self, reason: str, column: int, offset: int) -> None:
        super().__init__(f"column {column}: {reason}")
        self.reason = reason
        self.column = column
        self.offset = offset


def encode(value: object) -> bytes:
    """Return `value` as compact JSON in UTF-8, keys in the order they have.

    Takes what JSON has, and pydantic models, dataclasses, mappings, sequences, enums, dates and UUIDs. Integers are
    written in full, lone surrogates as escapes. Raises `NotJson` for NaN, infinities, sets, bytes and strange objects.
    """
    try:
        data = orjson.dumps(value, plain)
    except orjson.JSONEncodeError:
        return _encode_slowly(value, sort_keys=False)
    if b"null" in data and hides_nan(value):
        return _encode_slowly(value, sort_keys=False)
    return data


def encode_line(value: object) -> bytes:
    """Return `value` as one line of JSON Lines, its line end included. Raises `NotJson`."""
    return encode(value) + b"\n"


def canonical(value: object) -> bytes:
    """Return the JSON of `value` with sorted keys, equal for equal values: hashes are made of it. Raises `NotJson`."""
    try:
        data = orjson.dumps(value, plain, orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS)
    except orjson.JSONEncodeError:
        return _encode_slowly(value, sort_keys=True)
    if b"null" in data and hides_nan(value):
        return _encode_slowly(value, sort_keys=True)
    return data


def decode(data: bytes, *, max_depth: int = MAX_DEPTH) -> object:
    """Return the value of one JSON document: dict, list, str, int, float, bool or None.

    Integers are exact whatever their size; lone surrogate escapes are kept; of repeated keys the last one counts.
    Raises `BadJson` for anything that is not JSON (NaN, Infinity, invalid UTF-8, a byte order mark), for numbers that
    become infinite, for integers longer than Python converts, and for nesting deeper than `max_depth`.
    """
    if data.count(b"[") + data.count(b"{") > max_depth:
        _check_depth(data, max_depth)
    # orjson reads integers beyond 64 bits as floats, or refuses them; only a run of 19 digits can be one.
    long_integer = _NINETEEN_DIGITS in data.translate(_DIGITS_TO_ZERO)
    try:
        value = cast(object, orjson.loads(data))
    except orjson.JSONDecodeError as error:
        if not long_integer and _SURROGATE_ESCAPE.search(data) is None:
            raise _bad(error.msg, _text_of(data), error.pos) from None
        return _decode_slowly(data)
    return _decode_slowly(data) if long_integer else value


_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_NINETEEN_DIGITS = b"0" * 19
_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"0" * 9)
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{}]', re.DOTALL)


def _encode_slowly(value: object, *, sort_keys: bool) -> bytes:
    try:
        return plain_json.write(value, sort_keys=sort_keys)
    except Unwritable as error:
        raise NotJson(path_text(error.path), error.reason) from error


def path_text(path: tuple[str | int, ...]) -> str:
    """Spell a place inside a value the way people write it: `messages[1].content`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def _decode_slowly(data: bytes) -> object:
    text = _text_of(data)
    try:
        return plain_json.read(text)
    except json.JSONDecodeError as error:
        raise _bad(error.msg, text, error.pos) from None
    except Unreadable as error:
        raise _bad(error.reason, text, text.find(error.literal)) from None


def _bad(reason: str, text: str, position: int) -> BadJson:
    return BadJson(reason, position + 1, len(text[:position].encode()))


def _text_of(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        column = len(data[: error.start].decode()) + 1
        raise BadJson(f"byte 0x{data[error.start]:02x} is not UTF-8", column, error.start) from None


def _check_depth(data: bytes, max_depth: int) -> None:
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(data):
        if token[0] in (b"[", b"{"):
            depth += 1
            if depth > max_depth:
                before = data[: token.start()].decode(errors="replace")
                raise BadJson(f"nested deeper than {max_depth}", len(before) + 1, token.start())
        elif token[0] in (b"]", b"}"):
            depth -= 1
