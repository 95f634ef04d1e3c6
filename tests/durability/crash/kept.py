"""What a journal holds at one moment, read from a copy, so that looking at it changes nothing."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

DATABASE = "journal.db"

Call = tuple[str, tuple[str, ...], int]


class Attempt(NamedTuple):
    """One row, with the name that the server's ledger has for it."""

    call: Call
    number: int
    epoch: int
    state: str


@dataclass(frozen=True)
class Kept:
    """Empty for a run that was killed before it had a journal."""

    sound: str = "ok"
    roots: tuple[str, ...] = ()
    facts: frozenset[tuple[str, Call]] = frozenset()
    attempts: tuple[Attempt, ...] = ()
    lines: tuple[bytes, ...] = ()
    ids: tuple[str, ...] = ()  #: of the lines
    settled: tuple[str, ...] = field(default=())  #: how the roots ended, in their order

    @property
    def output(self) -> bytes:
        return b"".join(self.lines)

    def done(self, kind: str) -> frozenset[Call]:
        """What has a fact of this kind."""
        return frozenset(call for each, call in self.facts if each == kind)


@contextmanager
def copied(run: Path) -> Iterator[Path]:
    """A copy of the files in the directory of a run."""
    there = run.with_name(f"{run.name}.copy")
    shutil.rmtree(there, ignore_errors=True)
    there.mkdir()
    for name in (DATABASE, f"{DATABASE}-wal"):
        if (run / name).exists():
            shutil.copyfile(run / name, there / name)
    try:
        yield there
    finally:
        shutil.rmtree(there)


def kept(run: Path) -> Kept:
    """Read the journal in `run` as it would be found after a crash at this moment."""
    if not (run / DATABASE).exists():
        return Kept()
    with copied(run) as copy, closing(sqlite3.connect(copy / DATABASE)) as connection:
        try:
            if not list(connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'root'")):
                return Kept()
            return _read(connection)
        except (sqlite3.DatabaseError, LookupError, TypeError, ValueError) as error:  # one that was tampered with
            return Kept(f"cannot be read: {error!r}")


def _read(connection: sqlite3.Connection) -> Kept:
    query = connection.execute
    (sound,) = next(query("PRAGMA integrity_check"))
    ids = {seq: id for seq, id in query("SELECT seq, id FROM root")}
    facts = query("SELECT kind, root, path, ordinal FROM fact")
    attempts = query("SELECT root, path, ordinal, number, epoch, state FROM attempt ORDER BY id")
    lines = list(query("SELECT data, id FROM line ORDER BY number"))
    return Kept(
        sound,
        tuple(ids[seq] for seq in sorted(ids)),
        frozenset((kind, _call(ids[root], path, ordinal)) for kind, root, path, ordinal in facts),
        tuple(Attempt(_call(ids[root], path, ordinal), *rest) for root, path, ordinal, *rest in attempts),
        tuple(data for data, _ in lines),
        tuple(id for _, id in lines),
        tuple(status for (status,) in query("SELECT status FROM settled ORDER BY root")),
    )


def _call(item: Any, path: str, ordinal: int) -> Call:
    return str(item), tuple(json.loads(path)), ordinal


def size_on_disk(run: Path) -> int:
    """How much of the output is known to be on the disk."""
    with copied(run) as copy, closing(sqlite3.connect(copy / DATABASE)) as connection:
        return sum(size for (size,) in connection.execute("SELECT size FROM projection"))
