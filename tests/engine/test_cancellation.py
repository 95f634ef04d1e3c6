"""Cancelled at any point, by any kind of cancellation, a run leaves nothing behind and its accounts balance."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from itertools import product

import anyio
import pytest
from anyio.lowlevel import checkpoint

from pipeline.core.run import Run
from tests.engine.schedules import run_in
from tests.engine.topologies import TOPOLOGIES, nothing_is_left, pipeline

VALUES = range(8)
BACKENDS = ["asyncio", "trio"]

Points = Iterator[tuple[float, int]]


def points() -> Points:
    """Moments of a run: a virtual time, and then so many turns of the scheduler."""
    return product((0.0, 1.0, 1.5, 2.25), range(0, 40, 2))


class Host:
    """Runs a pipeline with a submit beside it, and keeps the run for inspection."""

    def __init__(self, topology: str) -> None:
        self.pipe = pipeline(topology, max_in_flight=3, ordered=topology != "flat")
        self.run: Run | None = None

    async def __call__(self) -> None:
        async with self.pipe.open(VALUES) as self.run, anyio.create_task_group() as tg:
            if all(stage.children == 1 for stage in self.pipe.stage.parts()):  # flat_map takes no submit
                tg.start_soon(self.run.submit, 3)
            async for _ in self.run.results:
                await anyio.sleep(0.25)

    def assert_clean(self) -> None:
        if self.run is not None:
            nothing_is_left(self.run)


async def after(at: float, turns: int, act: Callable[[], object]) -> None:
    await anyio.sleep(at)
    for _ in range(turns):
        await checkpoint()
    act()


def at_every_point(backend: str, topology: str, cancel: Callable[[Host, float, int], Awaitable[None]]) -> None:
    for at, turns in points():

        async def main(at: float = at, turns: int = turns) -> None:
            host = Host(topology)
            before = len(anyio.get_running_tasks())
            await cancel(host, at, turns)
            assert len(anyio.get_running_tasks()) == before, f"tasks are left after {turns} turns at {at} s"
            host.assert_clean()

        run_in(backend, turns, main)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_anyio_scope_can_be_cancelled_at_any_point(backend: str, topology: str) -> None:
    async def cancel(host: Host, at: float, turns: int) -> None:
        async with anyio.create_task_group() as tg:
            tg.start_soon(after, at, turns, tg.cancel_scope.cancel)
            await host()
            tg.cancel_scope.cancel()

    at_every_point(backend, topology, cancel)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_hosts_asyncio_task_can_be_cancelled_at_any_point(topology: str) -> None:
    async def cancel(host: Host, at: float, turns: int) -> None:
        task = asyncio.ensure_future(host())
        await after(at, turns, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task

    at_every_point("asyncio", topology, cancel)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_asyncio_timeouts_around_a_run_end_it(topology: str) -> None:
    async def cancel(host: Host, at: float, turns: int) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(at + turns / 100):
                await host()

    at_every_point("asyncio", topology, cancel)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_block_can_be_left_at_any_point(backend: str, topology: str) -> None:
    async def leave(host: Host, at: float, turns: int) -> None:
        async with host.pipe.open(VALUES) as host.run:
            await after(at, turns, lambda: None)

    at_every_point(backend, topology, leave)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_block_can_be_left_by_an_error_at_any_point(backend: str, topology: str) -> None:
    async def leave(host: Host, at: float, turns: int) -> None:
        async def fails() -> None:
            async with host.pipe.open(VALUES) as host.run:
                await after(at, turns, lambda: None)
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            await fails()

    at_every_point(backend, topology, leave)


@pytest.mark.parametrize("act", ["abort", "drain items", "drain calls"])
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_abort_and_drain_end_the_results_at_any_point(backend: str, topology: str, act: str) -> None:
    async def end(host: Host, at: float, turns: int) -> None:
        def do() -> None:
            assert host.run is not None
            if act == "abort":
                host.run.abort()
            else:
                host.run.drain("items" if act == "drain items" else "calls")

        async with anyio.create_task_group() as tg, host.pipe.open(VALUES) as host.run:
            tg.start_soon(after, at, turns, do)
            async for _ in host.run.results:
                await anyio.sleep(0.25)
        if act == "drain items":
            assert host.run.statistics().window.settled["cancelled"] == 0

    at_every_point(backend, topology, end)
