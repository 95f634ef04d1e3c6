"""Credits: how many roots may be open at once, had in turn by whoever asks.

Nobody gets ahead of those who wait, so a source and any number of submitters share them fairly.
"""

from __future__ import annotations

from collections import deque

import anyio


class Credits:
    """The credits of one run. What can change: `in_flight`, `paused`, `closed`, and who waits."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.in_flight: int = 0  #: credits taken
        self.paused = False
        self.closed = False  #: the run takes no new roots
        self._waiting: deque[anyio.Event] = deque()
        self._promised = 0  #: credits of those who were woken and have not run yet

    @property
    def free(self) -> bool:
        """A credit can be had at once. Nobody gets ahead of those who wait for one."""
        return self.in_flight + self._promised < self.limit and not self._waiting and not self.paused

    @property
    def waiting(self) -> int:
        """How many wait for a credit."""
        return len(self._waiting)

    async def wait_free(self) -> None:
        """Wait for the right to a credit, first come, first served. Call `admit` or `pass_on` before anything is
        awaited."""
        if self.free:
            return
        turn = anyio.Event()
        self._waiting.append(turn)
        await self._wait_turn(turn)
        while self.paused and not self.closed:  # since it was woken: it stays the first
            turn = anyio.Event()
            self._waiting.appendleft(turn)
            await self._wait_turn(turn)

    async def _wait_turn(self, turn: anyio.Event) -> None:
        try:
            await turn.wait()
        except BaseException:
            if turn.is_set():
                self._promised -= 1
                self.pass_on()
            else:
                self._waiting.remove(turn)
            raise
        self._promised -= 1

    def pass_on(self) -> None:
        """Let those who wait have the credits that are free."""
        while self._waiting and self.in_flight + self._promised < self.limit and not self.paused:
            self._promised += 1
            self._waiting.popleft().set()

    def release(self) -> None:
        """Give one credit back."""
        self.in_flight -= 1
        if self._waiting:
            self.pass_on()

    def close(self) -> None:
        """Admit nothing more: who waits for a credit is woken to see it."""
        self.closed = True
        while self._waiting:
            self._promised += 1
            self._waiting.popleft().set()

    def pause(self) -> None:
        """Let nobody have a credit until `resume`."""
        self.paused = True

    def resume(self) -> None:
        """Let credits be had again."""
        self.paused = False
        self.pass_on()
