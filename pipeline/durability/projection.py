"""A file that is made of the lines in a journal: it can be cut back to what is known to be on the disk, and made up
from the journal byte for byte.

Everything here blocks and is called by the writer's thread. What is known to be on the disk is a `Mark`, which is
stored in the journal only after the file was synced.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

from pipeline.core.errors import JournalError

EVERY: Final = 1.0  #: seconds after which what was appended is synced
MUCH: Final = 1 << 20  #: bytes after which it is synced
TAIL: Final = 4096  #: bytes before the mark by which a file is known again


class Mark(NamedTuple):
    """How far a file is known to be on the disk."""

    size: int  #: bytes
    number: int  #: of the last line in it
    tail: bytes  #: hash of the last `TAIL` bytes


class Projection:
    """One open file. What can change: the file, the mark, and what was appended since."""

    def __init__(self, name: str, path: Path, fd: int, mark: Mark, probe: Callable[[str], object]) -> None:
        self.name = name
        self.path = path
        self.mark = mark
        self._fd = fd
        self._probe = probe
        self._size = mark.size
        self._number = mark.number
        self._synced_at = time.monotonic()

    def append(self, number: int, data: bytes) -> None:
        """Add a line, in the order of its number. Raises `OSError`."""
        self._probe(f"{self.name}:append")
        rest = memoryview(data)
        while rest:
            written = os.write(self._fd, rest)
            rest = rest[written:]
        self._size += len(data)
        self._number = number

    @property
    def due(self) -> bool:
        """Whether what was appended should be synced."""
        unsynced = self._size - self.mark.size
        return unsynced > 0 and (unsynced >= MUCH or time.monotonic() - self._synced_at >= EVERY)

    def sync(self) -> Mark:
        """Put what was appended on the disk. A failure is final: nobody knows what is there then."""
        if self._number != self.mark.number:
            self._probe(f"{self.name}:sync")
            os.fdatasync(self._fd)
            self.mark = Mark(self._size, self._number, tail_of(self._fd, self._size))
        self._synced_at = time.monotonic()
        return self.mark

    def close(self) -> None:
        os.close(self._fd)


def cut_back(path: Path, mark: Mark) -> int:
    """Open the file at `path` for appending, cut back to `mark`. Raises `JournalError` when it was changed."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    except FileNotFoundError:
        raise JournalError(f"{path}: is gone, and {mark.size} bytes of it were written") from None
    try:
        size = os.fstat(fd).st_size
        if size < mark.size:
            raise JournalError(f"{path}: has {size} bytes, {mark.size} were written: it was cut at byte {size}")
        if tail_of(fd, mark.size) != mark.tail:
            raise JournalError(f"{path}: was changed before byte {mark.size}")
        if size > mark.size:
            os.ftruncate(fd, mark.size)
    except BaseException:
        os.close(fd)
        raise
    return fd


def tail_of(fd: int, size: int) -> bytes:
    """The hash of the last bytes before `size`."""
    start = max(0, size - TAIL)
    return blake2b(os.pread(fd, size - start, start), digest_size=16).digest()
