"""Virtual time: a run whose waits take no time, on asyncio and on trio.

    anyio.run(main, **virtual("trio"))

The clock starts at 0 and stands still while any task can run; when none can, it jumps to the next timer. When there is
no timer either, nothing can ever happen again: `Stalled` is raised in place of a hang, so a deadlock fails a test at
once. While a worker thread or process of anyio's is out the clock waits for it in real time, because what comes back
may set an earlier timer. Sockets are not waited for.

This is the one module that knows the two event loops; each is imported only when it is asked for. Neither has a public
way to learn that it is about to sleep, hence the private names.
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import math
import selectors
from collections.abc import Callable, Iterable
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, NoReturn, TypedDict, cast

from anyio import CapacityLimiter, lowlevel

from pipeline.core.errors import PipelineError

if TYPE_CHECKING:
    from asyncio import Future, TimerHandle

    from trio.lowlevel import Task

#: real seconds that the clock waits for worker threads and processes before it calls the run stalled
PATIENCE = 30.0

_POLL = 0.0005


class Stalled(PipelineError):
    """The run can never go on: no timer is set, nothing is ready, and it has not ended. Names the tasks that wait."""


class VirtualTime(TypedDict):
    """Arguments for `anyio.run`."""

    backend: str
    backend_options: dict[str, Any]


def virtual(backend: str, *, patience: float = PATIENCE) -> VirtualTime:
    """Give the arguments of `anyio.run` for one run in virtual time; a second run needs a second call.

    The run raises `Stalled` (on trio inside the exception group of a task group, if the main task waits in one) when
    nothing can happen any more, or when worker threads or processes have been out for `patience` real seconds with
    every task waiting. Raises `ValueError` for an unknown backend.
    """
    if backend == "asyncio":
        return VirtualTime(backend=backend, backend_options=_asyncio_options(patience))
    if backend == "trio":
        return VirtualTime(backend=backend, backend_options=_trio_options(patience))
    raise ValueError(f"backend must be 'asyncio' or 'trio', got {backend!r}")


def stalled(tasks: Iterable[str], out: int = 0) -> Stalled:
    """Say what a run that cannot go on waits for."""
    names = ", ".join(sorted(tasks)) or "none"
    if out:
        return Stalled(f"{out} worker threads or processes do not come back; tasks that wait: {names}")
    return Stalled(f"no timer is set, nothing is ready and the run has not ended; tasks that wait: {names}")


def _books(token: object) -> dict[str, Any]:
    """What anyio keeps for the loop `token`, by name: its pools and limiters."""
    return {variable._name: value for variable, value in lowlevel._run_vars.get(token, {}).items()}


def _threads_out(books: dict[str, Any]) -> int:
    """Worker threads that anyio itself runs, which is so on asyncio."""
    return len(books.get("_threadpool_workers", ())) - len(books.get("_threadpool_idle_workers", ()))


def _processes_out(books: dict[str, Any], *, ending: bool) -> int:
    """Worker processes at work. One that is starting is in no pool, but has its unit of the default limiter, or is
    counted by `pipeline.core.processes`, as is one that is being killed; when all else is `ending`, idle ones are
    waited for too."""
    out = len(books.get("_process_pool_workers", ()))
    if not ending:
        out -= len(books.get("_process_pool_idle_workers", ()))
    out = max(out, books.get("penstock_processes_out", 0))
    limiter: CapacityLimiter | None = books.get("_default_process_limiter")
    return out if limiter is None else max(out, limiter.borrowed_tokens)


# -- asyncio --------------------------------------------------------------------------------------------------------


class _Selector(selectors.DefaultSelector):
    """Asks `idle` what to do where a loop would sleep: how many real seconds to wait."""

    idle: Callable[[], float]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        wait = self.idle()
        return super().select(wait) if wait > 0 else events


def _asyncio_options(patience: float) -> dict[str, Any]:
    import asyncio

    class VirtualLoop(asyncio.SelectorEventLoop):
        """A selector loop whose `time` is only ever set by its own `_idle`."""

        def __init__(self) -> None:
            selector = _Selector()
            selector.idle = self._idle
            self._now = 0.0
            self._executing = 0
            self._since: float | None = None
            self._main: Future[Any] | None = None
            self._stalled: Stalled | None = None
            super().__init__(selector)

        def time(self) -> float:
            return self._now

        def run_until_complete(self, future: Any) -> Any:
            self._stalled = None
            self._main = main = asyncio.ensure_future(future, loop=self)
            try:
                result = super().run_until_complete(main)
            except BaseException as error:
                if self._stalled is None or error is self._stalled:
                    raise
                raise self._stalled from error
            if self._stalled is not None:
                raise self._stalled
            return result

        def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Future[Any]:
            future = super().run_in_executor(executor, func, *args)
            self._executing += 1
            future.add_done_callback(self._executed)
            return future

        def _executed(self, future: object) -> None:
            self._executing -= 1

        def _idle(self) -> float:
            books = _books(self)
            timers = cast("list[TimerHandle]", vars(self)["_scheduled"])
            if timers and timers[0].when() == math.inf:  # who sleeps for ever has set a timer, too
                timers = []
            out = _threads_out(books) + _processes_out(books, ending=not timers) + self._executing
            if out:
                return self._wait_for_workers(out)
            self._since = None
            if timers:
                self._now = timers[0].when()
                # a timer is due before now + resolution, which after some months would be no later than now
                vars(self)["_clock_resolution"] = max(1e-9, 2 * math.ulp(self._now))
            else:
                self._stall(0)
            return 0

        def _wait_for_workers(self, out: int) -> float:
            self._since = monotonic() if self._since is None else self._since
            left = self._since + patience - monotonic()
            if left <= 0:
                self._since = None
                self._stall(out)
            return min(left, 0.05)

        def _stall(self, out: int) -> None:
            """End the main task in the orderly way, and the loop in the hard way if that does not help."""
            if self._stalled is not None or self._main is None:
                raise self._stalled or stalled((), out)
            self._stalled = stalled((task.get_name() for task in asyncio.all_tasks(self)), out)
            self._main.cancel()

    return {"loop_factory": VirtualLoop}


# -- trio -----------------------------------------------------------------------------------------------------------


def _trio_options(patience: float) -> dict[str, Any]:
    from trio import lowlevel as trio_lowlevel
    from trio.testing import MockClock, active_thread_count

    clock = MockClock(autojump_threshold=0)
    jump = clock._autojump
    since: float | None = None
    told = False

    def autojump() -> None:
        nonlocal since
        ending = trio_lowlevel.current_statistics().seconds_to_next_deadline == math.inf
        out = active_thread_count() + _processes_out(_books(trio_lowlevel.current_trio_token()), ending=ending)
        if out:
            since = monotonic() if since is None else since
            if monotonic() - since < patience:
                sleep(_POLL)  # trio asks again at once, so this is how a real wait looks from here
                return
        since = None
        if out or ending:
            stall(out)
        else:
            jump()

    def stall(out: int) -> None:
        """Raise in the main task where it waits; if that was of no use, break the loop."""
        nonlocal told
        tasks = list(_tasks_below(trio_lowlevel.current_root_task()))
        error = stalled((task.name for task in tasks), out)
        main = next(iter(tasks), None)
        if told or main is None or main._abort_func is None:
            raise error
        told = True

        def throw() -> NoReturn:
            raise error

        main._attempt_abort(throw)

    # MockClock refuses subclasses, and has no other way to learn that there is nothing to jump to
    clock._autojump = autojump
    return {"clock": clock}


def _tasks_below(root: Task | None) -> Iterable[Task]:
    """The tasks of a run without trio's own, the main task first: it alone is in the innermost nursery of the root."""
    if root is None:
        return
    waiting = list(root.child_nurseries[-1].child_tasks)
    while waiting:
        task = waiting.pop(0)
        yield task
        for nursery in task.child_nurseries:
            waiting += nursery.child_tasks
