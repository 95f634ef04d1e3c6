"""Room that is put aside on the disk: when that is full, it is given up, so that what was paid for can be written."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from pipeline.core.errors import WriteError
from pipeline.durability.disk.own import open_own
from pipeline.durability.disk.store import Probe

SIZE: Final = 4 << 20  #: bytes; answers of some thousand calls that are in flight at most
NAME: Final = "reserve"


class Reserve:
    """A file of `SIZE` bytes in the directory of a run. What can change: whether it is there."""

    def __init__(self, directory: Path, probe: Probe, size: int = SIZE) -> None:
        self.path = directory / NAME
        self.size = size
        self._probe = probe

    def take(self) -> None:
        """Put the room aside. Raises `WriteError` when there is not enough, `OSError` when the disk refuses,
        `JournalError` for a link."""
        free = free_bytes(self.path.parent)
        if self._there():
            return
        if free < 2 * self.size:
            raise WriteError(f"{self.path.parent}: {free:,} bytes are free on the disk, a run needs {2 * self.size:,}")
        fd = open_own(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            self._probe("reserve:write")
            os.posix_fallocate(fd, 0, self.size)
            if not self._there():  # a file system that only takes note
                _fill(fd, self.size)
        except OSError as error:
            error.filename = str(self.path)
            raise
        finally:
            os.close(fd)
        self._probe("reserve:taken")

    def _there(self) -> bool:
        try:
            found = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return found.st_size == self.size and found.st_blocks * 512 >= self.size

    def give(self) -> bool:
        """Give the room up; False if it was given before."""
        try:
            self._probe("reserve:remove")
            os.unlink(self.path)
        except FileNotFoundError:
            return False
        self._probe("reserve:removed")
        return True


def _fill(fd: int, size: int) -> None:
    """Write what a file system cannot make smaller."""
    rest = memoryview(os.urandom(size))
    while rest:
        rest = rest[os.write(fd, rest) :]
    with final():
        os.fsync(fd)


def free_bytes(directory: Path) -> int:
    """What a file in `directory` can have."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def is_full(error: OSError) -> bool:
    """Whether room would help."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def final() -> Generator[None]:
    """Around a sync: what it fails with is no lack of room, whatever it says, and must not be tried again."""
    try:
        yield
    except OSError as error:
        raise OSError(errno.EIO, error.strerror or str(error)) from error
