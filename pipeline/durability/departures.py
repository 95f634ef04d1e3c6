"""Which attempts have left the process, in a file that outlives it: what a kill has cost.

A page of memory that is mapped from a file is the system's: what a process wrote there stays when it is killed. After a
loss of power it may not, so the file says which start of the system it is of; of any other one nothing is believed, and
every attempt counts as one that has left. Each attempt has a cell, which it shares with those that began thousands of
attempts before and after. Only the loop's thread writes.
"""

from __future__ import annotations

import mmap
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

from pipeline.durability.own import open_own

CELLS: Final = 1 << 14
_HEAD: Final = 3  #: numbers before the cells: the run, and twice half of what names the start of the system
_SIZE: Final = 8 * (_HEAD + CELLS)
_NUMBER: Final = "Q"
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class Departures:
    """The open file of run `epoch`, made anew. Raises `OSError` where the system cannot keep one, or says nothing of
    its starts."""

    def __init__(self, path: Path, epoch: int) -> None:
        boot = _boot()
        fd = open_own(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            os.posix_fallocate(fd, 0, _SIZE)  # a page that has no room on the disk would kill the process
            self._memory = mmap.mmap(fd, _SIZE)
        finally:
            os.close(fd)
        self._path = path
        self._numbers = memoryview(self._memory).cast(_NUMBER)
        self._numbers[0], self._numbers[1], self._numbers[2] = epoch, *boot

    def note(self, attempt: int) -> None:
        """It leaves."""
        if not self._memory.closed:
            self._numbers[_HEAD + attempt % CELLS] = attempt

    def close(self) -> None:
        """The run has ended by itself, with nothing in flight."""
        self._numbers.release()
        self._memory.close()
        with suppress(OSError):
            self._path.unlink()


class Departed:
    """What the last process has left there; what nobody knows has left."""

    def __init__(self, epoch: int | None = None, cells: tuple[int, ...] = ()) -> None:
        self._epoch = epoch
        self._cells = cells

    def may_have_left(self, attempt: int, epoch: int) -> bool:
        """Whether an attempt of run `epoch` may have. A cell that a later one has used says nothing of it."""
        return epoch != self._epoch or self._cells[attempt % CELLS] >= attempt


def departed(path: Path) -> Departed:
    """Read what is left. Raises `JournalError` for a link."""
    try:
        boot = _boot()
        with open(open_own(path, os.O_RDONLY), "rb") as file:
            data = file.read(_SIZE + 1)
    except OSError:
        return Departed()
    if len(data) != _SIZE:
        return Departed()
    epoch, first, second, *cells = struct.unpack(f"={_HEAD + CELLS}{_NUMBER}", data)
    return Departed(epoch, tuple(cells)) if (first, second) == boot else Departed()


def open_departures(path: Path, epoch: int) -> Departures | None:
    """The file of run `epoch`; None where the system cannot keep one, and then every attempt counts as one that has
    left. Raises `JournalError` for a link."""
    try:
        return Departures(path, epoch)
    except (OSError, ValueError):
        return None


def _boot() -> tuple[int, int]:
    """What names this start of the system, as two numbers. Raises `OSError` where nothing does."""
    name = bytes.fromhex(_BOOT.read_text("ascii").strip().replace("-", ""))
    first, second = struct.unpack(f"={2}{_NUMBER}", name)
    return first, second
