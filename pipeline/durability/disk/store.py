"""The file of a journal: one SQLite database, one connection, which only its writer uses. The only door to it.

Everything here blocks and is called by one thread at a time. A file that is not a journal of this version, or holds
anything that a journal does not (a trigger, a view), is refused and not touched.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final, Literal, TypeAlias

from pipeline.core.errors import JournalError
from pipeline.durability.disk.batches import Batches
from pipeline.durability.disk.own import PRIVATE, refuse_others
from pipeline.durability.disk.schema import APPLICATION, CHECKED, META, TABLES, VERSION, Row, Value, crc
from pipeline.durability.disk.sums import summed
from pipeline.durability.disk.text import bindable, unbound

Durability: TypeAlias = Literal["power", "process"]

#: Called with the name of each point at which the process may die, or a write may fail. Tests strike there.
Probe: TypeAlias = Callable[[str], object]

#: Makes a row of what was written before it, in the same transaction.
Later: TypeAlias = "Callable[[Store], Row]"

HALF: Final = ".new"  #: what the name of a journal ends in that is being made
BUSY: Final = 5.0  #: seconds that are waited for another program that has the file

_MEANT: Final = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_BUSY: errno.EBUSY,
    sqlite3.SQLITE_LOCKED: errno.EBUSY,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_IOERR: errno.EIO,
}
_SYNCHRONOUS: Final = {"power": "FULL", "process": "NORMAL"}


def files_of(path: Path) -> tuple[Path, ...]:
    """The file of a journal, and those that the database has beside it."""
    return (path, *(path.with_name(f"{path.name}{more}") for more in ("-wal", "-shm", "-journal")))


def silent(point: str) -> None:
    """The probe of a run that nobody tests."""


class Store:
    """An open journal file. What can change: the file."""

    def __init__(self, connection: sqlite3.Connection, path: Path, probe: Probe) -> None:
        self._connection = connection
        self._probe = probe
        self.path = path

    @classmethod
    def create(cls, path: Path, durability: Durability, probe: Probe, about: Mapping[str, str] = {}) -> Store:
        """Make a new journal, readable for its owner only, with `about` in it. Raises `JournalError` if there is a
        file. It has its name only once it is whole, so that who dies here leaves nothing that looks like one."""
        refuse_others(*files_of(path))
        if path.exists():
            raise JournalError(f"{path}: exists")
        half = path.with_name(f"{path.name}{HALF}")
        for left in files_of(half):
            left.unlink(missing_ok=True)
        os.close(os.open(half, os.O_CREAT | os.O_EXCL | os.O_RDWR, PRIVATE))
        probe("create:file")
        store = cls(_connect(half, durability), half, probe)
        try:
            with store._transaction("create"):
                for table in TABLES:
                    store._connection.execute(table)
                store._connection.execute(f"PRAGMA application_id = {APPLICATION}")
                store._connection.execute(f"PRAGMA user_version = {VERSION}")
                for pair in about.items():
                    store._bind(META, pair)
        finally:
            store.close(fold=True)
        probe("create:rename")
        half.rename(path)
        probe("create:renamed")
        sync_directory(path.parent)
        with suppress(PermissionError):  # of the user's own, who may not even be allowed to list it
            sync_directory(path.absolute().parent.parent)
        return cls(_connect(path, durability), path, probe)

    @classmethod
    def open(cls, path: Path, durability: Durability, probe: Probe) -> Store:
        """Open a journal. Raises `JournalError` for a file that is none, or that is damaged."""
        refuse_others(*files_of(path))
        connection = _connect(path, durability)
        try:
            _examine(connection, path)
        except BaseException:
            connection.close()
            raise
        return cls(connection, path, probe)

    @classmethod
    @contextmanager
    def looking(cls, path: Path) -> Generator[Store]:
        """Open a journal for reading only, also while another process runs with it; its pages are not checked for
        damage beforehand. Nothing is made beside it that was not there. Raises `JournalError`, also out of the block
        for what is damaged."""
        refuse_others(*files_of(path))
        log = path.with_name(f"{path.name}-wal")
        connection: sqlite3.Connection | None = None
        try:
            # Without a log nobody writes, and a reader that may not write cannot find that out by itself.
            still = not (log.exists() and log.stat().st_size)
            uri = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if still else ''}"
            connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=1)
            connection.execute("PRAGMA trusted_schema = OFF")
            _examine(connection, path, pages=False)
            yield cls(connection, path, silent)
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"{path}: cannot be read as a journal: {error}") from error
        finally:
            if connection is not None:
                connection.close()

    def commit(self, rows: Iterable[Row | Later]) -> list[Row]:
        """Write `rows` in their order, all or none, and return them. Durable when it returns. Raises `OSError` when the
        disk refuses."""
        written: list[Row] = []
        with self._transaction("commit"):
            batches = Batches(self._connection.execute)
            for each in rows:
                if isinstance(each, Row):
                    row = each
                else:
                    batches.flush()
                    row = each(self)
                batches.add(row)
                written.append(row)
                self._probe("commit:row")
            batches.flush()
        return written

    def read(self, query: str, values: Sequence[Value] = ()) -> Iterator[tuple[Value, ...]]:
        """The rows of a query. Raises `OSError` when the disk refuses."""
        return self._rows(query, values)

    def _rows(self, query: str, values: Sequence[Value]) -> Generator[tuple[Value, ...]]:
        try:
            with closing(self._bind(query, values)) as found:  # one that is left open would hold a lock
                for row in found:
                    yield unbound(row)
        except sqlite3.Error as error:
            raise as_os_error(error, self.path) from error

    def _bind(self, statement: str, values: Sequence[Value]) -> sqlite3.Cursor:
        """The only place where values, whatever they are, become SQLite's."""
        return self._connection.execute(statement, bindable(values))

    def change(self, *statements: tuple[str, Sequence[Value]]) -> None:
        """Make changes that are no part of the sequence, such as what a resume takes back, in one transaction."""
        with self._transaction("change"):
            for statement, values in statements:
                self._bind(statement, values)
                self._probe("change:row")

    def close(self, *, fold: bool) -> None:
        """Close it; `fold` puts what lies in the log beside it into the one file."""
        try:
            if fold:
                self._probe("fold:before")
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                self._probe("fold:after")
        except sqlite3.Error as error:
            raise as_os_error(error, self.path) from error
        finally:
            self._connection.close()

    def _transaction(self, name: str) -> _Transaction:
        return _Transaction(self._connection, self.path, self._probe, name)


