"""CPU-bound functions off the event loop and off its interpreter: worker processes under a limiter of the stage's own.

A process can be killed, so a visit that is cancelled, or whose time is up, ends its work at once. Function, payload and
result travel by pickle: the function has to be found by its name in an importable module, and what it changes in its
payload changes nothing here.

The processes are anyio's, which keeps them for the next call and ends them with the event loop. Four things about them
are not to be seen from its documentation:

- one whose start is cancelled is left behind, so starting is a step of its own that no cancellation reaches;
- one that gets the Ctrl-C of its terminal while it is idle answers the next request with it, and every later one with
  the answer to the request before; so they ignore signals, which are the run's to obey, and each answer names its
  request;
- what a function raises is raised here as it is, so `sys.exit` would end the run: everything is told as data instead;
- it imports the main module, whose `anyio.run` would start the same run once more, and so on.
"""

from __future__ import annotations

import math
import os
import pickle
import signal
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from anyio import BrokenWorkerProcess, CapacityLimiter, move_on_after, to_process
from anyio.abc import Process
from anyio.lowlevel import RunVar

from pipeline.core.errors import DefinitionError, ItemError, Problem
from pipeline.core.time_limit import within

if TYPE_CHECKING:
    from pipeline.core.machine import Machine

#: seconds that a process may take to start and to import the main module
START_SECONDS = 60.0

#: calls that are out or have a process started for them; virtual time does not jump meanwhile
PROCESSES_OUT: RunVar[int] = RunVar("penstock_processes_out", 0)

_BY_NAME = "define it with def at the top level of a module that can be imported, or run it with blocking instead"


class WorkerNotStarted(ItemError):
    """No worker process can be had, which every further item would find as well."""

    stops_run = True


class Answer(NamedTuple):
    """What comes back from a process."""

    request: bytes  #: its mark
    result: bytes | None  #: pickled
    error: bytes | None = None  #: pickled, if it can be
    kind: str = ""  #: the type of the error
    message: str = ""
    trace: str = ""


