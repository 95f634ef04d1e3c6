"""What the command ends with, and what it says: one table from exceptions to exit codes."""

from __future__ import annotations

import traceback
from typing import Final, cast

from pipeline.cli.terminated import TERMINATED, Terminated
from pipeline.config.problems import ConfigError
from pipeline.core.errors import (
    InvariantError,
    JournalError,
    JournalLocked,
    OutputLocked,
    PipelineError,
    RunStopped,
    SinkClosed,
    SourceError,
    WriteError,
)

OK: Final = 0
SOME_FAILED: Final = 1
USAGE: Final = 2
STOPPED: Final = 3  #: by a rule of its own
REFUSED: Final = 4  #: or could not start, or every item failed
BROKEN: Final = 70  #: a bug of ours
IO_ERROR: Final = 74
LOCKED: Final = 75  #: another process runs with the journal, or writes to the output
INVALID: Final = 78  #: the pipeline file
INTERRUPTED: Final = 130
OUTPUT_CLOSED: Final = 141

#: the same flag as it is called in code, which is said beside it to those who have no command
_IN_CODE: Final = " (accept_changes=True)"

#: of several errors at once the worst decides
_WORST_FIRST: Final = (BROKEN, IO_ERROR, LOCKED, INVALID, OUTPUT_CLOSED, REFUSED, STOPPED, TERMINATED, INTERRUPTED)


class UsageError(Exception):
    """The command line itself is wrong; the text says what would be right."""


def code_of(error: BaseException) -> int:
    """The exit code for `error`; for a group, that of its worst member."""
    codes = {_code(each) for each in members(error)}
    return next((code for code in _WORST_FIRST if code in codes), BROKEN) if codes != {USAGE} else USAGE


def told(error: BaseException) -> list[str]:
    """What is said about `error`, one text for each member of a group. Bugs come with their traceback."""
    texts: list[str] = []
    for each in members(error):
        text = _text(each)
        if text and text not in texts:
            texts.append(text)
    return texts


def members(error: BaseException) -> list[BaseException]:
    """The exceptions in a group, however deep; a plain exception is its own only member."""
    if isinstance(error, BaseExceptionGroup):
        inner = cast("tuple[BaseException, ...]", error.exceptions)  # pyright: ignore[reportUnknownMemberType]
        return [leaf for each in inner for leaf in members(each)]
    return [error]


def _code(error: BaseException) -> int:
    match error:
        case UsageError():
            return USAGE
        case ConfigError():
            return REFUSED if isinstance(error.__cause__, OSError) else INVALID
        case SinkClosed():
            return OUTPUT_CLOSED
        case RunStopped():
            return REFUSED if error.cause_kind == "refused" else STOPPED
        case InvariantError():
            return BROKEN
        case WriteError():
            return IO_ERROR
        case JournalLocked() | OutputLocked():
            return LOCKED
        case SourceError():
            return IO_ERROR if isinstance(error.__cause__, OSError) else REFUSED
        case PipelineError():
            return REFUSED
        case OSError():
            return IO_ERROR
        case Terminated():
            return TERMINATED
        case KeyboardInterrupt():
            return INTERRUPTED
        case _:
            return BROKEN


def _text(error: BaseException) -> str:
    match error:
        case SinkClosed() | KeyboardInterrupt():
            return ""
        case ConfigError():
            return str(error)
        case RunStopped():
            return f"stopped: {error.reason}"
        case JournalError():
            return f"error: {str(error).replace(_IN_CODE, '')}"
        case UsageError() | PipelineError() if not isinstance(error, InvariantError):
            return f"error: {error}"
        case OSError():
            name = f"{error.filename}: " if error.filename else ""
            return f"error: {name}{(error.strerror or str(error)).lower()}"
        case _:
            lines = "".join(traceback.format_exception(error)).rstrip()
            return f"{lines}\nThis is a bug of penstock, or of code that the pipeline calls. It ended the run."
