"""One input, block by block, to parsed records; its format is known when its first line is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Literal

from pipeline.core.progress import Progress
from stages.sources.blocks import BlockReader
from stages.sources.change import Change, Snapshot
from stages.sources.files import STDIN, open_path, parser_of, stdin_fd, title
from stages.sources.parsed import Origin, Parsed, Parser
from stages.sources.sniff import Format, first_line, format_of, is_guess, table_like
from stages.sources.unpacked import Unpacked


class OpenFile:
    """One input that is being read. What changes: the bytes before the format is known, then the parser.

    `origin.tell` hears a sentence for people when the format that was guessed may be the wrong one.
    """

    def __init__(
        self, path: str, format: Format | Literal["auto"], origin: Origin, *, traced: bool = False, expected: int = -1
    ) -> None:
        self.path = path
        self._origin = origin
        self._format: Format | Literal["auto"] = format
        self._fd = stdin_fd() if path == STDIN else open_path(path)
        self._before = Snapshot.of(self._fd)
        traced = traced and (path == STDIN or self._before is not None)
        self._blocks = Unpacked(path, BlockReader(self._fd), traced=traced, expected=expected)
        self._head = b""
        self._parser: Parser | None = None
        self._ended = False

    @property
    def blank_lines(self) -> int:
        return self._parser.blank_lines if self._parser else 0

    @property
    def taken(self) -> int:
        """Bytes taken from the input."""
        return self._blocks.taken

    def progress(self, number: int) -> Progress | None:
        """How far it was read, as the input of this number; None if nobody asked, or it cannot be read again."""
        trace = self._blocks.trace
        return None if trace is None else Progress(number, self.path, self.taken, trace.digest(), self._ended)

    def reached(self) -> bytes | None:
        """The digest of the first `expected` bytes, once they were taken."""
        return self._blocks.reached

    async def next_block(self) -> Iterator[Parsed] | None:
        """Return the records of the next block, None after the last. Raises `SourceError`."""
        if self._ended:
            return None
        block = await self._blocks.read()
        self._ended = not block
        if self._parser is None:
            return self._begin(block)
        return self._parser.feed(block) if block else self._parser.finish()

    def change(self) -> Change | None:
        """Return what became of the file while it was read to its end; None if nothing, or if it has no state."""
        if self._before is None or not self._ended:
            return None
        return self._before.change(self._blocks.taken, None if self.path == STDIN else self.path)

    def close(self) -> None:
        """Close the file; stdin stays open, it is not ours."""
        if self.path != STDIN and self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def _begin(self, block: bytes) -> Iterator[Parsed]:
        """Hold the block until the first line is known, then choose the parser and give it all."""
        self._head += block
        separator = b"\0" if self._format == "nul" else b"\n"
        line = first_line(self._head if block else self._head + separator, separator)
        if line is None and block:
            return iter(())
        name = title(self.path)
        format = format_of(name, line or b"", self._format)
        guessed = is_guess(name, self._format)
        table = table_like(line or b"") if guessed and format == "text" else None
        if table is not None and self._origin.tell is not None:
            like = f"it looks like {table.upper()}, which --input-format {table} reads"
            self._origin.tell(f"{name}: read as text lines; {like}")
        head, self._head = self._head, b""
        self._parser = parser_of(self._origin, format, guessed=guessed)
        return self._fed(self._parser, head)

    def _fed(self, parser: Parser, head: bytes) -> Iterator[Parsed]:
        yield from parser.feed(head)
        if self._ended:
            yield from parser.finish()
