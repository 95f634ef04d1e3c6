"""Numbers in a file that is mapped into memory: what a process writes there is the system's at once, so it stays when
the process is killed. After a loss of power nothing is known of it."""

from __future__ import annotations

import mmap
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

from pipeline.durability.disk.own import open_own

_NUMBER: Final = "Q"
_BYTES: Final = 8


class Mapped:
    """`count` numbers, all 0, in a file that is made anew. Raises `JournalError` for a link, and `OSError` or
    `ValueError` where the system cannot keep them."""

    def __init__(self, path: Path, count: int) -> None:
        fd = open_own(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            os.posix_fallocate(fd, 0, _BYTES * count)  # a page that has no room on the disk would kill the process
            self._memory = mmap.mmap(fd, _BYTES * count)
        finally:
            os.close(fd)
        self._path = path
        self.numbers = memoryview(self._memory).cast(_NUMBER)

    @property
    def closed(self) -> bool:
        return self._memory.closed

    def close(self) -> None:
        """Take the file away: the process has ended by itself."""
        self.numbers.release()
        self._memory.close()
        with suppress(OSError):
            self._path.unlink()


def numbers_in(path: Path, count: int) -> tuple[int, ...] | None:
    """What the last process has left there; None if it has ended by itself, or what is there is no such file. Raises
    `JournalError` for a link."""
    try:
        with open(open_own(path, os.O_RDONLY), "rb") as file:
            data = file.read(_BYTES * count + 1)
    except OSError:
        return None
    return struct.unpack(f"={count}{_NUMBER}", data) if len(data) == _BYTES * count else None
