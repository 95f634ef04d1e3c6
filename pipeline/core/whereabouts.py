"""Where every item of a run is at one instant: with a visitor, in the buffer of an edge, in a sender's hand, joined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pipeline.core.batches import BatchRoot, Member
from pipeline.core.flat import FlatGroup
from pipeline.core.groups import Group
from pipeline.core.item import Frame, Inner, Visitor
from pipeline.core.streams import Edge

if TYPE_CHECKING:
    from pipeline.core.machine import Machine


class Whereabouts:
    """A snapshot, by frame. An item that is held by an open group is nowhere else."""

    def __init__(self, machine: Machine) -> None:
        self.open: list[Frame] = list(open_frames(machine.window.roots))
        self.visits: dict[Visitor, Frame] = {}
        self.lying: dict[Frame, Edge] = {}  #: in the buffer of an edge
        self.in_hand: dict[Frame, Edge] = {}  #: of a sender that waits for room
        self.joined: dict[Frame, str] = {}  #: by a composite, and not sent on
        for frame in self.open:
            if frame.visitor is not None and not frame.retired:
                self.visits[frame.visitor] = frame
        for edge in machine.edges:
            lying, in_hand = edge.items()
            self.lying.update((item.frame, edge) for item in lying)
            self.in_hand.update((item.frame, edge) for item in in_hand)
        for label, composite in machine.composites.items():
            self.joined.update((item.frame, label) for item in composite.joiner.ready)


def open_frames(frames: Iterable[Frame]) -> Iterator[Frame]:
    """These and whatever they have become that has not ended."""
    left = list(frames)
    seen = set(left)
    while left:
        frame = left.pop()
        yield frame
        inner = frame.inner
        if isinstance(inner, Member):
            below = () if inner.batch.root is None else (inner.batch.root,)
        else:
            below = () if inner is None else tuple(member for _, member in unresolved(inner))
        fresh = [member for member in below if member not in seen]
        seen.update(fresh)
        left += fresh


def fills(frame: Frame) -> bool:
    """Whether all that an item has become lies in batches that are not full, so that only new items can move it."""
    inner = frame.inner
    if isinstance(inner, Member):
        return inner.batch.root is None
    below = [] if inner is None else [member for _, member in unresolved(inner)]
    return bool(below) and all(map(fills, below))


def unresolved(inner: Inner) -> Iterator[tuple[str, Frame]]:
    """The members of a group that have not ended, the earliest first."""
    if isinstance(inner, Group):
        yield from ((slot, frame) for slot, frame in inner.members.items() if slot not in inner.outcomes)
    elif isinstance(inner, FlatGroup):
        yield from ((frame.slot, frame) for frame in (*inner.open, *inner.held))


def name_of(frame: Frame) -> str:
    """What people call the item of a frame."""
    name = f"{'batch' if isinstance(frame.root, BatchRoot) else 'root'} {frame.root.id!r}"
    path = frame.path()
    return f"{'.'.join(path)} of {name}" if path else name


def fill_of(edge: Edge) -> str:
    """How full an edge is, in words."""
    now = edge.statistics()
    waiting = f", {now.senders_waiting} senders wait" if now.senders_waiting else ""
    return f"({now.used}/{now.capacity} in the buffer{waiting})"
