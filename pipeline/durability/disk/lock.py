"""One runner a journal: a lock of the operating system on a file beside it, which dies with the process."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from pipeline.core.errors import JournalLocked
from pipeline.durability.disk.own import open_own


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Hold the lock for the length of the block. Raises `JournalLocked` at once when another process has it,
    `JournalError` if what is there is no file of the run's."""
    fd = _taken(path)
    try:
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _taken(path: Path) -> int:
    """The open file at `path`, locked: not one that was removed while we came."""
    while True:
        fd = open_own(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _has_its_name(fd, path):
                return fd
        except BaseException as error:
            holder = _holder(fd)
            os.close(fd)
            if isinstance(error, BlockingIOError):
                raise JournalLocked(f"{path.parent}: process {holder} runs with this journal; wait for it") from None
            raise
        os.close(fd)


def _has_its_name(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.lstat())
    except FileNotFoundError:
        return False


def _holder(fd: int) -> str:
    return os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "another"


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock, as far as the system tells without taking it. Raises `JournalError` if what is
    there is no file of the run's."""
    try:
        with open(open_own(path, os.O_RDONLY), "rb") as file:
            holder, number = file.read(32).split(), os.fstat(file.fileno()).st_ino
        with open("/proc/locks", encoding="ascii", errors="replace") as locks:
            # of the device only the kernel's number is told, which is not always that of the file
            held = [(fields[4], fields[5]) for line in locks if "FLOCK" in (fields := line.split())]
    except FileNotFoundError:
        return path.exists() and _cannot_be_taken(path)
    except OSError:
        return _cannot_be_taken(path)
    return any(place.endswith(f":{number}") and pid.encode() in holder for pid, place in held)


def _cannot_be_taken(path: Path) -> bool:
    """Where the system has no list of locks. Whoever begins just now is refused, which is why it is not the first
    choice."""
    fd = open_own(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
