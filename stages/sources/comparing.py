"""Whether a file begins as it did when an earlier run read it."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from hashlib import blake2b

from pipeline.core.progress import Progress
from stages.sources.blocks import BLOCK
from stages.sources.files import STDIN
from stages.sources.unpacked import DIGEST
from stages.sources.unpacking import MAGIC


def difference(paths: Sequence[str], before: Progress, separator: bytes) -> str | None:
    """What has changed in one input of `paths`, in words; None if nothing, or if it has only grown. Blocks."""
    name = before.name
    if before.number >= len(paths) or paths[before.number] != name:
        now = f"it is {paths[before.number]} now" if before.number < len(paths) else "there are fewer now"
        return f"{name}: was input number {before.number + 1}, and {now}"
    if name == STDIN:
        return None  # it is proved as it comes
    try:
        with open(name, "rb", buffering=0) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                return f"{name}: was a file, and is none now"
            if found.st_size < before.read:
                return f"{name}: has {found.st_size:,} bytes, and {before.read:,} of it were read"
            return _compared(file.fileno(), found.st_size, before, separator)
    except OSError as error:
        return f"{name}: {(error.strerror or str(error)).lower()}"


def _compared(fd: int, size: int, before: Progress, separator: bytes) -> str | None:
    digest, left = blake2b(digest_size=DIGEST), before.read
    while left and (block := os.read(fd, min(BLOCK, left))):
        digest.update(block)
        left -= len(block)
    if digest.digest() != before.digest:
        return f"{before.name}: was changed in its first {before.read:,} bytes, which were read"
    if before.ended and size > before.read and _goes_on(fd, before.read, separator):
        return f"{before.name}: its last line was read without an end, and goes on now"
    return None


def _goes_on(fd: int, end: int, separator: bytes) -> bool:
    """Whether what was read at the end belongs to what comes after it; compressed files grow by whole members."""
    if not end or os.pread(fd, len(MAGIC), 0) == MAGIC:
        return False
    last = os.pread(fd, min(4, end), max(0, end - 4))
    if separator == b"\n" and b"\0" in last:  # of two or four bytes a character
        return separator not in last
    return separator not in (last[-1:], os.pread(fd, 1, end))
