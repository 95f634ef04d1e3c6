"""Notices that the event loop is kept from its work, and says by whom.

A thread asks the loop for a sign of life and never waits for it with its hands tied; while there is none it looks at
what the loop's thread is doing. Only time in which one and the same step went on counts: a loop that is slow because it
has a thousand short visits to make is busy, not blocked.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from queue import Empty, SimpleQueue
from time import monotonic

from anyio import RunFinishedError
from anyio.lowlevel import EventLoopToken, current_token

from pipeline.core.anyio_private import call_soon
from pipeline.core.culprits import Culprit, culprit_of, step_of
from pipeline.core.events import LoopBlocked
from pipeline.core.statistics import BlockedStatistics

#: looks at the loop in the time that makes a blockage
LOOKS = 8

#: seconds after which a blockage is told while it lasts, because it may never end
LASTING = 5.0


class Step:
    """For how long the loop has surely been in the step that it is in, by what is seen of it every `period` seconds.

    A look that is much too late may be so because the process was stopped or the machine asleep. That time counts only
    as far as the loop's thread was at work meanwhile, as it is in a call that keeps the interpreter to itself.
    """

    def __init__(self, period: float) -> None:
        self.mark: object = None
        self.seconds = 0.0
        self.culprit: Culprit | None = None  #: who, once it has lasted too long
        self.alarmed = False
        self._period = period

    def seen(self, mark: object, elapsed: float, worked: float) -> None:
        """Note that the loop is in the step `mark`, `elapsed` seconds after the last look; its thread has `worked` for
        so many of them on a processor."""
        if mark == self.mark:
            self.seconds += min(elapsed, max(2 * self._period, worked))
        else:  # it may have begun just now, unless it is what kept this thread from looking in time
            self.mark, self.culprit, self.alarmed = mark, None, False
            self.seconds = max(0.0, min(elapsed - self._period, worked))


class Watchdog:
    """Watches the loop of one run, for the length of a `with` block on that loop, from a thread that ends with it.

    `told` is called on the loop once a blockage of `threshold` seconds, when it is over. One that is hardly longer may
    be missed, and its length is what was seen of it. `alarm` is called in the thread, once a blockage that lasts.
    """

    def __init__(self, threshold: float, told: Callable[[LoopBlocked], None]) -> None:
        self.threshold = threshold
        self.alarm: Callable[[LoopBlocked], object] | None = None
        self._told = told
        self._answers: SimpleQueue[bool] = SimpleQueue()  #: True: the loop is there; False: watch no longer
        self._ended: deque[LoopBlocked] = deque()  #: blockages that were not told yet
        self._blocked: dict[str, BlockedStatistics] = {}
        self._thread: threading.Thread | None = None

    def statistics(self) -> tuple[BlockedStatistics, ...]:
        return tuple(self._blocked.values())

    def __enter__(self) -> None:
        args = (current_token(), threading.get_ident())
        self._thread = threading.Thread(target=self._watch, args=args, name="penstock watchdog", daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._answers.put(False)
        if self._thread is not None:
            self._thread.join()  # it waits for nothing but what was put there
        self._tell()

    def _tell(self) -> None:
        while self._ended:
            event = self._ended.popleft()
            self._count(event)
            self._told(event)

    def _count(self, event: LoopBlocked) -> None:
        known = self._blocked.get(event.culprit, BlockedStatistics(event.culprit, 0, 0.0, ""))
        if event.seconds > known.longest:
            known = replace(known, longest=event.seconds, where=event.where)
        self._blocked[event.culprit] = replace(known, times=known.times + 1)

    # -- in the thread ------------------------------------------------------------------------------------------

    def _watch(self, loop: EventLoopToken, thread: int) -> None:
        worked = work_clock(thread)
        here = True
        try:
            while here:
                call_soon(loop, self._answers.put, True)
                here = self._look(thread, worked)
                if self._ended:
                    call_soon(loop, self._tell)
                if here:
                    here = self._answer(2 * self.threshold / LOOKS) is None
        except RunFinishedError:
            pass

    def _look(self, thread: int, worked: Callable[[], float]) -> bool:
        """Look at the loop until it answers; return whether to go on."""
        period = self.threshold / LOOKS
        step = Step(period)
        at, work = monotonic(), worked()
        while (answer := self._answer(period)) is None:
            now, done = monotonic(), worked()
            stack = sys._current_frames()[thread]  # pyright: ignore[reportPrivateUsage] - nothing else shows them
            mark = step_of(stack)
            if mark != step.mark:
                self._note(step)
            step.seen(mark, now - at, done - work)
            at, work = now, done
            if step.seconds >= self.threshold and step.culprit is None:
                step.culprit = culprit_of(stack)
            self._raise_alarm(step)
        step.seen(step.mark, monotonic() - at, worked() - work)
        self._note(step)
        return answer

    def _raise_alarm(self, step: Step) -> None:
        if step.culprit is not None and step.seconds >= LASTING and self.alarm is not None and not step.alarmed:
            step.alarmed = True
            with suppress(Exception):  # as with listeners: what it raises changes nothing
                self.alarm(LoopBlocked(*step.culprit, step.seconds))

    def _note(self, step: Step) -> None:
        """The loop has left `step`."""
        if step.culprit is not None:
            self._ended.append(LoopBlocked(*step.culprit, step.seconds))

    def _answer(self, seconds: float) -> bool | None:
        """What the loop answers within `seconds`; None if nothing."""
        try:
            return self._answers.get(timeout=seconds)
        except Empty:
            return None


def work_clock(thread: int) -> Callable[[], float]:
    """The processor time of a thread; where that cannot be had, a clock that stands still."""
    clock_of = getattr(time, "pthread_getcpuclockid", None)
    if clock_of is None:
        return lambda: 0.0
    clock = clock_of(thread)
    return lambda: time.clock_gettime(clock)
