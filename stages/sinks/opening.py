"""Opening outputs: what would destroy something, or could not be written, is refused before anything is begun."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable
from typing import Literal, TypeAlias

from pipeline.core.errors import SinkError, WriteError
from stages.sinks.output import Output, StreamOutput

STDOUT = "-"

Mode: TypeAlias = Literal["create", "append", "overwrite"]

MODES: tuple[Mode, ...] = ("create", "append", "overwrite")


def open_output(path: str, mode: Mode, inputs: Iterable[str]) -> Output | StreamOutput:
    """Return an open output. `path` `-` is stdout; `inputs` are the files that it must not be. Raises `SinkError`."""
    if path == STDOUT:
        return _open_stdout(inputs)
    try:
        existing = _stat(path)
        if existing is not None:
            _refuse(path, existing, mode, inputs)
        fd = os.open(path, _flags(existing, mode), 0o644)
    except OSError as error:
        raise SinkError(_told(path, error)) from None
    if existing is not None and mode == "append" and stat.S_ISREG(existing.st_mode):
        _end_last_line(fd, path)
    return Output(fd, path, owned=True)


def _open_stdout(inputs: Iterable[str]) -> Output | StreamOutput:
    stdout = sys.stdout
    if stdout is None or stdout.closed:  # pyright: ignore[reportUnnecessaryComparison] - None if 1 is closed at start
        raise WriteError("stdout is closed; give an output file (-o FILE)")
    stdout.flush()
    try:
        fd = stdout.fileno()
    except (OSError, AttributeError):
        return StreamOutput(stdout)
    try:
        found = os.fstat(fd)
    except OSError:
        raise WriteError("stdout is closed; give an output file (-o FILE)") from None
    if stat.S_ISREG(found.st_mode):
        _refuse_input("stdout", found, inputs)
    if os.isatty(fd):
        return _open_terminal(fd)
    return Output(fd, "stdout", owned=False)


def _open_terminal(fd: int) -> Output:
    """Open the terminal again for ourselves, not blocking: one that was stopped with Ctrl-S would block the loop.

    The descriptor we were given cannot be made so, since the shell and stdin share its mode.
    """
    try:
        own = os.open(os.ttyname(fd), os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        return Output(own, "stdout", owned=True, terminal=True)
    except (OSError, AttributeError):
        return Output(fd, "stdout", owned=False, terminal=True)


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def _flags(existing: os.stat_result | None, mode: Mode) -> int:
    flags = os.O_WRONLY | os.O_APPEND
    if existing is not None and not stat.S_ISREG(existing.st_mode):
        return flags | getattr(os, "O_NONBLOCK", 0)  # a named pipe without a reader is refused instead of waited for
    if mode == "create":
        # Exclusive, so that a file made by someone else since we looked is not written over.
        return flags | os.O_CREAT | os.O_EXCL
    return flags | os.O_CREAT | (os.O_TRUNC if mode == "overwrite" else 0)


def _refuse(path: str, existing: os.stat_result, mode: Mode, inputs: Iterable[str]) -> None:
    if stat.S_ISDIR(existing.st_mode):
        raise SinkError(f"{path}: is a directory; name a file in it, such as {os.path.join(path, 'out.jsonl')}")
    if stat.S_ISREG(existing.st_mode):
        _refuse_input(path, existing, inputs)
        if mode == "create":
            raise SinkError(_exists(path))


def _refuse_input(name: str, output: os.stat_result, inputs: Iterable[str]) -> None:
    """Refuse to write what is being read, under whatever name or hard link."""
    for source in inputs:
        found = None if source == "-" else _stat(source)
        if found is not None and os.path.samestat(found, output):
            raise SinkError(f"{name}: is the input {source}; write to another file")


def _end_last_line(fd: int, path: str) -> None:
    """End the last line of a file that is appended to, so that the first record does not become part of it."""
    size = os.fstat(fd).st_size
    if not size:
        return
    with open(path, "rb") as file:
        file.seek(size - 1)
        if file.read(1) != b"\n":
            os.write(fd, b"\n")


def _exists(path: str) -> str:
    return f"{path}: exists; add to it (--append), replace it (--overwrite), or name another file"


def _told(path: str, error: OSError) -> str:
    match error:
        case FileExistsError():
            return _exists(path)
        case FileNotFoundError():
            return f"{path}: the directory {os.path.dirname(path) or '.'} does not exist"
        case PermissionError():
            return f"{path}: permission denied"
        case _:
            return f"{path}: {(error.strerror or str(error)).lower()}"
