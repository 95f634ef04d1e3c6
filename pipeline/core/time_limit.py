"""How long one visit may take: its own clock, which starts when the function does.

What waits before that (for a slot, for the unit of a thread, for a process to start) is not the function's fault and is
not counted; `item_timeout` counts everything.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable
from typing import TypeVar

import anyio
from anyio import CancelScope

from pipeline.core.errors import ItemError

T = TypeVar("T")


async def within(seconds: float | None, stage: str, visit: Awaitable[T]) -> T:
    """Await `visit`, which is cancelled after `seconds` if that is not None.

    What it returns at that instant or later is refused, so that a result never depends on which of two timers of one
    instant comes first. Raises `ItemError` of type `VisitTimeout`.
    """
    if seconds is None:
        return await visit
    deadline = anyio.current_time() + seconds
    with CancelScope(deadline=deadline):
        result = await visit
        if anyio.current_time() < deadline:
            return result
    raise ItemError(f"stage {stage!r} did not end within {seconds:g} s", type="VisitTimeout", retryable=True)


def is_duration(value: object) -> bool:
    """Say whether `value` is a number of seconds above 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
