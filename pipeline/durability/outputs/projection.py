"""One file that is made of lines in a journal: it can be cut back to what is known to be on the disk, and made up from
the journal byte for byte.

Everything here blocks and is called by the writer's thread. What is known to be on the disk is a `Mark`, which is
stored in the journal only after the file was synced. A file whose name ends in `.gz` consists of gzip members, one a
sync, so that a mark is always the end of one.
"""

from __future__ import annotations

import errno
import gzip
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

from pipeline.core.exclusive import open_alone
from pipeline.durability.disk.reserve import final
from pipeline.durability.disk.schema import PROJECTION, Row, crc
from pipeline.durability.disk.store import Probe, silent, sync_directory

EVERY: Final = 1.0  #: seconds after which what was appended is synced
MUCH: Final = 1 << 20  #: bytes after which it is synced
SOME: Final = 1 << 18  #: bytes with which lines are written, though more of the group may come
TAIL: Final = 4096  #: bytes before the mark by which a file is known again
PACKED: Final = ".gz"
STALE: Final = -1  #: number of a mark whose file has to be made anew, because lines in it were taken back
OUTDATED: Final = -2  #: the same, and what is there now is kept beside it, because answers were taken back
TAKEN: Final = "taken"  #: the mark of how far records were taken by the consumer


def _said(number: int, where: str) -> tuple[str, tuple[()]]:
    return f"UPDATE projection SET number = {number}, crc = {crc('projection', number=str(number))} WHERE {where}", ()


#: Says that lines were taken back, in the transaction that does it: what was made of them is made anew.
TAKEN_BACK: Final = _said(STALE, f"name <> '{TAKEN}' AND number <> {OUTDATED}")

#: The same for lines that had answers: the output that has them is kept. Dead letters are none.
ANSWERS_TAKEN_BACK: Final = _said(OUTDATED, f"name NOT IN ('{TAKEN}', 'errors')")

FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class Mark(NamedTuple):
    """How far a file is known to be on the disk."""

    size: int = 0  #: bytes
    number: int = 0  #: of the last line in it
    tail: bytes = b""  #: hash of the last `TAIL` bytes
    base: int = 0  #: bytes that were there before the run
    before: bytes = b""  #: hash of those

    def row(self, name: str) -> Row:
        """What writes it into the journal."""
        return Row(PROJECTION, (name, *self))

    @property
    def is_stale(self) -> bool:
        """Whether the file has to be made anew."""
        return self.number < 0


