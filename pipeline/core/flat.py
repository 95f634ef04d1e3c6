"""One item that becomes many on the top-level chain: each child leaves a record of its own, and the root settles with
the worst of their outcomes.

Nothing joins the children, so a `FlatGroup` is a fold that only counts: who has not ended, and whose record nobody has
taken.
"""

from __future__ import annotations

from dataclasses import replace

import anyio

from pipeline.core.admission import Window
from pipeline.core.batches import id_of, yielding
from pipeline.core.item import Frame, Item, Outcome
from pipeline.core.record import Record, Status
from pipeline.core.remains import Remains
from pipeline.core.results import Delivery
from pipeline.core.root import record_of

#: from the best to the worst; a root without children is skipped, because it leaves no record
_RANK: tuple[Status, ...] = ("skipped", "ok", "partial", "failed", "cancelled")


class FlatGroup:
    """The children of one item. What can change: the counts, `complete`, `worst`, `closed`."""

    judges = False

    __slots__ = (
        "added",
        "closed",
        "complete",
        "held",
        "item",
        "label",
        "open",
        "pulling",
        "remaining",
        "room",
        "undelivered",
        "window",
        "worst",
    )

    def __init__(self, label: str, item: Item) -> None:
        self.label = label
        self.item = item
        self.window: Window = item.frame.root.window
        self.added = 0
        self.remaining = 0  #: children of which something is left
        self.open: dict[Frame, None] = {}  #: children that have not ended
        self.held: dict[Frame, None] = {}  #: children that became something else, until those records are taken
        self.undelivered = 0
        self.complete = False
        self.closed = False
        self.worst: Status = "skipped"
        self.room = anyio.Event()
        self.pulling: anyio.CancelScope | None = None  #: the wait for the next child
        item.frame.inner = self

    @property
    def alive(self) -> int:
        """Children that hold memory, those included of which something is still on its way out. Under `ordered` a
        record that waits for its root's turn is not counted, because the turn may be waiting for the children that come
        after it."""
        return self.remaining + (0 if self.window.results.ordered else self.undelivered)

    @property
    def untaken(self) -> bool:
        """Every child has ended; only records wait to be taken."""
        return self.complete and not self.open

    def add(self) -> Frame:
        """Add the next child. Each has an account of its own; what the item had used before is in the first one's."""
        frame = Frame(self, str(self.added), self.item.frame)
        frame.keeper = Remains(frame.keeper, self._gone)
        self.remaining += 1
        self.item.frame.account.hand_over(frame.account)
        self.added += 1
        self.open[frame] = None
        return frame

    def finish_adding(self) -> None:
        """There are no more children."""
        if not self.closed:
            self.complete = True
            self._advance(ended=True)

    def cut_short(self) -> None:
        """The fan-out was cancelled: the children that are out stay."""
        if not self.closed:
            self._note("cancelled")
            self.finish_adding()

    def leave_open(self) -> None:
        """The fan-out was cut by a drain; a resume will make the other children."""
        if not self.closed:
            self._note("cancelled")

    def _gone(self) -> None:
        """Nothing of a child is left."""
        self.remaining -= 1
        self.room.set()

    # -- as a fold ----------------------------------------------------------------------------------------------

    def touched(self) -> None:
        """Flat groups have no timeout."""

    def resolved(self, frame: Frame, outcome: Outcome) -> None:
        """A child has ended: its record goes to the results, unless it leaves none."""
        if self.closed:
            return
        self._note(outcome.status)
        if outcome.status not in ("skipped", "cancelled"):
            self.undelivered += 1
            record = replace(record_of(frame, outcome), id=id_of(frame), parent=frame.root.id)
            self.window.results.deliver(Delivery(frame, self, record))
        self.ended(frame)

    def ended(self, frame: Frame) -> None:
        """A child leaves no further record."""
        del self.open[frame]
        self._advance(ended=True)

    def delivered(self, frame: Frame, record: Record) -> None:
        """The consumer has taken the record of a child."""
        if not self.closed:
            self._note(record.status)
            self.undelivered -= 1
            self._advance(ended=False)

    def no_more(self, frame: Frame) -> None:
        """What a child became is not at work any more; it is held until its records are taken."""
        if not self.closed:
            if not frame.retired:  # under `ordered` there can be many whose records wait
                frame.retire()
            self.held[frame] = None
            self.undelivered += 1
            self.ended(frame)

    def concluded(self, frame: Frame, status: Status) -> None:
        """The records of what a child became have been taken."""
        if not self.closed:
            del self.held[frame]
            self._note(status)
            self.undelivered -= 1
            self._advance(ended=False)

    def revoke(self) -> None:
        """The root ended early: no child leaves a record any more."""
        self.closed = True
        for frame in (*self.open, *self.held):
            frame.revoke()
        self.room.set()
        if self.pulling is not None:
            self.pulling.cancel()

    # -- settling -----------------------------------------------------------------------------------------------

    def _note(self, status: Status) -> None:
        if _RANK.index(status) > _RANK.index(self.worst):
            self.worst = status
            self.item.frame.root.cut = self.item.frame.root.cut or status == "cancelled"

    def _advance(self, *, ended: bool) -> None:
        self.room.set()
        if not self.complete or self.open:
            return
        parent = self.item.frame
        fold = yielding(parent)
        if ended:
            fold.no_more(parent)
        if not self.undelivered:
            self.closed = True
            parent.inner = None
            if not parent.retired:
                parent.retire()
            fold.concluded(parent, self.worst)
