"""Runs in virtual time whose turns are the same every time, and different for each seed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from random import Random
from typing import Any, TypeVar
from weakref import WeakSet

import anyio
import pytest
import trio

from pipeline.core import feeder, workers
from pipeline.core import pipeline as pipelines
from pipeline.core import virtual as virtual_time
from pipeline.core.machine import Machine
from pipeline.core.virtual import Stalled, virtual
from pipeline.core.waits import wait_chain

T = TypeVar("T")


def uneven_clock(seed: int) -> Callable[[], float]:
    """What the engine takes for the processor's clock: now and then a visit seems long, so that it lets others run."""
    chance, now = Random(seed), 0.0

    def monotonic() -> float:
        nonlocal now
        now += 0.006 if chance.random() < 0.2 else 0.0
        return now

    return monotonic


def show_waits(patch: pytest.MonkeyPatch) -> None:
    """Let a run that stalls say what waits for what."""
    machines: WeakSet[Machine] = WeakSet()
    stalled = virtual_time.stalled

    def made(*args: Any) -> Machine:
        machine = Machine(*args)
        machines.add(machine)
        return machine

    def stalled_with_chains(tasks: Iterable[str], out: int = 0) -> Stalled:
        chains = [line for machine in machines if not machine.over.is_set() for line in wait_chain(machine)]
        return Stalled("\n".join([str(stalled(tasks, out)), *chains]))

    patch.setattr(pipelines, "Machine", made)
    patch.setattr(virtual_time, "stalled", stalled_with_chains)


def run_in(backend: str, seed: int, body: Callable[..., Awaitable[T]], *args: object) -> T:
    """Run `body` on `backend` in virtual time, every choice of the scheduler drawn from `seed`."""
    with pytest.MonkeyPatch.context() as patch:
        show_waits(patch)
        for module in (workers, feeder):
            patch.setattr(module, "monotonic", uneven_clock(seed))
        patch.setattr(trio._core._run, "_ALLOW_DETERMINISTIC_SCHEDULING", True)
        trio._core._run._r.seed(seed)
        return anyio.run(body, *args, **virtual(backend))


def in_virtual_time(test: Callable[[], Awaitable[None]]) -> Callable[[str], None]:
    """Make a test of an async function: on both backends, in virtual time."""

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def run_test(backend: str) -> None:
        run_in(backend, 0, test)

    run_test.__name__ = test.__name__
    run_test.__doc__ = test.__doc__
    return run_test
