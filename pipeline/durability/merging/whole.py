"""A file that is there when it is whole, and not before: written under another name beside it, then renamed."""

from __future__ import annotations

import gzip
import os
import stat
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from secrets import token_hex
from typing import IO, TypeAlias

from pipeline.core.errors import SinkError, WriteError

Write: TypeAlias = Callable[[bytes], object]


@contextmanager
def whole_file(path: str, *, overwrite: bool, inputs: Iterable[str]) -> Generator[Write]:
    """Give a function that writes to `path`, compressed if that ends in `.gz`.

    Raises `SinkError` at once for a file that exists (unless `overwrite`), that is one of `inputs` or that cannot be
    made, `WriteError` when the system refuses later. An error in the block leaves what was there before.
    """
    target = os.path.realpath(path)
    fresh = os.path.join(os.path.dirname(target), f".{os.path.basename(target)}.{token_hex(4)}")
    fd, regular = _opened(path, target, fresh, overwrite, inputs)
    try:
        with open(fd, "wb") as file:
            with _packed(path, file) as write:
                yield write
            file.flush()
            if regular:
                os.fsync(file.fileno())
        if regular:
            _name(fresh, target, path, overwrite)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise failed(path, error) from error
    finally:
        if regular and os.path.exists(fresh):
            os.unlink(fresh)


def _opened(path: str, target: str, fresh: str, overwrite: bool, inputs: Iterable[str]) -> tuple[int, bool]:
    """Return a descriptor of `fresh`, or of the target itself if that is a pipe or a device. Raises `SinkError`."""
    try:
        existing = os.stat(target) if os.path.exists(target) else None
        if existing is not None:
            _refuse(path, existing, overwrite, inputs)
            if not stat.S_ISREG(existing.st_mode):
                return os.open(target, os.O_WRONLY), False
        return os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666), True
    except OSError as error:
        raise SinkError(f"{path}: cannot be written: {(error.strerror or str(error)).lower()}") from None


def failed(name: str, error: OSError) -> WriteError:
    """Return the error of an output that the system refused to take."""
    return WriteError(f"{name}: writing failed: {(error.strerror or str(error)).lower()}")


@contextmanager
def _packed(path: str, file: IO[bytes]) -> Generator[Write]:
    if not path.lower().endswith(".gz"):
        yield file.write
        return
    # Without name and time in it, equal records give equal bytes.
    with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
        yield packed.write


def _refuse(path: str, existing: os.stat_result, overwrite: bool, inputs: Iterable[str]) -> None:
    if stat.S_ISDIR(existing.st_mode):
        raise SinkError(f"{path}: is a directory; name a file in it, such as {os.path.join(path, 'merged.jsonl')}")
    if not stat.S_ISREG(existing.st_mode):
        return
    for source in inputs:
        if os.path.exists(source) and os.path.samestat(os.stat(source), existing):
            raise SinkError(f"{path}: is one of the outputs to merge, {source}; write to another file")
    if not overwrite:
        raise SinkError(f"{path}: exists; replace it (--overwrite), or name another file")


def _name(fresh: str, target: str, path: str, overwrite: bool) -> None:
    """Give the finished file its name, and never that of a file that came in between."""
    if overwrite:
        os.replace(fresh, target)
        return
    try:
        os.link(fresh, target)
    except FileExistsError:
        raise SinkError(f"{path}: exists by now; replace it (--overwrite), or name another file") from None
    except OSError:  # a file system without links
        if os.path.exists(target):
            raise SinkError(f"{path}: exists by now; replace it (--overwrite), or name another file") from None
        os.rename(fresh, target)
