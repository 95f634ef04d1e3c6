"""The admission window: credits before records, and what bounds what."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import anyio
import anyio.lowlevel
import pytest

from pipeline.core.errors import RunClosed, SourceError
from pipeline.core.pipeline import Pipeline
from pipeline.core.record import Input
from stages import map, parallel
from tests.engine.schedules import in_virtual_time


async def second(value: object) -> object:
    await anyio.sleep(1)
    return value


async def forever(value: object) -> object:
    await anyio.sleep_forever()
    return value


class Counting:
    """A source that counts what was taken from it."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken = 0

    def __iter__(self) -> Iterator[int]:
        for number in range(self.total):
            self.taken += 1
            yield number

    def __aiter__(self) -> AsyncIterator[int]:
        return self._later()

    async def _later(self) -> AsyncIterator[int]:
        for number in self:
            yield number


class AsyncOnly:
    def __init__(self, inner: Counting) -> None:
        self.inner = inner

    def __aiter__(self) -> AsyncIterator[int]:
        return aiter(self.inner)


@in_virtual_time
async def test_a_credit_is_taken_before_the_source_is_advanced() -> None:
    for wrap in (lambda source: source, AsyncOnly):
        source = Counting(100)
        async with Pipeline(map(second), max_in_flight=5).open(wrap(source)) as run:
            await anyio.sleep(50)  # nobody reads: settled means taken
            assert source.taken == 5
            assert run.statistics().window.in_flight == 5


@in_virtual_time
async def test_each_record_that_is_taken_lets_one_more_in() -> None:
    source = Counting(100)
    async with Pipeline(map(second), max_in_flight=3).open(source) as run:
        await anyio.sleep(50)
        for taken in range(1, 5):
            await anext(run.results)
            await anyio.sleep(50)
            assert source.taken == 3 + taken


@in_virtual_time
async def test_a_blocked_sink_stops_the_source() -> None:
    class Blocked:
        async def write(self, record: object) -> None:
            await anyio.sleep_forever()

    source = Counting(100)
    with anyio.move_on_after(60):
        await Pipeline(map(second), max_in_flight=4).run(source, Blocked())
    assert source.taken == 4


@in_virtual_time
async def test_a_record_that_waits_for_its_turn_keeps_its_credit() -> None:
    async def first_is_slow(value: int) -> int:
        await anyio.sleep(100 if value == 0 else 1)
        return value

    source = Counting(100)
    pipe = Pipeline(map(first_is_slow, concurrency=8), max_in_flight=4, ordered=True)
    async with pipe.open(source) as run:
        await anyio.sleep(50)
        assert source.taken == 4
        assert run.statistics().results_waiting == 3
        assert [(await anext(run.results)).index for _ in range(4)] == [0, 1, 2, 3]
        assert anyio.current_time() == 100


@in_virtual_time
async def test_a_slow_stage_blocks_its_producers() -> None:
    seen: list[int] = []

    async def quick(value: int) -> int:
        seen.append(value)
        return value

    pipe = Pipeline(map(quick) | map(forever), max_in_flight=100, buffer_size=1)
    async with pipe.open(range(100)):
        await anyio.sleep(10)
        assert len(seen) == 3  # one is visited behind it, one lies in the edge, one waits to be sent


@in_virtual_time
async def test_two_credits_finish_a_hundred_prompts_although_one_branch_never_answers() -> None:
    pipe = Pipeline(parallel("race", join="any", quick=map(second), never=map(forever)), max_in_flight=2)
    records = await pipe.collect(range(100))
    assert [record.status for record in records] == ["ok"] * 100
    assert anyio.current_time() == 100  # one slot, a second each


@in_virtual_time
async def test_paused_it_admits_nothing_and_resumed_it_goes_on() -> None:
    source = Counting(100)
    async with Pipeline(map(second, concurrency=9), max_in_flight=2).open(source) as run:
        await anext(run.results)
        run.pause()
        await anyio.sleep(0.5)
        taken = source.taken
        await anext(run.results)
        await anyio.sleep(10)
        assert source.taken == taken
        assert run.statistics().window.paused
        run.resume()
        await anyio.sleep(10)
        assert source.taken > taken


@in_virtual_time
async def test_a_source_that_raises_midway_settles_what_was_admitted_and_then_raises() -> None:
    def source() -> Iterator[int]:
        yield from range(3)
        raise OSError("disk gone")

    seen: list[int] = []

    async def read() -> None:
        async with Pipeline(map(second)).open(source()) as run:
            seen.extend([record.index async for record in run.results])

    with pytest.raises(OSError, match="disk gone"):
        await read()
    assert sorted(seen) == [0, 1, 2]


@in_virtual_time
async def test_a_source_that_is_no_iterable_of_records_is_refused() -> None:
    for bad, hint in ((5, "got int"), ("text", "put it in a list"), ({"a": 1}, "put it in a list"), (None, None)):
        if hint is None:
            continue
        with pytest.raises(SourceError, match=hint):
            await Pipeline(map(second)).collect(bad)  # type: ignore[arg-type]


@in_virtual_time
async def test_an_input_that_could_not_be_read_fails_without_a_visit() -> None:
    from pipeline.core.errors import ItemError

    records = await Pipeline(map(forever)).collect([Input("x", defect=ItemError("line 3 is no JSON"))])
    assert [(record.status, record.error and record.error.message) for record in records] == [
        ("failed", "line 3 is no JSON")
    ]


