"""An attempt is sent when the account's quota has room for it, and settles what it took."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.calls.call import Call, Reply, Request
from pipeline.calls.errors import CallError
from pipeline.calls.turnstile import Turnstile
from pipeline.core.errors import CallsClosed


@dataclass(frozen=True, slots=True)
class Pacing:
    """Takes what an attempt will need from `turnstile`, shared by all that use the account and model.

    Inside the gate, so that nobody is let through and then waits, which would send what was spread at once.
    """

    turnstile: Turnstile

    def __call__(self, call: Call, /) -> Call:
        turnstile = self.turnstile

        async def paced(request: Request) -> Reply:
            try:
                ticket = await turnstile.enter(request)
            except CallError:
                if request.tries is not None:
                    request.tries.give_back()
                raise
            try:
                reply = await call(request)
            except CallError as error:
                turnstile.failed(ticket, request, error)
                raise
            except CallsClosed:
                turnstile.not_sent(ticket)
                raise
            except BaseException:
                turnstile.given_up(ticket)
                raise
            turnstile.answered(ticket, request, reply)
            return reply

        return paced
