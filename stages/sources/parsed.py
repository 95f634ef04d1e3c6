"""What the readers of all formats share: the input they read, and a value with its line, or a located defect."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from pipeline.core.errors import ItemError
from stages.sources.charset import UTF8, Charset


class Parsed(NamedTuple):
    """One record as it was read: text, or fields; or, with a `defect`, the bytes that could not be read."""

    line: int
    value: str | dict[str, object]
    defect: ItemError | None = None
    raw: bytes = b""


class Parser(Protocol):
    """Turns the blocks of one input into records. Synchronous, and indifferent to where a block ends."""

    @property
    def blank_lines(self) -> int:
        """Lines skipped because nothing is on them."""
        ...

    def feed(self, block: bytes) -> Iterator[Parsed]:
        """Yield the records that end in `block`; exhaust it before feeding the next one. Raises `SourceError`."""
        ...

    def finish(self) -> Iterator[Parsed]:
        """Yield what is left when the input has ended."""
        ...


@dataclass(frozen=True, slots=True)
class Origin:
    """One input as its parser knows it: its name in messages, and the rules by which it is read.

    Of a record longer than `limit` bytes only the start is kept. `keep_empty` makes blank lines of text prompts.
    `strict` makes a defect of what is doubtful, which `tell` is told otherwise, in a sentence for people.
    """

    name: str
    limit: int
    charset: Charset = UTF8
    keep_empty: bool = False
    strict: bool = False
    tell: Callable[[str], None] | None = None

    def place(self, line: int, byte: int, column: int | None = None) -> str:
        """Say where something is; `byte` counts from the start of the input, unpacked if it is compressed."""
        return f"{self.name}, line {line}" + (f", column {column}" if column else "") + f", byte {byte}"

    def broken(
        self, line: int, offset: int, raw: bytes, reason: str, *, column: int | None = None, at: int = 0
    ) -> Parsed:
        """Return the record of a line that cannot be read: `offset` is where it starts, `at` its byte at fault."""
        message = f"{self.place(line, offset + at, column)}: {reason}"
        return Parsed(line, self.charset.excerpt(raw), ItemError(message, type="InvalidInput"), raw)

    def too_long(self, line: int, offset: int, raw: bytes, more: str = "") -> Parsed:
        """Return the record of a line that is longer than the limit, of which only the start was kept."""
        reason = f"the record is longer than {self.limit:,} bytes (max_record_bytes){more}"
        return self.broken(line, offset, raw, reason)
