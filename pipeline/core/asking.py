"""Asking a user's function about an item that a composite has in hand, before it is in any group.

The function may be async and take its time, so it is like a visit: whoever revokes the item ends the wait.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from functools import partial
from typing import cast

from anyio import CancelScope

from pipeline.core.item import Item, Outcome
from pipeline.core.marking import Stepped, marked_call
from pipeline.core.replay import once, once_now


class Asking:
    """The wait for an answer. The `visitor` of the item's frame."""

    __slots__ = ("scope", "stage")

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self.scope = CancelScope()

    def cancel(self) -> None:
        self.scope.cancel()


async def ask(function: Callable[..., object], item: Item, stage: str, kind: str) -> object:
    """What `function` says of the payload, once it has been awaited if it has to be; with a journal it is asked once,
    and `kind` is what it is asked for.

    An item that is revoked meanwhile is the caller's to drop, whatever this returns or raises. What is no failure of
    the item, such as a cancellation, ends it.
    """
    frame = item.frame
    try:
        page = frame.root.page
        asked = function if page is None else partial(marked_call, page, function)
        answer = once_now(kind, item, stage, lambda: asked(item.value))
        if not inspect.isawaitable(answer):
            return answer
        asking = Asking(stage)
        with asking.scope:
            frame.visitor = asking
            if frame.revoked:  # while something else was asked
                asking.cancel()
            waited = cast("Awaitable[object]", answer)
            return await waited if page is None else await once(kind, item, stage, lambda: Stepped(page, waited))
    except Exception:
        raise
    except BaseException:
        frame.resolve(Outcome("cancelled", item))
        raise
    finally:
        frame.visitor = None
    return None
