"""Blocking functions off the event loop: worker threads under a limiter of the stage's own.

A thread cannot be cancelled. When its visit is, the item retires at once and the result is refused, but the unit of the
limiter stays taken until the thread ends, so abandoned calls cannot pile up behind the stage's back.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio
from anyio import CapacityLimiter, to_thread

if TYPE_CHECKING:
    from pipeline.core.machine import Machine


def is_blocking(function: Callable[..., object]) -> bool:
    """Say whether `function` is to run in a thread: it is not a coroutine function."""
    call = getattr(type(function), "__call__", None)  # noqa: B004 - the method is asked for, not whether there is one
    return not (inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call))


class BlockingCall:
    """One call in a thread, as the task that waits for it sees it."""

    __slots__ = ("done", "error", "result")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.result: object = None
        self.error: Exception | None = None


class Threads:
    """The threads of one stage in one run: at most `total` at a time, abandoned ones included."""

    def __init__(self, machine: Machine, name: str, total: int) -> None:
        self.name = name
        self._machine = machine
        self._total = total
        self._units = CapacityLimiter(total)
        self._unlimited = CapacityLimiter(math.inf)  # the units are ours to count, see `_keep`

    async def run(self, function: Callable[..., object], *args: object) -> object:
        """Call `function` in a thread and return what it returns. Cancelled, it leaves the thread to end unheard."""
        meter = self._machine.meters.get(self.name)
        if meter is not None and meter.slots.total != self._total:  # the stage's concurrency was changed
            self._units.total_tokens = self._total = meter.slots.total
        call = BlockingCall()
        await self._units.acquire_on_behalf_of(call)
        self._machine.keep(self._keep, call, function, args)
        await call.done.wait()
        if call.error is not None:
            raise call.error
        if inspect.isawaitable(call.result):
            return await call.result
        return call.result

    async def _keep(self, call: BlockingCall, function: Callable[..., object], args: tuple[object, ...]) -> None:
        """Hold the unit until the thread ends; a task of the run, so only the end of the run abandons it."""
        self._machine.threads += 1
        try:
            call.result = await to_thread.run_sync(function, *args, abandon_on_cancel=True, limiter=self._unlimited)
        except Exception as error:
            call.error = error
        self._machine.threads -= 1
        self._units.release_on_behalf_of(call)
        call.done.set()
