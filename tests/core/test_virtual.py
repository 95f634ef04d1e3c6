"""Virtual time: waits take none, a run that can never go on says so, and worker threads are waited for."""

from __future__ import annotations

import time

import anyio
import anyio.to_process
import pytest

from pipeline.core.virtual import Stalled, virtual

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


@BACKENDS
def test_a_year_passes_at_once_and_exactly(backend: str) -> None:
    async def main() -> float:
        start = anyio.current_time()
        for _ in range(365):
            await anyio.sleep(24 * 3600.0)
        return anyio.current_time() - start

    began = time.monotonic()
    assert anyio.run(main, **virtual(backend)) == 365 * 24 * 3600.0
    assert time.monotonic() - began < 5


@BACKENDS
def test_every_clock_starts_at_zero_and_timers_end_in_their_order(backend: str) -> None:
    ended: list[float] = []

    async def sleep(seconds: float) -> None:
        await anyio.sleep(seconds)
        ended.append(anyio.current_time())

    async def main() -> None:
        async with anyio.create_task_group() as tg:
            for seconds in (3.5, 0.25, 1e6, 1):
                tg.start_soon(sleep, seconds)

    anyio.run(main, **virtual(backend))
    assert ended == [0.25, 1, 3.5, 1e6]


def innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@BACKENDS
def test_a_run_that_can_never_go_on_is_stalled_and_names_who_waits(backend: str) -> None:
    async def main() -> None:
        async with anyio.create_task_group() as tg:
            tg.start_soon(anyio.Event().wait, name="the one that waits")
            await anyio.Event().wait()

    with pytest.raises((Stalled, ExceptionGroup)) as caught:
        anyio.run(main, **virtual(backend))
    error = innermost(caught.value)
    assert isinstance(error, Stalled)
    assert "no timer is set, nothing is ready and the run has not ended" in str(error)
    assert "the one that waits" in str(error)


@BACKENDS
def test_a_stalled_run_is_unwound_in_order(backend: str) -> None:
    left: list[str] = []

    async def main() -> None:
        try:
            await anyio.Event().wait()
        finally:
            left.append("finally")

    with pytest.raises(Stalled):
        anyio.run(main, **virtual(backend))
    assert left == ["finally"]


@BACKENDS
def test_the_clock_stands_still_while_a_worker_thread_is_out(backend: str) -> None:
    async def main() -> tuple[float, float]:
        async with anyio.create_task_group() as tg:
            tg.start_soon(anyio.sleep, 5)
            await anyio.to_thread.run_sync(time.sleep, 0.05)
            back = anyio.current_time()
        return back, anyio.current_time()

    assert anyio.run(main, **virtual(backend)) == (0, 5)


@BACKENDS
def test_a_thread_that_does_not_come_back_is_a_stall_after_real_patience(backend: str) -> None:
    async def main() -> None:
        await anyio.to_thread.run_sync(time.sleep, 0.4, abandon_on_cancel=True)

    with pytest.raises(Stalled, match="1 worker threads or processes do not come back"):
        anyio.run(main, **virtual(backend, patience=0.1))


@BACKENDS
def test_the_clock_stands_still_while_a_worker_process_is_out(backend: str) -> None:
    async def main() -> tuple[int, float]:
        async with anyio.create_task_group() as tg:
            tg.start_soon(anyio.sleep, 5)
            answer = await anyio.to_process.run_sync(abs, -7)
            return answer, anyio.current_time()

    assert anyio.run(main, **virtual(backend)) == (7, 0)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="backend must be 'asyncio' or 'trio', got 'curio'"):
        virtual("curio")
