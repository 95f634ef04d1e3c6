"""What the readers of all formats give: a value with its line, or a defect that says where it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from pipeline.core.errors import ItemError


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


def broken(
    name: str, line: int, offset: int, raw: bytes, reason: str, *, column: int | None = None, at: int = 0
) -> Parsed:
    """Return the record of a line that cannot be read. `offset` is where it starts, `at` the byte of it at fault."""
    place = f"{name}, line {line}" + (f", column {column}" if column else "") + f", byte {offset + at}"
    text = raw.decode("utf-8", "backslashreplace")
    return Parsed(line, text, ItemError(f"{place}: {reason}", type="InvalidInput"), raw)


def too_long(name: str, line: int, offset: int, raw: bytes, limit: int) -> Parsed:
    """Return the record of a line that is longer than `limit` bytes, of which only the start was kept."""
    return broken(name, line, offset, raw, f"the record is longer than {limit:,} bytes (max_record_bytes)")
