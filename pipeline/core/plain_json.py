"""JSON for what the fast codec refuses, written and read exactly; a few times slower, and it names the place.

The fast codec knows neither integers beyond 64 bits nor lone surrogates, and of a value without a JSON form it says
only that there is one somewhere. Both directions here go through the standard library and keep or name each of these.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time
from enum import Enum
from numbers import Integral, Rational, Real
from typing import NoReturn, cast
from uuid import UUID

MAX_DEPTH = 254  #: containers inside one another that can be written


class Unwritable(Exception):
    """A value has no JSON form; `path` says where it is."""

    def __init__(self, path: tuple[str | int, ...], reason: str) -> None:
        super().__init__(reason)
        self.path = path
        self.reason = reason


def plain(value: object) -> object:
    """Return a container or a scalar one step nearer to JSON; raise `TypeError` if there is no obvious one.

    Sets are refused because their order changes from run to run, bytes because no encoding is the obvious one.
    """
    dump = getattr(value, "model_dump", None)
    if dump is not None and not isinstance(value, type):
        return cast(object, dump(mode="json"))
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: cast(object, getattr(value, f.name)) for f in fields(value) if not f.name.startswith("_")}
    if isinstance(value, (Mapping, Sequence, Set)):
        return _container(cast("Mapping[object, object] | Sequence[object] | Set[object]", value))
    return _scalar(cast(object, value))


def _container(value: Mapping[object, object] | Sequence[object] | Set[object]) -> object:
    match value:
        case Mapping():
            return dict(value)
        case bytes() | bytearray() | memoryview():
            raise TypeError(f"{type(value).__name__} has no JSON form; decode it to text first")
        case Sequence():
            return list(value)
        case _:
            raise TypeError("a set has no order and no JSON form; give a sorted list")


def _scalar(value: object) -> object:
    match value:
        case Enum():
            return cast(object, value.value)
        case Integral():
            return int(value)
        case Real() if not isinstance(value, Rational):
            return float(value)
        case datetime() | date() | time():
            return value.isoformat()
        case UUID():
            return str(value)
        case _:
            raise TypeError(f"{type(value).__qualname__} has no JSON form; give text, numbers, lists or mappings")


def write(value: object, *, sort_keys: bool = False) -> bytes:
    """Return `value` as compact JSON in UTF-8, lone surrogates as escapes, integers in full. Raises `Unwritable`."""
    pieces: list[str] = []
    _write(value, (), pieces, sort_keys)
    # Only lone surrogates cannot be encoded, and backslashreplace spells them just as JSON does: \udcff.
    return "".join(pieces).encode("utf-8", "backslashreplace")


def hides_nan(value: object) -> bool:
    """Say whether a NaN or an infinity is anywhere in a value that the fast codec wrote (it writes them as null)."""
    stack: list[Iterable[object]] = [(value,)]
    while stack:
        for member in stack.pop():
            kind = type(member)
            if kind in _LEAVES:
                continue
            if kind is dict:
                stack.append(cast(dict[str, object], member).values())
            elif kind is list or kind is tuple:
                stack.append(cast(Sequence[object], member))
            elif isinstance(member, float):
                if not math.isfinite(member):
                    return True
            elif not isinstance(member, (str, int)):
                stack.append((plain(member),))
    return False


_LEAVES = frozenset({str, int, bool, type(None)})


def _write(value: object, path: tuple[str | int, ...], out: list[str], sort_keys: bool) -> None:
    if isinstance(value, Enum):
        return _write(cast(object, value.value), path, out, sort_keys)
    match value:
        case None:
            out.append("null")
        case bool():
            out.append("true" if value else "false")
        case str():
            out.append(json.dumps(str(value), ensure_ascii=False))
        case int():
            out.append(_digits(value, path))
        case float():
            if not math.isfinite(value):
                raise Unwritable(path, f"{value} is not a JSON number")
            out.append(float.__repr__(value))
        case dict():
            _write_object(cast(dict[object, object], value), _deeper(path), out, sort_keys)
        case list() | tuple():
            _write_array(cast(Sequence[object], value), _deeper(path), out, sort_keys)
        case _:
            _write(_plain_at(value, path), path, out, sort_keys)
    return None


def _write_object(value: dict[object, object], path: tuple[str | int, ...], out: list[str], sort_keys: bool) -> None:
    members: dict[str, object] = {}
    for key, member in value.items():
        name = _key(key, path)
        if name in members:
            raise Unwritable(path, f"two keys are both written as {name!r}")
        members[name] = member
    separator = "{"
    for name in sorted(members) if sort_keys else members:
        out.append(f"{separator}{json.dumps(name, ensure_ascii=False)}:")
        _write(members[name], (*path, name), out, sort_keys)
        separator = ","
    out.append("}" if members else "{}")


def _write_array(value: Sequence[object], path: tuple[str | int, ...], out: list[str], sort_keys: bool) -> None:
    separator = "["
    for position, member in enumerate(value):
        out.append(separator)
        _write(member, (*path, position), out, sort_keys)
        separator = ","
    out.append("]" if value else "[]")


def _key(key: object, path: tuple[str | int, ...]) -> str:
    match key:
        case Enum():
            return _key(cast(object, key.value), path)
        case str():
            return str(key)
        case bool():
            return "true" if key else "false"
        case int():
            return _digits(key, path)
        case _:
            raise Unwritable(path, f"a key is {type(key).__name__} {key!r:.60}; JSON keys are text")


def _digits(value: int, path: tuple[str | int, ...]) -> str:
    try:
        return int.__repr__(value)
    except ValueError:  # the interpreter's own limit, 4300 digits unless it was raised
        raise Unwritable(path, "an integer has more digits than Python converts") from None


def _plain_at(value: object, path: tuple[str | int, ...]) -> object:
    try:
        return plain(value)
    except Exception as error:  # a model's own serializer may raise anything
        raise Unwritable(path, str(error)) from error


def _deeper(path: tuple[str | int, ...]) -> tuple[str | int, ...]:
    if len(path) >= MAX_DEPTH:
        raise Unwritable(path[:3], f"nested deeper than {MAX_DEPTH} (or it contains itself)")
    return path


class Unreadable(Exception):
    """A number cannot be held; `literal` is how it stands in the text."""

    def __init__(self, literal: str, reason: str) -> None:
        super().__init__(reason)
        self.literal = literal
        self.reason = reason


def read(text: str) -> object:
    """Return the value of a JSON text, integers exact and lone surrogates kept.

    Raises `json.JSONDecodeError`, or `Unreadable` for NaN, infinities and integers longer than Python converts.
    """
    return cast(object, _DECODER.decode(text))


def _read_int(literal: str) -> int:
    try:
        return int(literal)
    except ValueError:
        raise Unreadable(literal, f"an integer of {len(literal.lstrip('-')):,} digits") from None


def _read_float(literal: str) -> float:
    value = float(literal)
    if math.isinf(value):
        raise Unreadable(literal, "a number beyond the range of a double")
    return value


def _read_constant(literal: str) -> NoReturn:
    raise Unreadable(literal, f"{literal} is not JSON")


_DECODER = json.JSONDecoder(parse_int=_read_int, parse_float=_read_float, parse_constant=_read_constant)
