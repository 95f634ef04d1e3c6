"""What ends, slows, widens or stops a run: drain, abort, failures, concurrency, slots and threads."""

from __future__ import annotations

import threading
from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from pipeline.core.errors import ItemError, PipelineError, RunStopped, Skip
from pipeline.core.pipeline import Pipeline
from pipeline.core.run import Run
from pipeline.core.slots import Slots
from pipeline.core.visit import Visit
from stages import filter, map, parallel, quorum
from tests.engine.schedules import in_virtual_time


async def second(value: object) -> object:
    await anyio.sleep(1)
    return value


async def lends(value: object, visit: Visit) -> object:
    visit.admit_call()
    async with visit.without_slot():
        await anyio.sleep(10)
    return value


def fails_at(*bad: int) -> Callable[[int], int]:
    def check(value: int) -> int:
        if value in bad:
            raise ValueError(f"{value} is bad")
        return value

    return check


async def statuses(pipe: Pipeline, values: object) -> list[str]:
    return [record.status for record in await pipe.collect(values)]  # type: ignore[arg-type]


# -- drain and abort ------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_drain_items_settles_everything_that_was_admitted() -> None:
    async with Pipeline(map(second, concurrency=2), max_in_flight=6).open(range(100)) as run:
        await anyio.sleep(0.5)
        run.drain("items")
        records = [record async for record in run.results]
    assert [record.status for record in records] == ["ok"] * 6


@in_virtual_time
async def test_drain_calls_finishes_visits_and_cancels_those_that_sleep_between_attempts() -> None:
    pipe = Pipeline(map(second, name="first", concurrency=4) | map(lends, concurrency=4), max_in_flight=4)
    async with pipe.open(range(4)) as run:
        await anyio.sleep(5)
        run.drain("calls")
        assert [record async for record in run.results] == []
        assert anyio.current_time() == 5
    assert run.statistics().window.settled["cancelled"] == 4


@in_virtual_time
async def test_a_quorum_that_a_drain_cuts_short_is_cancelled_because_nothing_is_known_of_the_rest() -> None:
    views = parallel("views", join=quorum(1), done=map(second), retries=map(lends))
    async with Pipeline(views).open([1]) as run:
        await anyio.sleep(5)
        run.drain("calls")
        assert [record async for record in run.results] == []
    assert run.statistics().window.settled["cancelled"] == 1


@in_virtual_time
async def test_abort_ends_the_results_at_once_and_settles_open_roots_as_cancelled() -> None:
    async with Pipeline(map(second), max_in_flight=5).open(range(100)) as run:
        assert (await anext(run.results)).status == "ok"
        run.abort()
        assert [record async for record in run.results] == []
        assert anyio.current_time() == 1
    settled = run.statistics().window.settled
    assert (settled["ok"], settled["cancelled"]) == (1, run.statistics().window.admitted - 1)


# -- failures -------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_failed_item_leaves_its_record_and_the_run_goes_on() -> None:
    records = await Pipeline(map(fails_at(1), name="check"), ordered=True).collect(range(3))
    assert [record.status for record in records] == ["ok", "failed", "ok"]
    error = records[1].error
    assert error is not None
    assert (error.type, error.stage, error.message) == ("ValueError", "check", "1 is bad")


@in_virtual_time
async def test_on_error_skip_lets_the_item_go_without_a_record() -> None:
    assert await statuses(Pipeline(map(fails_at(1), name="check", on_error="skip")), range(3)) == ["ok", "ok"]


@in_virtual_time
async def test_on_error_of_the_stage_goes_before_that_of_the_pipeline() -> None:
    pipe = Pipeline(map(fails_at(1), name="check", on_error="dead_letter"), on_error="skip", ordered=True)
    assert await statuses(pipe, range(3)) == ["ok", "failed", "ok"]


@in_virtual_time
async def test_on_error_may_decide_by_the_failure() -> None:
    pipe = Pipeline(
        map(fails_at(1, 2), name="check", on_error=lambda failure: "skip" if "1" in failure.message else "dead_letter"),
        ordered=True,
    )
    assert await statuses(pipe, range(4)) == ["ok", "failed", "ok"]


