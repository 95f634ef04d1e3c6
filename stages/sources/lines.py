"""Blocks of bytes to lines, synchronously and with a limit: what a line is never depends on where a block ended.

Lines end with LF or CRLF and nothing else: `str.splitlines` would also split at characters that prompts contain. An
over-long line is dropped as it comes, so that no more than the limit and one block is ever held.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

BOM = b"\xef\xbb\xbf"

EXCERPT = 64  #: the most bytes kept of a line that is too long


class Line(NamedTuple):
    """One line without its end. Of a line that is `too_long`, `data` is the start."""

    number: int  #: from 1
    offset: int  #: of its first byte in the file
    data: bytes
    too_long: bool = False
    quotes: int = 0  #: `"` in a line that is too long, so that a reader of CSV knows where it is


class LineSplitter:
    """Cuts blocks into lines. What changes: the piece of a line held for the next block, and the position.

    A byte order mark at the very start belongs to no line. `separator` may be NUL, for records that hold line ends;
    `keep_cr` leaves a CR before the LF to the caller.
    """

    def __init__(self, limit: int, *, separator: bytes = b"\n", keep_cr: bool = False) -> None:
        self._limit = limit
        self._excerpt = min(EXCERPT, limit)  # never reaches a CR before the line end
        self._separator = separator
        self._strip_cr = separator == b"\n" and not keep_cr
        self._held: list[bytes] = []
        self._held_size = 0
        self._dropped_quotes = 0
        self._dropping = False
        self._number = 0
        self._offset = 0

    def feed(self, block: bytes) -> Iterator[Line]:
        """Yield the lines that end in `block`. Exhaust it before feeding the next one."""
        pieces = block.split(self._separator)
        last = pieces.pop()
        if not pieces:
            self._hold(last)
            return
        self._hold(pieces[0])
        yield self._close()
        limit, strip_cr = self._limit, self._strip_cr
        for data in pieces[1:]:
            self._number += 1
            offset = self._offset
            self._offset += len(data) + 1
            if strip_cr and data.endswith(b"\r"):
                data = data[:-1]
            yield Line(self._number, offset, data) if len(data) <= limit else self._judged(self._number, offset, data)
        self._hold(last)

    def finish(self) -> Iterator[Line]:
        """Yield the last line if the input did not end with a line end."""
        if self._held_size:
            yield self._close()

    def _hold(self, piece: bytes) -> None:
        if not piece:
            return
        self._held_size += len(piece)
        if self._dropping:
            self._dropped_quotes += piece.count(b'"')
            return
        self._held.append(piece)
        # The byte order mark and the CR are not counted, so the limit itself is judged when the line is complete.
        if self._held_size > self._limit + len(BOM) + 1:
            start = b"".join(self._held)
            self._dropping = True
            self._dropped_quotes = start.count(b'"')
            self._held = [start[: EXCERPT + len(BOM)]]

    def _close(self) -> Line:
        data = b"".join(self._held)
        number, offset = self._number + 1, self._offset
        size, dropped, quotes = self._held_size, self._dropping, self._dropped_quotes
        self._number, self._offset = number, offset + size + 1
        self._held, self._held_size, self._dropping, self._dropped_quotes = [], 0, False, 0
        if number == 1 and data.startswith(BOM):
            data, offset = data[len(BOM) :], offset + len(BOM)
        if dropped:
            return Line(number, offset, data[: self._excerpt], True, quotes)
        if self._strip_cr and data.endswith(b"\r"):
            data = data[:-1]
        return self._judged(number, offset, data)

    def _judged(self, number: int, offset: int, data: bytes) -> Line:
        size = len(data) if self._strip_cr else len(data.removesuffix(b"\r"))
        if size <= self._limit:
            return Line(number, offset, data)
        return Line(number, offset, data[: self._excerpt], True, data.count(b'"'))
