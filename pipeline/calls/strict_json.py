"""JSON as a model or a server must write it: one value, no NaN, no key twice, no half a character.

The standard library's reader is used because it can refuse a key that comes twice; faster ones keep the last silently,
which would hide a confused answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NoReturn, cast

from pipeline.core.errors import PipelineError


class JSONError(PipelineError):
    """A text is not one JSON value; says where and why."""


def object_of(value: object) -> Mapping[str, object]:
    """Return `value` if it is a JSON object, else an empty one."""
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def read_json(text: str) -> object:
    """Return the value of `text`. Raises `JSONError`."""
    try:
        value: object = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except json.JSONDecodeError as error:
        raise JSONError(f"{error.msg} at line {error.lineno}, column {error.colno}") from error
    except (RecursionError, ValueError) as error:  # ValueError: a number of more digits than Python reads
        raise JSONError("it is nested too deeply" if isinstance(error, RecursionError) else str(error)) from error
    if "\\ud" in text or "\\uD" in text:  # an escape may be half a pair, which no file can hold
        _whole_characters(value)
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise JSONError(f"the key {twice!r} comes twice")
    return value


def _constant(text: str) -> NoReturn:
    raise JSONError(f"{text} is not JSON")


def _whole_characters(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise JSONError("an escape stands for half a character") from error
