"""SIGTERM and SIGHUP before and after a run listens to signals: they end a command as Ctrl-C does, by an exception, so
that what it has begun is cleaned up."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

TERMINATED = 143  #: the exit code


class Terminated(KeyboardInterrupt):
    """The process was told to end."""

    code = TERMINATED


def listen() -> None:
    """Let these signals raise `Terminated` from now on, but for those that were ignored from the start."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _raise)


def _raise(number: int, frame: object) -> NoReturn:
    signal.signal(number, _leave)
    raise Terminated


def _leave(number: int, frame: object) -> NoReturn:
    """Told again, while the first time is being heeded."""
    os._exit(TERMINATED)
