"""Rows of one table that are written by one statement: each statement lets go of the interpreter and waits to have it
back, which costs more than to write the row when the loop is busy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Final, TypeAlias

from pipeline.durability.disk.schema import SUMMED, Row, Value
from pipeline.durability.disk.sums import summed
from pipeline.durability.disk.text import bindable

Values: TypeAlias = "tuple[Value, ...]"

SIZES: Final = (32, 8, 1)  #: rows of a statement, the largest first; each size is compiled once for a table

#: the statements of each table for so many rows
_STATEMENTS: Final = {
    statement: {size: statement + f", {statement.rpartition('VALUES ')[2]}" * (size - 1) for size in SIZES}
    for statement in SUMMED
}


class Batches:
    """The rows of a transaction on their way to `write`, as the database takes them, each with its sum.

    The order within a table is kept, and what is not of the tables that grow with each call comes after all that came
    before it.
    """

    def __init__(self, write: Callable[[str, Sequence[Value]], object]) -> None:
        self._write = write
        self._waiting: dict[str, list[Values]] = {}

    def add(self, row: Row) -> None:
        """Write `row`, later perhaps. Its sum is added if that belongs to it."""
        if row.statement not in SUMMED:
            self.flush()
            self._write(row.statement, bindable(row.values))
            return
        waiting, values = self._waiting.setdefault(row.statement, []), bindable(row.values)
        waiting.append((*values, summed(values)))
        if len(waiting) == SIZES[0]:
            self._write_all(row.statement, waiting)

    def flush(self) -> None:
        """Write all that was added."""
        for statement, waiting in self._waiting.items():
            self._write_all(statement, waiting)

    def _write_all(self, statement: str, waiting: list[Values]) -> None:
        texts = _STATEMENTS[statement]
        for size in SIZES:
            while len(waiting) >= size:
                self._write(texts[size], tuple(chain.from_iterable(waiting[:size])))
                del waiting[:size]
