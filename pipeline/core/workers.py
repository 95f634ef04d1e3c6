"""The tasks of a leaf stage: each receives an item, takes a slot, visits, gives the slot back, sends on.

Workers come as they are needed: one at first, one more whenever an item was received, nobody waits for the next, and
fewer are awake than there are slots. A worker that waits between attempts has given its slot back and is not awake, so
another one takes its place; how many can sleep is bounded by the admission window.

No slot is held over a send. A worker that waits to send is awake, though, which is what makes a slow stage block its
producers.

The cancel scope around visits belongs to the worker and is made anew only after it was used, because a scope costs
more than a cheap visit. It is cancelled only while `frame.visitor` points here, which is never during a hand-over.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from anyio import BrokenResourceError, CancelScope, EndOfStream, WouldBlock, create_task_group
from anyio.lowlevel import checkpoint

from pipeline.core.errors import CallsClosed, InvariantError, Skip
from pipeline.core.item import Item, Outcome
from pipeline.core.leaf import LeafStage
from pipeline.core.marking import marked
from pipeline.core.ports import Hold
from pipeline.core.streams import BURST, BURST_SECONDS, Inbox, Outbox, hand_over

if TYPE_CHECKING:
    from pipeline.core.scope import Scope


class Workers:
    """The crew of one leaf stage in one run."""

    def __init__(self, stage: LeafStage, scope: Scope, inbox: Inbox, outbox: Outbox) -> None:
        self.stage = stage
        self.name = stage.name
        self.scope = scope
        self.machine = scope.machine
        self.inbox = inbox
        self.outbox = outbox
        self.meter = scope.meter(stage.name, stage.concurrency)
        self.slots = self.meter.slots
        self.process = stage.bind(scope) if scope.machine.journal is None else marked(stage.bind(scope), stage)
        scope.machine.crews[stage.name] = self
        self.task_group = create_task_group()
        self.idle = 0
        self.awake = 0
        self.ended = False

    async def run(self) -> None:
        """Work until the inbox ends and every visit is over."""
        self.meter.staff = self.staff
        try:
            async with self.task_group:
                self._start_worker()
        finally:
            self.meter.staff = None

    def staff(self) -> None:
        """Start a worker if nobody waits for an item while slots are free."""
        if not self.idle and not self.ended and self.awake < self.slots.total:
            self._start_worker()

    def _start_worker(self) -> None:
        self.awake += 1
        self.task_group.start_soon(Worker(self).run, name=f"penstock {self.name}")

    def leave(self) -> None:
        """Stop, because downstream has left."""
        self.ended = True
        self.task_group.cancel_scope.cancel()


class Worker:
    """One task of a crew, and the lease that borrows its slot. A frame's `visitor`."""

    __slots__ = ("at", "borrowed", "crew", "holds", "lent", "reached", "scope", "since")

    def __init__(self, crew: Workers) -> None:
        self.crew = crew
        self.borrowed = False
        self.lent = False  #: given back for as long as the visit sleeps
        self.at = ""  #: the stage to name in a failure, when several are fused into one
        self.reached: Item | None = None  #: the item as that stage got it
        self.scope = CancelScope()
        self.since = 0.0  #: when it received the item that it visits
        self.holds: list[Hold] = []  #: what the visit waits for, the latest last

    @property
    def stage(self) -> str:
        return self.crew.name

    @property
    def age(self) -> float:
        """Seconds since it received the item that it visits."""
        return monotonic() - self.since

    def cancel(self) -> None:
        """Let go of the item in hand: its frame was revoked."""
        self.scope.cancel()

    async def run(self) -> None:
        crew = self.crew
        try:
            while True:
                with CancelScope() as self.scope:
                    await self._work()
                if not self.scope.cancel_called:
                    return
        except EndOfStream:
            crew.ended = True
        except BrokenResourceError:
            crew.leave()
        finally:
            self.release()
            crew.awake -= 1

    async def _work(self) -> None:
        """Visit item after item, until a revocation has used up the cancel scope or there are too many workers.

        A slot is kept from one visit to the next as long as nobody waits for it and there is nothing to wait for but
        one turn of the scheduler: giving it back only to take it again would cost more than a cheap visit.
        """
        crew, meter, slots, process = self.crew, self.crew.meter, self.crew.slots, self.crew.process
        receive_nowait, send_nowait = crew.inbox.receive_nowait, crew.outbox.send_nowait
        burst, since = 0, monotonic()
        while True:
            now = monotonic()
            if burst >= BURST or now - since > BURST_SECONDS:
                await checkpoint()
                burst, since = 0, monotonic()
            try:
                item = receive_nowait()
            except WouldBlock:
                await checkpoint()  # cheaper than a wait, and often all that is needed for the next one to arrive
                try:
                    item = receive_nowait()
                except WouldBlock:
                    item = await self._receive()
                burst, since = 0, monotonic()
                meter.waiting += since - now
                now = since
            burst += 1
            if not crew.idle and crew.awake < slots.total:
                crew.staff()
            frame = item.frame
            frame.hops += 1
            frame.item = item
            if frame.revoked:
                frame.drop()
                continue
            frame.visitor = self
            self.since = now
            try:
                if not self.borrowed:
                    await self._borrow()
                if not frame.touched:
                    frame.touch()
                meter.received += 1
                visited = process(item, self)
                result = visited if visited is None or isinstance(visited, Item) else await visited
            except Exception as error:
                frame.visitor = None
                self.release()
                self._failed(item, error)
                if self.scope.cancel_called:
                    return
                continue
            except BaseException:
                frame.visitor = None
                self.release()
                frame.resolve(Outcome("cancelled", item))
                raise
            frame.visitor = None
            if slots.contended or self.lent:
                self.release()
            meter.busy += monotonic() - now
            if frame.revoked:
                frame.retire()
            elif result is None:
                meter.skipped += 1
                frame.resolve(Outcome("skipped", item))
            else:
                meter.emitted += 1
                try:
                    send_nowait(result)
                except WouldBlock:
                    await self._send(result)
                    burst, since = 0, monotonic()
                except BrokenResourceError:
                    frame.resolve(Outcome("cancelled", result))
                    raise
            if self.scope.cancel_called or crew.awake > slots.total:
                return

    async def _borrow(self) -> None:
        """Take a slot; the wait for one is part of the visit, so that a revoked item does not queue for it."""
        slots = self.crew.slots
        try:
            slots.acquire_nowait(self)
        except WouldBlock:
            await slots.acquire(self)
        self.borrowed = True

    async def _receive(self) -> Item:
        """Wait for an item."""
        self.release()
        self.crew.idle += 1
        try:
            return await self.crew.inbox.receive()
        finally:
            self.crew.idle -= 1

    async def _send(self, item: Item) -> None:
        """Wait for room downstream."""
        crew, asked = self.crew, monotonic()
        try:
            await self._send_after_turn(item)
        finally:
            crew.meter.blocked += monotonic() - asked

    async def _send_after_turn(self, item: Item) -> None:
        """Give the receiver one turn of the scheduler to make room before the slot is given back."""
        outbox = self.crew.outbox
        try:
            await checkpoint()
            outbox.send_nowait(item)
        except WouldBlock:
            self.release()
            await hand_over(outbox, item)
        except BaseException:  # cancelled or broken: it was not taken
            item.frame.resolve(Outcome("cancelled", item))
            raise

    def _failed(self, item: Item, error: Exception) -> None:
        if isinstance(error, InvariantError):
            raise error
        if item.frame.revoked:  # what a cancelled visit raises on its way out is of no interest
            item.frame.retire()
            return
        if isinstance(error, Skip):
            self.crew.meter.skipped += 1
        elif not isinstance(error, CallsClosed):
            self.crew.meter.failed += 1
        self.crew.scope.fail(self.reached or item, error, self.at or self.crew.name, self.crew.stage.on_error)
        self.at, self.reached = "", None

    # -- asked by visits ----------------------------------------------------------------------------------------

    def lend_slot(self) -> None:
        """Give the slot back while this visit sleeps; another worker may use it."""
        self.release()
        self.lent = True
        self.crew.awake -= 1
        self.crew.slots.sleeping += 1
        self.crew.staff()

    async def regain_slot(self) -> None:
        """Take a slot again. When cancelled while waiting, it stays lent."""
        await self._borrow()
        self._wake()

    def _wake(self) -> None:
        self.lent = False
        self.crew.awake += 1
        self.crew.slots.sleeping -= 1

    def release(self) -> None:
        """Give the slot back, if there is one in hand."""
        if self.borrowed:
            self.borrowed = False
            self.crew.slots.release(self)
        elif self.lent:  # the visit has ended without it
            self._wake()
