"""Where finished records wait for whoever reads them: a deque and an event, never a raw stream.

The consumer waits for the event and takes synchronously, so a native cancellation of the host's task can strike only
while nothing is in its hands. The deque needs no bound of its own: each record in it holds its root's credit.
With `ordered` this is also the one place where input order is restored.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import anyio
from anyio.lowlevel import checkpoint

from pipeline.core.errors import InvariantError, PipelineError
from pipeline.core.item import Frame
from pipeline.core.ports import EARLIER, RunJournal
from pipeline.core.record import Record, Status
from pipeline.core.streams import BURST

if TYPE_CHECKING:
    from pipeline.core.root import Root


@runtime_checkable
class Yields(Protocol):
    """A fold whose members leave a record each, or become something else that does."""

    def delivered(self, frame: Frame, record: Record) -> None:
        """The consumer has taken the record of a member."""
        ...

    def no_more(self, frame: Frame) -> None:
        """What a member became is not at work any more; its records have not all been taken."""
        ...

    def concluded(self, frame: Frame, status: Status) -> None:
        """The records of what a member became have been taken; `status` is the worst of them."""
        ...


class Delivery(NamedTuple):
    """A record, and whom to tell when it has been taken. `number` is that of its line in the journal, if there is
    one."""

    frame: Frame
    fold: Yields
    record: Record
    number: int = 0


class Leftover(NamedTuple):
    """A record that an earlier run with the journal wrote and nobody took."""

    record: Record
    number: int


class Results:
    """The records of a run, for one consumer: `async for record in run.results`.

    Ends when the source has ended and every root of it has settled, or when the run is over. A record counts as settled
    the moment it is handed to the loop body.
    """

    def __init__(self, *, ordered: bool) -> None:
        self.ordered = ordered
        self._unwritten = 0  #: deliveries on their way through the journal
        self._ready: deque[Delivery] = deque()
        self._held: dict[int, list[Delivery]] = {}
        self._complete: set[int] = set()
        self._turn = 0
        self._wake: anyio.Event | None = None
        self._burst = BURST  #: so that the first take goes the long way round, and notes that somebody reads
        self._asked = False
        self.ended = False
        self._consumed = False
        self._journal: RunJournal | None = None
        self._leftovers: deque[Leftover] = deque()
        self._left = False  #: there may be more of them
        self._last = 0  #: number of the last one that was read
        self._handed = 0  #: number of the record that the consumer's loop is at

    def __len__(self) -> int:
        return len(self._ready) + self._unwritten + sum(map(len, self._held.values()))

    @property
    def awaited(self) -> bool:
        """It is not the consumer who is waited for: he waits for the next record, or has not come for the first."""
        return self.ended or (not self._ready and (self._wake is not None or not self._asked))

    # -- the journal's side -------------------------------------------------------------------------------------

    def recover(self, journal: RunJournal) -> None:
        """Let the consumer have first what earlier runs wrote and nobody took, and `journal` know what is taken."""
        self._journal = journal
        self._left = True

    def forgo(self) -> None:
        """Nobody wants what earlier runs wrote."""
        self._left = False

    def confirm(self) -> None:
        """The consumer's loop is done with the record that it was given last."""
        if self._handed and self._journal is not None:
            self._journal.taken(self._handed)
            self._handed = 0

    # -- the engine's side --------------------------------------------------------------------------------------

    def put(self, root: Root, record: Record) -> None:
        """Pass on the record of a root."""
        self.deliver(Delivery(root, root.window, record))

    def deliver(self, delivery: Delivery) -> None:
        """Pass on any record; under `ordered` it waits until its root is complete and it is that root's turn."""
        if self.ordered:
            self._held.setdefault(place_of(delivery.frame)[0], []).append(delivery)
        elif delivery.frame.root.page is not None:
            self._write(delivery)
        else:
            self._ready.append(delivery)
            if self._wake is not None:
                self._wake.set()

    def complete(self, index: int) -> None:
        """The root at `index` leaves no further record."""
        if not self.ordered:
            return
        self._complete.add(index)
        while self._turn in self._complete:
            self._complete.remove(self._turn)
            held = self._held.pop(self._turn, [])
            for delivery in sorted(held, key=_place) if len(held) > 1 else held:
                if delivery.frame.root.page is not None:
                    self._write(delivery)
                else:
                    self._ready.append(delivery)
            self._turn += 1
        if self._ready and self._wake is not None:
            self._wake.set()

    def _write(self, delivery: Delivery) -> None:
        """Let the journal have the record first; it is ready when it is durable."""
        frame, root = delivery.frame, delivery.frame.root
        page = root.page
        if page is None:
            raise InvariantError("a record without a journal was to be written to one")
        settles = frame is root and root.group is root.window
        root.written = root.written or settles
        self._unwritten += 1

        def written(record: Record, number: int) -> None:
            self._unwritten -= 1
            self._ready.append(Delivery(frame, delivery.fold, record, number))
            if self._wake is not None:
                self._wake.set()

        page.deliver(slots_of(frame), delivery.record, settles, written)

    def lose(self) -> None:
        """What the journal has not written yet it never will: its roots stay open."""
        self._unwritten = 0
        self.end()

    def end(self) -> None:
        """Let the consumer's loop end once what is ready has been taken."""
        self.ended = True
        if self._wake is not None:
            self._wake.set()

    # -- the consumer's side ------------------------------------------------------------------------------------

    async def take(self) -> Delivery | Leftover | None:
        """Wait for the next delivery, not yet counted as taken; None when the results have ended."""
        while self._left:
            if self._leftovers:
                return self._leftovers.popleft()
            await self._read_leftovers()
        while (delivery := await self._next()) is not None and delivery.number == EARLIER:
            delivery.fold.delivered(delivery.frame, delivery.record)
        return delivery

    def took(self, delivery: Delivery | Leftover, record: Record) -> None:
        """Count a delivery as taken: the consumer has `record` of it."""
        if isinstance(delivery, Delivery):
            delivery.fold.delivered(delivery.frame, record)
        if delivery.number and self._journal is not None:
            self._journal.taken(delivery.number)

    async def _read_leftovers(self) -> None:
        if self._journal is None:
            raise InvariantError("there are leftovers of no journal")
        found = await self._journal.untaken(self._last)
        self._leftovers += (Leftover(record, number) for number, record in found)
        if found:
            self._last = found[-1][0]
        else:
            self._left = False

    async def _next(self) -> Delivery | None:
        self._burst += 1
        if self._burst >= BURST or not self._ready:
            self._burst = 0
            self._asked = True
            await checkpoint()  # cheaper than an event, and often all that is needed for the next one to arrive
        while not self._ready:
            if self.ended and not self._unwritten:
                return None
            if self._wake is not None:
                raise PipelineError("results has one consumer; two tasks are reading it")
            self._wake = anyio.Event()
            try:
                await self._wake.wait()
            finally:
                self._wake = None
        return self._ready.popleft()

    def __aiter__(self) -> Results:
        if self._consumed:
            raise PipelineError("results can be read once; keep the records you need")
        self._consumed = True
        return self

    async def __anext__(self) -> Record:
        self.confirm()
        delivery = await self.take()
        if delivery is None:
            raise StopAsyncIteration
        if isinstance(delivery, Delivery):
            delivery.fold.delivered(delivery.frame, delivery.record)
        self._handed = delivery.number
        return delivery.record


def place_of(frame: Frame) -> tuple[int, ...]:
    """Where the record of an item stands in order: that of its root, then children in the order in which they were
    made."""
    return (*frame.root.place, *map(int, slots_of(frame)))


def slots_of(frame: Frame) -> tuple[str, ...]:
    """Which part of its root an item is, from the root inwards; nothing for the root itself."""
    slots: list[str] = []
    step = frame
    while step.parent is not None:
        slots.append(step.slot)
        step = step.parent
    return tuple(reversed(slots))


def _place(delivery: Delivery) -> tuple[int, ...]:
    return place_of(delivery.frame)