@in_virtual_time
async def test_on_error_fail_ends_the_run_and_says_which_stage() -> None:
    with pytest.raises(RunStopped, match="stage 'check': 1 is bad"):
        await Pipeline(map(fails_at(1), name="check", on_error="fail")).collect(range(1000))


@in_virtual_time
async def test_a_refusal_that_every_item_would_meet_stops_the_run() -> None:
    class Refused(ItemError):
        stops_run = True

    def refuse(value: object) -> object:
        raise Refused("the key is wrong")

    with pytest.raises(RunStopped, match="the key is wrong") as caught:
        await Pipeline(map(refuse)).collect(range(1000))
    assert caught.value.cause_kind == "refused"


@in_virtual_time
async def test_max_failures_counts_and_tolerates_as_many() -> None:
    check = map(fails_at(*range(0, 100, 2)), name="check")
    assert (await statuses(Pipeline(check, max_failures=3), range(6))).count("failed") == 3
    with pytest.raises(RunStopped, match="4 items failed, max_failures is 3"):
        await Pipeline(check, max_failures=3).collect(range(8))


@in_virtual_time
async def test_a_share_of_failures_is_judged_after_twenty_roots() -> None:
    early = map(fails_at(0, 1), name="check")
    assert (await statuses(Pipeline(early, max_failures=0.2), range(30))).count("failed") == 2
    often = map(fails_at(*range(0, 100, 2)), name="check")
    with pytest.raises(RunStopped, match=r"11 of 21 items failed|10 of 20 items failed"):
        await Pipeline(often, max_failures=0.2, max_in_flight=1).collect(range(100))


@in_virtual_time
async def test_a_skip_leaves_no_record_and_is_counted() -> None:
    def skip(value: int) -> int:
        raise Skip

    async with Pipeline(map(skip)).open(range(3)) as run:
        assert [record async for record in run.results] == []
    assert run.statistics().window.settled["skipped"] == 3


# -- fused functions ------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_fused_functions_keep_their_names_and_counters_and_name_the_one_that_failed() -> None:
    chain = (
        map(fails_at(), name="first")
        | filter(lambda value: value != 2, name="sieve")
        | map(fails_at(1), name="second")
        | map(fails_at(), name="third")
    )
    async with Pipeline(chain, ordered=True).open(range(4)) as run:
        records = [record async for record in run.results]
    assert [(record.index, record.status) for record in records] == [(0, "ok"), (1, "failed"), (3, "ok")]
    assert records[1].error is not None
    assert records[1].error.stage == "second"
    assert dict(records[1].outputs) == {"first": 1}
    meters = {stage.name: stage for stage in run.statistics().stages}
    assert [(meters[name].received, meters[name].emitted) for name in ("first", "sieve", "second", "third")] == [
        (4, 4),
        (4, 3),
        (3, 2),
        (2, 2),
    ]
    assert (meters["sieve"].skipped, meters["second"].failed) == (1, 1)


# -- concurrency ----------------------------------------------------------------------------------------------------


class Gauge:
    def __init__(self) -> None:
        self.running = 0

    async def __call__(self, value: object) -> object:
        self.running += 1
        await anyio.sleep(10)
        self.running -= 1
        return value


async def reading(run: Run) -> None:
    async for _ in run.results:
        pass


@in_virtual_time
async def test_concurrency_can_be_raised_and_lowered_while_the_run_goes_on() -> None:
    gauge = Gauge()
    pipe = Pipeline(map(gauge, name="work", concurrency=2), buffer_size=1)
    async with pipe.open(range(10_000)) as run, anyio.create_task_group() as tg:
        tg.start_soon(reading, run)
        for wanted in (2, 6, 1, 4, 3, 9):
            run.set_concurrency("work", wanted)
            await anyio.sleep(23)  # never the moment at which a visit ends
            assert gauge.running == wanted
        tg.cancel_scope.cancel()


