"""A batch that goes on as one item and leaves one record, with the ids of those that it was made of.

Its members are held, with their credits, until that record is taken, and end as it does.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from pipeline.core.batches import Batch, Member, yielding
from pipeline.core.item import Frame, Item, Outcome
from pipeline.core.record import Record, Status
from pipeline.core.results import Delivery
from pipeline.core.reunion import write_end
from pipeline.core.root import record_of


class Collapse(Batch):
    """The fold of a collapsed batch. What can change beyond a batch's: `ended`."""

    __slots__ = ("ended",)

    judges = False

    def __init__(self, label: str, key: Hashable, forget: Callable[[Batch], None]) -> None:
        super().__init__(label, key, forget)
        self.ended = False

    @property
    def untaken(self) -> bool:
        return self.ended

    def seal(self, number: int = 0) -> Item:
        """The item that goes on. What its members have used is in its record only, also when one of them leaves."""
        item = super().seal(number)
        for member in self.places:
            member.item.frame.account.hand_over(item.frame.account)
        return item.output(self.label, item.value)

    def leave(self, member: Member) -> None:
        """A member ends by itself. There is no record of a batch without members, so that of the last one has what they
        and their batch have used."""
        super().leave(member)
        if self.root is not None and not self.members and not self.ended:
            self.root.account.hand_over(member.item.frame.account)

    def resolved(self, frame: Frame, outcome: Outcome) -> None:
        """What became of the batch has ended: its record goes to the results, unless it leaves none."""
        if self.closed:
            return
        if outcome.status in ("skipped", "cancelled"):
            for member in self.members:
                member.item.frame.root.cut = member.item.frame.root.cut or outcome.status == "cancelled"
            self.no_more(frame)
            self.concluded(frame, outcome.status)
            return
        frame.root.window.results.deliver(Delivery(frame, self, record_of(frame, outcome)))
        self.no_more(frame)

    def delivered(self, frame: Frame, record: Record) -> None:
        """The consumer has taken the record."""
        self.concluded(frame, record.status)

    def no_more(self, frame: Frame) -> None:
        """Nothing of the batch is at work any more."""
        self.ended = True
        if not frame.retired:
            frame.retire()
        self.keep_credit()
        for member in tuple(self.members):
            yielding(member.item.frame).no_more(member.item.frame)

    def concluded(self, frame: Frame, status: Status) -> None:
        """What the batch became has left its records: so have its members."""
        if status != "cancelled":
            for member in self.members:
                write_end(member.item, self.label, {"status": status})
        for member in self.conclude():
            end_with(member.item.frame, status)


def end_with(frame: Frame, status: Status) -> None:
    """End a member as what its batch became has ended."""
    if not frame.retired:
        frame.retire()
    yielding(frame).concluded(frame, status)
