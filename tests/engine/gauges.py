"""What user code can see of the engine while a run goes on, and the laws that hold there at every instant."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from pipeline.core.item import Frame
from pipeline.core.slots import Slots
from pipeline.core.visit import Visit
from stages.partition import Keyed


class Waiter:
    """A visit that waits for its slot to come back."""

    def __init__(self, visit: Visit, slots: Slots) -> None:
        self.worker = visit._worker
        self.slots = slots
        self.ahead = slots.contended  #: others that waited when it began to
        self.overtaken = 0  #: visits that have begun or gone on since

    @property
    def waits(self) -> bool:
        """It waits indeed, and has not only to be woken, with a slot or because it is cancelled."""
        now = self.slots._limiter.statistics()
        return now.tasks_waiting > 0 and self.worker not in now.borrowers and not self.worker.scope.cancel_called


class Line:
    """The items of one key of one partition, as the key function and the body saw them."""

    def __init__(self) -> None:
        self.arrived: list[int] = []
        self.entered: list[Frame] = []  #: of the items that entered, in that order
        self.left = 0
        self.inside: Frame | None = None

    def enter(self, frame: Frame, number: int) -> None:
        """A member of this key is in the body now. Those that vanished in front of it are passed over."""
        assert self.inside is None or self.inside.retired, "two items of a key are in the body"
        assert number in self.arrived, "an item came before one of its key that had arrived before it"
        del self.arrived[: self.arrived.index(number) + 1]
        assert frame.parent is not None
        self.inside = frame
        self.entered.append(frame.parent)

    def leave(self, frame: Frame) -> None:
        assert frame in self.entered[self.left :], "an item of a key came out before one that had entered before it"
        self.left = self.entered.index(frame) + 1


class Gauge:
    """Counts the visits of each stage that are at work, and calls `observe` at each one."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.limit: dict[str, int] = {}  #: the concurrency that each stage has now
        self.widest: dict[str, int] = {}  #: the most that it ever had
        self.movable: set[str] = set()  #: stages whose concurrency can be set
        self.callers: set[str] = set()  #: stages whose visits are calls
        self.observe: Callable[[], None] = lambda: None
        self.waiters: defaultdict[str, list[Waiter]] = defaultdict(list)
        self.lines: defaultdict[tuple[str, Hashable], Line] = defaultdict(Line)
        self.keyed: defaultdict[tuple[str, Hashable], Counter[Keyed]] = defaultdict(Counter)
        self.broken: list[AssertionError] = []  #: what user code saw; raised there, it would only fail an item

    @property
    def calling(self) -> int:
        return sum(self.running[name] for name in self.callers)

    def add(self, name: str, concurrency: int, *, movable: bool) -> None:
        self.limit[name] = self.widest[name] = concurrency
        if movable:
            self.movable.add(name)

    def resize(self, name: str, concurrency: int) -> None:
        self.limit[name] = concurrency
        self.widest[name] = max(self.widest[name], concurrency)

    @contextmanager
    def at_work(self, name: str, visit: Visit | None = None) -> Iterator[Presence]:
        """A visit of stage `name` for the length of the block."""
        presence = Presence(self, name, visit)
        try:
            presence.enter()
            yield presence
        finally:
            presence.leave()

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Keep what is asserted in the block, for the host."""
        try:
            yield
        except AssertionError as error:
            self.broken.append(error)
            raise

    def nothing_is_left(self) -> None:
        for error in self.broken:
            raise error
        assert not +self.running, "a visit is left"
        assert not any(self.waiters.values())


@dataclass
class Presence:
    """One visit, which may be away while it has lent its slot."""

    gauge: Gauge
    name: str
    visit: Visit | None
    here: bool = field(default=False)

    def enter(self) -> None:
        with self.gauge.noting():
            self._enter()

    def _enter(self) -> None:
        gauge, name = self.gauge, self.name
        gauge.running[name] += 1
        self.here = True
        for group in self.groups():
            gauge.keyed[group.label, group.key][group] += 1
        assert gauge.running[name] <= gauge.limit[name], f"{name}: {gauge.running[name]} visits at once"
        for waiter in gauge.waiters[name]:
            waiter.overtaken += waiter.waits
            assert waiter.overtaken <= waiter.ahead + gauge.widest[name], f"{name}: a visit starves"
        for group in self.groups():
            assert len(gauge.keyed[group.label, group.key]) == 1, f"{group.label}: two items of a key are visited"
        gauge.observe()

    def leave(self) -> None:
        if not self.here:
            return
        self.here = False
        self.gauge.running[self.name] -= 1
        for group in self.groups():
            counts = self.gauge.keyed[group.label, group.key]
            counts[group] -= 1
            if not counts[group]:
                del counts[group]

    def groups(self) -> Iterator[Keyed]:
        """The partitions that this visit is in."""
        frame = None if self.visit is None else self.visit.item.frame
        while frame is not None:
            if isinstance(frame.group, Keyed):
                yield frame.group
            frame = frame.parent

    @asynccontextmanager
    async def lending(self) -> AsyncGenerator[None]:
        """Have the slot lent for the length of the block, and wait for one afterwards."""
        assert self.visit is not None
        waiters = self.gauge.waiters[self.name]
        waiter: Waiter | None = None
        self.leave()
        try:
            async with self.visit.without_slot():
                yield
                waiter = Waiter(self.visit, self.visit._worker.crew.slots)
                waiters.append(waiter)
        finally:
            if waiter is not None:
                waiters.remove(waiter)
        self.enter()
