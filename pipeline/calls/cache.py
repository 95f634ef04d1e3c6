"""Answers kept on disk, in one SQLite file that is never believed more than a stranger's: the only door to it.

It holds one table of keys and JSON texts, is made readable for its owner only, and is refused when it holds anything
else, a trigger or a view for instance. Everything here blocks; `Answers` asks it in a worker thread, one at a time.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from pipeline.calls.errors import ModelError

T = TypeVar("T")

LONGEST: Final = 4 * 1024 * 1024  #: characters of one answer that is kept
LARGEST: Final = 8 * 1024**3  #: bytes of the file; when it is full, answers are still read and none is added

_APPLICATION: Final = 0x50535443  #: says whose file it is: PSTC
_VERSION: Final = 1
_TABLE: Final = "CREATE TABLE answers (key BLOB PRIMARY KEY, answer TEXT NOT NULL) WITHOUT ROWID"


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """A cache at one instant."""

    path: str
    hits: int
    misses: int
    stored: int
    lost: int  #: answers that could not be written

    def __str__(self) -> str:
        lost = f", {self.lost} could not be written" if self.lost else ""
        hits = "1 hit" if self.hits == 1 else f"{self.hits} hits"
        misses = "1 miss" if self.misses == 1 else f"{self.misses} misses"
        return f"cache {self.path}: {hits}, {misses}, {self.stored} stored{lost}"


class Answers:
    """An open cache. What can change: the file, and the counts."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._turn = anyio.CapacityLimiter(1)
        self.hits = self.misses = self.stored = self.lost = 0

    async def get(self, key: bytes) -> str | None:
        """Return the text under `key`, or None. Raises `ModelError` when the file is damaged."""
        found = await self._in_thread(self._read, key)
        if found is None:
            self.misses += 1
        else:
            self.hits += 1
        return found

    async def put(self, key: bytes, answer: str) -> None:
        """Keep `answer`, if that can be: it was paid, and is good for its own call in any case."""
        if len(answer) > LONGEST:
            self.lost += 1
        elif await self._in_thread(self._write, key, answer):
            self.stored += 1
        else:
            self.lost += 1

    async def close(self) -> None:
        await self._in_thread(self._connection.close)

    async def _in_thread(self, function: Callable[..., T], *args: object) -> T:
        try:
            return await anyio.to_thread.run_sync(function, *args, limiter=self._turn)
        except sqlite3.Error as error:
            raise _damaged(self.path, error) from error

    def _read(self, key: bytes) -> str | None:
        row = self._connection.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        if not isinstance(row[0], str):
            raise sqlite3.DatabaseError("an answer in it is no text")
        return row[0]

    def _write(self, key: bytes, answer: str) -> bool:
        try:
            self._connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, answer))
        except (sqlite3.Error, UnicodeEncodeError):  # full, damaged, locked by others for too long, half a character
            return False
        return True

    def statistics(self) -> CacheStatistics:
        return CacheStatistics(str(self.path), self.hits, self.misses, self.stored, self.lost)


def usual_place() -> Path:
    """Where a user's cache is, by the rules of the system."""
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("penstock")) / "calls.sqlite"


@asynccontextmanager
async def open_cache(path: Path) -> AsyncGenerator[Answers]:
    """Open the cache at `path`, made if it is not there. Raises `ModelError`."""
    answers = Answers(path, await anyio.to_thread.run_sync(_open, path))
    try:
        yield answers
    finally:
        with anyio.CancelScope(shield=True):
            await answers.close()


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _claim(path)
    except OSError as error:
        raise ModelError(f"the cache {path} cannot be opened: {error.strerror or error}") from error
    try:
        connection = sqlite3.connect(path, timeout=5.0, check_same_thread=False, isolation_level=None)
        try:
            _prepare(connection)
        except BaseException:
            connection.close()
            raise
    except sqlite3.Error as error:
        raise _damaged(path, error) from error
    return connection


def _claim(path: Path) -> None:
    """Make the file, because SQLite would make it readable for all; its other files get the rights of this one.

    A file that is there is looked at first, so that nothing of another program's is changed.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        return
    except FileExistsError:
        pass
    if not path.is_file():
        raise _damaged(path, "it is not a file")
    with path.open("rb") as file:
        head = file.read(100)
    if head and not (head.startswith(b"SQLite format 3\0") and head[68:72] == _APPLICATION.to_bytes(4, "big")):
        raise _damaged(path, "it is no cache of this program")
    path.chmod(0o600)


def _prepare(connection: sqlite3.Connection) -> None:
    """Distrust the file, then make sure that it is ours and nothing else is in it."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 5 * LONGEST)  # four bytes a character, and some
    for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    with closing(connection.cursor()) as cursor:
        cursor.execute("BEGIN IMMEDIATE")  # two runs may make it at the same time
        try:
            _make_or_check(cursor)
            cursor.execute("COMMIT")
        except BaseException:
            cursor.execute("ROLLBACK")
            raise
    # Only now, so that what says whose file it is stands in the file itself and not in its log.
    (page,) = connection.execute("PRAGMA page_size").fetchone()
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", f"max_page_count = {LARGEST // int(page)}"):
        connection.execute(f"PRAGMA {pragma}").fetchall()


def _make_or_check(cursor: sqlite3.Cursor) -> None:
    found = cursor.execute("SELECT sql FROM sqlite_master").fetchall()
    (application,) = cursor.execute("PRAGMA application_id").fetchone()
    (version,) = cursor.execute("PRAGMA user_version").fetchone()
    if not found and not application and not version:
        cursor.execute(_TABLE)
        cursor.execute(f"PRAGMA application_id = {_APPLICATION}")
        cursor.execute(f"PRAGMA user_version = {_VERSION}")
    elif application != _APPLICATION:
        raise sqlite3.DatabaseError("it is no cache of this program")
    elif version != _VERSION:
        raise sqlite3.DatabaseError(f"it is of version {version}, this program writes version {_VERSION}")
    elif found != [(_TABLE,)]:
        raise sqlite3.DatabaseError("it holds more than answers")


def _damaged(path: Path, error: object) -> ModelError:
    return ModelError(f"the cache {path} cannot be used: {error}; delete it, or name another file")