class Projection:
    """What can change: the file, which is open or not, the mark, and what was appended since."""

    def __init__(
        self, name: str, path: str, mark: Mark, probe: Probe, fd: int | None = None, *, private: bool = False
    ) -> None:
        self.name = name
        self.path = path
        self.mark = mark
        self.size = mark.size
        self.number = mark.number
        self.packed = path.endswith(PACKED)
        self._point = name.partition("/")[0]
        self._probe = probe
        self._held = bytearray()  #: lines that wait to be written together
        self.permissions = 0o600 if private else 0o644  #: of a file that is made
        self._fd = fd
        self._synced_at = time.monotonic()

    # -- opening ------------------------------------------------------------------------------------------------

    def create(self) -> None:
        """Make the file, and have its name on the disk. Raises `OSError` if there is one."""
        with self._named():
            self._at("create")
            self._fd = open_alone(self.path, FLAGS | os.O_CREAT | os.O_EXCL, self.permissions)
            self._at("created")
        self.settle_name()

    def open(self) -> int:
        """The descriptor of the file, which is there. Raises `OutputLocked` when another run has it, and `OSError` if
        somebody else has written to it while it was closed."""
        if self._fd is None:
            with self._named():
                self._fd = open_alone(self.path, FLAGS)
                if os.fstat(self._fd).st_size != self.size:
                    raise OSError(errno.EBUSY, "somebody else has written to it")
        return self._fd

    def take(self, *, empty: bool) -> None:
        """Open what is there before the run, and have it `empty` if that is meant, before a mark says that it is."""
        with self._named():
            self.size = os.path.getsize(self.path)
            fd = self.open()
            if empty:
                self._at("truncate")
                os.ftruncate(fd, 0)
                os.fsync(fd)
                self._at("truncated")
                self.size = 0

    def adopt(self, fd: int) -> None:
        """A new file has the name, `fd` is open on it and locked."""
        self.close()
        self._fd = fd

    def cut_back(self) -> None:
        """Open it, and cut off what is behind the mark. `size` is what was there when that was compared."""
        with self._named():
            fd = self.open()
            if os.fstat(fd).st_size > self.mark.size:
                self._at("truncate")
                os.ftruncate(fd, self.mark.size)
                self._at("truncated")
        self.size, self.number = self.mark.size, self.mark.number

    def become(self, mark: Mark) -> None:
        """The file was made anew."""
        self.mark, self.size, self.number = mark, mark.size, mark.number

    def settle_name(self) -> None:
        """Have the directory with the file's name on the disk."""
        with self._named(), final():
            self._at("directory")
            sync_directory(Path(self.path).parent)
            self._at("directory-synced")

    def close(self) -> None:
        """Close the file; what was not synced is synced when it is opened again."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            with self._named():
                os.close(fd)

    # -- writing ------------------------------------------------------------------------------------------------

    def append(self, number: int, data: bytes) -> None:
        """Add a line, in the order of its number, which `pour` writes or `sync` does."""
        self._held += data
        self.number = number

    @property
    def waiting(self) -> int:
        """Bytes that `pour` would write: of a packed file none, which are packed when it is synced."""
        return 0 if self.packed else len(self._held)

    def pour(self) -> None:
        """Write the lines that were added. Raises `OSError`; then nothing of them is left, if that can be had."""
        if self.waiting:
            self._write(self._held)
            self._held = bytearray()

    @property
    def is_behind(self) -> bool:
        """Whether something of it is not on the disk."""
        return self.number != self.mark.number

    @property
    def due(self) -> bool:
        """Whether what was appended should be synced."""
        if not self.is_behind:
            return False
        unsynced = self.size + len(self._held) - self.mark.size
        return unsynced >= MUCH or time.monotonic() - self._synced_at >= EVERY

    def sync(self) -> None:
        """Put what was appended on the disk, and move the mark. A failure is final: nobody knows what is there then."""
        if self.is_behind:
            self.pour()
            if self._held:
                self._write(gzip.compress(self._held, mtime=0))
                self._held = bytearray()
            with self._named():
                fd = self.open()
                with final():
                    self._at("sync")
                    sync_data(fd)
                    self._at("synced")
                self.mark = self.mark._replace(size=self.size, number=self.number, tail=tail_of(fd, self.size))
        self._synced_at = time.monotonic()

    def _write(self, data: bytes | bytearray) -> None:
        with self._named():
            fd, rest = self.open(), memoryview(data)
            self._at("write")
            try:
                if self._probe is not silent:  # who watches sees it half written
                    rest = rest[os.write(fd, rest[: len(rest) // 2]) :]
                    self._at("half")
                while rest:
                    rest = rest[os.write(fd, rest) :]
            except OSError:
                _cut(fd, self.size)
                raise
            self._at("written")
        self.size += len(data)

    def _at(self, point: str) -> None:
        self._probe(f"{self._point}:{point}")

    @contextmanager
    def _named(self) -> Generator[None]:
        """Let an error say which file it is about."""
        try:
            yield
        except OSError as error:
            error.filename = self.path
            raise


def sync_data(fd: int) -> None:
    """Have the data of a file on the disk."""
    getattr(os, "fdatasync", os.fsync)(fd)


def tail_of(fd: int, size: int) -> bytes:
    """The hash of the last bytes before `size`."""
    start = max(0, size - TAIL)
    return blake2b(os.pread(fd, size - start, start), digest_size=16).digest()


def _cut(fd: int, size: int) -> None:
    try:
        os.ftruncate(fd, size)
    except OSError:
        pass  # the write's own error says what is wrong, and a resume cuts it
