"""Several items as one: a `Batch`, which holds its members until it has ended, and the root of what travels for it.

A batch belongs to no single root, so what travels for it has a root of its own, which holds no credit: those of the
members bound it. A member that ends early (its time is up, its group closed) leaves; a batch without members vanishes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import TYPE_CHECKING

from anyio import CancelScope

from pipeline.core.errors import InvariantError
from pipeline.core.item import Frame, Item, Missing, Outcome
from pipeline.core.record import Input
from pipeline.core.results import Yields
from pipeline.core.root import Root
from pipeline.core.state import ConversationState
from pipeline.core.usage import Account

if TYPE_CHECKING:
    from pipeline.core.admission import Window


class Member:
    """One item of a batch. The `inner` of its frame."""

    __slots__ = ("batch", "item")

    def __init__(self, batch: Batch, item: Item) -> None:
        self.batch = batch
        self.item = item
        item.frame.inner = self

    @property
    def label(self) -> str:
        return self.batch.label

    @property
    def untaken(self) -> bool:
        return self.batch.untaken

    def revoke(self) -> None:
        """Leave the batch. Whoever revoked the frame retires it."""
        self.batch.leave(self)


class BatchRoot(Root):
    """The bottom frame of what travels for a batch. No root of the run: it holds no credit and settles nothing."""

    __slots__ = ()

    def __init__(self, batch: Batch, window: Window, id: str, index: int, values: list[object]) -> None:
        super().__init__(window, Input(values, id), index, "")
        self.group = batch
        self.touched = False
        self.names = {"vars": window.names["vars"], "parts": values}

    def shrink(self) -> None:
        self.live -= 1
        self.window.alive -= 1

    def names_of_record(self) -> dict[str, object]:
        """A batch has no record that a template could read."""
        return {}


class Batch(ABC):
    """The fold of one batch. What can change: `members`, `weight`, `places` and `root` when it is sealed, `closed`."""

    __slots__ = ("closed", "key", "label", "members", "places", "root", "scope", "weight")

    #: whether a failure here is somebody else's to judge, see `Scope.conclude`
    judges = True

    def __init__(self, label: str, key: Hashable = None) -> None:
        self.label = label
        self.key = key
        self.weight: float = 0
        self.members: dict[Member, None] = {}
        self.places: tuple[Member, ...] = ()  #: as sealed, those that have left since included
        self.root: BatchRoot | None = None
        self.scope: CancelScope | None = None
        self.closed = False

    @property
    def untaken(self) -> bool:
        """Nothing is unresolved; only a record waits for a consumer."""
        return False

    def add(self, item: Item, weight: float) -> None:
        """Take `item` in."""
        self.members[Member(self, item)] = None
        self.weight += weight

    def leave(self, member: Member) -> None:
        """A member ends by itself. The last one takes the batch with it."""
        if member in self.members:
            del self.members[member]
            if not self.members and not self.closed:
                self.closed = True
                self.emptied()
                if self.root is not None:
                    self.root.revoke()

    @abstractmethod
    def emptied(self) -> None:
        """Every member has left, before the batch was done."""

    def seal(self) -> Item:
        """Close the batch to further members: the item that stands for all of them, a list of their payloads."""
        self.places = tuple(self.members)
        items = [member.item for member in self.places]
        first = min(items, key=lambda item: item.frame.root.index)
        window = first.frame.root.window
        values = [item.value for item in items]
        root = BatchRoot(self, window, f"{self.label}:{id_of(items[0].frame)}", first.frame.root.index, values)
        deadlines = [item.frame.root.deadline for item in items if item.frame.root.deadline is not None]
        root.deadline = min(deadlines, default=None)
        self.root = root
        return Item(values, ConversationState(), root, self.missing())

    def missing(self) -> tuple[Missing, ...]:
        """What the members had to do without before."""
        lacks = (lack for member in self.places for lack in member.item.missing)
        return tuple(dict.fromkeys(lacks))

    # -- as a fold ----------------------------------------------------------------------------------------------

    def touched(self) -> None:
        """The first visit is one of every member."""
        for member in self.members:
            member.item.frame.touch()

    @abstractmethod
    def resolved(self, frame: Frame, outcome: Outcome) -> None:
        """What was sent for the batch has ended."""

    def abandon(self) -> None:
        """Cancel every member and what was sent for them: the composite is being torn down."""
        members, self.closed = list(self.members), True
        self.members.clear()
        for member in members:
            member.item.frame.inner = None
            member.item.frame.resolve(Outcome("cancelled", member.item))
        if self.root is not None:
            self.root.revoke()

    def conclude(self) -> list[Member]:
        """The members that are left, no longer held by the batch."""
        members, self.closed = list(self.members), True
        self.members.clear()
        for member in members:
            member.item.frame.inner = None
        return members


def id_of(frame: Frame) -> str:
    """The id under which an item on the top-level chain leaves its record: `id#k` for a child of a root."""
    slots: list[str] = []
    step = frame
    while step.parent is not None:
        slots.append(step.slot)
        step = step.parent
    return "#".join([frame.root.id, *reversed(slots)])


def yielding(frame: Frame) -> Yields:
    """The fold of a frame on the top-level chain, where every fold leaves records; elsewhere an `InvariantError`."""
    fold = frame.group
    if not isinstance(fold, Yields):
        raise InvariantError(f"an item inside {fold.label!r} was to leave a record of its own")
    return fold


def share_out(whole: Account, accounts: list[Account]) -> None:
    """Charge what a batch has used to its members in equal parts; the remainders go to the first ones, so that the sum
    over records is what was used."""
    usage, cost, count = whole.usage, whole.cost, len(accounts)
    for place, account in enumerate(accounts):
        account.charge(usage.share(place, count), None if cost is None else cost.share(count))
