"""The one thing that bounds a run: credits, one a root, taken before its record is taken from the source.

A credit comes back when the root has settled *and* its last item has retired. Everything alive in a run (edges, reorder
buffer, groups, visits) belongs to a root that holds a credit, so this one number bounds them all at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.core.credits import Credits
from pipeline.core.errors import Failure, InvariantError, ItemError
from pipeline.core.item import Frame, Outcome
from pipeline.core.ports import Page
from pipeline.core.record import STATUSES, Input, Record, Status
from pipeline.core.results import Results
from pipeline.core.root import Reply, Root, record_of
from pipeline.core.usage import RunAccount


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
    ripe: Callable[[Root], None]  #: nothing of the root is at work any more
    emptied: Callable[[], None]


class Window(Credits):
    """The admission window of one run: its credits, and the table of the roots that hold them. The outermost fold of
    every lineage."""

    label = ""
    judges = False

    def __init__(
        self, max_in_flight: int, bound: int, names: dict[str, object], results: Results, on: Settling
    ) -> None:
        super().__init__(max_in_flight)
        self.bound = bound
        self.names = names
        self.results = results
        self.on = on
        self.alive = 0
        self.peak = 0
        self.account = RunAccount()
        self.admitted = 0
        self.taken = 0  #: roots of the source, and their number in the order of the input
        self.submitted = 0
        self.unsettled = 0  #: roots of the source that are open
        self.counts: dict[Status, int] = dict.fromkeys(STATUSES, 0)  #: settled roots
        self.ended: dict[Status, int] = dict.fromkeys(STATUSES, 0)  #: roots with an outcome, taken or not
        self.roots: dict[Root, None] = {}  #: open ones, oldest first

    # -- roots --------------------------------------------------------------------------------------------------

    def admit(self, record: Input, place: int | None = None, page: Page | None = None) -> Root:
        """Take a credit and open a root of the source, `place` in the input if that is not its number in this run. Call
        it right after `free` was seen true or `wait_free` has returned."""
        turn = self.taken
        self.taken = turn + 1
        self.unsettled += 1
        root = self._open(record, turn if place is None else place, "", page)
        root.turn = turn
        return root

    def admit_submitted(self, record: Input, reply: Reply) -> Root:
        """The same for a root whose record goes to `reply`. These are numbered apart, so that the source's records are
        the same whoever submits beside it."""
        index = self.submitted
        self.submitted = index + 1
        root = self._open(record, index, "submit-")
        root.reply = reply
        return root

    def _open(self, record: Input, index: int, prefix: str, page: Page | None = None) -> Root:
        if self.in_flight >= self.limit:
            raise InvariantError("a root was admitted without a credit")
        self.in_flight += 1
        self.admitted += 1
        root = Root(self, record, index, prefix, page)
        self.roots[root] = None
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
        elif status == "skipped" or status == "cancelled":
            root.cut = root.cut or status == "cancelled"
            self.settle(root, status)
            self._complete(root)
        else:
            self.results.put(root, record_of(root, outcome))
            self.results.complete(root.turn)

    def end_early(self, root: Root, outcome: Outcome) -> None:
        """End a root that still has items somewhere: they are revoked and vanish on their own."""
        if not root.done:
            root.revoke()
            self.finish(root, outcome)

    def no_more(self, frame: Frame) -> None:
        """Nothing of the root is at work any more, and no further record of it will come."""
        self.on.ripe(frame.root)
        self._complete(frame.root)

    def _complete(self, root: Root) -> None:
        """`root` leaves no further record; unless it stays open for a resume: then, in order, those after it wait for
        that too."""
        if root.page is None or not root.cut:
            self.results.complete(root.turn)

    def concluded(self, frame: Frame, status: Status) -> None:
        """End a root that became something else, whose records have been taken."""
        root = frame.root
        if not root.done:
            root.done = True
            self.ended[status] += 1
            self.on.finished(root, status)
            self.settle(root, status)

    def delivered(self, frame: Frame, record: Record) -> None:
        """The consumer has taken the record of a root."""
        self.settle(frame.root, record.status)

    def settle(self, root: Root, status: Status) -> None:
        """Count `root` out, once."""
        if root.settled:
            raise InvariantError(f"root {root.id} settled twice")
        root.settled = True
        if root.page is not None and not root.written and status != "cancelled":
            root.page.settle(status)
        del self.roots[root]
        self.counts[status] += 1
        if not root.live:
            root.forget()
            self.release()
        if root.reply is None:
            self.unsettled -= 1
            if not self.unsettled:
                self.on.emptied()

    def expire(self, root: Root, seconds: float) -> None:
        """The item deadline of `root` has passed, `seconds` after it was admitted."""
        error = ItemError(f"not finished within item_timeout, {seconds:g} s", type="item_timeout", retryable=True)
        place = root.visitor.stage if root.visitor is not None else root.inner.label if root.inner is not None else None
        self.end_early(root, Outcome("failed", root.item, Failure.of(error, place)))

    def sweep(self) -> None:
        """Settle what is still open as cancelled; after the tasks of a run are gone. Every root is done by then, so
        these are records that nobody took; one that is not done was lost, and leaves the run out of balance."""
        for root in list(self.roots):
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
