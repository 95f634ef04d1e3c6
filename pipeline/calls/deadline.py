"""The item's time is the call's time: no attempt and no wait between attempts outlives the item."""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from pipeline.calls.call import Call, Reply, Request
from pipeline.calls.errors import CallError


@dataclass(frozen=True, slots=True)
class Deadline:
    """Ends the call at `visit.deadline` with a `CallError` of type `item_timeout`."""

    def __call__(self, call: Call, /) -> Call:
        async def until_deadline(request: Request) -> Reply:
            if request.visit.deadline is None:
                return await call(request)
            with anyio.CancelScope(deadline=request.visit.deadline):
                return await call(request)
            raise CallError(
                f"the item's time ended while stage {request.visit.stage!r} called its model",
                fault="fail",
                type="item_timeout",
            )

        return until_deadline
