"""What a failed attempt says about its endpoint, and no more of it than that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pipeline.calls.errors import CallError, FaultClass
from pipeline.calls.faults import is_refused
from pipeline.core.usage import NO_USAGE

#: what a dead endpoint looks like, and how much each counts. Who stands before a dead server often says that it is
#: overloaded; a server that counts our requests, or refuses one of them, is alive.
_DEAD: Final[Mapping[str, float]] = {
    "connection": 1.0,
    "disconnected": 1.0,
    "timeout": 1.0,
    "server_error": 1.0,
    "pool_timeout": 1.0,
    "overloaded": 0.5,
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """What an endpoint said last, kept without the traceback and the request of the error that said it."""

    message: str
    type: str
    http_status: int | None
    request_id: str | None
    refused: bool = False  #: the host is there, and nobody listens

    @classmethod
    def of(cls, error: CallError) -> Trouble:
        return cls(error.message, error.type, error.http_status, error.request_id, is_refused(error))

    def again(self, fault: FaultClass, why: str, type: str | None = None) -> CallError:
        """The same trouble as the error of a call that made no attempt of its own."""
        return CallError(
            f"{self.message} ({why})",
            fault=fault,
            type=type or self.type,
            http_status=self.http_status,
            request_id=self.request_id,
            usage=NO_USAGE,
        )


def weight(error: CallError) -> float:
    """How much a failure counts for an endpoint that is dead; 0 when it says that somebody is there."""
    return _DEAD.get(error.type, 0.0) if error.fault in ("retry", "ambiguous") else 0.0
