"""What model calls share beyond one stage: quotas, breakers, budgets, clients; of one run, or of all that are given it.

    async with Limits() as limits:
        async with pipe.open(prompts, limits=limits) as run: ...

A run without any makes its own. What is in it is made when it is first asked for, by key; the engine knows none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Protocol, Self, TypeVar, cast, runtime_checkable

import anyio

from pipeline.core.budget import Budget, budget_problems
from pipeline.core.errors import DefinitionError
from pipeline.core.purse import Purse

T = TypeVar("T")


class LimitStatistics(Protocol):
    """One quota, gate or breaker at one instant; its text is a line for people."""

    def __str__(self) -> str: ...


@runtime_checkable
class WaitedFor(Protocol):
    """Statistics of something that calls wait for before they are sent."""

    @property
    def waiting(self) -> int:
        """Calls."""
        ...

    @property
    def what(self) -> str:
        """What comes after "wait for", in a few words."""
        ...


@runtime_checkable
class Watched(Protocol):
    """A shared thing that `Run.statistics().limits` shows."""

    def statistics(self) -> LimitStatistics | None:
        """None while there is nothing to tell of it."""
        ...


class Limits:
    """Holds what is shared, by key. Enter it before use and leave it when no run uses it any more.

    What can change: the things that it holds, and their own counts. Nothing is ever taken out before the end.
    """

    def __init__(self, budget: Budget | None = None) -> None:
        """`budget` is what all runs may spend that are given these limits, beside what each may by itself. Raises
        `DefinitionError` for what is no budget."""
        if found := budget_problems(budget):
            raise DefinitionError(*found)
        self.purse = None if budget is None else Purse(budget)
        self._kept: dict[Hashable, object] = {}
        self._opening: dict[Hashable, anyio.Lock] = {}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    def shared(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what stands under `key`; the first who asks makes it."""
        if key not in self._kept:
            self._kept[key] = make()
        return cast(T, self._kept[key])

    async def opened(self, key: Hashable, open: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """Return what stands under `key`; the first who asks opens it, and it is closed with these limits.

        The context manager must not hold a cancel scope or a task group open: it is closed by another task. It may open
        others in turn, which are closed after it.
        """
        async with self._opening.setdefault(key, anyio.Lock()):
            if key not in self._kept:
                self._kept[key] = await self._stack.enter_async_context(open())
        return cast(T, self._kept[key])

    def statistics(self) -> tuple[LimitStatistics, ...]:
        """What each watched thing that has something to tell looks like now, in the order in which they were first
        asked for."""
        found = [kept.statistics() for kept in self._kept.values() if isinstance(kept, Watched)]
        return tuple(each for each in found if each is not None)
