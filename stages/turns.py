"""One queue in which tasks and threads wait for their turn: whoever drew a ticket first is called first.

What decides is synchronous. Its lock is held for a few instructions and never while anything waits, so an event loop
may take it; whoever waits does so for the call of its own ticket.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

import anyio
from anyio import RunFinishedError, get_current_task
from anyio.lowlevel import EventLoopToken, checkpoint, current_token

from pipeline.core.anyio_private import call_soon
from pipeline.core.errors import PipelineError


class Ticket(Protocol):
    """A place in the queue."""

    @property
    def owner(self) -> object:
        """Who waits; equal for two tickets of one task, or of one thread."""
        ...

    @property
    def loop(self) -> EventLoopToken | None:
        """The event loop in which the owner runs; None for a thread."""
        ...

    def call(self, caller: EventLoopToken | None) -> None:
        """Wake the owner, from the loop `caller` or from a thread, without waiting for anything. Raises
        `RunFinishedError` when the owner's loop has ended."""
        ...


class TaskTicket:
    """The place of the task that makes it."""

    __slots__ = ("called", "loop", "owner")

    def __init__(self) -> None:
        self.owner: object = get_current_task()
        self.loop: EventLoopToken = current_token()
        self.called = anyio.Event()

    def call(self, caller: EventLoopToken | None) -> None:
        if caller == self.loop:
            self.called.set()
        else:
            call_soon(self.loop, self.called.set)


class ThreadTicket:
    """The place of the thread that makes it."""

    __slots__ = ("called", "owner")

    loop = None

    def __init__(self) -> None:
        self.owner: object = threading.get_ident()
        self.called = threading.Event()

    def call(self, caller: EventLoopToken | None) -> None:
        self.called.set()


class Turns:
    """The queue, and whose turn it is. What changes: `_holder` and `_waiting`, both only under `_lock`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holder: Ticket | None = None
        self._waiting: OrderedDict[Ticket, None] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Tickets that have not been called."""
        return len(self._waiting)

    def draw(self, ticket: Ticket) -> bool:
        """Enter the queue. True: it is the turn of `ticket` at once. Raises `PipelineError` when its owner has the turn
        already and would wait for itself."""
        with self._lock:
            holder = self._holder
            if holder is None:
                self._holder = ticket
                return True
            # two tickets of one owner: told below, where nothing is locked
            own = holder.owner == ticket.owner
            if not own:
                self._waiting[ticket] = None
        if own:
            raise PipelineError(
                "update() inside an update of the same state would wait for itself; change the values of the outer one"
            )
        return False

    def leave(self, ticket: Ticket) -> None:
        """Give up the turn of `ticket`, or its place in the queue if it has not been called. The next one is called;
        those whose loop has ended are passed over."""
        caller = ticket.loop
        with self._lock:
            self._waiting.pop(ticket, None)
        while True:
            with self._lock:
                if self._holder is not ticket:  # it was not its turn, or somebody has passed it on meanwhile
                    return
                following = self._waiting.popitem(last=False)[0] if self._waiting else None
                self._holder = following
            if following is None:
                return
            try:
                following.call(caller)
            except RunFinishedError:
                ticket = following
            else:
                return

    @asynccontextmanager
    async def task(self) -> AsyncGenerator[None]:
        """Have the turn for the length of the block, in a task."""
        ticket = TaskTicket()
        at_once = self.draw(ticket)
        try:
            await (checkpoint() if at_once else ticket.called.wait())
            yield
        finally:
            self.leave(ticket)

    @contextmanager
    def thread(self) -> Generator[None]:
        """Have the turn for the length of the block, in a thread without an event loop."""
        ticket = ThreadTicket()
        at_once = self.draw(ticket)
        try:
            if not at_once:
                ticket.called.wait()
            yield
        finally:
            self.leave(ticket)
