"""The item's time is the call's time: no call starts that the item cannot wait for.

The engine itself ends the visit when the item's time is up, wherever it is, and a wait between attempts that would go
beyond it is not begun. A second timer here would only race with the engine's.
"""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from pipeline.calls.call import Call, Reply, Request
from pipeline.calls.errors import CallError


@dataclass(frozen=True, slots=True)
class Deadline:
    """Refuses a call whose `visit.deadline` has passed, with a `CallError` of type `item_timeout`."""

    def __call__(self, call: Call, /) -> Call:
        async def in_time(request: Request) -> Reply:
            deadline = request.visit.deadline
            if deadline is not None and anyio.current_time() >= deadline:
                text = f"the item's time ended before stage {request.visit.stage!r} called its model"
                raise CallError(text, fault="fail", type="item_timeout")
            return await call(request)

        return in_time
