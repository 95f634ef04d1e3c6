"""The one thing that bounds a run: credits, one a root, taken before its record is taken from the source.

A credit comes back when the root has settled *and* its last item has retired. Everything alive in a run (edges, reorder
buffer, groups, visits) belongs to a root that holds a credit, so this one number bounds them all at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import anyio

from pipeline.core.errors import Failure, InvariantError, ItemError
from pipeline.core.item import Frame, Item, Outcome
from pipeline.core.record import STATUSES, Input, Record, Status
from pipeline.core.results import Results
from pipeline.core.state import ConversationState
from pipeline.core.usage import Cost, Usage

NO_USAGE = Usage()


class Root(Frame):
    """One input record's life in a run: the bottom frame of every item that comes of it.

    What can change, beyond a frame's own: `live` (frames not retired), `usage` and `cost` (charged by calls),
    `settled`, `reply` (where a submitted root's record goes).
    """

    __slots__ = ("cost", "deadline", "done", "id", "index", "live", "record", "reply", "settled", "usage", "window")

    def __init__(self, window: Window, record: Input, index: int) -> None:
        self.group = window
        self.window = window
        self.slot = ""
        self.parent = None
        self.root = self
        self.names = window.names
        self.revoked = False
        self.retired = False
        self.touched = True
        self.hops = 0
        self.visitor = None
        self.inner = None
        self.record = record
        self.id = record.id if record.id is not None else str(index)
        self.index = index
        self.live = 0
        self.usage = NO_USAGE
        self.cost: Cost | None = None
        self.deadline: float | None = None
        self.done = False
        self.settled = False
        self.reply: Reply | None = None
        self.grow()

    def grow(self) -> None:
        """Count one more frame; the bound that the pipeline printed holds at every instant."""
        self.live += 1
        window = self.window
        window.alive += 1
        if window.alive > window.peak:
            window.peak = window.alive
            if window.alive > window.bound:
                raise InvariantError(f"{window.alive} items are alive, the bound is {window.bound}")

    def shrink(self) -> None:
        """Count one frame less; the last one of a settled root gives the credit back."""
        self.live -= 1
        self.window.alive -= 1
        if not self.live and self.settled:
            self.window.release()

    def charge(self, usage: Usage, cost: Cost | None) -> None:
        """Add an attempt to the account of this root, and of the run."""
        window = self.window
        self.usage = self.usage + usage
        window.usage = window.usage + usage
        if cost is not None:
            self.cost = cost if self.cost is None else self.cost + cost
            window.cost = cost if window.cost is None else window.cost + cost


class Reply:
    """Where the record of a submitted root is put, for the task that waits for it."""

    __slots__ = ("arrived", "record")

    def __init__(self) -> None:
        self.arrived = anyio.Event()
        self.record: Record | None = None

    def put(self, record: Record) -> None:
        self.record = record
        self.arrived.set()


@dataclass(frozen=True, slots=True)
class WindowStatistics:
    """Admission and conservation at one instant."""

    max_in_flight: int
    in_flight: int  #: credits taken
    alive: int  #: items not retired
    peak: int  #: most items alive so far
    bound: int  #: most items that can be alive
    admitted: int
    open: int  #: roots not settled
    settled: dict[Status, int]
    paused: bool

    @property
    def balanced(self) -> bool:
        """The law: admitted = settled + open."""
        return self.admitted == sum(self.settled.values()) + self.open


class Settling(NamedTuple):
    """Who hears of outcomes."""

    finished: Callable[[Root, Status], None]
    emptied: Callable[[], None]


class Window:
    """The admission window of one run, and the table of its open roots. The outermost fold of every lineage."""

    label = ""

    def __init__(
        self, max_in_flight: int, bound: int, names: dict[str, object], results: Results, on: Settling
    ) -> None:
        self.limit = max_in_flight
        self.bound = bound
        self.names = names
        self.results = results
        self.on = on
        self.in_flight = 0
        self.alive = 0
        self.peak = 0
        self.usage = NO_USAGE
        self.cost: Cost | None = None
        self.admitted = 0
        self.counts: dict[Status, int] = dict.fromkeys(STATUSES, 0)  #: settled roots
        self.ended: dict[Status, int] = dict.fromkeys(STATUSES, 0)  #: roots with an outcome, taken or not
        self.roots: dict[int, Root] = {}  #: open ones, oldest first
        self.paused = False
        self.closed = False  #: the run takes no new roots
        self._waiting: deque[anyio.Event] = deque()
        self._promised = 0  #: credits of those who were woken and have not run yet

    # -- credits ------------------------------------------------------------------------------------------------

    @property
    def free(self) -> bool:
        """A credit can be had at once. Nobody gets ahead of those who wait for one."""
        return self.in_flight + self._promised < self.limit and not self._waiting and not self.paused

    async def wait_free(self) -> None:
        """Wait for the right to a credit, first come, first served. Call `admit` or `pass_on` before anything is
        awaited."""
        if self.free:
            return
        turn = anyio.Event()
        self._waiting.append(turn)
        await self._wait_turn(turn)
        while self.paused and not self.closed:  # since it was woken: it stays the first
            turn = anyio.Event()
            self._waiting.appendleft(turn)
            await self._wait_turn(turn)

    async def _wait_turn(self, turn: anyio.Event) -> None:
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self._promised -= 1
                self.pass_on()
            else:
                self._waiting.remove(turn)
            raise
        self._promised -= 1

    def pass_on(self) -> None:
        """Let those who wait have the credits that are free."""
        while self._waiting and self.in_flight + self._promised < self.limit and not self.paused:
            self._promised += 1
            self._waiting.popleft().set()

    def release(self) -> None:
        """Give one credit back."""
        self.in_flight -= 1
        if self._waiting:
            self.pass_on()

    def close(self) -> None:
        """Admit nothing more: who waits for a credit is woken to see it."""
        self.closed = True
        while self._waiting:
            self._promised += 1
            self._waiting.popleft().set()

    def pause(self) -> None:
        """Let nobody have a credit until `resume`."""
        self.paused = True

    def resume(self) -> None:
        """Let credits be had again."""
        self.paused = False
        self.pass_on()

    # -- roots --------------------------------------------------------------------------------------------------

    def admit(self, record: Input) -> Root:
        """Take a credit and open a root. Call it right after `free` was seen true or `wait_free` has returned."""
        if self.in_flight >= self.limit:
            raise InvariantError("a root was admitted without a credit")
        index = self.admitted
        self.admitted = index + 1
        self.in_flight += 1
        root = Root(self, record, index)
        self.roots[index] = root
        return root

    def resolved(self, frame: Frame, outcome: Outcome) -> None:
        """The bottom frame has ended: the root is done, and settles when its record is taken."""
        self.finish(frame.root, outcome)

    def touched(self) -> None:
        """Roots have no timeout that waits for a first visit."""

    def finish(self, root: Root, outcome: Outcome) -> None:
        """End `root` with `outcome`: pass its record on, or settle it at once if it leaves none."""
        root.done = True
        status = outcome.status
        self.ended[status] += 1
        self.on.finished(root, status)
        if root.reply is not None:
            root.reply.put(record_of(root, outcome))
            self.settle(root, status)
            self.results.complete(root.index)
        elif status == "skipped" or status == "cancelled":
            self.settle(root, status)
            self.results.complete(root.index)
        else:
            self.results.put(root, record_of(root, outcome))
            self.results.complete(root.index)

    def end_early(self, root: Root, outcome: Outcome) -> None:
        """End a root that still has items somewhere: they are revoked and vanish on their own."""
        if not root.done:
            root.revoke()
            self.finish(root, outcome)

    def conclude(self, root: Root, status: Status) -> None:
        """End a root whose children have left their records, all of them taken."""
        if not root.done:
            root.done = True
            self.ended[status] += 1
            self.on.finished(root, status)
            if root.reply is not None:
                root.reply.put(record_of(root, Outcome(status)))
            self.settle(root, status)

    def delivered(self, frame: Frame, record: Record) -> None:
        """The consumer has taken the record of a root."""
        self.settle(frame.root, record.status)

    def settle(self, root: Root, status: Status) -> None:
        """Count `root` out, once."""
        if root.settled:
            raise InvariantError(f"root {root.id} settled twice")
        root.settled = True
        del self.roots[root.index]
        self.counts[status] += 1
        if not root.live:
            self.release()
        if not self.roots:
            self.on.emptied()

    def expire(self, root: Root, seconds: float) -> None:
        """The item deadline of `root` has passed, `seconds` after it was admitted."""
        error = ItemError(f"not finished within item_timeout, {seconds:g} s", type="ItemTimeout", retryable=True)
        self.end_early(root, Outcome("failed", None, Failure.of(error, None)))

    def sweep(self) -> None:
        """Settle what is still open as cancelled; after the tasks of a run are gone. Every root is done by then, so
        these are records that nobody took; one that is not done was lost, and leaves the run out of balance."""
        for root in list(self.roots.values()):
            if root.done:
                self.settle(root, "cancelled")
            elif root.inner is not None and root.inner.untaken:
                self.end_early(root, Outcome("cancelled"))

    def statistics(self) -> WindowStatistics:
        return WindowStatistics(
            self.limit,
            self.in_flight,
            self.alive,
            self.peak,
            self.bound,
            self.admitted,
            len(self.roots),
            dict(self.counts),
            self.paused,
        )


def first_item(root: Root) -> Item:
    """The item that enters the pipeline for `root`."""
    return Item(root.record.value, ConversationState(root.record.messages), root)


def record_of(root: Root, outcome: Outcome) -> Record:
    """The record that `root` leaves behind when it ends with `outcome`."""
    item = outcome.item
    done = outcome.status == "ok" or outcome.status == "partial"
    return Record(
        root.id,
        root.index,
        outcome.status,
        item.value if done and item is not None else None,
        item.state.outputs if item is not None else {},
        outcome.failure,
        root.usage,
        root.cost,
        root.record.fields or root.record.value,
        item.missing if item is not None else (),
    )
