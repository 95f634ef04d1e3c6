"""A file is made anew of the journal: beside the old one, which it replaces when it is whole and on the disk."""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Final

from pipeline.core.exclusive import lock
from pipeline.durability.disk.reserve import final
from pipeline.durability.disk.store import Probe, sync_directory
from pipeline.durability.outputs.output import Line
from pipeline.durability.outputs.projection import FLAGS, Mark, Projection, tail_of

BLOCK: Final = 1 << 18  #: bytes copied, and packed, at a time


def rebuild(projection: Projection, lines: Iterable[Line], probe: Probe) -> Mark:
    """Write the file again, after what was there before the run. At no time is it neither the old nor the new one,
    and at no time can another run have it: the new one is locked before it has the name. Raises `OSError`."""
    path = Path(projection.path)
    fresh = path.with_name(f".{path.name}.new")
    base, number = projection.mark.base, 0
    try:
        with open(os.open(fresh, FLAGS | os.O_CREAT | os.O_TRUNC, projection.permissions), "r+b") as new:
            if path.exists():
                os.fchmod(new.fileno(), path.stat().st_mode & 0o777)
                with path.open("rb") as old:
                    _copy(old, new, base)
            probe("rebuild:write")
            number = _write(lines, new, packed=projection.packed)
            new.flush()
            probe("rebuild:written")
            with final():
                probe("rebuild:sync")
                os.fsync(new.fileno())
            size = new.tell()
            tail = tail_of(new.fileno(), size)
            lock(new.fileno(), str(path))
            probe("rebuild:rename")
            os.replace(fresh, path)
            projection.adopt(os.dup(new.fileno()))
        probe("rebuild:renamed")
        with final():
            sync_directory(path.parent)
    except OSError as error:
        error.filename = str(path)
        raise
    return projection.mark._replace(size=size, number=number, tail=tail)


def _write(lines: Iterable[Line], file: IO[bytes], *, packed: bool) -> int:
    number, held = 0, bytearray()
    for line in lines:
        number = line.number
        held += line.data
        if len(held) >= BLOCK:
            file.write(gzip.compress(bytes(held), mtime=0) if packed else held)
            held.clear()
    if held:
        file.write(gzip.compress(bytes(held), mtime=0) if packed else held)
    return number


def _copy(old: IO[bytes], new: IO[bytes], size: int) -> None:
    while size > 0 and (block := old.read(min(size, BLOCK))):
        new.write(block)
        size -= len(block)
