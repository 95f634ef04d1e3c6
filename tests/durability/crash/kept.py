"""What a journal holds at one moment, read from a copy, so that looking at it changes nothing."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Generator
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
    open: bool  #: nobody knows how it ended
    root: int


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
    ended: frozenset[int] = field(default=frozenset())  #: their numbers

    @property
    def output(self) -> bytes:
        return b"".join(self.lines)

    @property
    def last(self) -> int:
        """The last run that made attempts."""
        return max((each.epoch for each in self.attempts), default=0)

    @property
    def in_doubt(self) -> tuple[Attempt, ...]:
        """The attempts that may be paid twice, if they have left: of the last run that made any, those that nobody
        knows the end of, for calls that are still needed."""
        last, done = self.last, self.done("call")
        wanted = (each for each in self.attempts if each.epoch == last and each.root not in self.ended)
        return tuple(each for each in wanted if each.open and each.call not in done)

    def done(self, kind: str) -> frozenset[Call]:
        """What has a fact of this kind."""
        return frozenset(call for each, call in self.facts if each == kind)


@contextmanager
def copied(run: Path) -> Generator[Path]:
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
    ids = dict(query("SELECT seq, id FROM root"))
    facts = query("SELECT kind, root, path, ordinal FROM fact")
    attempts = query(
        "SELECT root, path, ordinal, number, epoch, state, state IN ('started', 'ambiguous') AND usage IS NULL, root"
        " FROM attempt ORDER BY id"
    )
    lines = list(query("SELECT data, id FROM line ORDER BY number"))
    return Kept(
        sound,
        tuple(ids[seq] for seq in sorted(ids)),
        frozenset((kind, _call(ids[root], path, ordinal)) for kind, root, path, ordinal in facts),
        tuple(Attempt(_call(ids[root], path, ordinal), *rest) for root, path, ordinal, *rest in attempts),
        tuple(data for data, _ in lines),
        tuple(id for _, id in lines),
        tuple(status for (status,) in query("SELECT status FROM settled ORDER BY root")),
        frozenset(root for (root,) in query("SELECT root FROM settled")),
    )


def _call(item: Any, path: str, ordinal: int) -> Call:
    return str(item), tuple(json.loads(path)), ordinal


def size_on_disk(run: Path) -> int:
    """How much of the output is known to be on the disk."""
    with copied(run) as copy, closing(sqlite3.connect(copy / DATABASE)) as connection:
        return sum(size for (size,) in connection.execute("SELECT size FROM projection"))
