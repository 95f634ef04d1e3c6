"""Promises of the design that nothing else noticed when they were broken on purpose, see `tests/seeded`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio

from pipeline.core.pipeline import Pipeline
from pipeline.core.visit import Visit
from stages import map, parallel
from tests.engine.schedules import in_virtual_time
from tests.engine.usercode import Code


async def quick(value: object) -> object:
    await anyio.sleep(0.25)
    return value


async def forever(value: object) -> object:
    await anyio.sleep_forever()
    return value


@in_virtual_time
async def test_no_slot_is_held_over_a_send() -> None:
    pipe = Pipeline(map(quick, concurrency=3) | map(forever), buffer_size=0)
    async with pipe.open(range(10)) as run:
        await anyio.sleep(5)
        now = run.statistics()
        assert [edge.senders_waiting for edge in now.edges] == [1, 3]
        assert [stage.slots.borrowed for stage in now.stages] == [0, 1]
        run.abort()


@in_virtual_time
async def test_a_credit_comes_back_when_the_last_loser_has_left_and_not_before() -> None:
    code = Code()
    race = parallel("race", join="any", quick=map(quick), slow=code.stage(code.stubborn, "slow"))
    async with Pipeline(race, max_in_flight=1).open([1, 2]) as run:
        assert (await anext(run.results)).status == "ok"
        window = run.statistics().window
        assert (window.settled["ok"], window.in_flight, window.alive) == (1, 1, 1)
        await anyio.sleep(0.3)
        assert run.statistics().window.admitted == 2
        run.abort()


@in_virtual_time
async def test_a_slow_stage_blocks_the_producers_of_a_composite_before_it() -> None:
    seen: list[object] = []

    async def looks(value: object) -> object:
        seen.append(value)
        return value

    pipe = Pipeline(parallel("p", a=map(looks)) | map(forever), buffer_size=1)
    async with pipe.open(range(100)) as run:
        await anyio.sleep(50)
        waiting = sum(group.waiting for group in run.statistics().groups)
        assert (len(seen), waiting) == (4, 2)
        run.abort()


@in_virtual_time
async def test_a_visit_works_on_after_its_wait_only_when_it_has_a_slot_again() -> None:
    working, most = 0, 0

    async def works(value: int, visit: Visit) -> int:
        nonlocal working, most
        async with visit.without_slot():
            await anyio.sleep(1)
        working += 1
        most = max(most, working)
        await anyio.sleep(1)
        working -= 1
        return value

    assert len(await Pipeline(map(works)).collect(range(4))) == 4
    assert most == 1
    assert anyio.current_time() == 5


@in_virtual_time
async def test_a_timer_that_has_run_dry_goes_on_with_the_next_deadline() -> None:
    async def source() -> AsyncIterator[int]:
        for number in range(3):
            yield number
            await anyio.sleep(20)

    ends: list[float] = []
    async with Pipeline(map(forever, concurrency=4), item_timeout=5).open(source()) as run:
        async for record in run.results:
            assert record.status == "failed"
            ends.append(anyio.current_time())
    assert ends == [5, 25, 45]


@in_virtual_time
async def test_a_drain_cuts_no_hand_over_of_a_root_whose_credit_was_waited_for() -> None:
    async def second(value: int) -> int:
        await anyio.sleep(1)
        return value

    async def drain() -> None:
        await anyio.sleep(1.5)
        run.drain("items")

    pipe = Pipeline(map(second), max_in_flight=2, buffer_size=0)
    async with pipe.open(range(9)) as run, anyio.create_task_group() as tg:
        tg.start_soon(drain)
        records = [record async for record in run.results]
    assert [record.status for record in records] == ["ok"] * 3
    assert run.statistics().window.settled["cancelled"] == 0


@in_virtual_time
async def test_an_item_that_was_revoked_in_a_buffer_is_not_visited() -> None:
    seen: list[object] = []

    async def looks(value: object) -> object:
        seen.append(value)
        await anyio.sleep(10)
        return value

    race = parallel("race", join="any", quick=map(quick, concurrency=3), slow=map(looks))
    assert len(await Pipeline(race, buffer_size=3).collect([1, 2, 3])) == 3
    assert seen == [1]


@in_virtual_time
async def test_a_visit_that_wants_its_slot_back_is_not_kept_waiting_by_new_items() -> None:
    async def works(value: int, visit: Visit) -> int:
        if value == 0:
            async with visit.without_slot():
                await anyio.sleep(1.5)
        else:
            await anyio.sleep(1)
        return value

    records = await Pipeline(map(works)).collect(range(10))
    assert [record.index for record in records] == [1, 2, 0, *range(3, 10)]
