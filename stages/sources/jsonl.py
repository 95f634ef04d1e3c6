"""JSON Lines: an object is a record's fields, a string is its prompt, and anything else is a defect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from pipeline.core.codec import BadJson, decode
from stages.sources.lines import Line, LineSplitter
from stages.sources.parsed import Parsed, broken, too_long

#: Containers inside one another in a record of the input. Lower than what can be written, since records wrap it.
MAX_DEPTH = 200


class JsonlParser:
    """Every line is a JSON value. Lines with nothing but white space are skipped and counted.

    What changes: whether the format, if it is `guessed`, is still in doubt because no line has been JSON yet.
    """

    def __init__(self, name: str, limit: int, *, guessed: bool = False) -> None:
        self._name = name
        self._in_doubt = guessed
        self._limit = limit
        self._splitter = LineSplitter(limit)
        self.blank_lines = 0

    def feed(self, block: bytes) -> Iterator[Parsed]:
        return self._parse(self._splitter.feed(block))

    def finish(self) -> Iterator[Parsed]:
        return self._parse(self._splitter.finish())

    def _parse(self, lines: Iterator[Line]) -> Iterator[Parsed]:
        for line in lines:
            if line.too_long:
                yield too_long(self._name, line.number, line.offset, line.data, self._limit)
            elif not line.data or line.data.isspace():
                self.blank_lines += 1
            else:
                yield self._record(line)

    def _record(self, line: Line) -> Parsed:
        try:
            value = decode(line.data, max_depth=MAX_DEPTH)
        except BadJson as error:
            reason = "a NUL byte" if line.data[error.offset : error.offset + 1] == b"\0" else error.reason
            doubt = "; if lines are prompts: --input-format text" if self._in_doubt else ""
            return self._broken(line, f"not JSON: {reason}{doubt}", error.column, error.offset)
        self._in_doubt = False
        if isinstance(value, dict):
            return Parsed(line.number, cast(dict[str, object], value))
        if isinstance(value, str):
            return Parsed(line.number, value)
        kind = "a list" if isinstance(value, list) else line.data.decode().strip()[:40]
        return self._broken(line, f"a record is an object or a string, not {kind}", 1, 0)

    def _broken(self, line: Line, reason: str, column: int, at: int) -> Parsed:
        return broken(self._name, line.number, line.offset, line.data, reason, column=column, at=at)
