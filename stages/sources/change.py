"""What became of a file while it was read: a copy of its state when it was opened, compared with the end."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import NamedTuple


class Change(NamedTuple):
    """What happened, in words for people, and whether what was read may be neither the old nor the new file."""

    text: str
    harmful: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A regular file when it was opened. `start` is where its reader began, which for stdin need not be 0."""

    fd: int
    start: int
    size: int
    changed: int  #: when it was last written, in nanoseconds

    @classmethod
    def of(cls, fd: int) -> Snapshot | None:
        """Return the state of an open file; None for pipes, terminals and devices, which have none."""
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return None
        return cls(fd, os.lseek(fd, 0, os.SEEK_CUR), found.st_size, found.st_mtime_ns)

    def change(self, taken: int, path: str | None) -> Change | None:
        """Return what is to be said after `taken` bytes were read to the end. `path` is None for stdin."""
        now = os.fstat(self.fd)
        end = self.start + taken
        if not self.size and not now.st_size:
            return None  # what the system makes up as it is read has no size
        if now.st_size < self.size or (end < self.size and now.st_mtime_ns != self.changed):
            least = min(now.st_size, end)
            return Change(f"shrank while it was read, from {self.size:,} to {least:,} bytes", harmful=True)
        if now.st_size > self.size:
            left = f"; what came after byte {end:,} was not read" if end < now.st_size else ""
            said = f"grew while it was read, from {self.size:,} to {now.st_size:,} bytes{left}"
            return Change(said, harmful=False)
        if now.st_mtime_ns != self.changed:
            return Change("was written to while it was read", harmful=True)
        return _gone(path, now) if path is not None else None


def _gone(path: str, opened: os.stat_result) -> Change | None:
    try:
        if os.path.samestat(os.stat(path), opened):
            return None
    except OSError:
        return Change("was deleted while it was read; it was read to its end all the same", harmful=False)
    return Change("was replaced while it was read; what was read is the file before", harmful=False)
