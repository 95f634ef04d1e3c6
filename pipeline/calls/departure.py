"""The moment at which an attempt leaves the process, which its policies do not see: only what sends it knows.

What has not left costs nothing, whatever kills the process. Many attempts come into the journal at once, and then wait
for their turn, their body and a connection, so without this all of them would count as paid.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final, Protocol, runtime_checkable

from pipeline.core.ports import OpenAttempt

#: of the task that makes it; nothing else reaches from a policy through a client to its transport
_ATTEMPT: Final = ContextVar[OpenAttempt | None]("attempt", default=None)


@runtime_checkable
class TellsDepartures(Protocol):
    """A transport that calls `departs` itself, when it has a connection."""

    tells_departures: bool


def begun(attempt: OpenAttempt | None) -> None:
    """What this task sends next is sent for `attempt`; None: for nothing that is in a journal."""
    _ATTEMPT.set(attempt)


def awaited() -> bool:
    """Whether anybody wants to know."""
    return _ATTEMPT.get() is not None


def departs() -> None:
    """The first byte is about to leave."""
    attempt = _ATTEMPT.get()
    if attempt is not None:
        attempt.depart()
