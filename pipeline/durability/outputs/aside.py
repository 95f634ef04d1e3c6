"""What lies at the name of an output is kept under another one beside it, before a new file takes the name."""

from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from typing import IO, Final

from pipeline.durability.disk.reserve import final
from pipeline.durability.disk.store import Probe, sync_directory

EDITED: Final = ".edited"  #: what somebody has made of an output
OLD: Final = ".old"  #: an output with answers that are asked for again

_BLOCK: Final = 1 << 18


def keep(path: str, ending: str, probe: Probe) -> str:
    """Give the file at `path` a second name, and return that: its own with `ending`, and a number if there is such a
    file. Done twice it is the same name. The name is on the disk when this returns. Raises `OSError`."""
    probe("rebuild:keep")
    for number in count(1):
        name = f"{path}{ending}" if number == 1 else f"{path}{ending}.{number}"
        if _is_same(path, name) or _named(path, name):
            probe("rebuild:kept")
            with final():
                sync_directory(Path(path).parent)
            return name
    raise AssertionError("unreachable")


def _is_same(path: str, name: str) -> bool:
    """Whether it was done already, by a run that then died."""
    try:
        return os.path.samestat(os.lstat(path), os.lstat(name))
    except FileNotFoundError:
        return False


def _named(path: str, name: str) -> bool:
    try:
        os.link(path, name)
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        return _copied(path, name)
    return True


def _copied(path: str, name: str) -> bool:
    try:
        with open(path, "rb") as old, open(name, "xb") as new:
            _copy(old, new)
            new.flush()
            with final():
                os.fsync(new.fileno())
    except FileExistsError:
        return False
    return True


def _copy(old: IO[bytes], new: IO[bytes]) -> None:
    while block := old.read(_BLOCK):
        new.write(block)