class Processes:
    """The worker processes of one stage in one run: at most `total` at a time."""

    def __init__(self, machine: Machine, name: str, total: int, timeout: float | None = None) -> None:
        if "__main__" not in sys.modules:  # so it is while a worker process imports what was the main module
            raise DefinitionError(
                Problem(
                    name,
                    "cpu",
                    "a worker process imports the main module, which would start this run again",
                    "put what starts the run under `if __name__ == '__main__':`",
                )
            )
        self.name = name
        self._machine = machine
        self._total = total
        self._timeout = timeout
        self._units = CapacityLimiter(total)
        self._unlimited = CapacityLimiter(math.inf)  # the units are taken here, see `run`
        self._ready = 0  #: processes that this stage has started and that wait for a call

    async def run(self, function: Callable[..., object], *args: object) -> object:
        """Call `function` in a process and return what it returns, if that comes within the timeout, which does not
        count the wait for a process. Cancelled or too late, the process is killed.

        Raises what the function raised, `ItemError` of its type if it cannot be brought here, and `ItemError` of type
        `WorkerDied` when the process came to its end.
        """
        meter = self._machine.meters.get(self.name)
        if meter is not None and meter.slots.total != self._total:  # the stage's concurrency was changed
            self._units.total_tokens = self._total = meter.slots.total
        request = self._packed(function, args)
        call = object()
        await self._units.acquire_on_behalf_of(call)
        PROCESSES_OUT.set(PROCESSES_OUT.get() + 1)
        try:
            answer = await self._ask(request)
        finally:
            PROCESSES_OUT.set(PROCESSES_OUT.get() - 1)
            self._units.release_on_behalf_of(call)
        return self._read(answer)

    def _packed(self, function: Callable[..., object], args: tuple[object, ...]) -> bytes:
        try:
            return pickle.dumps((function, args), pickle.HIGHEST_PROTOCOL)
        except Exception as error:
            text = f"what stage {self.name!r} was given cannot be sent to a worker process: {_said(error)}"
            raise ItemError(text, type="NotPicklable") from error

    async def _ask(self, request: bytes) -> Answer:
        """Have a process that is ready answer `request`."""
        if self._ready:
            self._ready -= 1
        else:
            await self._start()
        mark = os.urandom(8)
        asked = to_process.run_sync(perform, mark, request, cancellable=True, limiter=self._unlimited)
        try:
            answer = await within(self._timeout, self.name, asked)
        except BrokenWorkerProcess as error:
            text = (
                f"a worker process of stage {self.name!r} ended while it worked on this item (killed, out of memory, "
                "crashed or left by os._exit), or the function wrote to file descriptor 1"
            )
            raise ItemError(text, type="WorkerDied") from error
        if answer.request != mark:
            raise ItemError(f"a worker process of stage {self.name!r} answered another request", type="WorkerDied")
        self._ready += 1
        return answer

    async def _start(self) -> None:
        """Have one more process ready. Shielded, because one whose start is cancelled would be left behind. A second
        try, because a signal to all of the terminal may have ended the first before it could ignore it."""
        why = f"not within {START_SECONDS:g} s"
        for _ in range(2):
            with move_on_after(START_SECONDS, shield=True):
                try:
                    return await to_process.run_sync(prepare, cancellable=True, limiter=self._unlimited)
                except BrokenWorkerProcess as error:
                    why = _said(error.__cause__ or error)
                    await _close_left(error)
        raise WorkerNotStarted(f"a worker process of stage {self.name!r} did not start: {why}")

    def _read(self, answer: Answer) -> object:
        if answer.result is not None:
            try:
                return pickle.loads(answer.result)
            except Exception as error:
                text = f"what stage {self.name!r} gave cannot be brought back from its process: {_said(error)}"
                raise ItemError(text, type="NotPicklable") from error
        error = _brought(answer.error)
        if type(error).__name__ != answer.kind or error is None:
            error = ItemError(answer.message or answer.kind, type=answer.kind)
        error.add_note(answer.trace)
        raise error


def unsendable(function: object) -> str | None:
    """Why a worker process could not be given `function`; None if it could."""
    try:
        by_name = pickle.dumps(function, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        return f"cannot be sent to a worker process: {_said(error)}"
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if b"__main__" in by_name and not (main and os.path.isfile(main)):
        return "is defined where a worker process cannot import it: in an interactive session or a command"
    return None


def cpu_problem(stage: str, function: object) -> Problem | None:
    """What keeps `function` from being run in worker processes."""
    why = unsendable(function)
    return None if why is None else Problem(stage, "cpu", f"its function {why}", _BY_NAME)


async def _close_left(error: BrokenWorkerProcess) -> None:
    """Close the process that could not be made ready. It was killed and left open, and would complain when the loop is
    closed; only the frames of the error know it."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        process = frame.f_locals.get("process")
        if isinstance(process, Process):
            await process.aclose()


def _brought(pickled: bytes | None) -> Exception | None:
    try:
        error = pickle.loads(pickled) if pickled is not None else None
    except Exception:
        return None
    return error if isinstance(error, Exception) else None


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


# -- in the worker process ------------------------------------------------------------------------------------------


def prepare() -> None:
    """Leave signals to the run, which ends its processes itself, and let nothing wait for a reader of stderr: anyio
    opens a pipe for it that nobody reads."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def perform(mark: bytes, request: bytes) -> Answer:
    """Make the call of `request` and tell how it ended, whatever it does."""
    try:
        function, args = pickle.loads(request)
        return Answer(mark, pickle.dumps(function(*args), pickle.HIGHEST_PROTOCOL))
    except BaseException as error:
        return Answer(mark, None, _pickled(error), type(error).__name__, str(error), traceback.format_exc())


def _pickled(error: BaseException) -> bytes | None:
    try:
        return pickle.dumps(error, pickle.HIGHEST_PROTOCOL)
    except Exception:
        return None
