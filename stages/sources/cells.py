"""One record of CSV to its cells, strictly: quotes stand around a whole cell, and doubled inside it, or it is refused.

Own code, because the standard reader keeps its size limit in a global of the process and its state after an error is
not defined; a record is handed over whole, so a regular expression is enough.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


class BadCell(Exception):
    """A record is not CSV. `position` counts characters from 0."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(reason)
        self.position = position
        self.reason = reason


@dataclass(frozen=True, slots=True)
class CellReader:
    """Cuts records at `delimiter`. `cell` and `opening` are made from it by `of`."""

    delimiter: str
    cell: re.Pattern[str]
    opening: re.Pattern[bytes]

    @classmethod
    def of(cls, delimiter: str) -> CellReader:
        quoted, unquoted = r'"((?:[^"]++|"")*+)"', rf'([^"{delimiter}]*+)'
        before = rf'(?:(?:"(?:[^"]++|"")*+"|[^"{delimiter}]*+){delimiter})*+'
        return cls(
            delimiter,
            re.compile(rf"(?:{quoted}|{unquoted})({delimiter}|\Z)"),
            re.compile(rf'{before}"(?:[^"]++|"")*+\Z'.encode()),
        )

    def leaves_open(self, line: bytes) -> bool:
        """Say whether a record that starts with `line`, which has an odd number of quotes, can go on after it."""
        return self.opening.match(line) is not None

    def split(self, record: str) -> list[str]:
        """Return the cells of one record, whose line end is gone. Raises `BadCell`."""
        if '"' not in record:
            return record.split(self.delimiter)
        cells: list[str] = []
        position = 0
        while True:
            found = self.cell.match(record, position)
            if found is None:
                raise _fault(record, position)
            quoted = found[1]
            cells.append(found[2] if quoted is None else quoted.replace('""', '"'))
            position = found.end()
            if not found[3]:
                return cells


def _fault(record: str, position: int) -> BadCell:
    start = record[position:]
    if start.startswith('"'):
        closing = re.match(r'"(?:[^"]++|"")*+"?', start)
        end = position + (closing.end() if closing else 0)
        return BadCell(min(end, len(record)), "text after the closing quote of a cell")
    return BadCell(
        record.index('"', position), 'a quote inside a cell without quotes; write "…" around the cell and "" inside it'
    )
