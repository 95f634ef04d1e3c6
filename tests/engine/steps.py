"""Acting exactly before the k-th step of a run: every point at which anything else could happen, one after the other.

Points are counted from `arm` on. On asyncio there is one before every callback that the loop runs (a step of a task, a
timer, a future's callback); on trio one before every step of a task, and one when every task waits and the clock is
about to jump. Runs are in virtual time and drawn from a seed, so the k-th point is the same one in every run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
import trio

from tests.engine.schedules import run_in


class Steps:
    """The points of one run, and what is done before one of them."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.passed = 0
        self.acted = False
        self._act: Callable[[], object] | None = None

    def arm(self, act: Callable[[], object]) -> None:
        """Count from here, and call `act` before the point that was asked for."""
        self._act = act

    def disarm(self) -> None:
        """What comes now is not counted."""
        self._act = None

    def point(self) -> None:
        """Told by the scheduler."""
        if self._act is None or self.acted:
            return
        if self.passed == self.at:
            self.acted = True
            self._act()
        self.passed += 1


class Watched(trio.abc.Instrument):
    """Tells of trio's steps."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps.point()

    def before_io_wait(self, timeout: float) -> None:
        if not trio.lowlevel.current_statistics().tasks_runnable:
            self._steps.point()


@contextmanager
def counted(backend: str, steps: Steps) -> Iterator[None]:
    """Count the points in this block, which is in the run."""
    if backend == "trio":
        instrument = Watched(steps)
        trio.lowlevel.add_instrument(instrument)
        try:
            yield
        finally:
            trio.lowlevel.remove_instrument(instrument)
    else:
        run = asyncio.Handle._run

        def told(handle: asyncio.Handle) -> None:
            steps.point()
            run(handle)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(asyncio.Handle, "_run", told)
            yield


def run_stepwise(backend: str, steps: Steps, body: Callable[[], Awaitable[None]], seed: int = 0) -> None:
    """Run `body` in virtual time; what it arms `steps` with is done before the point asked for, if there is one."""

    async def main() -> None:
        with counted(backend, steps):
            await body()

    run_in(backend, seed, main)