@in_virtual_time
async def test_concurrency_of_an_unknown_stage_is_refused_with_the_names_that_exist() -> None:
    async with Pipeline(map(second)).open(range(3)) as run:
        await anyio.sleep(0.5)
        with pytest.raises(PipelineError, match="no stage 'typo' with slots in this run; there are: second"):
            run.set_concurrency("typo", 3)
        with pytest.raises(ValueError, match="at least 1, got 0"):
            run.set_concurrency("second", 0)


@in_virtual_time
async def test_slots_that_are_lowered_and_raised_are_never_given_out_twice() -> None:
    slots, running, most = Slots(10), 0, 0

    async def visit() -> None:
        nonlocal running, most
        lease = object()
        await slots.acquire(lease)
        running += 1
        most = max(most, running)
        await anyio.sleep(10)
        running -= 1
        slots.release(lease)

    async with anyio.create_task_group() as tg:
        for _ in range(40):
            tg.start_soon(visit)
        await anyio.sleep(1)
        assert running == 10
        slots.resize(4)
        slots.resize(6)
        await anyio.sleep(10)
        assert running == 6
        await anyio.sleep(10)
        assert running == 6
    assert (most, slots.borrowed) == (10, 0)


@in_virtual_time
async def test_a_visit_that_waits_between_attempts_lends_its_slot_to_another() -> None:
    async with Pipeline(map(lends, concurrency=1)).open(range(5)) as run:
        await anyio.sleep(5)
        stage = run.statistics().stages[0]
        assert (stage.slots.sleeping, stage.slots.borrowed) == (5, 0)
        assert len([record async for record in run.results]) == 5
    assert anyio.current_time() == 10


# -- threads --------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_blocking_function_runs_in_another_thread_and_is_bounded_by_its_concurrency() -> None:
    here, lock, running, most = threading.get_ident(), threading.Lock(), 0, 0
    together = threading.Barrier(2, timeout=5)

    def blocks(value: int) -> int:
        nonlocal running, most
        assert threading.get_ident() != here
        with lock:
            running += 1
            most = max(most, running)
        together.wait()
        with lock:
            running -= 1
        return value

    pipe = Pipeline(map(blocks, blocking=True, concurrency=2))
    assert await statuses(pipe, range(6)) == ["ok"] * 6
    assert most == 2


@in_virtual_time
async def test_a_blocking_function_that_raises_fails_its_item() -> None:
    records = await Pipeline(map(fails_at(1), name="check", blocking=True), ordered=True).collect(range(3))
    assert [record.status for record in records] == ["ok", "failed", "ok"]


@in_virtual_time
async def test_an_abandoned_thread_keeps_its_unit_and_its_result_is_refused() -> None:
    release, started = threading.Event(), threading.Semaphore(0)
    calls: list[str] = []

    def blocks(value: str) -> str:
        calls.append(value)
        started.release()
        release.wait(10)
        return value

    async with Pipeline(map(blocks, blocking=True, concurrency=1)).open() as run:
        async with anyio.create_task_group() as tg:
            tg.start_soon(run.submit, "abandoned")
            await anyio.to_thread.run_sync(started.acquire)
            tg.cancel_scope.cancel()
        now = run.statistics()
        assert (now.window.alive, now.window.in_flight, now.threads) == (0, 0, 1)
        async with anyio.create_task_group() as tg:
            tg.start_soon(run.submit, "next")
            for _ in range(50):
                await anyio.lowlevel.checkpoint()
            assert calls == ["abandoned"]  # the one unit is still out
            release.set()
        assert calls == ["abandoned", "next"]
        assert run.statistics().threads == 0
    assert run.statistics().window.settled == {"ok": 1, "partial": 0, "failed": 0, "skipped": 0, "cancelled": 1}


@in_virtual_time
async def test_run_sync_works_inside_a_running_loop() -> None:
    for backend in ("asyncio", "trio"):
        records = Pipeline(map(fails_at(), name="same"), ordered=True).run_sync(range(3), backend=backend)
        assert [record.output for record in records] == [0, 1, 2]
