"""Stages that visit one item at a time: what authors write.

A subclass gives `bind`, which makes the run-scoped function that visits items; the workers around it are the engine's
(`pipeline.core.workers`). The simple way in for authors is `async def process(self, item)` on a subclass of
`LeafStage`.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from pipeline.core.arity import accepts
from pipeline.core.errors import Problem
from pipeline.core.item import Item
from pipeline.core.mutation import watched
from pipeline.core.stage import OnError, Stage
from pipeline.core.streams import Inbox, Outbox
from pipeline.core.visit import Visit

if TYPE_CHECKING:
    from pipeline.core.scope import Scope
    from pipeline.core.workers import Worker

Visited: TypeAlias = Item | None  # None: the item is skipped
Process: TypeAlias = "Callable[[Item, Worker], Visited | Awaitable[Visited]]"
Plain: TypeAlias = Callable[[Item], Visited]


@dataclass(frozen=True)
class LeafStage(Stage):
    """A stage with slots: `concurrency` visits at once, which may change while a run goes on.

    Subclass it and write `async def process(self, item)` (one parameter more gives the visit), returning the payload to
    send on, a whole `Item`, or None to skip. An exception fails the item, see `on_error`.
    """

    concurrency: int = 1
    on_error: OnError | None = None  #: None: what the pipeline says

    async def run(self, inbox: Inbox, outbox: Outbox, scope: Scope) -> None:
        from pipeline.core.workers import Workers  # definitions stay importable without the machinery

        await Workers(self, scope, inbox, outbox).run()

    @property
    def calls(self) -> bool:
        """Whether its visits are calls that the pipeline's bound on calls counts."""
        return False

    @property
    def foreign(self) -> bool:
        """Whether its visits run code that is not ours, which may take the process down with it."""
        return True

    def bind(self, scope: Scope) -> Process:
        """Make the function that visits items in this run."""
        process = getattr(self, "process", None)
        if process is None:
            raise TypeError(f"{type(self).__name__} has neither process(item) nor bind(scope)")
        return bound(self.name, watched(process, self.name, scope.machine), accepts(process, 2))

    def plain(self) -> Plain | None:
        """The visit as a plain function, when it never waits and needs no visit: such neighbours are fused."""
        return None

    def problems(self, *, in_body: bool) -> tuple[Problem, ...]:
        if type(self.concurrency) is not int or self.concurrency < 1:
            return (
                Problem(self.name, "concurrency", f"must be a whole number of at least 1, got {self.concurrency!r}"),
            )
        return ()


def bound(name: str, process: Callable[..., object], with_visit: bool) -> Process:
    """Wrap a user's `process(item[, visit])` so that it gives the item to send on."""

    async def visit(item: Item, worker: Worker) -> Visited:
        result = process(item, Visit(worker, item)) if with_visit else process(item)
        if inspect.isawaitable(result):
            result = await result
        return sent_on(name, item, result)

    return visit


def sent_on(name: str, item: Item, result: object) -> Visited:
    """Read what a `process` returned: an item, a payload, or None for skip."""
    if result is None or isinstance(result, Item):
        return result
    return item.output(name, result)
