"""Which attempts have left the process, in a file that outlives it: what a kill has cost.

After a loss of power nothing is known, so the file says which start of the system it is of; of any other one nothing is
believed, and every attempt counts as one that has left. Each attempt has a cell, which it shares with those that began
thousands of attempts before and after. Only the loop's thread writes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pipeline.durability.disk.mapped import Mapped, numbers_in

CELLS: Final = 1 << 14
_HEAD: Final = 3  #: numbers before the cells: the run, and twice half of what names the start of the system
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class Departures:
    """The open file of run `epoch`, made anew. Raises `OSError` where the system cannot keep one, or says nothing of
    its starts."""

    def __init__(self, path: Path, epoch: int) -> None:
        start = _boot()
        self._file = Mapped(path, _HEAD + CELLS)
        self._numbers = self._file.numbers
        self._numbers[0], self._numbers[1], self._numbers[2] = epoch, *start

    def note(self, attempt: int) -> None:
        """It leaves."""
        if not self._file.closed:
            self._numbers[_HEAD + attempt % CELLS] = attempt

    def close(self) -> None:
        """The run has ended by itself, with nothing in flight."""
        self._file.close()


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
    found = numbers_in(path, _HEAD + CELLS)
    if found is None:
        return Departed()
    epoch, *start = found[:_HEAD]
    try:
        known = tuple(start) == _boot()
    except (OSError, ValueError):
        known = False
    return Departed(epoch, found[_HEAD:]) if known else Departed()


def open_departures(path: Path, epoch: int) -> Departures | None:
    """The file of run `epoch`; None where the system cannot keep one, and then every attempt counts as one that has
    left. Raises `JournalError` for a link."""
    try:
        return Departures(path, epoch)
    except (OSError, ValueError):
        return None


def _boot() -> tuple[int, int]:
    """What names this start of the system, as two numbers. Raises `OSError` where nothing does."""
    name = _BOOT.read_text("ascii").strip().replace("-", "")
    return int(name[:16], 16), int(name[16:], 16)
