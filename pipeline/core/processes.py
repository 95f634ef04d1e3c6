"""CPU-bound functions off the event loop and off its interpreter: worker processes under a limiter of the stage's own.

A process can be killed, so a visit that is cancelled, or whose time is up, ends its work at once. Function, payload and
result travel by pickle: the function has to be found by its name in an importable module, and what it changes in its
payload changes nothing here.

The processes are anyio's, which keeps them for the next call, of whichever stage and run, and ends them with the event
loop. Four things about them are not to be seen from its documentation:

- a call that finds none idle starts one in its own time, and leaves it behind when it is cancelled meanwhile; so
  starting is a step of its own that no cancellation reaches, and a call with work never starts one: it looks at the
  pool in the instant in which it is served, since another call may have taken what was there;
- one that gets the Ctrl-C of its terminal while it is idle answers the next request with it, and every later one with
  the answer to the request before; so they ignore signals, which are the run's to obey, each answer names its request,
  and one that answers another is killed;
- what a function raises is raised here as it is, so `sys.exit` would end the run: everything is told as data instead;
- it imports the main module, whose `anyio.run` would start the same run once more, and so on.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from anyio import (
    BrokenResourceError,
    BrokenWorkerProcess,
    CapacityLimiter,
    EndOfStream,
    IncompleteRead,
    move_on_after,
)
from anyio.lowlevel import RunVar

from pipeline.core.anyio_private import NoneReady, call_in_process, is_told_by_process, worker_processes
from pipeline.core.errors import DefinitionError, ItemError, Problem
from pipeline.core.marking import Elsewhere
from pipeline.core.time_limit import within
from pipeline.core.worker_process import Answer, perform

if TYPE_CHECKING:
    from pipeline.core.machine import Machine

#: seconds that a process may take to start and to import the main module
START_SECONDS = 60.0

#: one that was interrupted takes three: it is heard of, then told from its answer, then found dead
START_TRIES = 5

#: what a process leaves behind that was interrupted, not one that cannot start
_PASSING = (
    BrokenWorkerProcess,
    EndOfStream,
    IncompleteRead,
    BrokenResourceError,
    ProcessLookupError,
    TimeoutError,
    KeyboardInterrupt,
)

#: calls that are out or have a process started for them; virtual time does not jump meanwhile
PROCESSES_OUT: RunVar[int] = RunVar("penstock_processes_out", 0)

#: the processes of the event loop that have answered this module; others in the pool may be the host's, see above
READY: RunVar[frozenset[int]] = RunVar("penstock_processes_ready", frozenset())

_BY_NAME = "define it with def at the top level of a module that can be imported, or run it with blocking instead"


class WorkerNotStarted(ItemError):
    """No worker process can be had, which every further item would find as well."""

    stops_run = True


class Lost(Exception):
    """A process did not answer, or answered something else; says why. `lasting`: so would the next one."""

    def __init__(self, why: str, *, lasting: bool = False) -> None:
        super().__init__(why)
        self.lasting = lasting


class Processes:
    """The calls of one stage in one run that are in worker processes: at most `total` at a time."""

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
        elsewhere = Elsewhere()
        try:
            answer = await self._ask(request)
        finally:
            PROCESSES_OUT.set(PROCESSES_OUT.get() - 1)
            elsewhere.end()
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
        while True:
            try:
                return await within(self._timeout, self.name, self._exchange(request, READY.get()))
            except NoneReady:
                await self._start()
            except Lost as error:
                text = (
                    f"a worker process of stage {self.name!r} ended while it worked on this item (killed, out of "
                    "memory, crashed or left by os._exit), or the function wrote to file descriptor 1"
                )
                raise ItemError(text, type="WorkerDied") from error

    async def _start(self) -> None:
        """Have one more process ready. Shielded, because one whose start is cancelled would be left behind; tried more
        than once, because a signal to all of the terminal may come before it is ignored."""
        why = f"not within {START_SECONDS:g} s"
        with move_on_after(START_SECONDS, shield=True):
            for _ in range(START_TRIES):
                try:
                    answer = await self._exchange(None)
                    READY.set(READY.get() & worker_processes() | {answer.pid})
                    return
                except Lost as error:
                    why = str(error)
                    if error.lasting:
                        break
        raise WorkerNotStarted(f"a worker process of stage {self.name!r} did not start: {why}")

    async def _exchange(self, request: bytes | None, ready: frozenset[int] | None = None) -> Answer:
        """Send one request and receive its answer. Raises `Lost`; given the processes that are `ready`, `NoneReady`."""
        mark = os.urandom(8)
        try:
            answer = cast(object, await call_in_process(perform, mark, request, only=ready))  # of whichever request
        except (BrokenWorkerProcess, ProcessLookupError) as error:
            cause = error.__cause__ or error
            raise Lost(_said(cause), lasting=not isinstance(cause, _PASSING)) from None
        except KeyboardInterrupt as error:
            if not is_told_by_process(error):
                raise
            raise Lost("it was interrupted") from None
        if isinstance(answer, Answer) and answer.mark == mark:
            return answer
        if isinstance(answer, Answer):
            with suppress(ProcessLookupError):
                os.kill(answer.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        raise Lost("it answered another request")

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


def _brought(pickled: bytes | None) -> Exception | None:
    try:
        error = pickle.loads(pickled) if pickled is not None else None
    except Exception:
        return None
    return error if isinstance(error, Exception) else None


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
