"""One run an output file: a lock of the operating system on the file itself, which dies with the process.

A file is locked for as long as its descriptor is open. An output of many files, of which only some are open at once,
has a lock file beside them in its place: `.{label}.jsonl.lock`. A file system without locks refuses nothing.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress

from pipeline.core.errors import OutputLocked
from pipeline.core.targets import Names

if sys.platform != "win32":
    import fcntl

_LOCK_FILE = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)


def open_alone(path: str, flags: int, mode: int = 0o644) -> int:
    """Open the file at `path`, which no other run has from now on until the descriptor is closed. It is emptied, if
    `flags` say so, only then. Raises `OutputLocked` when another run has it, `OSError`."""
    while True:
        fd = os.open(path, (flags & ~os.O_TRUNC) | getattr(os, "O_CLOEXEC", 0), mode)
        try:
            lock(fd, path)
            if _still_has_the_name(fd, path):
                if flags & os.O_TRUNC and stat.S_ISREG(os.fstat(fd).st_mode):
                    os.ftruncate(fd, 0)
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # a run has put a new file in its place, and has locked that


def lock(fd: int, path: str) -> None:
    """Lock a regular file that is open. Raises `OutputLocked` at once when another run has it."""
    if sys.platform == "win32" or not stat.S_ISREG(os.fstat(fd).st_mode):
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputLocked(path) from None
    except OSError:
        return


def lock_names(names: Names) -> tuple[int, str] | None:
    """Lock an output of several files: the descriptor of its lock file, and that one's path. None if there is nowhere
    to put it. Raises `OutputLocked` and `OSError`."""
    base = os.path.realpath(names.base)
    if not os.path.isdir(base):
        return None
    rest = names.path[len(names.base) :] if names.path.startswith(names.base) else names.path
    path = os.path.join(base, f".{rest.lstrip('/').replace('/', '%2F')}.lock")
    try:
        return open_alone(path, _LOCK_FILE), path
    except OutputLocked:
        raise OutputLocked(names.path) from None


def unlock_names(held: tuple[int, str] | None) -> None:
    """Give it back, and leave nothing of it."""
    if held is not None:
        with suppress(OSError):
            os.unlink(held[1])
        os.close(held[0])


def remove_if_empty(path: str) -> None:
    """Take a file away that has nothing in it, unless a run has it."""
    with suppress(OSError):
        fd = open_alone(path, os.O_RDWR)
        try:
            if os.fstat(fd).st_size == 0:
                os.unlink(path)
        finally:
            os.close(fd)


def _still_has_the_name(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
