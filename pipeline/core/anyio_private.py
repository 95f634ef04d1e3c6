"""What the engine needs of anyio and anyio shows nowhere: the one place that knows its private names and ways.

Each function says what nothing public does. The tests beside this module's name fail when a release of anyio has moved
what it relies on. (Virtual time looks into the event loops themselves, see `pipeline.core.virtual`.)
"""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import traceback
from collections.abc import Callable, Container
from contextlib import suppress
from types import FrameType
from typing import TypeVar, cast

from anyio import CancelScope, CapacityLimiter
from anyio.lowlevel import EventLoopToken
from anyio.streams.memory import MemoryObjectReceiveStream

T = TypeVar("T")


def call_soon(loop: EventLoopToken, function: Callable[..., object], *args: object) -> None:
    """Let `loop` call `function`, from any thread and without waiting for it. Raises `RunFinishedError` when the loop
    has ended.

    `from_thread.run_sync` waits for the call, and for ever if the loop is just ending.
    """
    loop.backend_class.run_sync_soon(function, args, loop.native_token)


def in_transit(stream: MemoryObjectReceiveStream[T]) -> tuple[tuple[T, ...], tuple[T, ...]]:
    """What lies in the buffer of `stream`, and what senders that wait for room have in hand; its statistics tell only
    how many."""
    state = stream._state
    return tuple(state.buffer), tuple(state.waiting_senders.values())


# -- worker processes: `anyio.to_process`, imported when it is used, because it costs -------------------------------


class NoneReady(Exception):
    """The next process that anyio would use is none of those that may be used, or has yet to be started."""


async def call_in_process(function: Callable[..., T], *args: object, only: Container[object] | None = None) -> T:
    """`to_process.run_sync` without a limit, which kills the process when it is cancelled, and leaves none behind.

    The event loop keeps one pool of processes for whoever calls, and a call for which none is idle starts one. Given
    the process ids `only`, raises `NoneReady` instead of that, and instead of using any other.
    """
    from anyio import to_process

    limiter = cast(CapacityLimiter, _Gate(only))
    try:
        return await to_process.run_sync(function, *args, cancellable=True, limiter=limiter)
    except BaseException as error:
        await _end_left(error)
        raise


class _Gate:
    """Stands where anyio enters the limiter of a call, which is right before it takes a process, with no other task in
    between."""

    def __init__(self, only: Container[object] | None) -> None:
        self._only = only

    async def __aenter__(self) -> None:
        if self._only is not None and _next_process() not in self._only:
            raise NoneReady

    async def __aexit__(self, *_: object) -> None:
        pass


def _next_process() -> int | None:
    """The id of the idle process that anyio would use next; None if it would start one."""
    from anyio import to_process

    idle = to_process._process_pool_idle_workers.get(())
    return next((process.pid for process, _ in reversed(idle) if process.returncode is None), None)


def worker_processes() -> frozenset[int]:
    """The ids of the processes of this event loop that are ready or at work, whoever had them started."""
    from anyio import to_process

    return frozenset(process.pid for process in to_process._process_pool_workers.get(()))


def is_told_by_process(error: BaseException) -> bool:
    """Whether `error` was raised in a worker process and is only told here: anyio raises it as if it were its own."""
    innermost = _frames(error)[-1]
    return _is_to_process(innermost) and any(value is error for value in innermost.f_locals.values())


async def _end_left(error: BaseException) -> None:
    """End the process of a call that raised `error`, if it is not in the pool: it could not be made ready, or its start
    was cancelled. Nobody else ends it, and only the frames of the error know it."""
    from anyio import to_process
    from anyio.abc import Process

    kept = to_process._process_pool_workers.get(set[Process]())
    for frame in filter(_is_to_process, _frames(error)):
        for process in list(frame.f_locals.values()):
            if isinstance(process, Process) and process not in kept:
                with suppress(ProcessLookupError):
                    process.kill()
                with CancelScope(shield=True):
                    await process.aclose()


def _frames(error: BaseException) -> list[FrameType]:
    """The frames that `error` has passed, the innermost last."""
    return [frame for frame, _ in traceback.walk_tb(error.__traceback__)]


def _is_to_process(frame: FrameType) -> bool:
    from anyio import to_process

    return frame.f_globals is to_process.__dict__
