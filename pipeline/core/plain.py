"""Turns a value into plain data: text, numbers, booleans, None, lists, and mappings with text keys.

Templates and expressions only ever see plain data, so no method of an object of the application can be called from one.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import cast

_ATOMS = frozenset({str, int, float, bool, type(None)})


def plain(value: object) -> object:
    """Return `value` as plain data; what is no data at all becomes its text."""
    if type(value) in _ATOMS:
        return value
    dump = getattr(value, "model_dump", None)
    if dump is not None and not isinstance(value, type):  # a pydantic model, told without importing pydantic
        return cast(object, dump(mode="json"))
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, Mapping):
        return {_key(key): plain(item) for key, item in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in cast("list[object]", value)]
    if isinstance(value, AbstractSet):
        # Sorted, because the order of a set of texts differs from process to process.
        return sorted((plain(item) for item in cast("AbstractSet[object]", value)), key=repr)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    for atom in (str, int, float):
        if isinstance(value, atom):
            return atom(cast("str", value))
    return str(cast(object, value))


def _key(key: object) -> str:
    return key if type(key) is str else str(plain(key))
