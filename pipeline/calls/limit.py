"""A model's own cap on attempts in flight, shared by all stages of a run that use it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import anyio

from pipeline.calls.call import Call, Reply, Request
from pipeline.core.ports import Visit


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """Who holds a unit: not the task, which may have two calls of one model in flight, nor the visit."""

    visit: Visit


@dataclass(frozen=True, slots=True)
class SharedLimit:
    """Holds one unit of `limiter` for the length of an attempt. Taken after the stage's slot, never while sleeping.

    Satisfies `ports.Hold`.
    """

    limiter: anyio.CapacityLimiter

    def __call__(self, call: Call, /) -> Call:
        async def within_limit(request: Request) -> Reply:
            attempt = Attempt(request.visit)
            if self.limiter.available_tokens > 0:
                await self.limiter.acquire_on_behalf_of(attempt)
            else:
                with request.visit.waiting(self):
                    await self.limiter.acquire_on_behalf_of(attempt)
            try:
                return await call(request)
            finally:
                self.limiter.release_on_behalf_of(attempt)

        return within_limit

    def __str__(self) -> str:
        now = self.limiter.statistics()
        return f"the model's max_concurrency ({now.borrowed_tokens}/{now.total_tokens:g} attempts in flight)"

    def holders(self) -> Sequence[Visit]:
        return [each.visit for each in self.limiter.statistics().borrowers if isinstance(each, Attempt)]