@in_virtual_time
async def test_an_async_source_is_closed_in_the_end_and_when_the_run_is_left() -> None:
    closed: list[str] = []

    async def source(name: str) -> AsyncIterator[int]:
        try:
            for number in range(5):
                yield number
        finally:
            closed.append(name)

    await Pipeline(map(second)).collect(source("whole"))
    async with Pipeline(map(second), max_in_flight=1).open(source("part")) as run:
        await anext(run.results)
    assert closed == ["whole", "part"]


@in_virtual_time
async def test_an_item_that_outlives_its_timeout_fails_and_the_others_go_on() -> None:
    async def odd_ones_hang(value: int) -> int:
        await anyio.sleep(1000 if value % 2 else 1)
        return value

    records = await Pipeline(map(odd_ones_hang, concurrency=4), item_timeout=5, ordered=True).collect(range(4))
    assert [record.status for record in records] == ["ok", "failed", "ok", "failed"]
    assert {record.error.type for record in records if record.error} == {"item_timeout"}
    assert anyio.current_time() == 5


@in_virtual_time
async def test_the_item_timeout_runs_from_admission_so_waiting_in_line_counts() -> None:
    records = await Pipeline(map(second), item_timeout=2.5, ordered=True).collect(range(4))
    assert [record.status for record in records] == ["ok", "ok", "failed", "failed"]


@in_virtual_time
async def test_submit_returns_the_record_and_results_do_not_have_it() -> None:
    async with Pipeline(map(second)).open(["a"]) as run:
        record = await run.submit("b")
        assert (record.status, record.output) == ("ok", "b")
        assert [record.output async for record in run.results] == ["a"]


@in_virtual_time
async def test_submits_have_credits_in_the_order_in_which_they_asked() -> None:
    done: list[int] = []

    async def ask(number: int) -> None:
        await run.submit(number)
        done.append(number)

    async with Pipeline(map(second, concurrency=9), max_in_flight=1).open() as run, anyio.create_task_group() as tg:
        for number in range(5):
            tg.start_soon(ask, number)
            await anyio.lowlevel.checkpoint()
    assert done == [0, 1, 2, 3, 4]


@in_virtual_time
async def test_a_submit_gets_its_turn_beside_a_source_that_never_pauses() -> None:
    async with Pipeline(map(second), max_in_flight=2).open(range(1000)) as run, anyio.create_task_group() as tg:

        async def read() -> None:
            async for _ in run.results:
                pass

        tg.start_soon(read)
        await anyio.sleep(10)
        await run.submit("mine")
        assert anyio.current_time() < 20
        tg.cancel_scope.cancel()


@in_virtual_time
async def test_a_submit_that_will_not_wait_is_told_that_there_is_no_credit() -> None:
    async with Pipeline(map(second), max_in_flight=1).open() as run, anyio.create_task_group() as tg:
        tg.start_soon(run.submit, 1)
        await anyio.sleep(0.5)
        with pytest.raises(anyio.WouldBlock):
            await run.submit(2, wait=False)
        await anyio.sleep(1)
        assert (await run.submit(3, wait=False)).output == 3


@in_virtual_time
async def test_a_cancelled_submit_revokes_its_root_and_frees_the_slot() -> None:
    async with Pipeline(map(forever), max_in_flight=1).open() as run:
        with anyio.move_on_after(3):
            await run.submit(1)
        await anyio.sleep(1)
        now = run.statistics()
        assert now.window.settled["cancelled"] == 1
        assert (now.window.in_flight, now.window.alive) == (0, 0)
        assert now.stages[0].slots.borrowed == 0


@in_virtual_time
async def test_a_run_that_drains_or_is_over_refuses_submits_also_those_that_wait() -> None:
    refused: list[int] = []

    async def ask(number: int) -> None:
        try:
            await run.submit(number)
        except RunClosed:
            refused.append(number)

    async with anyio.create_task_group() as tg, Pipeline(map(second), max_in_flight=1).open() as run:
        tg.start_soon(ask, 1)
        await anyio.sleep(0.5)
        tg.start_soon(ask, 2)
        await anyio.sleep(0.1)
        run.drain()
        await anyio.sleep(0.1)
        assert refused == [2]
        await ask(3)
        await anyio.sleep(2)
    await ask(4)
    assert refused == [2, 3, 4]


@in_virtual_time
async def test_a_submit_that_waits_while_the_run_is_paused_is_refused_when_it_is_left() -> None:
    async def ask() -> None:
        with pytest.raises(RunClosed):
            await run.submit(1)

    async with anyio.create_task_group() as tg, Pipeline(map(second)).open() as run:
        run.pause()
        tg.start_soon(ask)
        await anyio.sleep(1)


@in_virtual_time
async def test_a_submit_right_after_an_abort_is_refused() -> None:
    async with Pipeline(map(second)).open() as run:
        run.abort()
        with pytest.raises(RunClosed):
            await run.submit(1)


@in_virtual_time
async def test_drain_items_finishes_what_was_submitted_before() -> None:
    replies: list[str] = []

    async def ask(number: int) -> None:
        replies.append((await run.submit(number)).status)

    async with Pipeline(map(second), buffer_size=0).open() as run, anyio.create_task_group() as tg:
        for number in range(4):
            tg.start_soon(ask, number)
        await anyio.sleep(0.5)
        run.drain("items")
    assert replies == ["ok"] * 4


@in_virtual_time
async def test_results_have_one_consumer() -> None:
    from pipeline.core.errors import PipelineError

    async with Pipeline(map(second)).open([1]) as run:
        async with anyio.create_task_group() as tg:
            tg.start_soon(anext, run.results)
            await anyio.sleep(0.5)
            with pytest.raises(PipelineError, match="one consumer"):
                await anext(run.results)
        assert [record async for record in run.results] == []
        with pytest.raises(PipelineError, match="read once"):
            aiter(run.results)
