"""Noting which root's code has the process in its hands, so that after a crash it is known whose code it was.

A visit is noted while its code runs, not while it waits: for a model, for a timer, for its turn. What it has in a
thread or in a process is noted until that ends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import nullcontext
from contextvars import ContextVar
from functools import partial
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from pipeline.core.item import Item

if TYPE_CHECKING:
    from pipeline.core.leaf import LeafStage, Process, Visited
    from pipeline.core.ports import Page
    from pipeline.core.workers import Worker

T = TypeVar("T")

#: the page of the visit at hand
_PAGE: ContextVar[Page | None] = ContextVar("penstock_page", default=None)


def marked(process: Process, stage: LeafStage) -> Process:
    """`process` of `stage`, noted while it runs. Those of a root that was at work at a crash wait for their turn; but
    an agent that only asks its model does not: it would have to wait for the answers that others get, and who wins a
    race would be another one. What runs no code but ours needs no note."""
    if not stage.foreign:
        return process
    asks = stage.calls and getattr(stage, "pure", False)

    def visit(item: Item, worker: Worker) -> Visited | Awaitable[Visited]:
        page = item.frame.root.page
        if page is None:
            return process(item, worker)
        if page.turn is not None and not asks:
            return in_turn(page, partial(process, item, worker))
        visited = marked_call(page, process, item, worker)
        return visited if visited is None or isinstance(visited, Item) else Stepped(page, visited)

    return visit


def marked_call(page: Page, function: Callable[..., T], *args: object) -> T:
    """Call `function`, noted while it runs."""
    mark = page.enter()
    try:
        return function(*args)
    finally:
        page.leave(mark)


async def in_turn(page: Page, function: Callable[[], T | Awaitable[T]]) -> T:
    """Call `function`, noted while it runs, and await what it gives if it has to be; when it is the root's turn."""
    async with page.turn or nullcontext():
        answer = marked_call(page, function)
        return await Stepped(page, cast("Awaitable[T]", answer)) if isawaitable(answer) else answer


def noted(item: Item, awaited: Awaitable[T]) -> Awaitable[T]:
    """`awaited`, noted as code that works on the root of `item`, if there is a journal to note it in."""
    page = item.frame.root.page
    return awaited if page is None else Stepped(page, awaited)


class Stepped(Awaitable[T]):
    """Awaits something, and notes it from each time it goes on to the next time it waits."""

    __slots__ = ("_awaited", "_page")

    def __init__(self, page: Page, awaited: Awaitable[T]) -> None:
        self._page = page
        self._awaited = awaited

    def __await__(self) -> Generator[Any, Any, T]:
        page = self._page
        token = _PAGE.set(page)
        try:
            steps = self._awaited.__await__()
            if not hasattr(steps, "send"):  # a plain iterator
                steps = _through(self._awaited).__await__()
            step: Callable[..., object] = steps.__next__
            given: tuple[object, ...] = ()
            while True:
                try:
                    asked = marked_call(page, step, *given)
                except StopIteration as end:
                    return end.value
                try:
                    step, given = steps.send, ((yield asked),)  # pyright: ignore[reportAttributeAccessIssue]
                except BaseException as error:
                    step, given = steps.throw, (error,)  # pyright: ignore[reportAttributeAccessIssue]
        finally:
            _PAGE.reset(token)


async def _through(awaited: Awaitable[T]) -> T:
    return await awaited


class Elsewhere:
    """What the visit at hand has in a thread or in a process, from now on."""

    __slots__ = ("_mark", "_page")

    def __init__(self) -> None:
        self._page = _PAGE.get()
        self._mark = 0 if self._page is None else self._page.enter()

    def end(self) -> None:
        """It has come back."""
        if self._page is not None:
            self._page.leave(self._mark)
            self._page = None
