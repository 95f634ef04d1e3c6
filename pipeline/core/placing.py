"""Where a user's function runs: on the event loop, in worker threads, or in worker processes.

On the loop it must not block. A blocking function goes into threads, which cannot be stopped; one that computes goes
into processes, which can, and which share nothing with the run.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from pipeline.core.arity import accepts
from pipeline.core.errors import Problem
from pipeline.core.threads import Threads, is_blocking
from pipeline.core.time_limit import is_duration, within

if TYPE_CHECKING:
    from pipeline.core.scope import Scope

Place: TypeAlias = Literal["loop", "threads", "processes"]


class Runner(Protocol):
    """Where the functions of one stage run in one run."""

    async def run(self, function: Callable[..., object], *args: object) -> object:
        """Call `function` there, and return or raise what it does, unless that takes longer than the timeout."""
        ...


@dataclass(frozen=True, slots=True)
class OnLoop:
    """The event loop, for functions that wait and may be told to stop waiting."""

    stage: str
    timeout: float | None

    async def run(self, function: Callable[..., object], *args: object) -> object:
        result = function(*args)
        return await within(self.timeout, self.stage, result) if inspect.isawaitable(result) else result


def runner_of(scope: Scope, stage: str, place: Place, total: int, timeout: float | None) -> Runner:
    """Make what runs the functions of `stage`: threads and processes `total` at a time."""
    match place:
        case "loop":
            return OnLoop(stage, timeout)
        case "threads":
            return Threads(scope.machine, stage, total, timeout)
        case "processes":
            from pipeline.core.processes import Processes  # it costs, so who does without does not load it

            return Processes(scope.machine, stage, total, timeout)


def placing_problems(
    stage: str, function: Callable[..., object], place: Place, timeout: float | None, *, parameters: int
) -> Iterator[Problem]:
    """What keeps `function`, which takes so many parameters without the visit, from running there, so long."""
    waits = not is_blocking(function)
    if place == "threads" and waits:
        text = "has no effect on an async function, which runs on the event loop"
        yield Problem(stage, "blocking", text, "leave it out, or make it a plain function")
    if place == "processes":
        yield from _cpu_problems(stage, function, parameters)
    if timeout is not None and not is_duration(timeout):
        yield Problem(stage, "timeout", f"must be a number of seconds above 0, got {timeout!r}")
    elif timeout is not None and place == "loop" and not waits:
        text = "cannot end a plain function, which holds the event loop until it returns"
        yield Problem(stage, "timeout", text, "run it with blocking or cpu, or make it async")


def _cpu_problems(stage: str, function: Callable[..., object], parameters: int) -> Iterator[Problem]:
    from pipeline.core.processes import cpu_problem

    if not is_blocking(function):
        text = "is for functions that compute, and this one is async: it runs on the event loop"
        yield Problem(stage, "cpu", text, "make it a plain function, or leave cpu out")
        return
    if accepts(function, parameters + 1):
        text = "its function takes the visit, which stays in the process of the run"
        yield Problem(stage, "cpu", text, "give it what it needs in the payload, or run it with blocking instead")
    found = cpu_problem(stage, function)
    if found is not None:
        yield found
