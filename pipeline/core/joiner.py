"""The groups of one composite in one run, and the way out for what they join.

What a group decides is put where the composite's one sender finds it, or ends the item that entered.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import anyio
from anyio import WouldBlock

from pipeline.core.deadlines import Deadlines
from pipeline.core.errors import Failure, ItemError, is_bug
from pipeline.core.groups import Group, Joined
from pipeline.core.item import Item, Outcome
from pipeline.core.joins import Join, OnTimeout
from pipeline.core.members import Verdict
from pipeline.core.streams import Outbox, hand_over


@dataclass(frozen=True, slots=True)
class Rules:
    """How the groups of a composite are joined."""

    join: Join = Join()
    timeout: float | None = None  #: seconds from the first visit of a member
    on_timeout: OnTimeout | None = None


@dataclass(frozen=True, slots=True)
class GroupStatistics:
    """The groups of one composite at one instant."""

    label: str
    open: int
    opened: int
    waiting: int  #: joined items that wait for room downstream
    parked: int = 0  #: items that wait for others here: in line, behind one of their key, in a batch that fills


Combine = Callable[[Group, Joined], Item | None]
Reject = Callable[[Item, Failure], None]
Gather = Callable[[Mapping[str, Item]], object]
Tell = Callable[[Group, Joined], object]


class Open(Protocol):
    """What holds items in a composite until it is done: a group, or a batch."""

    @property
    def label(self) -> str: ...

    def abandon(self) -> None:
        """Resolve as cancelled what is held, because the composite is being torn down."""
        ...


class Joiner:
    """The groups of one composite in one run, and the way out for what they join.

    `combine` makes the joined item of a decided group (None: every member was skipped, and so is the item); `reject`
    fails the item that entered; `gather` makes one value of the finished members; `tell` hears of each decision. All
    are synchronous. What `combine` raises fails the item.
    """

    def __init__(
        self, label: str, rules: Rules, combine: Combine, reject: Reject, gather: Gather, tell: Tell | None = None
    ) -> None:
        self.label = label
        self.rules = rules
        self._combine = combine
        self._reject = reject
        self._gather = gather
        self._tell = tell
        self.groups: dict[Open, None] = {}
        self.opened_count = 0
        self._ready: deque[Item] = deque()
        self._changed = anyio.Event()
        self._closing = False
        self._deadlines: Deadlines[Group] | None = None
        if rules.timeout is not None:
            self._deadlines = Deadlines(rules.timeout, Group.expire)

    # -- told by groups -----------------------------------------------------------------------------------------

    def opened(self, group: Open) -> None:
        self.groups[group] = None
        self.opened_count += 1

    def start_clock(self, group: Group) -> None:
        if self._deadlines is not None:
            self._deadlines.start(group)

    def closed(self, group: Open) -> None:
        del self.groups[group]
        if self._deadlines is not None and isinstance(group, Group):
            self._deadlines.stop(group)
        if not self.groups:
            self._changed.set()

    def decided(self, group: Group, joined: Joined) -> None:
        if self._tell is not None:
            self._tell(group, joined)
        if self.leaves_open(group, joined.verdict):
            group.item.frame.resolve(Outcome("cancelled", group.item))
            return
        if joined.verdict == "failed":
            self.reject(group, self.why(group, joined))
            return
        try:
            item = self._combine(group, joined)
        except Exception as error:
            if is_bug(error):
                raise
            self.reject(group, Failure.of(error, self.label))
            return
        if item is None:
            group.item.frame.resolve(Outcome("skipped", group.item))
        else:
            self.emit(item)

    def leaves_open(self, group: Group, verdict: Verdict) -> bool:
        """Whether a drain has cut the group short, so that nothing is known of what was not tried."""
        return (group.shortened and not self.rules.join.leaves_members) or (group.cut_short and verdict != "ok")

    def reject(self, group: Group, failure: Failure) -> None:
        """Fail the item that entered; what members had finished stays in its record."""
        done = group.finished()
        state = group.item.state.add_output(self.label, self._gather(done)) if done else group.item.state
        self._reject(Item(group.item.value, state, group.item.frame, group.item.missing), failure)

    def emit(self, item: Item) -> None:
        """Hand `item` to the emitter."""
        self._ready.append(item)
        self._changed.set()

    def why(self, group: Group, joined: Joined) -> Failure:
        """Why a group failed."""
        join, tally = self.rules.join, group.tally()
        if joined.failure is not None:
            return joined.failure
        if joined.late:
            message = f"{tally.open} of {len(group.members)} not done within {self.rules.timeout:g} s, join is {join}"
            return Failure.of(ItemError(message, type="GroupTimeout", retryable=True), self.label)
        if join.rule == "all":
            first = next(outcome for outcome in group.outcomes.values() if outcome.status in ("failed", "cancelled"))
            if first.failure is not None:
                return first.failure
        needed = f"join {join} says failed" if join.function is not None else f"needed {join.k}"
        planned = f"planned {len(group.members)}, {needed}, {tally.ok} succeeded"
        reasons = [f"{slot}: {outcome.failure.message}" for slot, outcome in group.outcomes.items() if outcome.failure]
        return Failure.of(ItemError("; ".join([planned, *reasons]), type="JoinFailed"), self.label)

    # -- the composite's tasks ----------------------------------------------------------------------------------

    @property
    def ready(self) -> tuple[Item, ...]:
        """Joined items that wait for room downstream; the first one is in hand."""
        return tuple(self._ready)

    @property
    def congested(self) -> bool:
        """Joined items wait for room downstream, so no new one should be taken in."""
        return bool(self._ready)

    async def wait_clear(self) -> None:
        """Wait until no joined item waits."""
        while self._ready:
            await self._next_change()

    async def run_clock(self) -> None:
        """Expire groups; the composite's timer task."""
        if self._deadlines is not None:
            await self._deadlines.run()

    async def run_emitter(self, outbox: Outbox) -> None:
        """Send joined items on until `finish`; the composite's one sender."""
        while True:
            while self._ready:
                item = self._ready[0]
                if item.frame.revoked:
                    item.frame.retire()
                else:
                    await self._send(outbox, item)
                self._ready.popleft()
            self._announce()
            if self._closing:
                return
            await self._next_change()

    async def _send(self, outbox: Outbox, item: Item) -> None:
        try:
            outbox.send_nowait(item)
        except WouldBlock:
            try:
                await hand_over(outbox, item)
            except BaseException:
                self._ready.popleft()  # it is not ours any more
                raise

    async def finish(self) -> None:
        """Wait until every group is decided and every joined item sent, then end the composite's tasks."""
        while self.groups or self._ready:
            await self._next_change()
        self._closing = True
        self._announce()
        if self._deadlines is not None:
            self._deadlines.close()

    def _announce(self) -> None:
        self._changed.set()

    async def _next_change(self) -> None:
        if self._changed.is_set():
            self._changed = anyio.Event()
        await self._changed.wait()

    def leave(self) -> None:
        """Resolve what is held and what waits to be sent, because the composite is being torn down."""
        while self.groups:  # one that is abandoned may take others along, when the group around them closes
            next(iter(self.groups)).abandon()
        while self._ready:
            item = self._ready.popleft()
            if not item.frame.retired:
                item.frame.resolve(Outcome("cancelled", item))

    def statistics(self, parked: int) -> GroupStatistics:
        return GroupStatistics(self.label, len(self.groups), self.opened_count, len(self._ready), parked)
