"""Which roots have code of the user's at work, in a file that outlives the process: whose code ran when it died.

A page of memory that is mapped from a file is the system's: what a process wrote there stays when it is killed. After a
loss of power nothing is known, and then no item is to blame. Only the loop's thread writes.
"""

from __future__ import annotations

import mmap
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from pipeline.durability.own import open_own

CELLS: Final = 4096  #: what is at work at once beyond that is not noted
_SIZE: Final = 8 * CELLS
_NUMBER: Final = "Q"


class Left(NamedTuple):
    """What a process has left."""

    epoch: int  #: the run that it was
    roots: frozenset[int]  #: whose code was at work


class Marks:
    """The open file of one run. The first cell has its epoch, each of the others a root or nothing."""

    def __init__(self, path: Path, epoch: int) -> None:
        fd = open_own(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            os.posix_fallocate(fd, 0, _SIZE)  # a page that has no room on the disk would kill the process
            self._memory = mmap.mmap(fd, _SIZE)
        finally:
            os.close(fd)
        self._path = path
        self._cells = memoryview(self._memory).cast(_NUMBER)
        self._cells[0] = epoch
        self._free = list(range(CELLS - 1, 0, -1))

    def enter(self, root: int) -> int:
        """Note that code works on `root`; what is returned is for `leave`, 0 if there was no room."""
        if not self._free:
            return 0
        cell = self._free.pop()
        self._cells[cell] = root
        return cell

    def leave(self, cell: int) -> None:
        if cell and self._memory.closed is False:
            self._cells[cell] = 0
            self._free.append(cell)

    def pardon(self) -> None:
        """The end was asked for: if it comes by a kill, nobody is to blame."""
        if self._memory.closed is False:
            self._cells[0] = 0

    def close(self) -> None:
        """The run has ended by itself, so nobody is to blame."""
        self._cells.release()
        self._memory.close()
        with suppress(OSError):
            self._path.unlink()


def left(path: Path) -> Left | None:
    """What the last process has left there; None if it has ended by itself, or what is there is no such file. Raises
    `JournalError` for a link."""
    try:
        with open(open_own(path, os.O_RDONLY), "rb") as file:
            data = file.read(_SIZE + 1)
    except OSError:
        return None
    if len(data) != _SIZE:
        return None
    epoch, *roots = struct.unpack(f"={CELLS}{_NUMBER}", data)
    return Left(epoch, frozenset(roots) - {0}) if epoch else None


def open_marks(path: Path, epoch: int) -> Marks | None:
    """The marks of run `epoch`; None where the system cannot keep any, and then nobody is ever blamed. Raises
    `JournalError` for a link."""
    try:
        return Marks(path, epoch)
    except (OSError, ValueError):
        return None
