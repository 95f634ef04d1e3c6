"""The tables of a journal and the statements that write them. Data only: JSON, text, numbers and the bytes of lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeAlias

APPLICATION: Final = 0x50534A4E  #: says whose file it is: PSJN
VERSION: Final = 1

Value: TypeAlias = "int | float | str | bytes | None"

#: SQL and its values
Statement: TypeAlias = "tuple[str, Sequence[Value]]"

#: the kind of a fact that says why a root was opened again, as long as it has not ended since
REOPENED: Final = "reopened"

#: `root`: what was admitted, by `seq`, the order of admission; `place` is its position in the input.
#: `fact`: what a replay has to know. `attempt`: each physical try of a call, written before it is sent.
#: `line`: the bytes of each record, in the order of the output; `target` is which of several files it is for, `record`
#: the standard line if `data` is not that, `dead` the dead letter of one that failed. `settled`: how roots ended.
#: `projection`: how far a file that is made of lines is known to be on the disk, and how far the consumer came.
#: `crc`: a sum over the row, since neither SQLite nor every disk notices a bit that has changed.
_TABLES: Final = """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE config (epoch INTEGER PRIMARY KEY, at TEXT NOT NULL, result TEXT NOT NULL, operational TEXT NOT NULL,
        crc INTEGER NOT NULL
    );
    CREATE TABLE source (
        number INTEGER PRIMARY KEY, name TEXT NOT NULL, read INTEGER NOT NULL, digest BLOB NOT NULL,
        ended INTEGER NOT NULL, crc INTEGER NOT NULL
    );
    CREATE TABLE root (
        seq INTEGER PRIMARY KEY, id TEXT NOT NULL, place INTEGER NOT NULL, digest BLOB NOT NULL, record BLOB NOT NULL,
        crashes INTEGER NOT NULL DEFAULT 0, crc INTEGER NOT NULL
    );
    CREATE TABLE fact (
        root INTEGER NOT NULL, path TEXT NOT NULL, kind TEXT NOT NULL, ordinal INTEGER NOT NULL, value BLOB NOT NULL,
        crc INTEGER NOT NULL, PRIMARY KEY (root, path, kind, ordinal)
    ) WITHOUT ROWID;
    CREATE TABLE attempt (
        id INTEGER NOT NULL, root INTEGER NOT NULL, path TEXT NOT NULL, ordinal INTEGER NOT NULL,
        number INTEGER NOT NULL, epoch INTEGER NOT NULL, model TEXT NOT NULL, reserved TEXT, state TEXT NOT NULL,
        usage TEXT, usd REAL, source TEXT, crc INTEGER NOT NULL, PRIMARY KEY (root, id)
    ) WITHOUT ROWID;
    CREATE TABLE line (
        number INTEGER PRIMARY KEY, root INTEGER NOT NULL, part TEXT NOT NULL, id TEXT NOT NULL, status TEXT NOT NULL,
        target TEXT NOT NULL, data BLOB NOT NULL, record BLOB, dead BLOB, crc INTEGER NOT NULL,
        UNIQUE (root, part)
    );
    CREATE INDEX line_of_target ON line (target, number) WHERE target <> '';
    CREATE INDEX dead_line ON line (number) WHERE dead IS NOT NULL;
    CREATE TABLE settled (root INTEGER PRIMARY KEY, status TEXT NOT NULL, crc INTEGER NOT NULL);
    CREATE TABLE projection (
        name TEXT PRIMARY KEY, size INTEGER NOT NULL, number INTEGER NOT NULL, tail BLOB NOT NULL,
        base INTEGER NOT NULL, before BLOB NOT NULL, crc INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE event (
        id INTEGER PRIMARY KEY, at TEXT NOT NULL, what TEXT NOT NULL, value TEXT NOT NULL, crc INTEGER NOT NULL
    )
"""
TABLES: Final = tuple(" ".join(table.split()) for table in _TABLES.split(";"))

#: What `crc` of a row is made of; how often a root crashed is counted in place and not part of it.
CHECKED: Final = {
    "meta": ("key", "value"),
    "config": ("epoch", "at", "result", "operational"),
    "source": ("number", "name", "read", "digest", "ended"),
    "root": ("seq", "id", "place", "digest", "record"),
    "fact": ("root", "path", "kind", "ordinal", "value"),
    "attempt": (
        *("id", "root", "path", "ordinal", "number", "epoch", "model", "reserved"),
        *("state", "usage", "usd", "source"),
    ),
    "line": ("number", "root", "part", "id", "status", "target", "data", "record", "dead"),
    "settled": ("root", "status"),
    "projection": ("name", "size", "number", "tail", "base", "before"),
    "event": ("id", "at", "what", "value"),
}


def crc(table: str, **changed: str) -> str:
    """The SQL of a row's sum, with what is `changed` in place of columns."""
    return f"crc({', '.join(changed.get(column, column) for column in CHECKED[table])})"


def _insert(table: str, insert: str = "INSERT", **constants: str) -> str:
    """A statement that writes a whole row, whose values are those of `CHECKED` but for the constants."""
    given = [column for column in CHECKED[table] if column not in constants]
    values = {**{column: f"?{number}" for number, column in enumerate(given, 1)}, **constants}
    ordered = ", ".join(values[column] for column in CHECKED[table])
    return f"{insert} INTO {table} ({', '.join(CHECKED[table])}, crc) VALUES ({ordered}, {crc(table, **values)})"


def _insert_summed(table: str, insert: str = "INSERT") -> str:
    """The same, with the sum as one more value, which costs half of what it costs SQLite to ask for it."""
    columns = CHECKED[table]
    return f"{insert} INTO {table} ({', '.join(columns)}, crc) VALUES ({', '.join('?' * (len(columns) + 1))})"


META: Final = _insert("meta", "INSERT OR REPLACE")
CONFIG: Final = _insert("config")
SOURCE: Final = _insert("source", "INSERT OR REPLACE")
ROOT: Final = _insert_summed("root")
FACT: Final = _insert_summed("fact", "INSERT OR REPLACE")
ATTEMPT: Final = _insert_summed("attempt", "INSERT OR REPLACE")
_AMBIGUOUS: Final = "'ambiguous'"
#: what a recovery makes of attempts that have not ended
LOST: Final = (
    f"UPDATE attempt SET state = 'ambiguous', crc = {crc('attempt', state=_AMBIGUOUS)} WHERE state = 'started'"
)
_UNSENT: Final = "'unsent'"
#: and of those that are known not to have left
NOT_SENT: Final = (
    f"UPDATE attempt SET state = 'unsent', crc = {crc('attempt', state=_UNSENT)} WHERE root = ?1 AND id = ?2"
)
LINE: Final = _insert_summed("line")
SETTLED: Final = _insert_summed("settled")
#: statements to whose values their sum is added; there are some of them for each call
SUMMED: Final = frozenset((ROOT, FACT, ATTEMPT, LINE, SETTLED))
PROJECTION: Final = _insert("projection", "INSERT OR REPLACE")
EVENT: Final = _insert("event", id="(SELECT coalesce(max(id), 0) + 1 FROM event)")


class LineValues(NamedTuple):
    """The values of `LINE`, in the order of its columns."""

    number: int
    root: int
    part: str
    id: str
    status: str
    target: str
    data: bytes
    record: bytes | None
    dead: bytes | None = None


class Row(NamedTuple):
    """One statement of the sequence, with its values."""

    statement: str
    values: tuple[Value, ...]
