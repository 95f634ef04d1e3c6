"""What runs in a worker process: one request, and the answer that tells how it ended.

Nothing that a function does may look like something else on the other side, so whatever it raises is told as data.
"""

from __future__ import annotations

import os
import pickle
import signal
import traceback
from typing import NamedTuple


class Answer(NamedTuple):
    """What comes back from a process."""

    mark: bytes  #: of its request
    pid: int
    result: bytes | None = None  #: pickled
    error: bytes | None = None  #: pickled, if it can be
    kind: str = ""  #: the type of the error
    message: str = ""
    trace: str = ""


def prepare() -> None:
    """Leave signals to the run, which ends its processes itself, and let nothing wait for a reader of stderr: anyio
    opens a pipe for it that nobody reads."""
    signals = [getattr(signal, name) for name in ("SIGHUP", "SIGTERM", "SIGINT") if hasattr(signal, name)]
    if all(signal.getsignal(each) is signal.SIG_IGN for each in signals):  # this has been done before
        return
    for each in signals:
        signal.signal(each, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def perform(mark: bytes, request: bytes | None) -> Answer:
    """Make the call of `request`, if there is one, and tell how it ended, whatever it does."""
    prepare()
    here = Answer(mark, os.getpid())
    if request is None:
        return here
    try:
        function, args = pickle.loads(request)
        return here._replace(result=pickle.dumps(function(*args), pickle.HIGHEST_PROTOCOL))
    except BaseException as error:
        trace = traceback.format_exc()
        return here._replace(error=_pickled(error), kind=type(error).__name__, message=str(error), trace=trace)


def _pickled(error: BaseException) -> bytes | None:
    try:
        return pickle.dumps(error, pickle.HIGHEST_PROTOCOL)
    except Exception:
        return None
