"""Whether a file is still what was written: compared with the lines in the journal, byte for byte, in bounded memory.

Only what is known to be on the disk is compared. What is behind it may be torn by a crash, and is made up again.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import IO, Final

from pipeline.core.errors import JournalError
from pipeline.durability.output import Line
from pipeline.durability.projection import PACKED, STALE, Mark

BLOCK: Final = 1 << 18  #: bytes read at a time
_GZIP: Final = 31  #: what zlib calls a gzip header and the largest window


class Changed(JournalError):
    """A file is not what was written. Nothing was called."""


def compare(path: str, mark: Mark, lines: Iterable[Line]) -> None:
    """Hold the file at `path`, up to its mark, against the lines that it consists of. Raises `Changed`."""
    stale = mark.number == STALE  # it is the old one or a new one, and will be made anew
    if not os.path.lexists(path):
        if mark.base == 0 and (stale or mark.size == 0):
            return
        raise Changed(f"{path}: is gone, and {mark.size:,} bytes of it were written; nothing was called")
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < (mark.base if stale else mark.size):
                raise Changed(
                    f"{path}: is cut at byte {size:,}, {mark.size:,} bytes of it were written; nothing was called"
                )
            _compare_before(path, file, mark)
            if stale:
                return
            data = (each.data for each in lines if each.number <= mark.number)
            if path.endswith(PACKED):
                _compare(path, _unpacked(path, file, mark), data, "unpacked byte")
            else:
                _compare(path, _blocks(file, mark.size - mark.base), data, "byte", mark.base)
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
        raise Changed(
            f"{path}: was changed within its first {mark.base:,} bytes, which were there before the run; "
            "nothing was called"
        )


def _compare(path: str, found: Iterator[bytes], written: Iterable[bytes], unit: str, at: int = 0) -> None:
    pieces, rest = filter(None, found), memoryview(b"")
    for data in written:
        want = memoryview(data)
        while want:
            if not rest:
                rest = memoryview(next(pieces, b""))
            if not rest:
                raise _differs(path, unit, at)
            length = min(len(want), len(rest))
            if want[:length] != rest[:length]:
                raise _differs(path, unit, at + _same(want[:length], rest[:length]))
            want, rest, at = want[length:], rest[length:], at + length
    if rest or next(pieces, b""):
        raise _differs(path, unit, at)


def _differs(path: str, unit: str, at: int) -> Changed:
    return Changed(f"{path}: was changed: {unit} {at:,} is not what was written; nothing was called")


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


def _unpacked(path: str, file: IO[bytes], mark: Mark) -> Iterator[bytes]:
    """What the gzip members in a file say. Raises `Changed` where they are none."""
    at, member, inside = mark.base, zlib.decompressobj(_GZIP), False
    for rest in _blocks(file, mark.size - mark.base):
        at += len(rest)
        more = True
        while more:
            try:
                piece = member.decompress(rest, BLOCK)
            except zlib.error:
                raise Changed(
                    f"{path}: was changed: its compressed data is damaged before byte {at:,}; nothing was called"
                ) from None
            yield piece
            rest, inside = member.unconsumed_tail, not member.eof
            more = bool(rest) or len(piece) == BLOCK
            if member.eof:
                rest, member = member.unused_data, zlib.decompressobj(_GZIP)
                more = bool(rest)
    if inside:
        raise Changed(f"{path}: was changed: its compressed data does not end at byte {at:,}; nothing was called")
