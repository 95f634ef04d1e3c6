"""Blocking functions in threads: what their item no longer waits for is counted, named and refused."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import pytest

from pipeline import ConversationState, DefinitionError, ItemError, Pipeline, Run
from pipeline.core.agent import stage_of_agent
from pipeline.core.errors import Failure
from pipeline.core.stage import Stage
from pipeline.core.threads import Abandoned, BlockingCall, BlockingStatistics
from pipeline.core.virtual import virtual
from stages import filter, map, parallel


class Gate:
    """A blocking function that returns when it is told to, and notes who came."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.came: list[object] = []
        self.left = threading.Semaphore(0)

    def __call__(self, value: object) -> object:
        self.came.append(value)
        self.open.wait(20)
        self.left.release()
        return f"late {value}"

    async def has(self, visitors: int) -> None:
        with anyio.fail_after(10):
            while len(self.came) < visitors:  # noqa: ASYNC110 - it is threads that come
                await anyio.sleep(0.001)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@asynccontextmanager
async def opened(pipe: Pipeline, gate: Gate, *values: object) -> AsyncIterator[Run]:
    """A run whose threads are let go at its end, whatever happens."""
    try:
        async with pipe.open(values or None) as run:
            yield run
    finally:
        gate.open.set()


async def quick(value: object) -> object:
    return f"quick {value}"


async def ended(run: Run) -> None:
    """Wait until no thread is running any more; the engine is told of that by the thread itself."""
    with anyio.fail_after(10):
        while run.statistics().threads:  # noqa: ASYNC110
            await anyio.sleep(0.001)


async def test_calls_in_threads_are_counted_for_each_stage(gate: Gate) -> None:
    def answer(prompt: str, state: ConversationState) -> str:
        return prompt

    stages = map(gate, name="a", blocking=True, concurrency=4) | map(str) | stage_of_agent(answer)
    async with opened(Pipeline(stages), gate, 1, 2, 3) as run:
        await gate.has(3)
        assert run.statistics().blocking == (BlockingStatistics("a", 3, 0), BlockingStatistics("answer", 0, 0))
        assert "threads a: 3 blocking calls run, 0 of them abandoned" in run.statistics().lines()
        gate.open.set()
        assert len([record async for record in run.results]) == 3
        assert run.statistics().blocking == (BlockingStatistics("a", 0, 0), BlockingStatistics("answer", 0, 0))


async def test_an_item_whose_time_is_up_leaves_its_thread_which_is_counted_and_refused(gate: Gate) -> None:
    pipe = Pipeline(map(gate, name="slow", blocking=True), item_timeout=0.05)
    async with opened(pipe, gate, "x") as run:
        (record,) = [record async for record in run.results]
        assert (record.status, record.output) == ("failed", None)
        assert run.statistics().blocking == (BlockingStatistics("slow", 1, 1),)
        gate.open.set()
        await ended(run)
    now = run.statistics()
    assert now.window.settled == {"ok": 0, "partial": 0, "failed": 1, "skipped": 0, "cancelled": 0}
    assert (now.stages[0].emitted, now.blocking) == (0, (BlockingStatistics("slow", 0, 0),))


async def test_a_visit_whose_time_is_up_leaves_its_thread_and_the_unit_stays_taken(gate: Gate) -> None:
    calls: list[object] = []

    def slow(value: object) -> object:
        calls.append(value)
        return gate(value) if value == "x" else value

    pipe = Pipeline(map(slow, blocking=True, timeout=0.05))
    async with opened(pipe, gate) as run:
        first = await run.submit("x")
        assert first.error is not None
        assert (first.error.type, first.error.retryable) == ("VisitTimeout", True)
        assert first.error.message == "stage 'slow' did not end within 0.05 s"
        assert run.statistics().blocking == (BlockingStatistics("slow", 1, 1),)
        async with anyio.create_task_group() as tg:
            later: list[object] = []

            async def submit() -> None:
                later.append((await run.submit("y")).output)

            tg.start_soon(submit)
            await anyio.sleep(0.2)  # four times the timeout, which does not count the wait for a unit
            assert (calls, later) == (["x"], [])
            gate.open.set()
        assert (calls, later) == (["x", "y"], ["y"])
    assert run.statistics().window.settled["failed"] == 1


async def test_the_loser_of_a_race_goes_on_in_its_thread_and_its_result_appears_nowhere(gate: Gate) -> None:
    async def first_come(value: object) -> object:
        await gate.has(1)
        return f"quick {value}"

    race = parallel("race", join="any", slow=map(gate, name="slow", blocking=True), quick=map(first_come))
    async with opened(Pipeline(race | map(str, name="after")), gate, "x") as run:
        (record,) = [record async for record in run.results]
        assert run.statistics().blocking == (BlockingStatistics("slow", 1, 1),)
        gate.open.set()
        await ended(run)
    assert (record.status, record.outputs) == ("ok", {"race": "quick x", "after": "quick x"})
    assert gate.left.acquire(timeout=10)


async def test_calls_that_outlive_the_run_are_still_named_after_it(gate: Gate) -> None:
    pipe = Pipeline(map(gate, name="slow", blocking=True, concurrency=2))
    async with opened(pipe, gate, "x", "y", "z") as run:
        await gate.has(2)
        run.abort()
    now = run.statistics()
    assert now.window.settled["cancelled"] == 3
    assert len(gate.came) == 2
    await ended(run)
    assert {*gate.came} == {"x", "y"}


async def test_statistics_after_the_run_tell_what_is_running_then(gate: Gate) -> None:
    try:
        async with Pipeline(map(gate, name="slow", blocking=True, concurrency=2)).open(["x", "y"]) as run:
            await gate.has(2)
            run.abort()
        assert run.statistics().blocking == (BlockingStatistics("slow", 2, 2),)
    finally:
        gate.open.set()
    await ended(run)
    assert run.statistics().blocking == (BlockingStatistics("slow", 0, 0),)


