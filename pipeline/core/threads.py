"""Blocking functions off the event loop: worker threads under a limiter of the stage's own.

A thread cannot be cancelled. When its visit ends before it, the item goes its way at once and the result is refused,
as is what the call would commit afterwards, see `unless_abandoned`. But the unit of the limiter stays taken until the
thread ends, so abandoned calls cannot pile up behind the stage's back. They are counted, also after the run has ended.
"""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

import anyio
from anyio import CapacityLimiter, to_thread

from pipeline.core.errors import PipelineError
from pipeline.core.marking import Elsewhere
from pipeline.core.time_limit import within

if TYPE_CHECKING:
    from pipeline.core.machine import Machine


class Abandoned(PipelineError):
    """Raised in a worker thread: its visit has ended without it, so it changes nothing that others see any more."""


def is_blocking(function: Callable[..., object]) -> bool:
    """Say whether `function` is to run in a thread: it is not a coroutine function."""
    call = getattr(type(function), "__call__", None)  # noqa: B004 - the method is asked for, not whether there is one
    return not (inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call))


@dataclass(frozen=True, slots=True)
class BlockingStatistics:
    """The worker threads of one stage at one instant."""

    stage: str
    running: int  #: calls that have begun and not returned
    abandoned: int  #: those of them that nobody waits for: the item has ended, or the run has


class BlockingCall:
    """One call in a thread, as the task that waits for it sees it. The thread writes `began`, then the result or the
    error, then `ended`, each once; a reader elsewhere needs no lock for that. What it commits elsewhere it commits
    under the lock, under which it is abandoned as well, so it changes nothing after that."""

    __slots__ = (
        "_lock", "_outer", "abandoned", "args", "began", "done", "elsewhere", "ended", "error", "function", "result",
    )  # fmt: skip

    def __init__(self, function: Callable[..., object], args: tuple[object, ...]) -> None:
        self.function = function
        self.args = args
        self.done = anyio.Event()
        self.elsewhere: Elsewhere | None = None
        self.began = False
        self.ended = False
        self.abandoned = False  #: whoever waited for the result has left before it was there
        self.result: object = None
        self.error: Exception | None = None
        self._lock = threading.Lock()
        self._outer = _CALL.get()  #: the call that has started the run of this one, if one has

    def perform(self) -> None:
        """Make the call: what the thread does, in a context of its own."""
        _CALL.set(self)
        self.began = True
        try:
            self.result = self.function(*self.args)
        except Exception as error:
            self.error = error
        finally:
            self.ended = True

    def leave(self) -> None:
        """Wait for it no longer."""
        with self._lock:
            self.abandoned = not self.ended

    def commit(self, change: Callable[[], None]) -> None:
        """Make `change` if this call, and those that it is a part of, are waited for; else raise `Abandoned`."""
        with self._lock:
            if self.abandoned:
                raise Abandoned("the visit of this call has ended, so what the call would change is discarded")
            if self._outer is None:
                change()
            else:
                self._outer.commit(change)

    async def answer(self) -> object:
        """Wait for the thread; return or raise what the function did."""
        await self.done.wait()
        if self.error is not None:
            raise self.error
        return await self.result if inspect.isawaitable(self.result) else self.result


#: the call in a thread that the code at hand is a part of
_CALL: ContextVar[BlockingCall | None] = ContextVar("penstock_blocking_call", default=None)


def unless_abandoned(change: Callable[[], None]) -> None:
    """Make `change`, which others see and which takes no time. Raises `Abandoned` in the thread of a call whose visit
    has ended without it, and in whatever the thread has started that shares its context."""
    call = _CALL.get()
    if call is None:
        change()
    else:
        call.commit(change)


class Threads:
    """The threads of one stage in one run: at most `total` at a time, abandoned ones included."""

    def __init__(self, machine: Machine, name: str, total: int, timeout: float | None = None) -> None:
        self.name = name
        self._machine = machine
        self._total = total
        self._timeout = timeout
        self._units = CapacityLimiter(total)
        self._unlimited = CapacityLimiter(math.inf)  # the units are ours to count, see `_keep`
        self._calls: set[BlockingCall] = set()
        machine.threads[name] = self

    async def run(self, function: Callable[..., object], *args: object) -> object:
        """Call `function` in a thread and return what it returns, if that comes within the timeout, which does not
        count the wait for a unit. Cancelled or too late, it abandons the thread."""
        return await self.run_part(None, self._timeout, function, *args)

    async def run_part(
        self, part: str | None, timeout: float | None, function: Callable[..., object], *args: object
    ) -> object:
        """As `run`, for a part of a visit that has a timeout of its own, see `within`."""
        meter = self._machine.meters.get(self.name)
        if meter is not None and meter.slots.total != self._total:  # the stage's concurrency was changed
            self._units.total_tokens = self._total = meter.slots.total
        call = BlockingCall(function, args)
        await self._units.acquire_on_behalf_of(call)
        call.elsewhere = Elsewhere()
        self._calls.add(call)
        self._machine.keep(self._keep, call)
        try:
            return await within(timeout, self.name, call.answer(), part)
        finally:
            call.leave()

    async def _keep(self, call: BlockingCall) -> None:
        """Hold the unit until the thread ends; a task of the run, so only the end of the run abandons it."""
        await to_thread.run_sync(call.perform, abandon_on_cancel=True, limiter=self._unlimited)
        self._calls.discard(call)
        self._units.release_on_behalf_of(call)
        if call.elsewhere is not None:
            call.elsewhere.end()
        call.done.set()

    def statistics(self) -> BlockingStatistics:
        """The calls that are running now; right after the run as well."""
        running = [call for call in self._calls if call.began and not call.ended]
        return BlockingStatistics(self.name, len(running), sum(call.abandoned for call in running))
