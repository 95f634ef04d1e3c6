"""One attempt may take so long; then it is given up, and may be tried again."""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from pipeline.calls.call import Call, Reply, Request
from pipeline.calls.errors import CallError


@dataclass(frozen=True, slots=True)
class AttemptTimeout:
    """Cancels an attempt after `seconds` with a `CallError` of type `timeout`; the server may have been at work.

    Innermost, so that waiting in our own queues is not mistaken for a slow model.
    """

    seconds: float

    def __call__(self, call: Call, /) -> Call:
        async def limited(request: Request) -> Reply:
            with anyio.move_on_after(self.seconds):
                return await call(request)
            raise CallError(f"no answer within {self.seconds:g} s", fault="ambiguous", type="timeout")

        return limited
