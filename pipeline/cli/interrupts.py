"""Signals: the first one drains, the second aborts, the third exits; each says what the next one does.

Only the command listens to signals, and only while a run goes on; the library never does. What a drain is depends on
whether the run has a journal. With one, no call is begun any more, and what is not done is left to a resume: Ctrl-C
waits for the calls in flight as long as they take, since somebody is there to press it again; SIGTERM and SIGHUP for
less than the half minute that supervisors mostly give. Without one, what was admitted would be lost, so it is finished.
"""

from __future__ import annotations

import os
import select
import signal
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from math import inf

import anyio
from anyio import CancelScope, open_signal_receiver, sleep
from anyio.abc import TaskStatus

from pipeline.cli.backstop import Backstop, say_last
from pipeline.cli.exits import INTERRUPTED
from pipeline.cli.terminated import TERMINATED
from pipeline.cli.voice import Voice
from pipeline.core.run import Run
from pipeline.core.statistics import Statistics

_ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_STATUS = tuple(getattr(signal, name) for name in ("SIGUSR1",) if hasattr(signal, name))

GRACE = 30.0  #: seconds for what is in flight, in a run without a journal
GRACE_TERMINATED = 25.0  #: and in one with a journal, when nobody is there to press Ctrl-C again
ABORTING = 0.5  #: seconds for an orderly end after the second signal, before all that is left is cancelled, too

#: seconds between two looks at whether the reader of stdout is still there
_LOOK = 0.05


class Interrupts:
    """What signals do to a run. What changes: how many came, and the exit code that the first one asks for.

    `grace` is the time for what is in flight, None for what is usual; `kept` says that the run has a journal, `last`
    what is said when the process ends at once.
    """

    def __init__(
        self,
        voice: Voice,
        grace: float | None,
        scope: CancelScope,
        *,
        kept: bool = False,
        last: Callable[[], str] | None = None,
    ) -> None:
        self.run: Run | None = None
        self.code: int | None = None
        self._voice = voice
        self._given = grace
        self._grace = inf
        self._scope = scope  #: around everything, for the time before there is a run
        self._kept = kept
        self._last = last
        self._drained = anyio.Event()
        self._aborted = anyio.Event()
        self._count = 0

    async def listen(self, *, task_status: TaskStatus[None]) -> None:
        """Act on signals until cancelled."""
        # What was ignored from the start, as nohup does, stays ignored.
        listened = [number for number in (*_ENDING, *_STATUS) if signal.getsignal(number) is not signal.SIG_IGN]
        if not listened or os.name == "nt":
            task_status.started()
            return
        try:
            with open_signal_receiver(*listened) as received, self._backstop(listened):
                task_status.started()
                async for number in received:
                    if number in _STATUS:
                        self._tell_status()
                    else:
                        self._end(number)
        finally:
            self._end_at_once(listened)

    def _end_at_once(self, listened: list[signal.Signals]) -> None:
        """The run is over, and only words are left to say: who is told to end once more says the last of them."""

        def leave(number: int, frame: object) -> None:
            with suppress(Exception):
                say_last(self._last_words())
            os._exit(_code_of(number) if self.code is None else self.code)

        for number in listened:
            signal.signal(number, signal.SIG_IGN if number in _STATUS else leave)

    def _backstop(self, listened: list[signal.Signals]) -> AbstractContextManager[None]:
        ending = [number for number in listened if number in _ENDING]
        return Backstop(ending, _code_of, self._last_words).listening() if ending else nullcontext()

    async def keep_grace(self) -> None:
        """Abort a drain that takes longer than the grace."""
        await self._drained.wait()
        if self._grace != inf:
            await sleep(self._grace)
            self._voice.note(f"not finished within {self._grace:g} s: cancelling what is in flight")
            self.abort()

    async def keep_aborting(self) -> None:
        """Cancel what an abort of the run does not reach: a record that nobody takes, a disk that does not answer."""
        await self._aborted.wait()
        await sleep(ABORTING)
        self._scope.cancel()

    def abort(self) -> None:
        """Cancel the run, or what leads up to it."""
        self._aborted.set()
        if self.run is None:
            self._scope.cancel()
        else:
            self.run.abort()

    def output_closed(self) -> None:
        """Nobody reads the records any more: no call is begun, and with a journal those in flight may end."""
        if self.run is None or not self._kept:
            self.abort()
        elif not self._drained.is_set():
            self._begin_drain(self._usual(signal.SIGTERM))
            if now := self.run.calls_in_flight:
                self._voice.note(f"the reader of the output has left: {self._finishing(now)} (Ctrl-C: cancel them)")

    def _end(self, number: int) -> None:
        self._count += 1
        if self.code is None:
            self.code = _code_of(number)
        if self._count > 1 or self.run is None:
            what = "cancelling what is in flight" if self._count > 1 else "stopping: nothing was begun"
            self._voice.note(f"{what} (once more: exit at once)")
            self.abort()
            return
        grace = self._usual(number)
        if self._kept:
            self._begin_drain(grace)
            now = self.run.calls_in_flight
            left = f"{self._finishing(now)} (once more: cancel them)" if now else "none is in flight"
            self._voice.note(f"stopping: no new calls; {left}")
        else:
            self._begin_drain(grace)
            now = self.run.statistics()
            left = f"{now.window.open} in flight finish{self._within()}{_held(now)}"
            self._voice.note(f"stopping: no new records; {left} (once more: cancel them)")

    def _begin_drain(self, grace: float) -> None:
        assert self.run is not None
        self._grace = grace
        self.run.drain("calls" if self._kept else "items")
        self._drained.set()

    def _usual(self, number: int) -> float:
        """The time for what is in flight after signal `number`."""
        if self._given is not None:
            return self._given
        if not self._kept:
            return GRACE
        return inf if number == signal.SIGINT else GRACE_TERMINATED

    def _finishing(self, calls: int) -> str:
        return f"{calls:,} {'call' if calls == 1 else 'calls'} in flight finish{self._within()}"

    def _within(self) -> str:
        return "" if self._grace == inf else f" within {self._grace:g} s"

    def _last_words(self) -> str:
        """What is written when the process ends at once: the cursor back, and how one goes on."""
        cursor = "\x1b[?25h\n" if self._voice.above is not None else ""
        return cursor + ("" if self._last is None else self._last())

    def _tell_status(self) -> None:
        if self.run is not None:
            waits = [f"waits   {line}" for line in self.run.wait_chain()]
            self._voice.error("\n".join([str(self.run.statistics()), *waits]))


def _code_of(number: int) -> int:
    return INTERRUPTED if number == signal.SIGINT else TERMINATED


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
