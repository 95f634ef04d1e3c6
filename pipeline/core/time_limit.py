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

from pipeline.core.errors import ItemError, is_bug

T = TypeVar("T")


async def within(seconds: float | None, stage: str, visit: Awaitable[T], part: str | None = None) -> T:
    """Await `visit`, or a part of one, such as `tool 'search'`; it is cancelled after `seconds` if that is not None.

    What it returns or raises at that instant or later is refused, so that a result never depends on which of two timers
    of one instant comes first, nor on what goes wrong while a visit that is too late cleans up. Raises `ItemError` of
    type `VisitTimeout`, from that error if there is one.
    """
    if seconds is None:
        return await visit
    deadline = anyio.current_time() + seconds
    late: Exception | None = None
    try:
        with CancelScope(deadline=deadline):
            result = await visit
            if anyio.current_time() < deadline:
                return result
    except Exception as error:
        if anyio.current_time() < deadline or is_bug(error):
            raise
        late = error
    text = f"{part or f'stage {stage!r}'} did not end within {seconds:g} s"
    raise ItemError(text, type="VisitTimeout", retryable=True) from late


def is_duration(value: object) -> bool:
    """Say whether `value` is a number of seconds above 0."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
