"""Opening outputs: what would destroy something, or could not be written, is refused before anything is begun."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable

from pipeline.core.errors import OutputLocked, SinkError, WriteError
from pipeline.core.exclusive import open_alone
from pipeline.core.refusals import Mode, end_last_line, refuse, refuse_input, status, told
from stages.sinks.output import Output, StreamOutput
from stages.sinks.packed import SUFFIX, PackedOutput

STDOUT = "-"


def open_output(
    path: str, mode: Mode, inputs: Iterable[str], *, follow: bool = True
) -> Output | PackedOutput | StreamOutput:
    """Return an open output, compressed if its name ends in `.gz`. `path` `-` is stdout; `inputs` are the files that it
    must not be; without `follow` it must be no link. Raises `SinkError`, `OutputLocked`
    when another run writes to it; then it is as it was."""
    if path == STDOUT:
        return _open_stdout(inputs)
    try:
        existing = status(path)
        if existing is not None:
            refuse(path, existing, mode, inputs)
        fd = open_alone(path, _flags(existing, mode) | (0 if follow else os.O_NOFOLLOW))
    except OutputLocked:
        raise
    except OSError as error:
        raise SinkError(told(path, error)) from None
    packed = path.endswith(SUFFIX)
    if existing is not None and mode == "append" and stat.S_ISREG(existing.st_mode) and not packed:
        end_last_line(fd, path)
    output = Output(fd, path, owned=True)
    if existing is None and mode == "create":
        output.created = path
    return PackedOutput(output) if packed else output


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
        refuse_input("stdout", found, inputs)
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


def _flags(existing: os.stat_result | None, mode: Mode) -> int:
    flags = os.O_WRONLY | os.O_APPEND
    if existing is not None and not stat.S_ISREG(existing.st_mode):
        return flags | getattr(os, "O_NONBLOCK", 0)  # a named pipe without a reader is refused instead of waited for
    if mode == "create":
        # Exclusive, so that a file made by someone else since we looked is not written over.
        return flags | os.O_CREAT | os.O_EXCL
    return flags | os.O_CREAT | (os.O_TRUNC if mode == "overwrite" else 0)
