"""A visit for tests: it keeps what was charged, how often it was asked, and how long its slot was given back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from dataclasses import dataclass, field

import anyio

from pipeline.core.errors import CallsClosed
from pipeline.core.events import Event
from pipeline.core.ports import Hold, Page
from pipeline.core.purse import Purse
from pipeline.core.usage import Cost, Usage


@dataclass
class FakeVisit:
    """Satisfies `pipeline.core.ports.Visit`."""

    stage: str = "ask"
    item_id: str = "1"
    path: tuple[str, ...] = ("ask",)
    deadline: float | None = None
    closed: bool = False
    charges: list[tuple[Usage, Cost | None]] = field(default_factory=list[tuple[Usage, "Cost | None"]])
    admitted: int = 0
    calls: int = 0
    slot_held: bool = True
    given_back: int = 0
    purses: tuple[Purse, ...] = ()
    listening: bool = True
    events: list[Event] = field(default_factory=list[Event])
    remarks: list[str] = field(default_factory=list[str])
    spare: int = 1  #: slots that are free beside the one that is held
    sleepers: set[anyio.CancelScope] = field(default_factory=set[anyio.CancelScope])

    def close(self) -> None:
        """The run stops making calls."""
        self.closed = True
        for sleeper in self.sleepers:
            sleeper.cancel()

    def next_ordinal(self) -> int:
        self.calls += 1
        return self.calls - 1

    def admit_call(self) -> None:
        if self.closed:
            raise CallsClosed("no new calls")
        self.admitted += 1

    @property
    def page(self) -> Page | None:
        return None

    def recall(self, usage: Usage, cost: Cost | None) -> None:
        raise AssertionError("nothing is recalled without a journal")

    def charge(self, usage: Usage, cost: Cost | None) -> None:
        self.charges.append((usage, cost))

    def remark(self, flag: str) -> None:
        self.remarks.append(flag)

    def emit(self, event: Event) -> None:
        self.events.append(event)

    @contextmanager
    def spare_slot(self) -> Generator[bool]:
        if not self.spare:
            yield False
            return
        self.spare -= 1
        try:
            yield True
        finally:
            self.spare += 1

    def waiting(self, hold: Hold) -> AbstractContextManager[None]:
        return nullcontext()

    @contextmanager
    def waiting_to_send(self, hold: Hold) -> Generator[None]:
        self.admit_call()
        with anyio.CancelScope() as scope:
            self.sleepers.add(scope)
            try:
                yield
            finally:
                self.sleepers.discard(scope)
        if scope.cancelled_caught:
            self.admit_call()

    def without_slot(self) -> AbstractAsyncContextManager[None]:
        return self._without_slot()

    @asynccontextmanager
    async def _without_slot(self) -> AsyncGenerator[None]:
        assert self.slot_held
        self.slot_held = False
        self.given_back += 1
        try:
            yield
        finally:
            self.slot_held = True

    @property
    def requests(self) -> int:
        return sum(usage.requests for usage, _ in self.charges)
