"""Items that go into a body ahead of new ones: the rounds of a loop, parked items whose turn has come, full batches.

Each of them belongs to a root that holds a credit, so the line needs no bound of its own: it has room for the most that
can be alive at its depth, and putting something in never waits. That is what keeps a cycle from blocking itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio
from anyio import BrokenResourceError, CancelScope, ClosedResourceError, WouldBlock

from pipeline.core.item import Item
from pipeline.core.streams import Outbox


class Turn:
    """An item that waits in the line. The `visitor` of its frame, so that one which is revoked leaves at once."""

    __slots__ = ("feedback", "item", "label", "owner")

    def __init__(self, feedback: Feedback, label: str, item: Item, owner: Owner) -> None:
        self.feedback = feedback
        self.label = label
        self.item = item
        self.owner = owner

    @property
    def stage(self) -> str:
        return self.feedback.stage

    def cancel(self) -> None:
        self.feedback.withdraw(self)


class Owner(Protocol):
    """Whoever put an item into the line, and cancels `scope` when it wants no more of the send."""

    scope: CancelScope | None


class Feedback:
    """The line in front of the bodies of one composite in one run, and the one task that empties it."""

    def __init__(self, stage: str, send: Callable[[Outbox, Item], Awaitable[None]]) -> None:
        self.stage = stage
        self._send = send
        self._line: dict[Turn, None] = {}
        self._sending = False
        self._changed = anyio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._line)

    @property
    def pending(self) -> bool:
        """Something goes before new input."""
        return self._sending or bool(self._line)

    def put(self, label: str, item: Item, owner: Owner) -> None:
        """Let `item`, which is not revoked, into the body `label` as soon as it has room. Never waits."""
        turn = Turn(self, label, item, owner)
        item.frame.visitor = turn
        self._line[turn] = None
        self._changed.set()

    def withdraw(self, turn: Turn) -> None:
        """Take a revoked item out of the line."""
        del self._line[turn]
        turn.item.frame.visitor = None
        turn.item.frame.retire()
        self._changed.set()

    async def wait_clear(self) -> None:
        """Wait until nothing goes before new input."""
        while self.pending:
            await self._next_change()

    async def run(self, entries: dict[str, Outbox]) -> None:
        """Send what comes into the line until `close`."""
        while not self._closed:
            while self._line:
                turn = next(iter(self._line))
                del self._line[turn]
                turn.item.frame.visitor = None
                await self._hand_over(entries[turn.label], turn)
            self._changed.set()
            if not self._closed:
                await self._next_change()

    def close(self) -> None:
        """Nothing will be put in any more."""
        self._closed = True
        self._changed.set()

    async def _hand_over(self, outbox: Outbox, turn: Turn) -> None:
        try:
            outbox.send_nowait(turn.item)
        except (WouldBlock, BrokenResourceError, ClosedResourceError):  # the slow way knows what to do with each
            self._sending = True
            try:
                with CancelScope() as scope:
                    turn.owner.scope = scope
                    await self._send(outbox, turn.item)
            finally:
                turn.owner.scope = None
                self._sending = False

    async def _next_change(self) -> None:
        if self._changed.is_set():
            self._changed = anyio.Event()
        await self._changed.wait()
