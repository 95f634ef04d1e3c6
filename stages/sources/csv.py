"""CSV and TSV: the first row names the fields, every other row is a record of text fields.

A record ends at a line end (LF, CRLF or CR) outside quotes, which is where the quotes so far are even in number; so
records are found without parsing, held up to the limit, and parsed whole.
"""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.core.errors import SourceError
from stages.sources.cells import BadCell, CellReader
from stages.sources.charset import BadByte
from stages.sources.lines import EXCERPT, Line, LineSplitter
from stages.sources.parsed import Origin, Parsed


class CsvParser:
    """Rows of cells under a header. What changes: the header once, and the lines of a record with a cell still open."""

    def __init__(self, origin: Origin, *, delimiter: str = ",") -> None:
        self._origin = origin
        self._cells = CellReader.of(delimiter)
        self._splitter = LineSplitter(origin.limit, cr_ends=True)
        self._header: list[str] | None = None
        self._start: tuple[int, int] | None = None  # line and offset of the record whose cell is open
        self._held = bytearray()
        self._end = b""  # what ended the last line held
        self._last = 0  # its number
        self._oversize = False
        self.blank_lines = 0

    def feed(self, block: bytes) -> Iterator[Parsed]:
        return self._parse(self._splitter.feed(block))

    def finish(self) -> Iterator[Parsed]:
        yield from self._parse(self._splitter.finish())
        if self._start is not None:
            reason = f"a quoted cell is opened in this record and never closed{self._reach()}"
            yield self._row(self._origin.broken(*self._start, bytes(self._held[:EXCERPT]), reason))

    def _parse(self, lines: Iterator[Line]) -> Iterator[Parsed]:
        for line in lines:
            odd = (line.quotes if line.too_long else line.data.count(b'"')) % 2 == 1
            if self._start is None and not odd and not line.too_long:
                if not line.data or line.data.isspace():
                    self.blank_lines += 1
                else:
                    yield from self._record(line.number, line.offset, line.data)
            elif self._start is None and odd and not line.too_long and not self._cells.leaves_open(line.data):
                # The odd quote cannot open a cell: the fault is this line's, and the next line starts a record.
                yield from self._record(line.number, line.offset, line.data)
            else:
                yield from self._go_on(line, odd)

    def _go_on(self, line: Line, odd: bool) -> Iterator[Parsed]:
        """Add a line to the open record, and yield the record if it ends there."""
        if self._start is None:
            self._start = line.number, line.offset
            ends = not odd
        else:
            self._held += self._end
            ends = odd
        self._held += line.data
        self._end, self._last = line.end, line.number
        self._oversize |= line.too_long or len(self._held) > self._origin.limit
        if self._oversize:
            del self._held[EXCERPT:]
        if ends:
            (number, offset), data = self._start, bytes(self._held)
            over = self._origin.too_long(number, offset, data, self._reach()) if self._oversize else None
            self._start, self._held, self._oversize = None, bytearray(), False
            if over is not None:
                yield self._row(over)
            else:
                yield from self._record(number, offset, data)

    def _reach(self) -> str:
        """Say how far the open record goes, since a quote too many can swallow every line after it."""
        if self._start is None or self._last == self._start[0]:
            return ""
        return f"; it goes on to line {self._last}, so a quote may be missing"

    def _record(self, number: int, offset: int, data: bytes) -> Iterator[Parsed]:
        cells = self._split(number, offset, data)
        if isinstance(cells, Parsed):
            yield self._row(cells)
        elif self._header is None:
            self._header = self._checked(cells)
        elif len(cells) != len(self._header):
            reason = f"the row has {len(cells)} cells, the header has {len(self._header)}"
            yield self._origin.broken(number, offset, data, reason)
        else:
            yield Parsed(number, dict(zip(self._header, cells, strict=True)))

    def _split(self, number: int, offset: int, data: bytes) -> list[str] | Parsed:
        origin = self._origin
        if b"\0" in data:
            return origin.broken(number, offset, data, "a NUL byte", at=data.index(b"\0"))
        try:
            text = origin.charset.text(data)
        except BadByte as error:
            return origin.broken(number, offset, data, error.reason, at=error.at)
        try:
            return self._cells.split(text)
        except BadCell as error:
            at = origin.charset.size(text[: error.position])
            return origin.broken(number, offset, data, error.reason, at=at)

    def _row(self, parsed: Parsed) -> Parsed:
        """Return a defective row, unless it is the header: without that no row can be read."""
        if self._header is None and parsed.defect:
            raise SourceError(f"{parsed.defect.message} (in the header, the first row, which names the fields)")
        return parsed

    def _checked(self, names: list[str]) -> list[str]:
        for position, name in enumerate(names):
            if not name.strip():
                raise SourceError(
                    f"{self._origin.name}: column {position + 1} has no name in the header (the first row)"
                )
            if name in names[:position]:
                first, second = names.index(name) + 1, position + 1
                raise SourceError(
                    f"{self._origin.name}: columns {first} and {second} of the header are both named {name!r}"
                )
        return names
