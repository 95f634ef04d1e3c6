"""Signals: the first one drains, the second aborts, the third exits; each says what the next one does.

Only the command listens to signals, and only while a run goes on; the library never does.
"""

from __future__ import annotations

import os
import select
import signal
import stat
from collections.abc import Callable
from math import inf

import anyio
from anyio import CancelScope, open_signal_receiver, sleep
from anyio.abc import TaskStatus

from pipeline.cli.exits import INTERRUPTED, TERMINATED
from pipeline.cli.voice import Voice
from pipeline.core.run import Run
from pipeline.core.statistics import Statistics

_ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_STATUS = tuple(getattr(signal, name) for name in ("SIGUSR1",) if hasattr(signal, name))

#: seconds between two looks at whether the reader of stdout is still there
_LOOK = 0.05


class Interrupts:
    """What signals do to a run. What changes: how many came, and the exit code that the first one asks for."""

    def __init__(self, voice: Voice, grace: float, scope: CancelScope) -> None:
        self.run: Run | None = None
        self.code: int | None = None
        self._voice = voice
        self._grace = grace
        self._scope = scope  #: around everything, for the time before there is a run
        self._drained = anyio.Event()
        self._count = 0

    async def listen(self, *, task_status: TaskStatus[None]) -> None:
        """Act on signals until cancelled."""
        # What was ignored from the start, as nohup does, stays ignored.
        listened = [number for number in (*_ENDING, *_STATUS) if signal.getsignal(number) is not signal.SIG_IGN]
        if not listened or os.name == "nt":
            task_status.started()
            return
        with open_signal_receiver(*listened) as received:
            task_status.started()
            async for number in received:
                if number in _STATUS:
                    self._tell_status()
                else:
                    self._end(number)

    async def keep_grace(self) -> None:
        """Abort a drain that takes longer than the grace."""
        await self._drained.wait()
        if self._grace != inf:
            await sleep(self._grace)
            self._voice.note(f"not finished within {self._grace:g} s: cancelling what is in flight")
            self.abort()

    def abort(self) -> None:
        """Cancel the run, or what leads up to it."""
        if self.run is None:
            self._scope.cancel()
        else:
            self.run.abort()

    def _end(self, number: int) -> None:
        self._count += 1
        if self.code is None:
            self.code = INTERRUPTED if number == signal.SIGINT else TERMINATED
        if self._count > 2:
            self._voice.restore()
            os._exit(self.code)
        if self._count == 2 or self.run is None:
            self._voice.note("cancelling what is in flight (once more: exit at once)")
            self.abort()
            return
        self.run.drain("items")
        self._drained.set()
        limit = "" if self._grace == inf else f" within {self._grace:g} s"
        now = self.run.statistics()
        left = f"{now.window.open} in flight finish{limit}{_held(now)}"
        self._voice.note(f"stopping: no new records; {left} (once more: cancel them)")

    def _tell_status(self) -> None:
        if self.run is not None:
            waits = [f"waits   {line}" for line in self.run.wait_chain()]
            self._voice.error("\n".join([str(self.run.statistics()), *waits]))


def _held(now: Statistics) -> str:
    """How many calls were not sent yet, as far as one limit holds them."""
    held_by = now.held_by
    if held_by is None:
        return ""
    calls = "1 call still waits" if held_by.waiting == 1 else f"{held_by.waiting:,} calls still wait"
    return f", {calls} for {held_by.what}"


async def watch_reader(fd: int, left: Callable[[], None]) -> None:
    """Call `left` when the reader of a pipe has gone, even while there is nothing to write to it."""
    if not hasattr(select, "poll"):
        return
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return
    poll = select.poll()
    poll.register(fd, 0)  # errors and hang-ups are always told
    while not poll.poll(0):  # noqa: ASYNC110 - the loop can wait for room in a pipe, not for its end
        await sleep(_LOOK)
    left()
