"""The tables of a journal and the statements that write them. Data only: JSON, text, numbers and the bytes of lines."""

from __future__ import annotations

from typing import Final, NamedTuple, TypeAlias

APPLICATION: Final = 0x50534A4E  #: says whose file it is: PSJN
VERSION: Final = 1

Value: TypeAlias = "int | float | str | bytes | None"

#: `root`: what was admitted, by `seq`, the order of admission; `place` is its position in the input.
#: `fact`: what a replay has to know. `attempt`: each physical try of a call, written before it is sent.
#: `line`: the bytes of each record, in the order of the output; `target` is which of several files it is for, `record`
#: the standard line if `data` is not that, `dead` the dead letter of one that failed. `settled`: how roots ended.
#: `projection`: how far a file that is made of lines is known to be on the disk, and how far the consumer came.
_TABLES: Final = """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE config (epoch INTEGER PRIMARY KEY, at TEXT NOT NULL, result TEXT NOT NULL, operational TEXT NOT NULL);
    CREATE TABLE source (
        number INTEGER PRIMARY KEY, name TEXT NOT NULL, read INTEGER NOT NULL, digest BLOB NOT NULL,
        ended INTEGER NOT NULL
    );
    CREATE TABLE root (
        seq INTEGER PRIMARY KEY, id TEXT NOT NULL, place INTEGER NOT NULL, digest BLOB NOT NULL, record BLOB NOT NULL,
        crashes INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE fact (
        root INTEGER NOT NULL, path TEXT NOT NULL, kind TEXT NOT NULL, ordinal INTEGER NOT NULL, value BLOB NOT NULL,
        PRIMARY KEY (root, path, kind, ordinal)
    ) WITHOUT ROWID;
    CREATE TABLE attempt (
        id INTEGER PRIMARY KEY, root INTEGER NOT NULL, path TEXT NOT NULL, ordinal INTEGER NOT NULL,
        number INTEGER NOT NULL, epoch INTEGER NOT NULL, model TEXT NOT NULL, reserved TEXT, state TEXT NOT NULL,
        usage TEXT, usd REAL, source TEXT
    );
    CREATE INDEX attempt_of_root ON attempt (root);
    CREATE TABLE line (
        number INTEGER PRIMARY KEY, root INTEGER NOT NULL, part TEXT NOT NULL, id TEXT NOT NULL, status TEXT NOT NULL,
        target TEXT NOT NULL, data BLOB NOT NULL, record BLOB, dead BLOB, UNIQUE (root, part)
    );
    CREATE INDEX line_of_target ON line (target, number) WHERE target <> '';
    CREATE INDEX dead_line ON line (number) WHERE dead IS NOT NULL;
    CREATE TABLE settled (root INTEGER PRIMARY KEY, status TEXT NOT NULL);
    CREATE TABLE projection (
        name TEXT PRIMARY KEY, size INTEGER NOT NULL, number INTEGER NOT NULL, tail BLOB NOT NULL,
        base INTEGER NOT NULL, before BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE event (id INTEGER PRIMARY KEY, at TEXT NOT NULL, what TEXT NOT NULL, value TEXT NOT NULL)
"""
TABLES: Final = tuple(" ".join(table.split()) for table in _TABLES.split(";"))

META: Final = "INSERT OR REPLACE INTO meta VALUES (?, ?)"
CONFIG: Final = "INSERT INTO config VALUES (?, ?, ?, ?)"
SOURCE: Final = "INSERT OR REPLACE INTO source VALUES (?, ?, ?, ?, ?)"
ROOT: Final = "INSERT INTO root (seq, id, place, digest, record) VALUES (?, ?, ?, ?, ?)"
FACT: Final = "INSERT OR REPLACE INTO fact VALUES (?, ?, ?, ?, ?)"
BEGUN: Final = (
    "INSERT INTO attempt (id, root, path, ordinal, number, epoch, model, reserved, state)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'started')"
)
ENDED: Final = "UPDATE attempt SET state = ?, usage = ?, usd = ?, source = ? WHERE id = ?"
LINE: Final = "INSERT INTO line VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
SETTLED: Final = "INSERT INTO settled VALUES (?, ?)"
PROJECTION: Final = "INSERT OR REPLACE INTO projection VALUES (?, ?, ?, ?, ?, ?)"
EVENT: Final = "INSERT INTO event (at, what, value) VALUES (?, ?, ?)"


class Row(NamedTuple):
    """One statement of the sequence, with its values."""

    statement: str
    values: tuple[Value, ...]
