"""Reading outputs again: records line by line, each with its place, and what is no record told where it is."""

from __future__ import annotations

import gzip
import os
import stat
import tempfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, cast

from pipeline.core.codec import BadJson, decode
from pipeline.core.errors import PipelineError, SourceError
from pipeline.core.record import STATUSES, Status

MOST = 256 * 1024 * 1024  #: bytes of a record
_MAGIC = b"\x1f\x8b"
_MOST_INDEX = 2**63
_COPIED = 1024 * 1024


class BadOutput(PipelineError):
    """Files cannot be taken for outputs of runs; the text says where, with a line for each fault."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of an output, as far as its place among others is concerned."""

    id: str
    index: int
    child: tuple[int, ...]  #: which of the root's records it is, when the root yielded several
    status: Status
    number: int  #: of its line, from 1
    line: bytes  #: as it is in the file; one that lacks its line end gets it

    @property
    def place(self) -> tuple[int, tuple[int, ...]]:
        """Where it stands in the order of the input."""
        return self.index, self.child


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file with records, `.gz` or not. Anything but a regular file is copied to one, since it is read twice."""

    name: str
    file: IO[bytes]

    def entries(self) -> Iterator[Entry]:
        """Yield the records from the start. Raises `BadOutput` at what is none, `SourceError` if reading fails."""
        offset = 0
        for number, line in enumerate(self._lines(), 1):
            if len(line) > MOST:
                raise BadOutput(f"{self.name}, line {number}, byte {offset}: longer than {MOST:,} bytes")
            if not line.isspace():
                try:
                    yield entry_of(line, number)
                except ValueError as error:
                    raise BadOutput(f"{self.name}, line {number}, byte {offset}: {_fault(line, error)}") from None
            offset += len(line)

    def _lines(self) -> Iterator[bytes]:
        try:
            self.file.seek(0)
            packed = self.file.read(len(_MAGIC)) == _MAGIC
            self.file.seek(0)
            if not packed:
                yield from iter(lambda: self.file.readline(MOST + 1), b"")
                return
            with gzip.GzipFile(fileobj=self.file, mode="rb") as unpacked:
                yield from iter(lambda: unpacked.readline(MOST + 1), b"")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            at = self.file.tell()
            raise BadOutput(f"{self.name}: the compressed data is damaged near byte {at:,}: {error}") from None
        except OSError as error:
            raise SourceError(f"{self.name}: reading failed: {(error.strerror or str(error)).lower()}") from error


def _fault(line: bytes, error: ValueError) -> str:
    if line.endswith(b"\n"):
        return str(error)
    return f"the last line is torn ({error}); its run was killed while it wrote: resume it, or cut the line off"


@contextmanager
def output_file(path: str) -> Generator[OutputFile]:
    """Open the output at `path`. Raises `BadOutput` if it cannot be opened."""
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below; here only its opening may fail
    except OSError as error:
        raise BadOutput(f"{path}: {(error.strerror or str(error)).lower()}") from None
    with file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            yield OutputFile(path, file)
            return
        with tempfile.TemporaryFile(prefix="penstock-") as copy:
            while block := file.read(_COPIED):
                copy.write(block)
            yield OutputFile(path, copy)


def entry_of(line: bytes, number: int) -> Entry:
    """Read one line of an output. Raises `ValueError`, whose text says why it is no record."""
    try:
        value = decode(line)
    except BadJson as error:
        raise ValueError(f"not JSON, {error}") from None
    if not isinstance(value, dict):
        raise ValueError("not a record: no JSON object")
    record = cast("dict[str, object]", value)
    id, index, status = record.get("id"), record.get("index"), record.get("status")
    if not isinstance(id, str):
        raise ValueError("not a record: it has no id")
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < _MOST_INDEX:
        raise ValueError("not a record: it has no index (was it written with less detail?)")
    if status not in STATUSES:
        raise ValueError(f"not a record: its status is none of {', '.join(STATUSES)}")
    return Entry(
        id, index, _child(id, record.get("parent")), status, number, line if line.endswith(b"\n") else line + b"\n"
    )


def _child(id: str, parent: object) -> tuple[int, ...]:
    if not isinstance(parent, str) or not id.startswith(f"{parent}#"):
        return ()
    parts = id[len(parent) + 1 :].split("#")
    if not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
        return ()
    return tuple(map(int, parts))
