"""Whether a file is still what was written: compared with the lines in the journal, byte for byte, in bounded memory.

What is known to be on the disk is what was written. What is behind it is a beginning of the lines that come next, torn
by a crash maybe; anything else is somebody else's, and nobody cuts that off.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import chain
from typing import IO, Final

from pipeline.core.errors import JournalError
from pipeline.durability.outputs.output import Line
from pipeline.durability.outputs.projection import PACKED, Mark

BLOCK: Final = 1 << 18  #: bytes read at a time
_GZIP: Final = 31  #: what zlib calls a gzip header and the largest window


class Changed(JournalError):
    """A file is not what was written. Nothing was called."""

    def __init__(self, path: str, what: str, *, gone: bool = False) -> None:
        way = "writes it anew" if gone else f"keeps it as {path}.edited and writes it anew"
        super().__init__(f"{path}: {what}; nothing was called; --accept-changes (accept_changes=True) {way}")
        self.what = f"{path}: {what}"
        self.gone = gone


def compare(path: str, mark: Mark, lines: Iterable[Line], *, behind: bool = True) -> None:
    """Hold the file at `path` against the lines that it consists of, up to its mark, and unless it is said otherwise
    what is `behind` that too. Raises `Changed`."""
    stale = mark.is_stale  # it is the old one or a new one, and will be made anew
    if not os.path.lexists(path):
        if mark.base == 0 and (stale or mark.size == 0):
            return
        raise Changed(path, f"is gone, and {mark.size:,} bytes of it were written", gone=True)
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < (mark.base if stale else mark.size):
                raise Changed(path, f"is cut at byte {size:,}, {mark.size:,} bytes of it were written")
            _compare_before(path, file, mark)
            if stale:
                return
            _compare_lines(path, file, mark, _end(file, mark.size, size) if behind else mark.size, iter(lines))
    except OSError as error:
        raise JournalError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from None


def hash_of(blocks: Iterable[bytes]) -> bytes:
    """What the bytes that were there before a run are known by."""
    said = blake2b(digest_size=16)
    for block in blocks:
        said.update(block)
    return said.digest()


def _compare_before(path: str, file: IO[bytes], mark: Mark) -> None:
    if mark.base and hash_of(_blocks(file, mark.base)) != mark.before:
        raise Changed(path, f"was changed within its first {mark.base:,} bytes, which were there before the run")


def begins_as_before(path: str, mark: Mark) -> bool:
    """Whether the file still has what was there before the run. Raises `OSError`."""
    with open(path, "rb") as file:
        return hash_of(_blocks(file, mark.base)) == mark.before


def _compare_lines(path: str, file: IO[bytes], mark: Mark, end: int, lines: Iterator[Line]) -> None:
    next_ones: list[Line] = []

    def known() -> Iterator[bytes]:
        for line in lines:
            if line.number > mark.number:
                next_ones.append(line)
                return
            yield line.data

    packed = path.endswith(PACKED)
    unit, at = ("unpacked byte", 0) if packed else ("byte", mark.base)

    def found(start: int, stop: int, *, torn: bool) -> Iterator[bytes]:
        return _unpacked(path, file, start, stop, torn=torn) if packed else _blocks(file, stop - start)

    file.seek(mark.base)
    at = _compare(path, found(mark.base, mark.size, torn=False), known(), unit, at)
    if end > mark.size:
        data = (line.data for line in chain(next_ones, lines))
        _compare(path, found(mark.size, end, torn=True), data, unit, at, torn=True)


def _end(file: IO[bytes], mark: int, size: int) -> int:
    """Where the file ends behind its mark, without the zeros that a file system leaves where a loss of power has
    taken what was written. No line ends with one."""
    while size > mark:
        start = max(mark, size - BLOCK)
        file.seek(start)
        block = file.read(size - start)
        kept = len(block.rstrip(b"\0"))
        if kept or not block:
            return start + kept
        size = start
    return mark


def _compare(
    path: str, found: Iterator[bytes], written: Iterable[bytes], unit: str, at: int, *, torn: bool = False
) -> int:
    """Compare, and return where that came to; what is found may end early if it may be `torn`."""
    pieces, rest = filter(None, found), memoryview(b"")
    for data in written:
        want = memoryview(data)
        while want:
            if not rest:
                rest = memoryview(next(pieces, b""))
            if not rest and torn:
                return at
            if not rest:
                raise _differs(path, unit, at)
            length = min(len(want), len(rest))
            if want[:length] != rest[:length] and not (torn and _has_holes(want[:length], rest[:length])):
                raise _differs(path, unit, at + _same(want[:length], rest[:length]))
            want, rest, at = want[length:], rest[length:], at + length
    if rest or next(pieces, b""):
        raise _differs(path, unit, at)
    return at


def _has_holes(want: memoryview, found: memoryview) -> bool:
    """Whether what is found is what was written, but for zeros that a loss of power has left in its place."""
    return 0 in found and all(byte in (0, due) for byte, due in zip(found, want, strict=True))


def _differs(path: str, unit: str, at: int) -> Changed:
    return Changed(path, f"was changed: {unit} {at:,} is not what was written")


def _same(one: memoryview, other: memoryview) -> int:
    """How many bytes two texts begin with alike; they are not equal."""
    low, high = 0, len(one)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle)
    return low


def _blocks(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0 and (block := file.read(min(size, BLOCK))):
        size -= len(block)
        yield block


def _unpacked(path: str, file: IO[bytes], start: int, stop: int, *, torn: bool) -> Iterator[bytes]:
    """What the gzip members in a part of a file say, the last of them whole unless it may be `torn`. Raises `Changed`
    where they are none."""
    at, member, inside = start, zlib.decompressobj(_GZIP), False
    for rest in _blocks(file, stop - start):
        at += len(rest)
        more = True
        while more:
            try:
                piece = member.decompress(rest, BLOCK)
            except zlib.error:
                raise Changed(path, f"was changed: its compressed data is damaged before byte {at:,}") from None
            yield piece
            rest, inside = member.unconsumed_tail, not member.eof
            more = bool(rest) or len(piece) == BLOCK
            if member.eof:
                rest, member = member.unused_data, zlib.decompressobj(_GZIP)
                more = bool(rest)
    if inside and not torn:
        raise Changed(path, f"was changed: its compressed data does not end at byte {at:,}")
