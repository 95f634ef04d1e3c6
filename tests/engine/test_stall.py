"""A run that does not move tells what holds it, once a stall; slow ones, paused, idle or slowly read ones do not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from pipeline.core.events import RunStalled
from pipeline.core.pipeline import Pipeline
from pipeline.core.record import Record
from pipeline.core.run import Run
from pipeline.core.stage import Stage
from pipeline.core.virtual import Stalled
from stages import batch, flat_map, map, parallel
from tests.engine.schedules import in_virtual_time, run_in

TIMEOUT = 100.0


async def takes(value: float) -> float:
    """As many seconds as the payload says."""
    await anyio.sleep(value)
    return value


class Heard:
    """The stalls of a run, and when each was told."""

    def __init__(self) -> None:
        self.stalls: list[RunStalled] = []
        self.at: list[float] = []

    def __call__(self, event: object) -> None:
        if isinstance(event, RunStalled):
            self.stalls.append(event)
            self.at.append(round(anyio.current_time(), 6))


def watched(stages: Stage, source: object, heard: Heard, **options: Any) -> Any:
    pipe = Pipeline(stages, stall_timeout=TIMEOUT, **options)
    return pipe.open(source, on_event=heard)  # type: ignore[arg-type]


async def read_all(run: Run) -> list[Record]:
    return [record async for record in run.results]


# -- a stall --------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_stage_that_never_answers_is_named_once() -> None:
    heard = Heard()
    with anyio.move_on_after(10 * TIMEOUT):
        async with watched(map(takes, name="ask"), [1.0, 1e9], heard) as run:
            await read_all(run)
    assert heard.stalls == [RunStalled(TIMEOUT, ("root '1' is visited by stage 'ask'",))]
    (at,) = heard.at
    assert TIMEOUT <= at <= 1.2 * TIMEOUT


@in_virtual_time
async def test_it_is_told_again_after_progress_and_another_stall() -> None:
    heard = Heard()
    async with watched(map(takes, name="ask"), [5 * TIMEOUT, 1.0, 3 * TIMEOUT], heard) as run:
        assert len(await read_all(run)) == 3
    assert [stall.chain[-1] for stall in heard.stalls] == [
        "root '0' is visited by stage 'ask'",
        "root '2' is visited by stage 'ask'",
    ]


@in_virtual_time
async def test_a_batch_that_fills_while_the_source_is_silent_is_none_and_says_what_it_waits_for() -> None:
    async def slow() -> AsyncIterator[float]:
        yield 1.0
        await anyio.sleep(5 * TIMEOUT)
        yield 2.0

    heard = Heard()
    async with watched(batch(size=3, within=None), slow(), heard) as run:
        await anyio.sleep(3 * TIMEOUT)
        waits = run.wait_chain()
        assert [record.output for record in await read_all(run)] == [[1.0, 2.0]]
    assert heard.stalls == []
    assert waits == ("root '0' waits in 'batch' for its batch to fill (1 items so far)", "the source is waited for")


@in_virtual_time
async def test_a_root_that_waits_while_the_source_is_silent_is_a_stall_all_the_same() -> None:
    async def one_and_no_end() -> AsyncIterator[float]:
        yield 1e9
        await anyio.sleep_forever()

    heard = Heard()
    with anyio.move_on_after(2 * TIMEOUT):
        async with watched(map(takes, name="ask"), one_and_no_end(), heard) as run:
            await read_all(run)
    assert len(heard.stalls) == 1


@in_virtual_time
async def test_a_submitted_root_counts_where_nobody_reads_results() -> None:
    heard = Heard()
    with anyio.move_on_after(2 * TIMEOUT):
        async with watched(map(takes, name="ask"), None, heard) as run:
            await run.submit(1e9)
    assert [stall.chain for stall in heard.stalls] == [("root 'submit-0' is visited by stage 'ask'",)]


@in_virtual_time
async def test_a_submit_after_the_end_of_the_results_counts_too() -> None:
    heard = Heard()
    with anyio.move_on_after(3 * TIMEOUT):
        async with watched(map(takes, name="ask"), [1.0], heard) as run:
            assert len(await read_all(run)) == 1
            await run.submit(1e9)
    assert len(heard.stalls) == 1


@in_virtual_time
async def test_a_stall_ends_nothing() -> None:
    heard = Heard()
    async with watched(map(takes, name="ask"), [3 * TIMEOUT], heard) as run:
        assert [record.status for record in await read_all(run)] == ["ok"]
    assert len(heard.stalls) == 1


@in_virtual_time
async def test_a_stall_under_nobodys_ears_is_no_error() -> None:
    async with Pipeline(map(takes), stall_timeout=TIMEOUT).open([3 * TIMEOUT]) as run:
        assert len(await read_all(run)) == 1


# -- no stall -------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_progress_of_any_kind_sets_the_clock_back() -> None:
    """Each visit is shorter than the timeout, and all of them together are much longer."""
    views = parallel("views", a=map(takes, name="a"), b=map(takes, name="b") | map(takes, name="c"))
    heard = Heard()
    async with watched(flat_map(lambda value: [value] * 4, name="many") | views, [0.8 * TIMEOUT], heard) as run:
        assert len(await read_all(run)) == 4
    assert anyio.current_time() > 3 * TIMEOUT
    assert heard.stalls == []


@in_virtual_time
async def test_a_slow_reader_is_no_stall() -> None:
    heard = Heard()
    async with watched(map(takes, name="ask"), [0.0] * 5 + [1e9], heard, max_in_flight=2) as run:
        for _ in range(5):
            await anext(run.results)
            await anyio.sleep(5 * TIMEOUT)
        assert heard.stalls == []
        with anyio.move_on_after(2 * TIMEOUT):
            await anext(run.results)
        assert len(heard.stalls) == 1
        run.abort()


@in_virtual_time
async def test_a_slow_sink_is_no_stall() -> None:
    class Sink:
        async def write(self, record: Record) -> None:
            await anyio.sleep(5 * TIMEOUT)

    heard = Heard()
    pipe = Pipeline(map(takes), stall_timeout=TIMEOUT, max_in_flight=1)
    await pipe.run([0.0] * 3, Sink(), on_event=heard)
    assert heard.stalls == []


@in_virtual_time
async def test_a_reader_who_has_not_come_yet_is_waited_for_as_soon_as_there_is_a_record() -> None:
    heard = Heard()
    async with watched(map(takes, name="ask"), [0.0, 1e9], heard) as run:
        await anyio.sleep(5 * TIMEOUT)
        assert heard.stalls == []
        run.abort()
    async with watched(map(takes, name="ask"), [1e9], heard) as run:
        await anyio.sleep(5 * TIMEOUT)
        assert len(heard.stalls) == 1
        run.abort()


@in_virtual_time
async def test_a_paused_run_is_no_stall() -> None:
    heard = Heard()
    async with watched(map(takes, name="ask"), [1e9], heard) as run, anyio.create_task_group() as host:
        host.start_soon(read_all, run)
        await anyio.sleep(1)
        run.pause()
        await anyio.sleep(5 * TIMEOUT)
        assert heard.stalls == []
        run.resume()
        await anyio.sleep(2 * TIMEOUT)
        assert len(heard.stalls) == 1
        run.abort()


@in_virtual_time
async def test_a_source_that_is_silent_is_no_stall() -> None:
    async def late() -> AsyncIterator[float]:
        yield 1.0
        await anyio.sleep(10 * TIMEOUT)
        yield 1.0

    heard = Heard()
    async with watched(map(takes), late(), heard) as run:
        assert len(await read_all(run)) == 2
    assert heard.stalls == []


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_without_it_there_is_no_timer_that_would_hide_a_deadlock(backend: str) -> None:
    async def never(value: object) -> None:
        await anyio.Event().wait()

    with pytest.raises(Stalled):
        run_in(backend, 0, Pipeline(map(never)).collect, [1])
