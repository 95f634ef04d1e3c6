"""Journals that nobody who means well has made: refused, or right; never a hang, and never an error of another kind."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random

from pipeline.durability.disk.schema import CHECKED, crc
from pipeline.durability.disk.sums import summed
from tests.durability.crash.cases import Case
from tests.durability.crash.judging import against_output
from tests.durability.crash.kept import DATABASE
from tests.durability.crash.life import OUTPUT, RUN
from tests.durability.crash.playing import Undisturbed, one_life
from tests.durability.crash.powerless import Losses, lay
from tests.durability.crash.recording import DB, LOG, Files
from tests.durability.crash.workloads import Workload


@dataclass(frozen=True)
class Damage:
    name: str
    files: Files


def left_open(workload: Workload, case: Case, place: Path) -> dict[str, bytes]:
    """The files of a run that was killed."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for number, kill in enumerate(case.kills):
        one_life(workload, 0, place, number, case, kill, None)
    return {name: (place / name).read_bytes() for name in (DB, LOG, OUTPUT) if (place / name).exists()}


def folded(
    files: Files, place: Path, change: Callable[[sqlite3.Connection], object] = lambda db: None
) -> dict[str, bytes]:
    """The same with all of the log in the database, and `change` made."""
    lay(place, files, b"")
    with closing(sqlite3.connect(place / RUN / DATABASE, isolation_level=None)) as connection:
        change(connection)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return {**{name: data for name, data in files.items() if name != LOG}, DB: (place / DB).read_bytes()}


def flips(files: Files, name: str, count: int, chance: Random) -> Iterator[Damage]:
    """One bit is another one, in bytes spread over the whole file."""
    size = len(files[name])
    for number in range(count):
        at = min(size - 1, int((number + chance.random()) * size / count))
        data = bytearray(files[name])
        data[at] ^= 1 << chance.randrange(8)
        yield Damage(f"{name}, byte {at} flipped", {**files, name: bytes(data)})


def cuts(files: Files, name: str, count: int, chance: Random) -> Iterator[Damage]:
    """The file ends early."""
    size = len(files[name])
    for at in (0, 1, size - 1, *(chance.randrange(size) for _ in range(count - 3))):
        yield Damage(f"{name} cut at {at}", {**files, name: files[name][:at]})


def swaps(files: Files, others: Mapping[str, Files]) -> Iterator[Damage]:
    """The log, or the database, is that of another run, or of another moment of this one."""
    for what, other in others.items():
        for name in (LOG, DB):
            if name in other:
                yield Damage(f"{name} of {what}", {**files, name: other[name]})


CHANGES: Mapping[str, str] = {
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON line BEGIN DELETE FROM root; END",
    "a view": "CREATE VIEW v AS SELECT * FROM line",
    "a table": "CREATE TABLE more (a)",
    "no index": "DROP INDEX dead_line",
    "no table": "DROP TABLE settled",
    "another column": "ALTER TABLE root ADD COLUMN more",
    "another application": "PRAGMA application_id = 7",
    "another version": "PRAGMA user_version = 99",
    "another encoding of a record": "UPDATE root SET record = x'ff00'",
    "a record that is a number": "UPDATE root SET record = '7'",
    "a record that is a list": "UPDATE root SET record = '[]'",
    "a huge fact": "UPDATE fact SET value = zeroblob(20000000)",
    "a fact that is no JSON": "UPDATE fact SET value = x'7b'",
    "a fact that is a number": "UPDATE fact SET value = '7'",
    "a fact that lacks everything": "UPDATE fact SET value = '{}'",
    "a root that is text": "UPDATE OR REPLACE fact SET root = 'x', path = 'y', ordinal = 'z'",
    "a place that is text": "UPDATE root SET place = 'x'",
    "an id that is bytes": "UPDATE root SET id = x'ff'",
    "an attempt in no state": "UPDATE attempt SET state = 'nonsense'",
    "a line that is text": "UPDATE line SET data = 'x'",
    "numbers beyond all": "UPDATE root SET seq = 9223372036854775807 WHERE seq = (SELECT max(seq) FROM root)",
    "settled as nonsense": "INSERT OR REPLACE INTO settled SELECT seq, 'x', 0 FROM root",
}


#: changes that a forger can make without a trace: what is believed then may be wrong, and must break nothing
FORGED = tuple(name for name in CHANGES if "UPDATE" in CHANGES[name] or "settled" in name)


def changes(files: Files, place: Path) -> Iterator[Damage]:
    """A sound database that says something else."""
    for name, statement in CHANGES.items():
        yield Damage(name, folded(files, place, lambda db, statement=statement: db.execute(statement)))


def forgeries(files: Files, place: Path) -> Iterator[Damage]:
    """The same by somebody who has made the sums right."""
    for name, statement in CHANGES.items():
        if name in FORGED:

            def forge(db: sqlite3.Connection, statement: str = statement) -> None:
                db.create_function("crc", -1, lambda *values: summed(values))
                db.execute(statement)
                for table in CHECKED:
                    db.execute(f"UPDATE {table} SET crc = {crc(table)}")

            yield Damage(name, folded(files, place, forge))


def attack(
    workload: Workload,
    right: Undisturbed,
    damages: Iterator[Damage],
    case: Case,
    place: Path,
    losses: Losses,
    *,
    forged: bool = False,
) -> None:
    """Resume from each, and count what comes of it; what was `forged` is believed, and may only break nothing."""
    for damage in damages:
        lay(place, damage.files, b"")
        life = one_life(workload, 0, place, 1, case, None, None)
        if life.refused:
            losses.refused[_reason(str(life.failed))] += 1
        elif life.failed is not None:
            losses.faults.append(f"{damage.name}: {life.failed}")
        elif not forged and (faults := list(against_output(workload, right, life))):
            losses.faults.append("\n".join([damage.name, *faults]))
        else:
            losses.right += 1


def _reason(traceback: str) -> str:
    """What an error says, without where its file was."""
    return traceback.strip().rpartition("\n")[2].rpartition("/")[2]