async def test_a_filter_and_an_agent_that_block_have_a_time_as_well(gate: Gate) -> None:
    def ask(prompt: str, state: ConversationState) -> object:
        return gate(prompt)

    stages: list[Callable[[], Stage]] = [
        lambda: filter(gate, name="slow", blocking=True, timeout=0.05),
        lambda: stage_of_agent(ask, name="slow", timeout=0.05),
    ]
    for stage in stages:
        async with opened(Pipeline(stage()), Gate(), "x") as run:
            (record,) = [record async for record in run.results]
            assert record.error is not None
            assert (record.error.type, run.statistics().threads) == ("VisitTimeout", 1)
    gate.open.set()


async def test_a_visit_does_not_end_while_its_call_commits_and_nothing_is_committed_after_that() -> None:
    call = BlockingCall(str, ())
    seen: list[object] = []

    def change() -> None:
        leaves.start()
        leaves.join(0.05)
        seen.append(call.abandoned)

    leaves = threading.Thread(target=call.leave)
    call.commit(change)
    leaves.join()
    with pytest.raises(Abandoned):
        call.commit(change)
    assert (seen, call.abandoned) == ([False], True)


# -- on the loop ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["map", "filter", "agent"])
async def test_an_async_visit_whose_time_is_up_is_cancelled_alone(place: str) -> None:
    cancelled: list[object] = []

    async def function(value: object, *_: object) -> object:
        if value == "slow":
            try:
                await anyio.sleep_forever()
            except BaseException:
                cancelled.append(value)
                raise
        return value

    async def answers(prompt: str, state: ConversationState) -> object:
        return await function(prompt)

    make: dict[str, Callable[[], Stage]] = {
        "map": lambda: map(function, name="f", timeout=0.05),
        "filter": lambda: filter(function, name="f", timeout=0.05),
        "agent": lambda: stage_of_agent(answers, name="f", timeout=0.05, concurrency=1),
    }
    pipe = Pipeline(make[place]() | map(quick), ordered=True)
    records = await pipe.collect(["x", "slow", "y"])
    assert [record.output for record in records] == ["quick x", None, "quick y"]
    assert records[1].error is not None
    assert (records[1].error.type, records[1].error.stage) == ("VisitTimeout", "f")
    assert cancelled == ["slow"]


async def test_on_error_is_told_of_a_visit_whose_time_is_up() -> None:
    async def slow(value: object) -> None:
        await anyio.sleep_forever()

    async with Pipeline(map(slow, timeout=0.01, on_error="skip")).open(["x"]) as run:
        assert [record async for record in run.results] == []
    assert run.statistics().window.settled["skipped"] == 1


async def test_what_a_function_raises_in_time_is_its_own() -> None:
    async def raises(value: object) -> None:
        raise ItemError("mine", type="Mine")

    (record,) = await Pipeline(map(raises, timeout=10)).collect(["x"])
    assert record.error is not None
    assert (record.error.type, record.error.message) == ("Mine", "mine")


async def fails_as_it_leaves(value: object) -> None:
    try:
        await anyio.sleep_forever()
    except BaseException:
        raise ValueError("cleanup failed")  # noqa: B904 - as users write it


async def fails_as_its_children_leave(value: object) -> None:
    async with anyio.create_task_group() as tg:
        tg.start_soon(fails_as_it_leaves, value)


async def fails_at_that_instant(value: object) -> None:
    with anyio.CancelScope(shield=True):
        await anyio.sleep(1)
    raise ValueError("cleanup failed")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("function", [fails_as_it_leaves, fails_as_its_children_leave, fails_at_that_instant])
def test_what_a_visit_raises_when_its_time_is_up_is_the_cause_and_not_the_failure(
    backend: str, function: Callable[[object], object]
) -> None:
    async def main() -> Failure | None:
        (record,) = await Pipeline(map(function, name="f", timeout=1)).collect(["x"])
        return record.error

    error = anyio.run(main, **virtual(backend))
    assert error is not None
    assert (error.type, error.retryable, error.message) == ("VisitTimeout", True, "stage 'f' did not end within 1 s")
    assert error.cause is not None
    cause = error.cause.__cause__
    while isinstance(cause, ExceptionGroup):
        (cause,) = cause.exceptions
    assert repr(cause) == "ValueError('cleanup failed')"


def told(stage: Stage) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        Pipeline(stage)
    return [str(problem) for problem in caught.value.problems]


def test_a_plain_function_has_no_time_because_nothing_could_end_it() -> None:
    right = "run it with blocking or cpu, or make it async"
    text = "cannot end a plain function, which holds the event loop until it returns"
    assert told(map(str, timeout=1)) == [f"stage 'str', timeout: {text} ({right})"]
    assert told(filter(bool, timeout=1)) == [f"stage 'bool', timeout: {text} ({right})"]


@pytest.mark.parametrize("wrong", [0, -1, True, float("inf"), float("nan"), "5"])
def test_a_time_is_a_number_of_seconds(wrong: float) -> None:
    said = f"must be a number of seconds above 0, got {wrong!r}"
    assert told(map(quick, timeout=wrong)) == [f"stage 'quick', timeout: {said}"]
    assert told(map(str, blocking=True, timeout=wrong)) == [f"stage 'str', timeout: {said}"]


def test_threads_are_of_no_use_to_an_async_function() -> None:
    text = "has no effect on an async function, which runs on the event loop"
    assert told(map(quick, blocking=True)) == [
        f"stage 'quick', blocking: {text} (leave it out, or make it a plain function)"
    ]
