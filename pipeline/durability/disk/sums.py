"""The sum that each row of a journal has over its values."""

from __future__ import annotations

import marshal
from collections.abc import Sequence
from typing import Final
from zlib import crc32

from pipeline.durability.disk.schema import Value

_FORM: Final = 2  #: the one that has no references, which would tell more than the values


def summed(values: Sequence[Value]) -> int:
    """The sum of values as the database has them. A number is the same whether it came as a whole one or as a float."""
    same = list(values)
    if float in map(type, same):
        same = [int(value) if type(value) is float and value.is_integer() else value for value in same]
    return crc32(marshal.dumps(same, _FORM))
