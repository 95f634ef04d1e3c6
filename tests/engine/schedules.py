"""Runs in virtual time whose turns are the same every time, and different for each seed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random
from typing import TypeVar

import anyio
import pytest
import trio

from pipeline.core import feeder, workers
from pipeline.core.virtual import virtual

T = TypeVar("T")


def uneven_clock(seed: int) -> Callable[[], float]:
    """What the engine takes for the processor's clock: now and then a visit seems long, so that it lets others run."""
    chance, now = Random(seed), 0.0

    def monotonic() -> float:
        nonlocal now
        now += 0.006 if chance.random() < 0.2 else 0.0
        return now

    return monotonic


def run_in(backend: str, seed: int, body: Callable[..., Awaitable[T]], *args: object) -> T:
    """Run `body` on `backend` in virtual time, every choice of the scheduler drawn from `seed`."""
    with pytest.MonkeyPatch.context() as patch:
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
