"""The user's part of a small run: functions for stages of every kind, a source, a reader, a sink.

All of it passes a `Fuse` wherever it begins, waits or goes on, so that an error can be raised at each of these places
in turn.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from threading import Event, Lock

import anyio

from pipeline.core.record import Record
from pipeline.core.stage import Stage
from pipeline.core.visit import Visit
from stages import map


class Blown(Exception):
    """What a fuse raises, unless told otherwise."""


class Fuse:
    """Raises `error` at the passage `at`, once."""

    def __init__(self, at: int | None = None, error: type[BaseException] = Blown) -> None:
        self.at = at
        self.error = error
        self.passed = 0
        self.place: str | None = None  #: where it has blown
        self._lock = Lock()

    def __call__(self, place: str) -> None:
        with self._lock:
            number, self.passed = self.passed, self.passed + 1
        if number == self.at:
            self.place = place
            raise self.error(f"the fuse has blown in {place}")


#: real seconds for which a blocking function is held at most
HELD = 0.5


class Code:
    """The user's code of one run, and what it saw."""

    def __init__(self, fuse: Fuse | None = None) -> None:
        self.fuse = fuse or Fuse()
        self.given = 0  #: records taken from the source
        self.written: list[Record] = []
        self.inside = 0  #: blocking functions that have not returned
        self.gate = Event()  #: while it is cleared, none of them returns
        self.gate.set()
        self._lock = Lock()

    async def pause(self, place: str, seconds: float) -> None:
        """Wait, and pass the fuse before and after."""
        self.fuse(place)
        await anyio.sleep(seconds)
        self.fuse(place)

    def plain(self, name: str) -> Stage:
        return map(self.one_more, name=name)

    def stage(self, function: Callable[..., object], name: str, concurrency: int = 1) -> Stage:
        return map(function, name=name, concurrency=concurrency)

    # -- for stages ---------------------------------------------------------------------------------------------

    def one_more(self, value: object) -> int:
        self.fuse("one_more")
        return number(value) + 1

    async def slow(self, value: object) -> object:
        await self.pause("slow", 1 + number(value) % 3 / 2)
        return value

    async def late_first(self, value: object) -> object:
        """The later an item comes, the sooner it is done."""
        await self.pause("late_first", 2 - number(value) % 4 / 2)
        return value

    async def stubborn(self, value: object) -> object:
        """Takes its time to leave."""
        try:
            await self.pause("stubborn", 1.5)
        finally:
            with anyio.CancelScope(shield=True):
                await self.pause("stubborn", 0.25)
        return value

    async def rude(self, value: object) -> object:
        """Answers a cancellation with an error of its own."""
        try:
            await self.pause("rude", 1)
        except BaseException as error:
            if isinstance(error, self.fuse.error):
                raise
            raise ValueError("leave me alone") from error
        return value

    async def deaf(self, value: object) -> object:
        """Goes on when it is cancelled."""
        try:
            await self.pause("deaf", 1)
        except BaseException as error:
            if isinstance(error, self.fuse.error):
                raise
        return value

    async def lends(self, value: object, visit: Visit) -> object:
        async with visit.without_slot():
            await self.pause("lends", 1)
        await self.pause("lends", 0.5)
        return value

    async def together(self, values: list[object]) -> list[object]:
        """For the body of a batch."""
        await self.pause("together", 1)
        return values

    async def looks_on(self, value: object) -> None:
        """For a tap."""
        await self.pause("tap", 0.75)

    def blocks(self, value: object) -> object:
        """Is called in a thread. One that is held comes back in the end, too late for whoever has called it: virtual
        time waits for it."""
        with self._lock:
            self.inside += 1
        try:
            self.fuse("blocks")
            self.gate.wait(HELD)
        finally:
            with self._lock:
                self.inside -= 1
        return value

    # -- decisions ----------------------------------------------------------------------------------------------

    async def even(self, value: object) -> bool:
        await self.pause("even", 0.5)
        return number(value) % 2 == 0

    async def big(self, value: object) -> bool:
        await self.pause("big", 0.25)
        return number(value) >= 3

    def parity(self, value: object) -> str:
        self.fuse("parity")
        return str(number(value) % 2)

    async def parity_later(self, value: object) -> str:
        await self.pause("parity_later", 0.25)
        return str(number(value) % 2)

    async def weight(self, value: object) -> float:
        await self.pause("weight", 0.25)
        return 1 + number(value) % 2

    async def numbers(self, value: object) -> AsyncIterator[int]:
        self.fuse("numbers")
        try:
            for part in range(number(value) % 4):
                await self.pause("numbers", 0.5)
                yield number(value) + part
        finally:
            self.fuse("numbers, closing")

    def add(self, total: object, value: object) -> int:
        self.fuse("add")
        return number(total) + number(value)

    # -- ends ---------------------------------------------------------------------------------------------------

    def records(self, values: Sequence[object]) -> Iterator[object]:
        for value in values:
            self.fuse("source")
            self.given += 1
            yield value
        self.fuse("source")

    async def arriving(self, values: Sequence[object]) -> AsyncIterator[object]:
        """A source that waits for its records."""
        try:
            for value in values:
                await self.pause("source", 0.5)
                self.given += 1
                yield value
        finally:
            self.fuse("source")

    async def write(self, record: Record) -> None:
        """A sink, when this object is one."""
        await self.pause("sink", 0.25)
        self.written.append(record)


def number(value: object) -> int:
    """A number for whatever a join or an agent may give."""
    return value if isinstance(value, int) else 1
