"""Opening inputs: every mistake about a named file is found before the first record, and told in one message."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Sequence
from typing import Literal

from pipeline.core.errors import SourceError
from stages.sources.blocks import BLOCK
from stages.sources.csv import CsvParser
from stages.sources.jsonl import JsonlParser
from stages.sources.parsed import Origin, Parser
from stages.sources.sniff import Format, first_line, format_of
from stages.sources.text import TextParser
from stages.sources.unpacking import MAGIC, SUFFIX, BadGzip, Gunzip

STDIN = "-"


def title(path: str) -> str:
    """Return what an input is called in messages."""
    return "stdin" if path == STDIN else path


def examine(paths: Sequence[str], format: Format | Literal["auto"], origin: Callable[[str], Origin]) -> None:
    """Look at every input that can be looked at without taking bytes from it. Raises one `SourceError` for all faults.

    Blocks on the file system, so it belongs in a thread. Pipes are asked only for permission.
    """
    problems: list[str] = []
    if paths.count(STDIN) > 1:
        problems.append("stdin (-) is named more than once; it can be read once")
    for path in dict.fromkeys(paths):
        try:
            if path == STDIN:
                stdin_fd()
            else:
                _examine_file(path, format, origin(path))
        except SourceError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(_told(path, error))
    if problems:
        raise SourceError("\n".join(problems))


def open_path(path: str) -> int:
    """Return a descriptor of the file, to be closed by the caller. Raises `SourceError`."""
    try:
        # Not blocking, because opening a named pipe would otherwise wait, uncancellably, for its writer.
        return os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except (OSError, ValueError) as error:
        raise SourceError(_told(path, error)) from None


def stdin_fd() -> int:
    """Return the descriptor of stdin. Raises `SourceError` when it is closed or is not a file."""
    stdin = sys.stdin
    if stdin is None:  # pyright: ignore[reportUnnecessaryComparison] - the interpreter sets it so when 0 is closed
        raise SourceError("stdin is closed; name an input file, or give stdin one: … < prompts.txt")
    try:
        fd = stdin.fileno()
        os.fstat(fd)
    except (OSError, ValueError):
        raise SourceError("stdin is closed or has no file descriptor here; name an input file") from None
    return fd


def reading_failed(path: str, error: OSError) -> SourceError:
    """Return the error of an input that could be opened and not be read to its end."""
    return SourceError(f"{title(path)}: reading failed: {error.strerror or error}")


def check_packing(path: str, head: bytes) -> bool:
    """Say whether an input that starts with `head` is gzip. Raises `SourceError` if only its name says so."""
    if head.startswith(MAGIC):
        return True
    if path.lower().endswith(SUFFIX):
        what = "is empty" if not head else "is not gzip, whatever its name says"
        raise SourceError(f"{path}: {what}; give it another name, or make it again")
    return False


def unpacking_failed(path: str, error: BadGzip) -> SourceError:
    """Return the error of a compressed input that is damaged; the records before are read and kept."""
    return SourceError(f"{title(path)}: {error}; the records up to there were read")


def parser_of(origin: Origin, format: Format, *, guessed: bool = False) -> Parser:
    """Return a new parser of the format for an input; `guessed` formats are doubted when a record is broken."""
    parsers: dict[Format, Callable[[], Parser]] = {
        "text": lambda: TextParser(origin),
        "nul": lambda: TextParser(origin, separator=b"\0"),
        "jsonl": lambda: JsonlParser(origin, guessed=guessed),
        "csv": lambda: CsvParser(origin),
        "tsv": lambda: CsvParser(origin, delimiter="\t"),
    }
    return parsers[format]()


def _examine_file(path: str, format: Format | Literal["auto"], origin: Origin) -> None:
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise SourceError(f"{path}: is a directory; name its files, such as {os.path.join(path, '*.txt')}")
    if not stat.S_ISREG(mode):
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, "permission denied")
        return
    with open(path, "rb") as file:
        head = file.read(BLOCK)
    whole = len(head) < BLOCK
    if check_packing(path, head):
        head, whole = _unpacked(path, head), False
    separator = b"\0" if format == "nul" else b"\n"
    found = format_of(path, first_line(head + separator, separator) or b"", format)
    if found in ("csv", "tsv"):
        parser = parser_of(origin, found)
        if next(parser.feed(head), None) is None and whole:  # the header alone: nothing is kept
            next(parser.finish(), None)


def _unpacked(path: str, head: bytes) -> bytes:
    packed = Gunzip(BLOCK)
    packed.feed(head)
    try:
        return packed.take()
    except BadGzip as error:
        raise SourceError(f"{path}: {error}") from None


def _told(path: str, error: OSError | ValueError) -> str:
    match error:
        case FileNotFoundError():
            return f"{path}: no such file"
        case PermissionError():
            return f"{path}: permission denied"
        case OSError(strerror=str(reason)):
            return f"{path}: {reason.lower()}"
        case _:
            return f"{path!r}: {error}"
