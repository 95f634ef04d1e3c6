"""A model's own cap on attempts in flight, shared by all stages of a run that use it."""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from pipeline.calls.call import Call, Reply, Request


@dataclass(frozen=True, slots=True)
class SharedLimit:
    """Holds one unit of `limiter` for the length of an attempt. Taken after the stage's slot, never while sleeping."""

    limiter: anyio.CapacityLimiter

    def __call__(self, call: Call, /) -> Call:
        async def within_limit(request: Request) -> Reply:
            borrower = object()  # a task may have two calls of one model in flight
            await self.limiter.acquire_on_behalf_of(borrower)
            try:
                return await call(request)
            finally:
                self.limiter.release_on_behalf_of(borrower)

        return within_limit
