"""What output is refused before anything is begun, because it would destroy something or could not be written."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from typing import Final, Literal, TypeAlias

from pipeline.core.errors import SinkError

Mode: TypeAlias = Literal["create", "append", "overwrite"]

MODES: Final[tuple[Mode, ...]] = ("create", "append", "overwrite")


def status(path: str) -> os.stat_result | None:
    """What is at `path`; None for nothing."""
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def refuse(path: str, existing: os.stat_result, mode: Mode, inputs: Iterable[str]) -> None:
    """Raise `SinkError` if what is at `path` must not be written in this way."""
    if stat.S_ISDIR(existing.st_mode):
        raise SinkError(f"{path}: is a directory; name a file in it, such as {os.path.join(path, 'out.jsonl')}")
    if stat.S_ISREG(existing.st_mode):
        refuse_input(path, existing, inputs)
        if mode == "create":
            raise SinkError(exists(path))


def refuse_input(name: str, output: os.stat_result, inputs: Iterable[str]) -> None:
    """Refuse to write what is being read, under whatever name or hard link."""
    for source in inputs:
        found = None if source == "-" else status(source)
        if found is not None and os.path.samestat(found, output):
            raise SinkError(f"{name}: is the input {source}; write to another file")


def end_last_line(fd: int, path: str) -> None:
    """End the last line of a file that is appended to, so that the first record does not become part of it."""
    size = os.fstat(fd).st_size
    if not size:
        return
    with open(path, "rb") as file:
        file.seek(size - 1)
        if file.read(1) != b"\n":
            os.write(fd, b"\n")


def exists(path: str) -> str:
    return f"{path}: exists; add to it (--append), replace it (--overwrite), or name another file"


def told(path: str, error: OSError) -> str:
    """Why the file at `path` cannot be opened."""
    match error:
        case FileExistsError():
            return exists(path)
        case FileNotFoundError() if not os.path.isdir(os.path.dirname(path) or "."):
            return f"{path}: the directory {os.path.dirname(path) or '.'} does not exist"
        case PermissionError():
            return f"{path}: permission denied"
        case _:
            return f"{path}: {(error.strerror or str(error)).lower()}"
