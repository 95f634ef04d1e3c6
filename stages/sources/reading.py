"""One input, block by block, to parsed records; its format is known when its first line is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Literal

from stages.sources.blocks import BlockReader
from stages.sources.files import STDIN, open_path, parser_of, reading_failed, stdin_fd, title
from stages.sources.parsed import Parsed, Parser
from stages.sources.sniff import Format, first_line, format_of, is_guess, table_like


class OpenFile:
    """One input that is being read. What changes: the bytes before the format is known, then the parser.

    `tell` hears a sentence for people when the format that was guessed may be the wrong one.
    """

    def __init__(self, path: str, format: Format | Literal["auto"], limit: int, tell: Callable[[str], None]) -> None:
        self.path = path
        self._tell = tell
        self._format: Format | Literal["auto"] = format
        self._limit = limit
        self._fd = stdin_fd() if path == STDIN else open_path(path)
        self._reader = BlockReader(self._fd)
        self._head = b""
        self._parser: Parser | None = None
        self._ended = False

    @property
    def blank_lines(self) -> int:
        return self._parser.blank_lines if self._parser else 0

    async def next_block(self) -> tuple[Iterator[Parsed] | None, int]:
        """Return the records of the next block (None after the last) and its size. Raises `SourceError`."""
        if self._ended:
            return None, 0
        try:
            block = await self._reader.read()
        except OSError as error:
            raise reading_failed(self.path, error) from error
        self._ended = not block
        if self._parser is None:
            return self._begin(block), len(block)
        return self._parser.feed(block) if block else self._parser.finish(), len(block)

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
        format = format_of(title(self.path), line or b"", self._format)
        guessed = is_guess(title(self.path), self._format)
        table = table_like(line or b"") if guessed and format == "text" else None
        if table is not None:
            like = f"it looks like {table.upper()}, which --input-format {table} reads"
            self._tell(f"{title(self.path)}: read as text lines; {like}")
        head, self._head = self._head, b""
        self._parser = parser_of(self.path, format, self._limit, guessed=guessed)
        return self._fed(self._parser, head)

    def _fed(self, parser: Parser, head: bytes) -> Iterator[Parsed]:
        yield from parser.feed(head)
        if self._ended:
            yield from parser.finish()
