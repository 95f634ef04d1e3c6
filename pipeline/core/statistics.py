"""What a run looks like from outside, at one instant: counters that cost nothing, and snapshots of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.core.admission import WindowStatistics
from pipeline.core.joiner import GroupStatistics
from pipeline.core.limits import LimitStatistics, WaitedFor
from pipeline.core.purse import PurseStatistics
from pipeline.core.slots import Slots, SlotStatistics
from pipeline.core.streams import EdgeStatistics
from pipeline.core.threads import BlockingStatistics
from pipeline.core.usage import Cost, Usage


class Meter:
    """The counters of one leaf stage in one run. All of them only grow; times are in seconds, summed over workers."""

    __slots__ = ("blocked", "busy", "emitted", "failed", "name", "received", "skipped", "slots", "staff", "waiting")

    def __init__(self, name: str, concurrency: int) -> None:
        self.name = name
        self.slots = Slots(concurrency)
        self.staff: Callable[[], None] | None = None  #: starts workers when slots are added; None when not running
        self.received = 0
        self.emitted = 0
        self.skipped = 0
        self.failed = 0
        self.busy = 0.0
        self.waiting = 0.0
        self.blocked = 0.0

    def statistics(self) -> StageStatistics:
        return StageStatistics(
            self.name,
            self.received,
            self.emitted,
            self.skipped,
            self.failed,
            self.slots.statistics(),
            self.busy,
            self.waiting,
            self.blocked,
        )


@dataclass(frozen=True, slots=True)
class StageStatistics:
    """One leaf stage at one instant."""

    name: str
    received: int  #: visits begun
    emitted: int
    skipped: int
    failed: int
    slots: SlotStatistics
    busy: float  #: seconds of visits
    waiting: float  #: seconds without an item
    blocked: float  #: seconds waiting for room downstream


@dataclass(frozen=True, slots=True)
class TapStatistics:
    """One tap at one instant. What was seen and neither dropped nor failed nor waits was taken."""

    name: str
    seen: int  #: payloads that passed
    dropped: int  #: those that its function was not given, or was not done with at the end
    failed: int  #: calls of it that raised
    waiting: int  #: those that it will be given, the one that it has included
    error: str | None  #: what it raised last


class Tapped(Protocol):
    """Something that counts what a tap does."""

    def statistics(self) -> TapStatistics: ...


@dataclass(frozen=True, slots=True)
class BlockedStatistics:
    """How often the event loop was blocked by one culprit, as the watchdog saw it."""

    culprit: str  #: `stage 'fetch'`, `the source`, `the sink`, `code outside the stages`
    times: int
    longest: float  #: seconds
    where: str  #: of the longest: `file:line in function`


@dataclass(frozen=True, slots=True)
class Statistics:
    """A run at one instant: where its items are, and what holds them."""

    window: WindowStatistics
    stages: tuple[StageStatistics, ...]
    edges: tuple[EdgeStatistics, ...]
    groups: tuple[GroupStatistics, ...]
    results_waiting: int  #: records that the consumer has not taken
    blocking: tuple[BlockingStatistics, ...]  #: of stages that run functions in worker threads; also after the run
    usage: Usage  #: of all attempts, those of roots that leave no record included
    cost: Cost | None  #: None when nothing was called; its `usd` is None when a price is unknown
    listener_errors: int = 0  #: exceptions that the listener of events raised
    taps: tuple[TapStatistics, ...] = ()
    #: in debug mode, by stage, the type of something given that could not be copied, so that it is not watched
    unwatched: Mapping[str, str] = field(default_factory=dict[str, str])
    loop_blocked: tuple[BlockedStatistics, ...] = ()  #: with `watchdog`
    limits: tuple[LimitStatistics, ...] = ()  #: quotas, gates and breakers of the models that were called
    budgets: tuple[PurseStatistics, ...] = ()
    #: how many answers had each flag of `Reply.flags`; and `tool_failed`, calls of tools
    remarks: Mapping[str, int] = field(default_factory=dict[str, int])
    known_usd: float = 0.0  #: what the attempts with a known price came to
    unpriced: int = 0  #: attempts whose price is unknown

    @property
    def held_by(self) -> WaitedFor | None:
        """The limit that most calls wait for; None while no call waits for any."""
        waited_for = [limit for limit in self.limits if isinstance(limit, WaitedFor) and limit.waiting]
        return max(waited_for, key=lambda limit: limit.waiting, default=None)

    @property
    def threads(self) -> int:
        """Blocking calls in worker threads, abandoned ones included."""
        return sum(stage.running for stage in self.blocking)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The snapshot for people, a line each: the window, then every stage with the edge in front of it."""
        window = self.window
        settled = " ".join(f"{count} {status}" for status, count in window.settled.items() if count) or "none"
        lines = [
            f"roots   {window.admitted} admitted, {window.open} open, settled: {settled}",
            f"window  {window.in_flight}/{window.max_in_flight} credits, {window.alive} items alive "
            f"(peak {window.peak}, bound {window.bound}), {self.results_waiting} records wait for the reader"
            + (", paused" if window.paused else ""),
        ]
        edges = {edge.name: edge for edge in self.edges}
        lines += [_stage_line(stage, edges.pop(stage.name, None)) for stage in self.stages]
        lines += [f"edge    {edge.name}: {_edge_text(edge)}" for edge in edges.values()]
        lines += [
            f"group   {group.label}: {group.open} open of {group.opened}, {group.parked} parked, "
            f"{group.waiting} joined wait for room"
            for group in self.groups
        ]
        lines += [
            f"threads {stage.stage}: {stage.running} blocking calls run, {stage.abandoned} of them abandoned"
            for stage in self.blocking
            if stage.running
        ]
        lines += [_tap_line(tap) for tap in self.taps]
        lines += [
            f"debug   {stage}: {what} cannot be copied, so it is not watched" for stage, what in self.unwatched.items()
        ]
        lines += [
            f"loop    {culprit.culprit} blocked it {culprit.times} times, {culprit.longest:.2f} s at {culprit.where}"
            for culprit in self.loop_blocked
        ]
        lines += [f"limit   {limit}" for limit in self.limits]
        lines += [f"budget  {budget}" for budget in self.budgets]
        return lines


def _stage_line(stage: StageStatistics, edge: EdgeStatistics | None) -> str:
    slots = stage.slots
    sleeping = f", {slots.sleeping} sleeping" if slots.sleeping else ""
    queue = f"; queue {_edge_text(edge)}" if edge else ""
    return (
        f"stage   {stage.name}: {stage.received} in, {stage.emitted} out, "
        f"{stage.skipped} skipped, {stage.failed} failed; "
        f"slots {slots.borrowed}/{slots.total}{sleeping}{queue}; "
        f"busy {stage.busy:.1f} s, waiting {stage.waiting:.1f} s, blocked {stage.blocked:.1f} s"
    )


def _tap_line(tap: TapStatistics) -> str:
    last = f", last: {tap.error}" if tap.error else ""
    return f"tap     {tap.name}: {tap.seen} seen, {tap.dropped} dropped, {tap.failed} failed{last}"


def _edge_text(edge: EdgeStatistics) -> str:
    return f"{edge.used}/{edge.capacity} used, {edge.senders_waiting} senders wait"
