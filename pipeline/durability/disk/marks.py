"""Which roots have code of the user's at work, in a file that outlives the process: whose code ran when it died.

After a loss of power nothing is known, and then no item is to blame. Only the loop's thread writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

from pipeline.durability.disk.mapped import Mapped, numbers_in

CELLS: Final = 4096  #: what is at work at once beyond that is not noted


class Left(NamedTuple):
    """What a process has left."""

    epoch: int  #: the run that it was
    roots: frozenset[int]  #: whose code was at work


class Marks:
    """The open file of one run. The first cell has its epoch, each of the others a root or nothing."""

    def __init__(self, path: Path, epoch: int) -> None:
        self._file = Mapped(path, CELLS)
        self._cells = self._file.numbers
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
        if cell and not self._file.closed:
            self._cells[cell] = 0
            self._free.append(cell)

    def pardon(self) -> None:
        """The end was asked for: if it comes by a kill, nobody is to blame."""
        if not self._file.closed:
            self._cells[0] = 0

    def close(self) -> None:
        """The run has ended by itself, so nobody is to blame."""
        self._file.close()


def left(path: Path) -> Left | None:
    """What the last process has left there; None if it has ended by itself, or what is there is no such file. Raises
    `JournalError` for a link."""
    found = numbers_in(path, CELLS)
    return Left(found[0], frozenset(found[1:]) - {0}) if found is not None and found[0] else None


def open_marks(path: Path, epoch: int) -> Marks | None:
    """The marks of run `epoch`; None where the system cannot keep any, and then nobody is ever blamed. Raises
    `JournalError` for a link."""
    try:
        return Marks(path, epoch)
    except (OSError, ValueError):
        return None
