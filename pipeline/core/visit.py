"""One visit of an item to a leaf stage: what a process function and a model call may know and ask.

Made when a stage's function asks for it, so that a plain stage pays nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from anyio import CancelScope, WouldBlock
from anyio import Event as Signal

from pipeline.core.errors import CallsClosed
from pipeline.core.events import Event
from pipeline.core.holds import Answer, NextAttempt
from pipeline.core.item import Item
from pipeline.core.ports import Hold, OpenModel, Page, Reply, Resource
from pipeline.core.purse import Purse
from pipeline.core.state import Message
from pipeline.core.threads import Threads
from pipeline.core.usage import Account, Cost, Usage

if TYPE_CHECKING:
    from pipeline.core.workers import Worker


class Visit:
    """An item in the hands of a stage. Satisfies `ports.Visit`."""

    __slots__ = ("_calls", "_ordinal", "_parts", "_regaining", "_sleeping", "_worker", "item")

    def __init__(self, worker: Worker, item: Item) -> None:
        self._worker = worker
        self._ordinal = 0
        self._parts = 0
        self._calls = 0  #: model calls in flight
        self._sleeping = 0  #: those of them that wait between attempts
        self._regaining: Signal | None = None
        self.item = item

    @property
    def stage(self) -> str:
        return self._worker.crew.name

    @property
    def item_id(self) -> str:
        return self.item.frame.root.id

    @property
    def index(self) -> int:
        """Position of the root in the input, from 0."""
        return self.item.frame.root.index

    @property
    def path(self) -> tuple[str, ...]:
        return (*self.item.frame.path(), self.stage)

    @property
    def deadline(self) -> float | None:
        return self.item.frame.root.deadline

    def names(self) -> Mapping[str, object]:
        """What a template of this stage sees: `input`, `prompt`, `vars`, outputs by stage name, `part` and the like."""
        return template_names(self.item)

    def next_ordinal(self) -> int:
        ordinal = self._ordinal
        self._ordinal = ordinal + 1
        return ordinal

    def admit_call(self) -> None:
        if self._worker.crew.machine.calls_closed:
            raise CallsClosed("the run takes no new model call")

    @property
    def page(self) -> Page | None:
        """What the journal holds of the root; None if the run has no journal."""
        return self.item.frame.root.page

    def recall(self, usage: Usage, cost: Cost | None) -> None:
        """Add to the root's account what an earlier run has paid for a call that is answered from the journal."""
        frame = self.item.frame
        frame.account.charge(usage, cost)
        if frame.root.page is not None:
            frame.root.page.recalled(usage, cost)

    def charge(self, usage: Usage, cost: Cost | None) -> None:
        frame = self.item.frame
        frame.account.charge(usage, cost)
        frame.root.window.account.charge(usage, cost)

    def remark(self, flag: str) -> None:
        """Count something that has to be said of an answer or a tool, see `Statistics.remarks`."""
        remarks = self._worker.crew.machine.remarks
        remarks[flag] = remarks.get(flag, 0) + 1

    @property
    def purses(self) -> Sequence[Purse]:
        return self._worker.crew.machine.purses

    @property
    def listening(self) -> bool:
        return self._worker.crew.machine.listening

    def emit(self, event: Event) -> None:
        self._worker.crew.machine.emit(event)

    @contextmanager
    def spare_slot(self) -> Generator[bool]:
        """Take one more slot of the stage for the length of the block, if one is free now; says whether it was."""
        slots, lease = self._worker.crew.slots, object()
        try:
            slots.acquire_nowait(lease)
        except WouldBlock:
            yield False
            return
        try:
            yield True
        finally:
            slots.release(lease)

    @contextmanager
    def waiting(self, hold: Hold) -> Generator[None]:
        """Let it be seen, for the length of the block, that this visit waits for `hold`, see `Run.wait_chain`."""
        holds = self._worker.holds
        holds.append(hold)
        try:
            yield
        finally:
            holds.remove(hold)

    @contextmanager
    def waiting_to_send(self, hold: Hold) -> Generator[None]:
        """As `waiting`, before an attempt is sent. Raises `CallsClosed` at once, or out of the block wherever that
        awaits, when the run stops making calls; a block that has come to its end has what it waited for."""
        self.admit_call()
        with self._until_closed() as scope, self.waiting(hold):
            yield
        if scope.cancelled_caught:
            self.admit_call()

    @contextmanager
    def _until_closed(self) -> Generator[CancelScope]:
        """Leave the block when the run stops making calls."""
        sleepers = self._worker.crew.machine.sleepers
        with CancelScope() as scope:
            sleepers.add(scope)
            try:
                yield scope
            finally:
                sleepers.discard(scope)

    @asynccontextmanager
    async def without_slot(self) -> AsyncGenerator[None]:
        """Give the slot back for the length of the block (a wait between attempts), then take one again.

        A visit that has several calls in flight gives its slot back only while all of them wait. Raises `CallsClosed`
        at once, or out of the block, when the run stops making calls.
        """
        self.admit_call()
        self._sleeping += 1
        if self._sleeping >= self._calls:
            self._worker.lend_slot()
        try:
            with self._until_closed(), self.waiting(NextAttempt()):
                yield
        finally:
            self._sleeping -= 1
            await self._regain()
        self.admit_call()

    def next_part(self) -> int:
        """Count the parts of this visit: 0 for the first."""
        part = self._parts
        self._parts = part + 1
        return part

    def part(self, *steps: str) -> Part:
        """Something that goes on beside other parts of this visit: its calls are counted apart, below `steps`, so that
        what identifies them does not depend on which part was faster."""
        return Part(self, steps)

    async def call(self, model: Resource[OpenModel], messages: Sequence[Message], **params: object) -> Reply:
        """Ask `model` through its full call stack. The stage that calls names the model among its `resources()`."""
        return await self._call_for(self, model, messages, params)

    async def _call_for(
        self, visit: Visit, model: Resource[OpenModel], messages: Sequence[Message], params: Mapping[str, object]
    ) -> Reply:
        """Let `visit`, which is this one or a part of it, ask `model`."""
        opened = self._worker.crew.scope.resource(model)
        await self._regain()
        self._calls += 1
        try:
            with self.waiting(Answer(str(getattr(model, "name", type(model).__name__)))):
                return await opened.call(visit, messages, **params)
        finally:
            self._calls -= 1
            if 0 < self._calls <= self._sleeping and not self._worker.lent:  # the others had kept it for this one
                self._worker.lend_slot()

    async def in_thread(
        self, function: Callable[..., object], *args: object, part: str | None = None, timeout: float | None = None
    ) -> object:
        """Call a blocking `function` in a worker thread and return what it returns.

        A stage has as many threads as slots, for all its visits together. A visit that ends before its thread abandons
        it: the result is refused, and the thread counted until it ends. `timeout` is in seconds, from when the function
        begins; what takes longer fails as `VisitTimeout`, which names `part`.
        """
        crew = self._worker.crew
        threads = crew.machine.threads.get(crew.name) or Threads(crew.machine, crew.name, crew.slots.total)
        return await threads.run_part(part, timeout, function, *args)

    async def _regain(self) -> None:
        """Have the slot in hand again, if it was lent; whoever comes first takes it, the others wait for that."""
        while self._worker.lent:
            if self._regaining is not None:
                await self._regaining.wait()
                continue
            self._regaining = Signal()
            try:
                await self._worker.regain_slot()
            finally:
                self._regaining.set()
                self._regaining = None


