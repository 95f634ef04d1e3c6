"""One fan-out that is joined again: a `Group` for each item that enters a composite.

A group decides synchronously, at the moment its last relevant member resolves, so no two decisions can interleave. What
becomes of the decision is its joiner's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import anyio
from anyio import CancelScope

from pipeline.core.errors import Failure
from pipeline.core.item import Frame, Item, Missing, Outcome
from pipeline.core.joins import Tally, Verdict, decide, decide_late

if TYPE_CHECKING:
    from pipeline.core.joiner import Joiner


class Joined(NamedTuple):
    """How a group ended."""

    verdict: Verdict
    late: bool  #: its time was up


class Group:
    """The members of one fan-out, open until it is decided.

    What can change: `members` and `complete` while the fan-out is being made, `outcomes`, `closed`, `scope` (whoever is
    still sending members out). Slots are in declaration order, whatever the timing.
    """

    __slots__ = (
        "closed", "complete", "failed", "item", "joiner", "members",
        "ok", "outcomes", "pulling", "room", "scope", "skipped", "started",
    )  # fmt: skip

    def __init__(self, joiner: Joiner, item: Item) -> None:
        self.joiner = joiner
        self.item = item  #: as it entered; held here until the group is decided
        self.members: dict[str, Frame] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.ok = self.failed = self.skipped = 0
        self.complete = False
        self.closed = False
        self.started = False
        self.scope: CancelScope | None = None
        self.pulling: CancelScope | None = None  #: the wait for the next member, of a fan-out that iterates
        self.room: anyio.Event | None = None  #: set when a member resolves, for a fan-out that waits for room
        item.frame.inner = self
        joiner.opened(self)

    @property
    def label(self) -> str:
        return self.joiner.label

    @property
    def untaken(self) -> bool:
        """A joined group leaves no records of its own."""
        return False

    @property
    def open_members(self) -> int:
        return len(self.members) - len(self.outcomes)

    def add(self, slot: str, names: Mapping[str, object] | None = None) -> Frame:
        """Add a member. Its frame is to be sent out on an item, or retired; added too late, it is revoked already."""
        frame = Frame(self, slot, self.item.frame, names)
        frame.revoked = self.closed
        self.members[slot] = frame
        return frame

    def finish_adding(self) -> None:
        """No member will be added: from now on the group can be decided by what is missing."""
        self.complete = True
        self._judge()

    def touched(self) -> None:
        """The first visit of a member starts the group's clock."""
        if not self.started:
            self.started = True
            if not self.closed:
                self.joiner.start_clock(self)

    def resolved(self, frame: Frame, outcome: Outcome) -> None:
        if self.closed:
            return
        self.outcomes[frame.slot] = outcome
        match outcome.status:
            case "ok" | "partial":
                self.ok += 1
            case "skipped":
                self.skipped += 1
            case "failed" | "cancelled":
                self.failed += 1
        if self.room is not None:
            self.room.set()
        self._judge()

    def expire(self) -> None:
        """The group's time is up."""
        if not self.closed:
            rules = self.joiner.rules
            self._close(Joined(decide_late(rules.join, self.tally(), rules.on_timeout), late=True))

    def fail(self, failure: Failure) -> None:
        """End the group because its fan-out failed."""
        if not self.closed:
            self._shut()
            self.joiner.reject(self, failure)

    def revoke(self) -> None:
        """Close without a result. The frame of the item that entered is retired by who revoked it."""
        if not self.closed:
            self._shut()

    def tally(self) -> Tally:
        """How the members stand; `ok` includes partial ones."""
        return Tally(self.ok, self.failed, self.skipped, self.open_members, self.complete)

    def finished(self) -> dict[str, Item]:
        """The items of the members that are ok or partial, by slot, in declaration order."""
        done: dict[str, Item] = {}
        for slot in self.members:
            outcome = self.outcomes.get(slot)
            if outcome is not None and outcome.item is not None and outcome.status in ("ok", "partial"):
                done[slot] = outcome.item
        return done

    def missing(self, among: Iterable[str]) -> tuple[Missing, ...]:
        """What the join did without among these slots, and what finished members did without."""
        lacks: list[Missing] = []
        for slot in among:
            outcome = self.outcomes.get(slot)
            if outcome is None:
                lacks.append(Missing(f"{self.label}.{slot}", self._not_done()))
            elif outcome.status in ("failed", "cancelled"):
                reason = outcome.failure.message if outcome.failure is not None else outcome.status
                lacks.append(Missing(f"{self.label}.{slot}", reason))
            elif outcome.item is not None and outcome.status != "skipped":
                lacks += [lack for lack in outcome.item.missing if lack not in self.item.missing]
        return tuple(lacks)

    def _not_done(self) -> str:
        timeout = self.joiner.rules.timeout
        return "not done" if timeout is None else f"not done within {timeout:g} s"

    def _judge(self) -> None:
        if not self.closed:
            verdict = decide(self.joiner.rules.join, self.tally())
            if verdict is not None:
                self._close(Joined(verdict, late=False))

    def _close(self, joined: Joined) -> None:
        self._shut()
        self.joiner.decided(self, joined)

    def _shut(self) -> None:
        """Let go of the item that entered, revoke who has not ended, and stop whoever still sends members out."""
        self.closed = True
        self.item.frame.inner = None
        self.joiner.closed(self)
        for slot, frame in self.members.items():
            if slot not in self.outcomes:
                frame.revoke()
        if self.scope is not None:
            self.scope.cancel()
