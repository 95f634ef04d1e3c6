"""Text that SQLite does not take: a lone surrogate, as in a file name that is not UTF-8, goes in as an escape.

The escape begins with a noncharacter, which no text is meant to have; one that has it all the same is escaped as well,
so what comes out is what went in.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from pipeline.durability.disk.schema import Value

_MARK: Final = "\ufdd0"
_ESCAPED: Final = re.compile(rf"[\ud800-\udfff{_MARK}]")
_ESCAPE: Final = re.compile(rf"{_MARK}([0-9a-f]{{4}})")


def bindable(values: Sequence[Value]) -> Sequence[Value]:
    """The same values, as SQLite takes them."""
    for value in values:
        if type(value) is str and not value.isascii() and _ESCAPED.search(value):
            return tuple(_escaped(value) if isinstance(value, str) else value for value in values)
    return values


def unbound(values: tuple[Value, ...]) -> tuple[Value, ...]:
    """What was bound to these values of a row."""
    if any(type(value) is str and _MARK in value for value in values):
        return tuple(_restored(value) if isinstance(value, str) else value for value in values)
    return values


def _escaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: f"{_MARK}{ord(found[0]):04x}", text)


def _restored(text: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text)
