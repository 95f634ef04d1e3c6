"""Iterating what a user's function gave, whatever iterable it is, and closing it in the task that iterates it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Iterable, Mapping
from typing import Protocol, cast

from anyio import CancelScope, move_on_after

from pipeline.core.errors import ItemError
from pipeline.core.item import Item
from pipeline.core.marking import noted

#: why an item is partial whose iterator was cut by a drain
CUT = "the run took nothing more in before split had given every part"

#: seconds that a user's async iterator has to close
CLOSING_SECONDS = 5.0


async def each_of(result: object, what: str) -> AsyncGenerator[object]:
    """Yield the members of `result` one at a time. `what` names its origin in errors.

    Raises `ItemError` for what is no iterable; text and mappings are not taken apart.
    """
    if isinstance(result, str | bytes | Mapping):
        raise ItemError(
            f"{what} has to give a list or an iterator, got one {type(cast(object, result)).__name__}", type="NotAList"
        )
    if isinstance(result, AsyncIterable):
        stream = aiter(cast("AsyncIterable[object]", result))
        try:
            async for member in stream:
                yield member
        finally:
            await close(stream)
    elif isinstance(result, Iterable):
        for member in cast("Iterable[object]", result):
            yield member
    else:
        raise ItemError(f"{what} has to give a list or an iterator, got {type(result).__name__}", type="NotAList")


async def resolved(result: object) -> object:
    """What `result` is, once it has been awaited if it has to be."""
    return await cast("Awaitable[object]", result) if inspect.isawaitable(result) else result


class Pulls:
    """The waits for the next member of users' iterators in one run. A drain ends those waits, and nothing else: what
    has been given stays out, and a list, which never waits, is not cut."""

    def __init__(self) -> None:
        self._waiting: set[CancelScope] = set()
        self._closed = False

    def close(self) -> None:
        """End every wait, and those to come."""
        self._closed = True
        for scope in self._waiting:
            scope.cancel()

    async def next(self, members: AsyncIterator[object], holder: Holder) -> tuple[object, ...] | None:
        """The next member as a tuple of one, or an empty one at the end; None after `close`, or when `holder.pulling`,
        set for the length of the wait, was cancelled."""
        with CancelScope() as scope:
            if self._closed:
                scope.cancel()
            holder.pulling = scope
            self._waiting.add(scope)
            try:
                return (await noted(holder.item, anext(members)),)
            except StopAsyncIteration:
                return ()
            finally:
                self._waiting.discard(scope)
                holder.pulling = None
        return None


class Holder(Protocol):
    """Who waits, so that the wait can be cancelled."""

    pulling: CancelScope | None
    item: Item


async def close(iterator: object) -> None:
    """Close an async generator, shielded from cancellation, within a time limit; other iterators have no close."""
    aclose = getattr(iterator, "aclose", None)
    if aclose is not None:
        with move_on_after(CLOSING_SECONDS, shield=True):
            await aclose()
