"""Text: one prompt a line, or, separated by NUL, prompts that span lines."""

from __future__ import annotations

from collections.abc import Iterator

from stages.sources.charset import BadByte
from stages.sources.lines import Line, LineSplitter
from stages.sources.parsed import Origin, Parsed


class TextParser:
    """Every line is a prompt. Lines with nothing but white space are skipped and counted, unless they are kept."""

    def __init__(self, origin: Origin, *, separator: bytes = b"\n") -> None:
        self._origin = origin
        self._splitter = LineSplitter(origin.limit, separator=separator)
        self.blank_lines = 0

    def feed(self, block: bytes) -> Iterator[Parsed]:
        return self._parse(self._splitter.feed(block))

    def finish(self) -> Iterator[Parsed]:
        return self._parse(self._splitter.finish())

    def _parse(self, lines: Iterator[Line]) -> Iterator[Parsed]:
        origin = self._origin
        keep_empty, decode = origin.keep_empty, origin.charset.text
        for line in lines:
            data = line.data
            if line.too_long:
                yield origin.too_long(line.number, line.offset, data)
            elif not keep_empty and (not data or data.isspace()):
                self.blank_lines += 1
            elif b"\0" in data:
                yield self._broken(line, data.index(b"\0"), "a NUL byte; NUL separates prompts in the format nul")
            else:
                try:
                    text = decode(data)
                except BadByte as error:
                    yield self._broken(line, error.at, error.reason)
                else:
                    yield Parsed(line.number, text)

    def _broken(self, line: Line, at: int, reason: str) -> Parsed:
        return self._origin.broken(line.number, line.offset, line.data, reason, at=at)
