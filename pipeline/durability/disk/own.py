"""Files that are a run's own: regular files in its directory. A link there could lead what is written anywhere, so it
is refused and not followed."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

from pipeline.core.errors import JournalError

PRIVATE: Final = 0o600  #: who may read and write them

_SAFE: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  #: no waiting for the other end of what is a pipe
_NO_FILE: Final = (errno.ELOOP, errno.ENXIO, errno.EMLINK)


def open_own(path: Path, flags: int) -> int:
    """Open a file of the run's. Raises `JournalError` if it is no regular file, `OSError` if it cannot be opened."""
    try:
        fd = os.open(path, flags | _SAFE, PRIVATE)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise _no_file(path) from None
        raise
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise _no_file(path)


def refuse_others(*paths: Path) -> None:
    """Raise `JournalError` if anything but a regular file is at one of `paths`; for what opens them by itself."""
    for path in paths:
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISREG(found.st_mode):
            raise _no_file(path)


def _no_file(path: Path) -> JournalError:
    what = "a link" if path.is_symlink() else "no regular file"
    return JournalError(f"{path}: is {what}; the files of a run are its own: remove it, if the directory is yours")
