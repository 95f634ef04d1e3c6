"""What travels on the edges: an `Item`, and the `Frame` that says whose life it is part of.

An item is a value. Its lineage is a stack of frames, innermost first, whose bottom is the root; each frame is one
member of one group and is resolved once. The frame is what can change: it is revoked, visited, retired, and it counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pipeline.core.errors import Failure, InvariantError
from pipeline.core.record import Status
from pipeline.core.state import ConversationState
from pipeline.core.usage import Account

if TYPE_CHECKING:
    from pipeline.core.root import Root


class Missing(NamedTuple):
    """A member that a join did without."""

    name: str  #: composite.slot
    reason: str


class Item(NamedTuple):
    """A payload, the conversation so far, and its lineage. A stage sends on a new one."""

    value: object
    state: ConversationState
    frame: Frame
    missing: tuple[Missing, ...] = ()  #: what partial joins upstream had to do without

    def output(self, name: str, value: object) -> Item:
        """The item as stage `name` sends it on: `value` is its payload and that stage's output."""
        return Item(value, self.state.add_output(name, value), self.frame, self.missing)


class Outcome(NamedTuple):
    """How an item ended in a group, or a root in the run."""

    status: Status
    item: Item | None = None  #: the finished item when ok or partial; else the last one known, for its outputs
    failure: Failure | None = None


class Visitor(Protocol):
    """Whoever has the item of a frame in hand and can be told to let go of it."""

    @property
    def stage(self) -> str: ...

    def cancel(self) -> None: ...


class Fold(Protocol):
    """Where the frames of one fan-out are counted: a group, or the admission window for roots."""

    @property
    def label(self) -> str:
        """The composite's name; empty for the window."""
        ...

    @property
    def judges(self) -> bool:
        """Whether it decides itself what the failure of a frame means. If not, the pipeline's `on_error` does."""
        ...

    def resolved(self, frame: Frame, outcome: Outcome) -> None:
        """A frame that was not revoked has ended. Called once a frame, synchronously."""
        ...

    def touched(self) -> None:
        """A stage visits an item of this fold for the first time."""
        ...


class Inner(Protocol):
    """The open group that holds the item of a frame."""

    @property
    def untaken(self) -> bool:
        """Nothing is unresolved below; only records wait for a consumer."""
        ...

    @property
    def label(self) -> str: ...

    def revoke(self) -> None:
        """Close without a result; every unresolved frame below vanishes."""
        ...


class Keeper(Protocol):
    """Who counts what is left of an item: its root, or whoever has to know when nothing of it is left in one place."""

    def grow(self) -> None:
        """One more frame."""
        ...

    def shrink(self) -> None:
        """One frame less."""
        ...

    def hold(self) -> None:
        """Wait for something more that is no frame of the item."""
        ...

    def let_go(self) -> None:
        """What was held for has ended."""
        ...


class Frame:
    """One member of one fan-out: where an item's life is accounted for.

    The group and the slot never change. What can change: `revoked` and `retired` (each set once), `visitor` (who has
    the item in hand), `inner` (the group that holds it), `touched`, `hops` (how often it was received), `item` (the
    last one that was). What is used for it is charged to `account`, its own: the fold passes that on when the frame has
    ended and was not revoked, so what nobody waited for is in no record.
    """

    __slots__ = (
        "account", "group", "hops", "inner", "item", "keeper", "names", "parent",
        "retired", "revoked", "root", "slot", "touched", "visitor",
    )  # fmt: skip

    def __init__(self, group: Fold, slot: str, parent: Frame, names: Mapping[str, object] | None = None) -> None:
        self.group = group
        self.slot = slot
        self.parent: Frame | None = parent
        self.root: Root = parent.root
        self.keeper: Keeper = parent.keeper  #: the one of every frame below, too
        self.account = Account()
        self.names = parent.names if names is None else {**parent.names, **names}  #: `part`, `round` and the like
        self.revoked = False
        self.retired = False
        self.touched = False
        self.hops = 0
        self.item: Item | None = None
        self.visitor: Visitor | None = None
        self.inner: Inner | None = None
        self.keeper.grow()

    def touch(self) -> None:
        """Note the first visit, here and in every fold outside, so that their timeouts start to run."""
        frame: Frame | None = self
        while frame is not None and not frame.touched:
            frame.touched = True
            frame.group.touched()
            frame = frame.parent

    def resolve(self, outcome: Outcome) -> None:
        """End this frame's item with `outcome`, once. What a revoked frame brings is refused."""
        self.retire()
        if not self.revoked:
            self.group.resolved(self, outcome)

    def retire(self) -> None:
        """Say that nothing of the item is left anywhere."""
        if self.retired:
            raise InvariantError(
                f"an item of root {self.root.id} was resolved twice, in {self.group.label or 'the run'!r}"
            )
        self.retired = True
        self.keeper.shrink()

    def drop(self) -> None:
        """Let go of a revoked item that was received; its sender may have ended it before, see `withdraw`."""
        if not self.retired:
            self.retire()

    def withdraw(self, item: Item, hops: int) -> None:
        """End an item whose send was cancelled, unless it was received since `hops` was read: a cancelled send may have
        succeeded in the same turn of the scheduler, and then the item is its receiver's."""
        if self.hops == hops:
            if not self.retired:
                self.resolve(Outcome("cancelled", item))
            self.revoked = True  # it may lie in a buffer: whoever receives it drops it

    def revoke(self) -> None:
        """Ask the item to vanish: whoever visits it is cancelled, whoever receives it next drops it.

        An item that is held by an open group is nowhere to be received, so it retires here; one whose records wait to
        be taken may have retired before.
        """
        if self.revoked or (self.retired and self.inner is None):
            return
        self.revoked = True
        if self.inner is not None:
            inner, self.inner = self.inner, None
            inner.revoke()
            if not self.retired:
                self.retire()
        elif self.visitor is not None:
            self.visitor.cancel()

    def path(self) -> tuple[str, ...]:
        """Composite and slot of every fold from the root inwards."""
        steps: list[str] = []
        frame: Frame = self
        while frame.parent is not None:
            steps += (frame.slot, frame.group.label)
            frame = frame.parent
        return tuple(reversed(steps))
