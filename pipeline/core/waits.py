"""What holds a run: a chain of waits, from the oldest open root to whoever does not answer.

    root '7' is the oldest of 256 that are open
    root '7' waits in front of 'judge' (1/1 in the buffer, 3 senders wait)
    stage 'judge' has 2 of 2 slots taken
    root '3' is visited by stage 'judge' for 312 s
    it waits for the answer of model openai/gpt-5.5

All of it is read off the run as it is; a run pays nothing for it. Each line waits for the next one, and nothing is told
twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from pipeline.core.batches import Batch, Member
from pipeline.core.feedback import Turn
from pipeline.core.flat import FlatGroup
from pipeline.core.groups import Group
from pipeline.core.holds import NextAttempt
from pipeline.core.item import Frame, Inner
from pipeline.core.root import Root
from pipeline.core.streams import Edge
from pipeline.core.visit import Visit
from pipeline.core.whereabouts import Whereabouts, fill_of, name_of, unresolved
from pipeline.core.workers import Worker, Workers

if TYPE_CHECKING:
    from pipeline.core.composite import CompositeRun
    from pipeline.core.machine import Machine

#: lines of a chain, and names in a line
MOST_LINES = 40
MOST_NAMES = 3


@runtime_checkable
class Parked(Protocol):
    """An inner that holds its item back because of another one, such as one of the same key."""

    def waits_for(self) -> tuple[str, Frame] | None:
        """For what, after "waits for", and the item that has it; None if it does not wait."""
        ...


def wait_chain(machine: Machine) -> tuple[str, ...]:
    """Say what the oldest open root of a run waits for, and that for, and so on. Changes nothing."""
    return tuple(islice(_Chain(machine).lines(), MOST_LINES))


class _Chain:
    """One look at a run. What can change: what was told already."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.at = Whereabouts(machine)
        self.told: set[object] = set()

    def lines(self) -> Iterator[str]:
        roots = self.machine.window.roots
        oldest = next(iter(roots), None)
        intake = self._intake()
        if intake is not None:
            yield intake
        elif oldest is None:
            yield self._nothing()
        if oldest is None:
            return
        if len(roots) > 1:
            yield f"{name_of(oldest)} is the oldest of {len(roots)} that are open"
        yield from self._item(oldest)

    # -- the ends of the run ------------------------------------------------------------------------------------

    def _intake(self) -> str | None:
        """Why no root is admitted, if it is not for want of one."""
        machine, window = self.machine, self.machine.window
        if machine.over.is_set():
            return None
        if machine.draining:
            return "the run takes nothing new in: it drains"
        if window.paused:
            return "the run is paused: no root is admitted until it is resumed"
        if window.waiting:
            return f"new roots wait for a credit ({window.in_flight}/{window.limit} taken)"
        return None

    def _nothing(self) -> str:
        if self.machine.over.is_set():
            return "the run is over"
        if self.machine.source_ended:
            return "no root is open, and no source gives more"
        return "no root is open: the source is waited for"

    # -- items --------------------------------------------------------------------------------------------------

    def _item(self, frame: Frame) -> Iterator[str]:
        """What the item of `frame` waits for."""
        who = name_of(frame)
        if frame in self.told:
            yield f"{who} is told of above"
            return
        self.told.add(frame)
        inner, visitor = frame.inner, frame.visitor
        if inner is not None:
            yield from self._held(who, inner)
        elif isinstance(visitor, Worker):
            yield from self._visited(who, visitor)
        elif isinstance(visitor, Turn):
            yield f"{who} waits in line at {visitor.stage!r}, before anything new is let in"
            yield from self._composite(visitor.stage)
        elif visitor is not None:
            yield f"{who} waits for what {visitor.stage!r} asks of it"
        elif frame in self.at.in_hand:
            edge = self.at.in_hand[frame]
            yield f"{who} is in its sender's hand and waits for room in front of {edge.into!r} {fill_of(edge)}"
            yield from self._receiver(edge.into)
        elif frame in self.at.lying:
            edge = self.at.lying[frame]
            yield f"{who} waits in front of {edge.into!r} {fill_of(edge)}"
            yield from self._receiver(edge.into)
        else:
            yield from self._elsewhere(who, frame)

    def _elsewhere(self, who: str, frame: Frame) -> Iterator[str]:
        if isinstance(frame, Root) and frame.done:
            yield f"the record of {who} waits for the reader ({len(self.machine.results)} records wait)"
        elif frame in self.at.joined:
            yield from self._joined(who, frame, self.at.joined[frame])
        elif frame in self.machine.submitted:
            yield f"{who} was submitted and waits to be let in"
        else:
            yield f"{who} is on its way from one stage to the next"

    def _joined(self, who: str, frame: Frame, label: str) -> Iterator[str]:
        """What holds an item that a composite has joined and not sent on: those before it, if any."""
        first = self.machine.composites[label].joiner.ready[0].frame
        if first is frame:
            yield f"{who} was joined by {label!r} and is about to be sent on"
        else:
            yield f"{who} was joined by {label!r} and waits for what was joined before it"
            yield from self._item(first)

    def _held(self, who: str, inner: Inner) -> Iterator[str]:
        """What the group or batch waits for that holds an item."""
        parked = inner.waits_for() if isinstance(inner, Parked) else None
        if parked is not None:
            what, holder = parked
            yield f"{who} is held by {inner.label!r} until {what}"
            yield from self._item(holder)
        elif inner.untaken:
            yield f"the records of {who}, made by {inner.label!r}, wait for the reader"
        elif isinstance(inner, Member):
            yield from self._batched(who, inner.batch)
        else:
            yield from self._grouped(who, inner)

    def _batched(self, who: str, batch: Batch) -> Iterator[str]:
        if batch.root is None:
            yield f"{who} waits in {batch.label!r} for its batch to fill ({len(batch.members)} items so far)"
            if not self.machine.source_ended and not self.machine.window.waiting:
                yield "the source is waited for"
        else:
            yield f"{who} is one of {len(batch.members)} in {name_of(batch.root)}"
            yield from self._item(batch.root)

    def _grouped(self, who: str, inner: Inner) -> Iterator[str]:
        open_members = dict(unresolved(inner))
        if not open_members:
            yield f"{who} is in {inner.label!r}, which waits for the next part of it"
            return
        names = [*islice(open_members, MOST_NAMES)]
        more = len(open_members) - len(names)
        rest = f" and {more} more" if more else ""
        yield f"{who} is in {inner.label!r}, which waits for {', '.join(names)}{rest}"
        yield from self._item(next(iter(open_members.values())))

    # -- visits -------------------------------------------------------------------------------------------------

    def _visited(self, who: str, worker: Worker) -> Iterator[str]:
        """What the visit of an item waits for."""
        crew, age = worker.crew, worker.age
        since = f" for {age:.0f} s" if age >= 1 else ""
        asleep = any(isinstance(hold, NextAttempt) for hold in worker.holds)
        if not worker.borrowed and not asleep:
            slots = crew.slots
            yield f"{who} waits{since} for a slot of stage {crew.name!r} ({slots.borrowed}/{slots.total} taken)"
            yield from self._slots(crew)
            return
        yield f"{who} is visited by stage {crew.name!r}{since}"
        yield from self._threads(crew.name)
        for hold in dict.fromkeys(worker.holds):
            yield f"it waits for {hold}"
            for holder in self._frames(hold.holders())[:1]:
                yield from self._item(holder)

    def _threads(self, stage: str) -> Iterator[str]:
        threads = self.machine.threads.get(stage)
        if threads is not None:
            now = threads.statistics()
            left = f", {now.abandoned} of them abandoned" if now.abandoned else ""
            yield f"{now.running} blocking calls of {stage!r} have not returned{left}"

    def _slots(self, crew: Workers) -> Iterator[str]:
        """Who has the slots of a stage."""
        leases = sorted(
            (lease for lease in crew.slots.leases if isinstance(lease, Worker) and lease in self.at.visits),
            key=lambda worker: worker.since,
        )
        if leases:
            yield from self._item(self.at.visits[leases[0]])
        else:
            yield f"the slots of {crew.name!r} are taken by visits that were told to end"

    def _frames(self, visits: Sequence[object]) -> list[Frame]:
        return [visit.item.frame for visit in visits if isinstance(visit, Visit)]

    # -- stages -------------------------------------------------------------------------------------------------

    def _receiver(self, name: str) -> Iterator[str]:
        """Why the stage `name` takes nothing out of the edge in front of it."""
        if name in self.told:
            return
        self.told.add(name)
        crew = self.machine.crews.get(name)
        if crew is not None:
            yield from self._crew(crew)
        elif name in self.machine.composites:
            yield from self._composite(name)
        else:
            yield from self._expanding(name)

    def _crew(self, crew: Workers) -> Iterator[str]:
        blocked = next((edge for edge in self.machine.edges if edge.outbox is crew.outbox), None)
        sent = [frame for frame, edge in self.at.in_hand.items() if edge is blocked]
        slots = crew.slots
        if sent:
            yield f"stage {crew.name!r} waits until what it has done is taken"
            yield from self._item(sent[0])
        elif any(isinstance(lease, Worker) and lease.crew is crew for lease in slots.leases):
            yield f"stage {crew.name!r} has {slots.borrowed} of {slots.total} slots taken"
            yield from self._slots(crew)

    def _composite(self, name: str) -> Iterator[str]:
        run = self.machine.composites.get(name)
        if run is None or ("inside", name) in self.told:
            return
        self.told.add(("inside", name))
        if run.joiner.ready:
            yield f"{name!r} takes nothing in while what it has joined waits"
            yield from self._item(run.joiner.ready[0].frame)
            return
        full = self._full_entry(run)
        if full is not None:
            yield f"{name!r} waits for room in front of {full.into!r} {fill_of(full)}"
            yield from self._receiver(full.into)
        else:
            for frame in self._fanned_out(name):
                yield from self._item(frame)
                return

    def _full_entry(self, run: CompositeRun) -> Edge | None:
        """The edge into a body of a composite in front of which something waits."""
        entries = list(run.entries.values())
        return next((edge for edge in self.at.in_hand.values() if any(edge.outbox is entry for entry in entries)), None)

    def _fanned_out(self, name: str) -> Iterator[Frame]:
        """What a composite is at before it takes more in: the item that it asks about, or cannot begin with."""
        yield from (
            frame
            for visitor, frame in self.at.visits.items()
            if visitor.stage == name and not isinstance(visitor, Worker | Turn)
        )
        for frame in self.at.open:
            inner = frame.inner
            if isinstance(inner, Group) and inner.label == name and not inner.members and not inner.complete:
                yield frame

    def _expanding(self, name: str) -> Iterator[str]:
        """A stage that is at one item until all of it has been sent on."""
        for frame in self.at.open:
            if isinstance(frame.inner, FlatGroup) and frame.inner.label == name and not frame.inner.complete:
                yield f"stage {name!r} is expanding {name_of(frame)}"
                yield from self._item(frame)
                return