class _Transaction:
    def __init__(self, connection: sqlite3.Connection, path: Path, probe: Probe, name: str) -> None:
        self._connection = connection
        self._path = path
        self._probe = probe
        self._name = name

    def __enter__(self) -> None:
        self._probe(f"{self._name}:before")
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise as_os_error(error, self._path) from error

    def __exit__(self, type: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            try:
                self._probe(f"{self._name}:last")
                self._connection.execute("COMMIT")
            except BaseException as failed:
                error = failed
            else:
                self._committed()
                return
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
            except sqlite3.Error:
                pass  # the journal is recovered when it is opened next
        if isinstance(error, sqlite3.Error):
            raise as_os_error(error, self._path) from error
        raise error

    def _committed(self) -> None:
        try:
            self._probe(f"{self._name}:after")
        except OSError as error:  # no room would help, because nothing is left to be written
            raise OSError(errno.EIO, error.strerror or str(error), str(self._path)) from error


def sync_directory(path: Path) -> None:
    """Put the names in a directory on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def as_os_error(error: sqlite3.Error, path: Path) -> OSError:
    """What the disk said, in the system's words: ENOSPC for a full one, EIO for what has no word of its own."""
    number = _MEANT.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, errno.EIO)
    text = "another program is writing to it" if number == errno.EBUSY else f"{os.strerror(number)} ({error})"
    return OSError(number, text, str(path))


def _connect(path: Path, durability: Durability) -> sqlite3.Connection:
    # Threads take turns, so the connection need not be bound to the one that opened it.
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=BUSY, cached_statements=64
    )
    connection.create_function("crc", -1, lambda *values: summed(values), deterministic=True)
    try:
        for pragma in (
            "trusted_schema = OFF",
            "cell_size_check = ON",
            "mmap_size = 0",
            "journal_mode = WAL",
            f"synchronous = {_SYNCHRONOUS[durability]}",
            "wal_autocheckpoint = 1000",
            "temp_store = MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.DatabaseError as error:
        connection.close()
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _MEANT:
            raise as_os_error(error, path) from error
        raise JournalError(f"{path}: cannot be read as a journal: {error}") from error
    return connection


def _examine(connection: sqlite3.Connection, path: Path, *, pages: bool = True) -> None:
    """Refuse what is not a journal of ours, before anything of it is believed."""
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        tables = {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")}
        damage = [text for (text,) in connection.execute("PRAGMA quick_check(3)") if text != "ok"] if pages else []
    except sqlite3.DatabaseError as error:
        raise JournalError(f"{path}: is damaged or no journal: {error}") from error
    if application != APPLICATION:
        raise JournalError(f"{path}: is not a journal")
    if version != VERSION:
        raise JournalError(f"{path}: is a journal of version {version}, this release reads version {VERSION}")
    if tables != set(TABLES):
        raise JournalError(f"{path}: has tables that a journal does not have, or lacks some")
    if damage:
        raise JournalError(f"{path}: is damaged: {'; '.join(damage)}")
    for table in CHECKED if pages else ():
        _check(connection, path, table)


def _check(connection: sqlite3.Connection, path: Path, table: str) -> None:
    """Refuse a table with a row that is not what was written."""
    try:
        found = connection.execute(f"SELECT 1 FROM {table} WHERE crc IS NOT {crc(table)} LIMIT 1").fetchone()
    except sqlite3.DatabaseError as error:
        raise JournalError(f"{path}: is damaged: {table} cannot be read: {error}") from error
    if found is not None:
        raise JournalError(f"{path}: is damaged: {table} has a row that is not what was written")
