"""Iterating what a user's function gave, whatever iterable it is, and closing it in the task that iterates it."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Iterable, Mapping
from typing import cast

from anyio import move_on_after

from pipeline.core.errors import ItemError

#: seconds that a user's async iterator has to close
CLOSING_SECONDS = 5.0


async def each_of(result: object, what: str) -> AsyncGenerator[object]:
    """Yield the members of `result`, which may be awaited first, one at a time. `what` names its origin in errors.

    Raises `ItemError` for what is no iterable; text and mappings are not taken apart.
    """
    if inspect.isawaitable(result):
        result = await cast("Awaitable[object]", result)
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


async def close(iterator: object) -> None:
    """Close an async generator, shielded from cancellation, within a time limit; other iterators have no close."""
    aclose = getattr(iterator, "aclose", None)
    if aclose is not None:
        with move_on_after(CLOSING_SECONDS, shield=True):
            await aclose()
