"""Blocks of bytes to lines, synchronously and with a limit: what a line is never depends on where a block ended.

Lines end with LF or CRLF and nothing else: `str.splitlines` would also split at characters that prompts contain. In
tables a CR alone ends a line too. An over-long line is dropped as it comes, so that no more than the limit and one
block is ever held.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

BOM = b"\xef\xbb\xbf"

EXCERPT = 64  #: the most bytes kept of a line that is too long

_END = re.compile(rb"\r\n|\r|\n")


class Line(NamedTuple):
    """One line without its end. Of a line that is `too_long`, `data` is the start."""

    number: int  #: from 1
    offset: int  #: of its first byte in the file
    data: bytes
    too_long: bool = False
    quotes: int = 0  #: `"` in a line that is too long, so that a reader of CSV knows where it is
    end: bytes = b"\n"  #: what ended it, where that can differ


class LineSplitter:
    """Cuts blocks into lines. What changes: the piece of a line held for the next block, and the position.

    A byte order mark at the very start belongs to no line. `separator` may be NUL, for records that hold line ends;
    with `cr_ends` a line ends at LF, CRLF or CR, and says at which.
    """

    def __init__(self, limit: int, *, separator: bytes = b"\n", cr_ends: bool = False) -> None:
        self._limit = limit
        self._excerpt = min(EXCERPT, limit)  # never reaches a CR before the line end
        self._separator = separator
        self._strip_cr = separator == b"\n" and not cr_ends
        self._cr_ends = cr_ends
        self._cr = False  # the block before ended with a CR, which the next one may make a CRLF
        self._held: list[bytes] = []
        self._held_size = 0
        self._dropped_quotes = 0
        self._dropping = False
        self._number = 0
        self._offset = 0

    def feed(self, block: bytes) -> Iterator[Line]:
        """Yield the lines that end in `block`. Exhaust it before feeding the next one."""
        if self._cr_ends and (self._cr or b"\r" in block):
            yield from self._feed_ends(block)
            return
        pieces = block.split(self._separator)
        last = pieces.pop()
        if not pieces:
            self._hold(last)
            return
        self._hold(pieces[0])
        yield self._close(self._separator)
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
        if self._cr:
            self._cr = False
            yield self._close(b"\r")
        elif self._held_size:
            yield self._close(b"")

    def _feed_ends(self, block: bytes) -> Iterator[Line]:
        if self._cr:
            block, self._cr = b"\r" + block, False
        at = 0
        for found in _END.finditer(block):
            self._hold(block[at : found.start()])
            at = found.end()
            if found[0] == b"\r" and at == len(block):
                self._cr = True
                return
            yield self._close(found[0])
        self._hold(block[at:])

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

    def _close(self, end: bytes) -> Line:
        data = b"".join(self._held)
        number, offset = self._number + 1, self._offset
        size, dropped, quotes = self._held_size, self._dropping, self._dropped_quotes
        self._number, self._offset = number, offset + size + len(end)
        self._held, self._held_size, self._dropping, self._dropped_quotes = [], 0, False, 0
        if number == 1 and data.startswith(BOM):
            data, offset = data[len(BOM) :], offset + len(BOM)
        if dropped:
            return Line(number, offset, data[: self._excerpt], True, quotes, end)
        if self._strip_cr and data.endswith(b"\r"):
            data = data[:-1]
        return self._judged(number, offset, data, end)

    def _judged(self, number: int, offset: int, data: bytes, end: bytes = b"\n") -> Line:
        if len(data) <= self._limit:
            return Line(number, offset, data, end=end)
        return Line(number, offset, data[: self._excerpt], True, data.count(b'"'), end)
