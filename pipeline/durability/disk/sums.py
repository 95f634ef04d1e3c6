"""The sum that each row of a journal has over its values."""

from __future__ import annotations

import marshal
from collections.abc import Iterable
from typing import Final
from zlib import crc32

from pipeline.durability.disk.schema import Value

_FORM: Final = 2  #: the one that has no references, which would tell more than the values


def summed(values: Iterable[Value]) -> int:
    """The sum of values as the database has them: in a column of floats a whole number is a float."""
    return crc32(marshal.dumps(tuple(values), _FORM))
