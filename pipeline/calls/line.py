"""A line of calls that wait for the same thing: who came first stands in front, and only the front has to look.

What is waited for becomes free at a time that can be computed, or when somebody else does something. So the front
sleeps until its own time, and is called when that has changed; nobody polls, and whoever leaves passes the turn on.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable
from itertools import count
from typing import TypeAlias

import anyio

#: Given the time, when the one in front may go: not later than now if it may, infinity if somebody must call it.
Due: TypeAlias = Callable[[float], float]

#: Given the time, raise if it is of no use to wait on.
Check: TypeAlias = Callable[[float], None]


class Place:
    """Where one call stands. What can change: its signal, which is new after each call."""

    __slots__ = ("_signal", "key")

    def __init__(self, arrival: int, number: int) -> None:
        self.key = (arrival, number)
        self._signal = anyio.Event()

    def __lt__(self, other: Place) -> bool:
        return self.key < other.key

    def call(self) -> None:
        """Let it look again."""
        self._signal.set()

    async def called(self, until: float) -> None:
        """Return when it is called, or at `until`."""
        if until == math.inf:
            await self._signal.wait()
        else:
            with anyio.CancelScope(deadline=until):
                await self._signal.wait()
        self._signal = anyio.Event()


class Line:
    """Those who wait, in the order of their arrival. What can change: who they are."""

    __slots__ = ("_numbers", "_places")

    def __init__(self) -> None:
        self._places: list[Place] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._places)

    def call_front(self) -> None:
        """Let the front look again, because what it waits for has changed."""
        if self._places:
            self._places[0].call()

    def call_all(self) -> None:
        """Let everybody look, because it may be of no use to wait on."""
        for place in self._places:
            place.call()

    async def stand(self, arrival: int, due: Due, check: Check | None = None) -> None:
        """Return when this call stands in front and may go; it must take what it waited for before it awaits again.

        `arrival` is its place among all calls, so an attempt that comes back stands where its call stood. What `check`
        raises, which is asked wherever it stands, is raised here.
        """
        place = self._join(arrival)
        try:
            while True:
                now = anyio.current_time()
                if check is not None:
                    check(now)
                when = due(now) if self._places[0] is place else math.inf
                if when <= now:
                    return
                await place.called(when)
        finally:
            self._leave(place)

    def _join(self, arrival: int) -> Place:
        place = Place(arrival, next(self._numbers))
        insort(self._places, place)
        if self._places[0] is place and len(self._places) > 1:
            self._places[1].call()  # it was the front, and sleeps until a time that is no longer its own
        return place

    def _leave(self, place: Place) -> None:
        at = bisect_left(self._places, place)
        del self._places[at]
        if at == 0:
            self.call_front()
