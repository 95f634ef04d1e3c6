"""Server-sent events out of bytes, as the standard says and no further: pure, so that it can be cut at every byte."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

from pipeline.calls.answer import wrong
from pipeline.calls.errors import CallError

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
_BOM: Final = b"\xef\xbb\xbf"
_SLICE: Final = 1 << 16  #: bytes that are cut into lines at once; a line may take more memory than its bytes


class SentEvent(NamedTuple):
    """One event: its name, empty if it has none, and its data."""

    name: str
    data: str


class Decoder:
    """Makes events of the bytes of one stream, in whatever parts they come.

    Lines end with CRLF, LF or CR and nothing else: U+2028 is a character like another. Comments and unknown fields are
    passed over. What can change: the half line and the half event that came last, kept as bytes, so that they take no
    more memory than came. Raises `CallError`: `broken_stream` for bytes that are no UTF-8, `too_big` for a stream
    longer than `limit` bytes.
    """

    __slots__ = ("_after_cr", "_data", "_head", "_left", "_limit", "_name", "_started")

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit
        self._head = bytearray()  #: a line that has not ended
        self._after_cr = False  #: a LF that comes now belongs to the CR before it
        self._started = False
        self._name = ""
        self._data = bytearray()  #: the lines of an event's data, each with its end

    def feed(self, part: bytes) -> Iterator[SentEvent]:
        """Yield the events that are whole now, also those before a broken one. To be iterated to its end."""
        self._left -= len(part)
        if self._left < 0:
            raise CallError(
                f"the answer is longer than {self._limit:,} bytes", fault="fail", type="too_big", http_status=200
            )
        for start in range(0, len(part), _SLICE):
            for line in self._lines(part[start : start + _SLICE]):
                event = self._line(line)
                if event is not None:
                    yield event

    def end(self) -> str | None:
        """Return the data of an event that was begun and never ended; None when the stream ended between events."""
        rest = bytes(self._head)
        if rest:
            self._line(rest, "replace")  # it may end in the middle of a character
        if rest or self._data:
            return self._data[:-1].decode()
        return None

    def _lines(self, part: bytes) -> list[bytes]:
        """Return the lines that are whole with this part."""
        if self._after_cr:
            part = part.removeprefix(b"\n")
            self._after_cr = False
        if not part:
            return []
        self._after_cr = part.endswith(b"\r")
        lines = _LINE_END.split(part)
        rest = lines.pop()
        if lines and self._head:
            lines[0] = bytes(self._head) + lines[0]
            self._head.clear()
        self._head += rest
        return lines

    def _line(self, line: bytes, errors: str = "strict") -> SentEvent | None:
        if not self._started:
            self._started = True
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatched()
        if line.startswith(b":"):
            return None
        try:
            name, _, value = line.decode(errors=errors).partition(":")
        except UnicodeDecodeError as error:
            raise wrong(f"the stream is no UTF-8: {error.reason}", "broken_stream", "ambiguous") from error
        if name == "data":
            self._data += value.removeprefix(" ").encode() + b"\n"
        elif name == "event":
            self._name = value.removeprefix(" ")
        return None

    def _dispatched(self) -> SentEvent | None:
        name, data = self._name, self._data
        self._name = ""
        if not data:
            return None
        self._data = bytearray()
        return SentEvent(name, data[:-1].decode())
