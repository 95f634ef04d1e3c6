"""What can go wrong, classed by what the caller would do about it.

A failed item is a value (`Failure`) and takes the short way out; the run goes on. A `PipelineError` that reaches the
caller is about the definition, the run as a whole, or a broken invariant of the engine.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast


class PipelineError(Exception):
    """Base of everything that Penstock raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a definition: where it is (stage and option), what it is, and what would be right."""

    stage: str | None
    option: str | None
    message: str
    hint: str | None = None

    def __str__(self) -> str:
        where = f"stage {self.stage!r}" if self.stage else "pipeline"
        if self.option:
            where += f", {self.option}"
        return f"{where}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class DefinitionError(PipelineError):
    """A pipeline, stage or model is defined in a way that cannot run. Holds every problem found, not the first."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class SourceError(PipelineError):
    """The input cannot be read at all; says which, why, and what to do."""


class SinkError(PipelineError):
    """The output cannot be opened as asked, so nothing was begun; says which, why, and what to do."""


class WriteError(SinkError):
    """The output could not be written to its end (disk full, I/O error). It is not tried again."""


class OutputLocked(SinkError, OSError):
    """Another run is writing to the output."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.EAGAIN, "another run is writing to it", path)

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


class JournalError(PipelineError):
    """The journal of a run cannot be used as asked; says which, why, and what to do. Nothing was changed."""


class JournalLocked(JournalError):
    """Another process is running with this journal."""


class SinkClosed(PipelineError, BrokenPipeError):
    """The reader of the output has left, as `head` does: nobody wants more records."""


class InvariantError(PipelineError):
    """The engine broke one of its own laws: a bug. It crashes the run."""


def is_bug(error: BaseException) -> bool:
    """Whether `error` is, or holds, a broken law of the engine, which no stage may take for the failure of an item."""
    if isinstance(error, BaseExceptionGroup):
        return any(is_bug(member) for member in cast("BaseExceptionGroup[BaseException]", error).exceptions)
    return isinstance(error, InvariantError)


class RunClosed(PipelineError):
    """The run takes no more work."""


class RunStopped(PipelineError):
    """The run ended by a rule of its own before its input did; `reason` is the sentence for people."""

    def __init__(self, reason: str, *, cause_kind: str = "stopped") -> None:
        super().__init__(reason)
        self.reason = reason
        #: "failures" (too many), "refused" (a provider's final no), "budget" (it is spent), "stopped"
        self.cause_kind = cause_kind


class ItemError(PipelineError):
    """Why one item failed, with what a record says of it. Stages raise it to give more than a message.

    `stops_run` marks a refusal that every further item would meet too (a wrong key, no money): the run then drains
    without new calls and ends with `RunStopped`. `parks` marks what will succeed, but later than a run waits (a daily
    quota). With a journal, such an item stays open, for a resume.
    """

    stops_run: bool = False
    parks: bool = False

    def __init__(
        self,
        message: str,
        *,
        type: str | None = None,
        retryable: bool = False,
        http_status: int | None = None,
        attempts: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.type = type or self.__class__.__name__
        self.retryable = retryable
        self.http_status = http_status
        self.attempts = attempts
        self.request_id = request_id


class CallsClosed(PipelineError):
    """A new model call was asked for while the run only finishes calls in flight; the item is cancelled, not failed."""


class Skip(PipelineError):
    """Raised by a stage to let its item leave the pipeline without a record."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an item failed, as plain data."""

    type: str
    stage: str | None
    message: str
    retryable: bool = False
    http_status: int | None = None
    attempts: int | None = None
    request_id: str | None = None
    cause: BaseException | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, error: BaseException, stage: str | None) -> Failure:
        """Describe `error`, raised while `stage` had the item."""
        if isinstance(error, ItemError):
            return cls(
                error.type,
                stage,
                error.message,
                error.retryable,
                error.http_status,
                error.attempts,
                error.request_id,
                error,
            )
        return cls(type(error).__name__, stage, str(error) or type(error).__name__, cause=error)

    def as_json(self) -> Mapping[str, object]:
        """The `error` object of a record, keys in their fixed order."""
        return {
            "type": self.type,
            "stage": self.stage,
            "message": self.message,
            "retryable": self.retryable,
            "http_status": self.http_status,
            "attempts": self.attempts,
            "request_id": self.request_id,
        }
