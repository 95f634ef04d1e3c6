"""Counts the flags of answers, and tells whoever listens how each call and each attempt ended; when nobody listens,
nothing is made."""

from __future__ import annotations

from dataclasses import dataclass, replace

import anyio

from pipeline.calls.call import Call, Reply, Request, Tries
from pipeline.calls.errors import CallError
from pipeline.core.errors import CallsClosed, ItemError
from pipeline.core.events import AttemptEnded, CallEnded
from pipeline.core.usage import Cost, Usage


@dataclass(frozen=True, slots=True)
class ObservedCall:
    """Remarks the flags of each answer of `model`, and sends `CallEnded`: outermost, so that it tells what all policies
    came to."""

    model: str

    def __call__(self, call: Call, /) -> Call:
        async def observed(request: Request) -> Reply:
            if not request.visit.listening:
                return _remarked(await call(request), request)
            tries, began = request.tries or Tries(), anyio.current_time()
            outcome, flags = "cancelled", ()
            try:
                reply = _remarked(await call(replace(request, tries=tries)), request)
                outcome, flags = "ok", reply.flags
            except Exception as error:
                outcome = _word_for(error)
                raise
            finally:
                self._tell(request, outcome, tries.made, anyio.current_time() - began, flags)
            return reply

        return observed

    def _tell(self, request: Request, outcome: str, attempts: int, seconds: float, flags: tuple[str, ...]) -> None:
        who = request.identity
        request.visit.emit(CallEnded(who.item_id, who.path, who.ordinal, self.model, outcome, attempts, seconds, flags))


@dataclass(frozen=True, slots=True)
class ObservedAttempt:
    """Sends `AttemptEnded` for each attempt at `model`: around its timeout only, so that no wait of ours is in it."""

    model: str

    def __call__(self, call: Call, /) -> Call:
        async def observed(request: Request) -> Reply:
            if request.leg is not None:
                request.leg.sent()
            if not request.visit.listening:
                return await call(request)
            began = anyio.current_time()
            outcome, usage, cost = "cancelled", None, None
            try:
                reply = await call(request)
                outcome, usage, cost = "ok", reply.usage, reply.cost
            except CallError as error:
                outcome, usage, cost = error.type, error.usage, error.cost
                raise
            except Exception as error:
                outcome = _word_for(error)
                raise
            finally:
                self._tell(request, outcome, anyio.current_time() - began, usage, cost)
            return reply

        return observed

    def _tell(self, request: Request, outcome: str, seconds: float, usage: Usage | None, cost: Cost | None) -> None:
        who = request.identity
        request.visit.emit(
            AttemptEnded(who.item_id, who.path, who.ordinal, request.attempt, self.model, outcome, seconds, usage, cost)
        )


def _remarked(reply: Reply, request: Request) -> Reply:
    for flag in reply.flags:
        request.visit.remark(flag)
    return reply


def _word_for(error: Exception) -> str:
    """The word in an event: the type of a failure; a call that the run did not let begin was cancelled."""
    if isinstance(error, CallsClosed):
        return "cancelled"
    return error.type if isinstance(error, ItemError) else type(error).__name__
