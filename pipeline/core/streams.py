"""Where edges are opened: the one place, and it refuses an unbounded one.

An edge is an anyio memory object stream. Stages try the synchronous half first and wait only when they must; the
waiting half passes a checkpoint, and no more than `BURST` items or `BURST_SECONDS` go by without one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import anyio
from anyio import BrokenResourceError
from anyio.streams.memory import MemoryObjectReceiveStream

from pipeline.core.anyio_private import in_transit
from pipeline.core.item import Item, Outcome

BURST = 16
BURST_SECONDS = 0.005

Inbox = MemoryObjectReceiveStream[Item]


class Outbox(Protocol):
    """Where a stage sends what it has finished: an edge, or the end of a body."""

    def send_nowait(self, item: Item) -> None:
        """Raises `WouldBlock` when there is no room, `BrokenResourceError` when downstream has left."""
        ...

    async def send(self, item: Item) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class EdgeStatistics:
    """One edge at one instant."""

    name: str  #: the stage that receives from it
    used: int  #: items in the buffer
    capacity: int
    senders_waiting: int  #: items held by stages that wait for room
    receivers_waiting: int


@dataclass(frozen=True, slots=True, eq=False)
class Edge:
    """Both ends of one bounded stream. `into` is the stage that receives from it."""

    into: str
    capacity: int
    outbox: Outbox
    inbox: Inbox

    def statistics(self) -> EdgeStatistics:
        now = self.inbox.statistics()
        return EdgeStatistics(
            self.into, now.current_buffer_used, self.capacity, now.tasks_waiting_send, now.tasks_waiting_receive
        )

    def items(self) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
        """What lies in the buffer, and what senders that wait for room have in hand."""
        return in_transit(self.inbox)


def open_edge(into: str, capacity: int) -> Edge:
    """Open the edge that leads into the stage `into`. The capacity is a whole number, 0 meaning hand to hand."""
    if type(capacity) is not int or capacity < 0:
        raise ValueError(f"the edge into {into!r} needs a bounded capacity of 0 or more items, got {capacity!r}")
    send, receive = anyio.create_memory_object_stream[Item](capacity)
    return Edge(into, capacity, send, receive)


class Exit:
    """The end of a body: an item that arrives here is resolved as ok (or partial) in the group it belongs to."""

    __slots__ = ("closed",)

    def __init__(self) -> None:
        self.closed = False

    def send_nowait(self, item: Item) -> None:
        if self.closed:
            raise BrokenResourceError
        item.frame.resolve(Outcome("partial" if item.missing else "ok", item))

    async def send(self, item: Item) -> None:
        self.send_nowait(item)

    def close(self) -> None:
        self.closed = True


async def hand_over(outbox: Outbox, item: Item) -> None:
    """Send `item`, waiting for room. When this raises, the item has ended as cancelled or is its receiver's: either way
    the caller has nothing left to end."""
    hops = item.frame.hops
    try:
        await outbox.send(item)
    except BaseException:
        item.frame.withdraw(item, hops)
        raise


def drain_inbox(inbox: Inbox) -> None:
    """Resolve what is still buffered in front of a stage that leaves, so that no item is without an outcome."""
    while True:
        try:
            item = inbox.receive_nowait()
        except (anyio.WouldBlock, anyio.EndOfStream, anyio.ClosedResourceError):
            return
        item.frame.hops += 1
        if item.frame.revoked:
            item.frame.drop()
        else:
            item.frame.resolve(Outcome("cancelled", item))
