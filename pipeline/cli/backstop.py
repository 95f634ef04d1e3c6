"""What ends the process when the event loop does not: a thread that hears signals as they come.

Signals reach the loop only between two steps of it. Code that keeps the loop, or that will not be cancelled, would make
it deaf to them; the thread counts them nevertheless. The third one ends the process at once, whatever is going on, and
so does the second one, if the process is still there a while later.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager, suppress
from math import inf

OVERDUE = 5.0  #: seconds after the second signal, when everything should have ended long ago


class Backstop:
    """Counts the signals that end a run. What changes: how many came, and the exit code that the first one asks for.

    `last` is called before the process is ended: what is to be said then.
    """

    def __init__(self, ending: Collection[int], code_of: Callable[[int], int], last: Callable[[], str]) -> None:
        self.code: int | None = None
        self._ending = ending
        self._code_of = code_of
        self._last = last
        self._count = 0
        self._overdue = inf

    @contextmanager
    def listening(self) -> Generator[None]:
        """Hear the signals that the loop listens to by now. What comes is passed on to the loop."""
        ours, theirs = os.pipe()
        os.set_blocking(theirs, False)
        loop = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
        thread = threading.Thread(target=self._listen, args=(ours, loop), name="penstock signals", daemon=True)
        thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(loop, warn_on_full_buffer=False)
            os.close(theirs)
            thread.join()
            os.close(ours)

    def _listen(self, ours: int, loop: int) -> None:
        while True:
            left = None if self._overdue == inf else max(0.0, self._overdue - time.monotonic())
            if not select.select([ours], [], [], left)[0]:
                self._give_up()
            numbers = os.read(ours, 64)
            if not numbers:
                return
            if loop >= 0:
                with suppress(OSError):  # it is full, so the loop will wake up without this
                    os.write(loop, numbers)
            for number in numbers:
                if number in self._ending:
                    self._heard(number)

    def _heard(self, number: int) -> None:
        self._count += 1
        if self.code is None:
            self.code = self._code_of(number)
        if self._count == 2:
            self._overdue = time.monotonic() + OVERDUE
        elif self._count > 2:
            self._exit("")

    def _give_up(self) -> None:
        with suppress(Exception):
            faulthandler.dump_traceback(file=2, all_threads=True)
        self._exit(f"not ended {OVERDUE:g} s after it was told to; above is what each thread was doing\n")

    def _exit(self, words: str) -> None:
        """End the process."""
        with suppress(Exception):
            say_last(words + self._last())
        os._exit(self.code or 1)


def say_last(text: str) -> None:
    """Write on stderr what nothing comes after, as the process ends. Written directly: whoever else writes may hold a
    lock and never give it back; and what they still write goes nowhere."""
    stderr = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.write(stderr, text.encode("utf-8", "backslashreplace"))
