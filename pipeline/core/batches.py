"""Several items as one: a `Batch`, which holds its members until it has ended, and the root of what travels for it.

A batch belongs to no single root, so what travels for it has a root of its own, which holds no credit: those of the
members bound it. A member that ends early (its time is up, its group closed) leaves; a batch without members vanishes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from anyio import CancelScope

from pipeline.core.errors import InvariantError
from pipeline.core.item import Frame, Item, Keeper, Missing, Outcome
from pipeline.core.record import Input
from pipeline.core.results import Yields, place_of
from pipeline.core.reunion import Membership, write_membership
from pipeline.core.root import Root
from pipeline.core.state import ConversationState

if TYPE_CHECKING:
    from pipeline.core.admission import Window


class Member:
    """One item of a batch. The `inner` of its frame."""

    __slots__ = ("batch", "item", "weight")

    def __init__(self, batch: Batch, item: Item, weight: float) -> None:
        self.batch = batch
        self.item = item
        self.weight = weight
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
    """The bottom frame of what travels for a batch. No root of the run: it settles nothing, and its credit is that of
    a member. What can change beyond a root's: `held`, the last member when it was left alone with what is still alive.
    """

    __slots__ = ("batch", "held")

    def __init__(self, batch: Batch, window: Window, id: str, index: int, values: list[object]) -> None:
        super().__init__(window, Input(values, id), index, "")
        self.group = self.batch = batch
        self.held: Keeper | None = None
        self.touched = False
        self.names = {"vars": window.names["vars"], "parts": values}

    @property
    def place(self) -> tuple[int, ...]:
        """That of the first member that is left, whose turn has surely not passed."""
        return min((place_of(member.item.frame) for member in self.batch.members), default=(self.index,))

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.batch.ids()

    def shrink(self) -> None:
        self.window.alive -= 1
        self.let_go()

    def let_go(self) -> None:
        self.live -= 1
        if not self.live and self.held is not None:
            held, self.held = self.held, None
            held.let_go()

    def leave_with(self, member: Member) -> None:
        """The last member ends: what is still alive of the batch, in a visit that takes its time to end, keeps its
        credit."""
        if self.live and self.held is None:
            self.held = member.item.frame.keeper
            self.held.hold()

    def names_of_record(self) -> dict[str, object]:
        """A batch has no record that a template could read."""
        return {}


class Batch(ABC):
    """The fold of one batch. What can change: `members`, `weight`, `places` and `root` when it is sealed, `closed`.

    With a journal it is written who its members are. Of a batch that is made again, `before` says who they were.
    """

    __slots__ = ("before", "closed", "forget", "key", "label", "members", "places", "root", "scope", "weight")

    #: whether a failure here is somebody else's to judge, see `Scope.conclude`
    judges = True

    def __init__(self, label: str, key: Hashable, forget: Callable[[Batch], None]) -> None:
        self.label = label
        self.key = key
        self.forget = forget  #: told when every member has left before the batch was done, or it is torn down
        self.weight: float = 0
        self.members: dict[Member, None] = {}
        self.places: tuple[Member, ...] = ()  #: as sealed, those that have left since included
        self.root: BatchRoot | None = None
        self.scope: CancelScope | None = None
        self.closed = False
        self.before: Membership | None = None

    @property
    def untaken(self) -> bool:
        """Nothing is unresolved; only a record waits for a consumer."""
        return False

    def add(self, item: Item, weight: float) -> None:
        """Take `item` in."""
        self.members[Member(self, item, weight)] = None
        self.weight += weight

    def leave(self, member: Member) -> None:
        """A member ends by itself. The last one takes the batch with it; what was used for it is in no record."""
        if member not in self.members:
            return
        del self.members[member]
        self.weight -= member.weight
        if self.members or self.closed:
            return
        self.closed = True
        self.forget(self)
        if self.root is not None:
            self.root.revoke()
            self.root.leave_with(member)
        if self.scope is not None:
            self.scope.cancel()

    @property
    def reunited(self) -> bool:
        """Whether everybody is there who was there before."""
        return self.before is not None and len(self.members) >= len(self.before.ids)

    def seal(self, number: int = 0) -> Item:
        """Close the batch to further members: the item that stands for all of them, a list of their payloads. `number`
        tells it from other batches of the run."""
        if self.before is not None:
            order = self.before.order()
            self.members = dict.fromkeys(sorted(self.members, key=lambda member: order[id_of(member.item.frame)]))
        self.places = tuple(self.members)
        items = [member.item for member in self.places]
        first = min(items, key=lambda item: item.frame.root.index)
        window = first.frame.root.window
        values = [item.value for item in items]
        root = BatchRoot(self, window, f"{self.label}:{id_of(items[0].frame)}", first.frame.root.index, values)
        deadlines = [item.frame.root.deadline for item in items]
        if None not in deadlines:  # the work is of use for as long as one member waits for it
            root.deadline = max(deadline for deadline in deadlines if deadline is not None)
        self.root = root
        if (page := items[0].frame.root.page) is not None:
            root.page = page.under("batch", *items[0].frame.path(), self.label)
            if not self.reunited:
                write_membership(items, self.label, Membership(tuple(id_of(item.frame) for item in items), number))
        return Item(values, ConversationState(), root, self.missing())

    def missing(self) -> tuple[Missing, ...]:
        """What the members had to do without before."""
        lacks = (lack for member in self.places for lack in member.item.missing)
        return tuple(dict.fromkeys(lacks))

    def ids(self) -> tuple[str, ...]:
        """The ids of the members that are left, in their order; of those that were batches, their members'."""
        ids: dict[str, None] = {}
        for member in self.members:
            frame = member.item.frame
            ids.update(dict.fromkeys(frame.root.inputs or (id_of(frame),)))
        return tuple(ids)

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
        self.forget(self)
        for member in self.conclude():  # none is held any more when the first one ends, which may revoke the others
            member.item.frame.resolve(Outcome("cancelled", member.item))
        if self.root is not None:
            self.root.revoke()

    def keep_credit(self) -> None:
        """What was sent for the batch has ended: what is left behind of it stays with the last member."""
        if self.root is not None and self.members:
            self.root.leave_with(next(reversed(self.members)))

    def conclude(self) -> list[Member]:
        """The members that are left, no longer held by the batch."""
        members, self.closed = list(self.members), True
        self.keep_credit()
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