class Part(Visit):
    """A part of a visit, with paths and an account of its own. What can change beyond a visit's: `used`."""

    __slots__ = ("_steps", "_whole", "used")

    def __init__(self, whole: Visit, steps: tuple[str, ...]) -> None:
        super().__init__(whole._worker, whole.item)
        self._whole = whole
        self._steps = steps
        self.used = Account()  #: by this part, and charged to the whole as well

    @property
    def path(self) -> tuple[str, ...]:
        return (*self._whole.path, *self._steps)

    def recall(self, usage: Usage, cost: Cost | None) -> None:
        self.used.charge(usage, cost)
        self._whole.recall(usage, cost)

    def charge(self, usage: Usage, cost: Cost | None) -> None:
        self.used.charge(usage, cost)
        self._whole.charge(usage, cost)

    @asynccontextmanager
    async def without_slot(self) -> AsyncGenerator[None]:
        async with self._whole.without_slot():
            yield

    async def _call_for(
        self, visit: Visit, model: Resource[OpenModel], messages: Sequence[Message], params: Mapping[str, object]
    ) -> Reply:
        return await self._whole._call_for(visit, model, messages, params)


def template_names(item: Item) -> dict[str, object]:
    """The names that a template sees when it is rendered for `item`."""
    names: dict[str, object] = dict(item.frame.names)
    names.update(item.state.outputs)
    names.update(item.frame.root.names_of_record())
    return names
