"""One input record's life in a run, from the frame that everything of it hangs on to the record that it leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from pipeline.core.errors import InvariantError
from pipeline.core.item import Frame, Item, Outcome
from pipeline.core.record import Input, Record
from pipeline.core.state import ConversationState
from pipeline.core.usage import Cost, Usage

if TYPE_CHECKING:
    from pipeline.core.admission import Window

NO_USAGE = Usage()


class Root(Frame):
    """One input record's life in a run: the bottom frame of every item that comes of it.

    What can change, beyond a frame's own: `live` (frames not retired), `usage` and `cost` (charged by calls),
    `settled`, `reply` (where a submitted root's record goes).
    """

    __slots__ = ("cost", "deadline", "done", "id", "index", "live", "record", "reply", "settled", "usage", "window")

    def __init__(self, window: Window, record: Input, index: int, prefix: str) -> None:
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
        self.id = record.id if record.id is not None else f"{prefix}{index}"
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
