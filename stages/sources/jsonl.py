"""JSON Lines: an object is a record's fields, a string is its prompt, and anything else is a defect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from pipeline.core.codec import BadJson, decode
from stages.sources.charset import BadByte
from stages.sources.lines import Line, LineSplitter
from stages.sources.parsed import Origin, Parsed
from stages.sources.repeats import repeated_key

#: Containers inside one another in a record of the input. Lower than what can be written, since records wrap it.
MAX_DEPTH = 200


class JsonlParser:
    """Every line is a JSON value. Lines with nothing but white space are skipped and counted.

    What changes: whether the format, if it is `guessed`, is still in doubt because no line has been JSON yet, and
    whether it was said already that of repeated keys the last one counts.
    """

    def __init__(self, origin: Origin, *, guessed: bool = False) -> None:
        self._origin = origin
        self._in_doubt = guessed
        self._look_for_repeats = origin.strict or origin.tell is not None
        self._splitter = LineSplitter(origin.limit)
        self.blank_lines = 0

    def feed(self, block: bytes) -> Iterator[Parsed]:
        return self._parse(self._splitter.feed(block))

    def finish(self) -> Iterator[Parsed]:
        return self._parse(self._splitter.finish())

    def _parse(self, lines: Iterator[Line]) -> Iterator[Parsed]:
        for line in lines:
            if line.too_long:
                yield self._origin.too_long(line.number, line.offset, line.data)
            elif not line.data or line.data.isspace():
                self.blank_lines += 1
            else:
                yield self._record(line)

    def _record(self, line: Line) -> Parsed:
        data = line.data
        try:
            if not self._origin.charset.is_utf8:
                data = self._origin.charset.text(data).encode()
            value = decode(data, max_depth=MAX_DEPTH)
        except BadByte as error:
            return self._origin.broken(line.number, line.offset, data, error.reason, at=error.at)
        except BadJson as error:
            reason = "a NUL byte" if data[error.offset : error.offset + 1] == b"\0" else error.reason
            doubt = "; if lines are prompts: --input-format text" if self._in_doubt else ""
            return self._broken(line, data, f"not JSON: {reason}{doubt}", error.offset)
        self._in_doubt = False
        if isinstance(value, dict):
            return self._fields(line, data, cast(dict[str, object], value))
        if isinstance(value, str):
            return Parsed(line.number, value)
        kind = "a list" if isinstance(value, list) else data.decode().strip()[:40]
        return self._broken(line, data, f"a record is an object or a string, not {kind}", 0)

    def _fields(self, line: Line, data: bytes, value: dict[str, object]) -> Parsed:
        repeated = repeated_key(data, value) if self._look_for_repeats else None
        if repeated is None:
            return Parsed(line.number, value)
        key, at = repeated
        defect = self._broken(line, data, f"the key {key!r:.60} comes twice in one object", at)
        if self._origin.strict or defect.defect is None or self._origin.tell is None:
            return defect
        self._look_for_repeats = False
        self._origin.tell(f"{defect.defect.message}; the last one counts (said once)")
        return Parsed(line.number, value)

    def _broken(self, line: Line, data: bytes, reason: str, at: int) -> Parsed:
        """Return a defect at a byte of `data`, which is the line in UTF-8; its place in the input is worked out."""
        before = data[:at].decode(errors="replace")
        size = at if self._origin.charset.is_utf8 else self._origin.charset.size(before)
        return self._origin.broken(line.number, line.offset, line.data, reason, column=len(before) + 1, at=size)
