"""Text: one prompt a line, or, separated by NUL, prompts that span lines."""

from __future__ import annotations

from collections.abc import Iterator

from stages.sources.lines import Line, LineSplitter
from stages.sources.parsed import Parsed, broken, too_long


class TextParser:
    """Every line is a prompt. Lines with nothing but white space are skipped and counted."""

    def __init__(self, name: str, limit: int, *, separator: bytes = b"\n") -> None:
        self._name = name
        self._limit = limit
        self._splitter = LineSplitter(limit, separator=separator)
        self.blank_lines = 0

    def feed(self, block: bytes) -> Iterator[Parsed]:
        return self._parse(self._splitter.feed(block))

    def finish(self) -> Iterator[Parsed]:
        return self._parse(self._splitter.finish())

    def _parse(self, lines: Iterator[Line]) -> Iterator[Parsed]:
        for line in lines:
            data = line.data
            if line.too_long:
                yield too_long(self._name, line.number, line.offset, data, self._limit)
            elif not data or data.isspace():
                self.blank_lines += 1
            elif b"\0" in data:
                yield self._broken(line, data.index(b"\0"), "a NUL byte; NUL separates prompts in the format nul")
            else:
                try:
                    text = data.decode()
                except UnicodeDecodeError as error:
                    at = error.start
                    yield self._broken(line, at, f"byte 0x{data[at]:02x} is not UTF-8")
                else:
                    yield Parsed(line.number, text)

    def _broken(self, line: Line, at: int, reason: str) -> Parsed:
        return broken(self._name, line.number, line.offset, line.data, reason, at=at)
