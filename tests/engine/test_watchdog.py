"""A blocked event loop is noticed, named and counted; a busy, a sleeping and a suspended one is not."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator

import anyio
import anyio.lowlevel
import pytest

from pipeline.core import watchdog
from pipeline.core.culprits import Culprit
from pipeline.core.errors import DefinitionError
from pipeline.core.events import LoopBlocked
from pipeline.core.pipeline import Pipeline
from pipeline.core.record import Record
from pipeline.core.stage import Stage
from pipeline.core.state import ConversationState
from pipeline.core.watchdog import Step
from stages import agent, flat_map, map, parallel, route, scatter
from tests.engine.schedules import in_virtual_time, run_in

#: seconds that a function blocks at most, if the watchdog sleeps
PATIENCE = 10.0


class Noticed:
    """Lets code block the loop for exactly as long as it takes to be noticed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen = threading.Event()
        self.events: list[LoopBlocked] = []
        culprit_of = watchdog.culprit_of

        def noticing(*args: object) -> Culprit:
            found = culprit_of(*args)  # type: ignore[arg-type]
            self.seen.set()
            return found

        monkeypatch.setattr(watchdog, "culprit_of", noticing)

    def block(self, value: object = None) -> object:
        assert self.seen.wait(PATIENCE), "nobody noticed"
        return value

    async def block_async(self, value: object) -> object:
        return self.block(value)

    def hear(self, event: object) -> None:
        if isinstance(event, LoopBlocked):
            self.events.append(event)

    async def watch(self, stages: Stage, source: object = (1,)) -> list[Record]:
        async with Pipeline(stages, watchdog=0.05).open(source, on_event=self.hear) as run:  # type: ignore[arg-type]
            return [record async for record in run.results]


@pytest.fixture
def noticed(monkeypatch: pytest.MonkeyPatch) -> Noticed:
    return Noticed(monkeypatch)


def same(value: object) -> object:
    return value


async def waits(value: object) -> object:
    await anyio.lowlevel.checkpoint()
    return value


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "penstock watchdog"]


# -- who ------------------------------------------------------------------------------------------------------------


def async_function(block: Callable[..., object]) -> Stage:
    async def culprit(value: object) -> object:
        await anyio.lowlevel.checkpoint()
        return block(value)

    return map(same) | map(culprit, name="it") | map(waits)


def plain_function(block: Callable[..., object]) -> Stage:
    return map(waits, name="before") | map(block, name="it") | map(waits, name="after")


def one_of_several_fused(block: Callable[..., object]) -> Stage:
    return map(same, name="before") | map(block, name="it") | map(same, name="after")


def an_agent(block: Callable[..., object]) -> Stage:
    class Blocking:
        name = "it"

        async def process(self, prompt: str, state: ConversationState) -> str:
            block()
            return prompt

    return agent(Blocking())


def a_split(block: Callable[..., object]) -> Stage:
    def split(value: object) -> Iterator[object]:
        yield value
        yield block(value)

    return scatter("it", split=split, each=map(same))


def a_choice(block: Callable[..., object]) -> Stage:
    def by(value: object) -> str:
        block()
        return "a"

    return route({"a": map(same)}, by=by, name="it")


def an_expansion(block: Callable[..., object]) -> Stage:
    def expand(value: object) -> list[object]:
        return [value, block(value)]

    return flat_map(expand, name="it") | map(same)


def a_branch(block: Callable[..., object]) -> Stage:
    return parallel("views", it=map(block, name="it"), other=map(waits))


STAGES = [async_function, plain_function, one_of_several_fused, an_agent, a_split, a_choice, an_expansion, a_branch]


@pytest.mark.parametrize("stages", STAGES)
async def test_a_stage_that_blocks_the_loop_is_named(
    noticed: Noticed, stages: Callable[[Callable[..., object]], Stage]
) -> None:
    assert {record.status for record in await noticed.watch(stages(noticed.block))} == {"ok"}
    (event,) = noticed.events
    assert event.stage == ("it_by" if stages is a_choice else "it")
    assert event.culprit == f"stage {event.stage!r}"
    assert event.seconds >= 0.05
    assert event.where.startswith(f"{__file__}:")
    assert event.where.endswith(" in block")


async def test_a_source_that_blocks_the_loop_is_told_from_the_stages(noticed: Noticed) -> None:
    def plain() -> Iterable[object]:
        yield noticed.block(1)

    async def later() -> AsyncIterator[object]:
        yield noticed.block(1)

    for source in (plain(), later()):
        noticed.seen.clear()
        await noticed.watch(map(same), source)
    assert [(event.culprit, event.stage) for event in noticed.events] == [("the source", None)] * 2


async def test_a_sink_that_blocks_the_loop_is_told_from_the_stages(noticed: Noticed) -> None:
    class Sink:
        async def write(self, record: Record) -> None:
            noticed.block()

    await Pipeline(map(same), watchdog=0.05).run([1], Sink(), on_event=noticed.hear)
    assert [(event.culprit, event.stage) for event in noticed.events] == [("the sink", None)]


async def test_a_host_that_blocks_its_own_loop_is_no_stage(noticed: Noticed) -> None:
    async with Pipeline(map(same), watchdog=0.05).open(on_event=noticed.hear) as run:
        await run.submit(1)
        noticed.block()
        await run.submit(2)
    assert [(event.culprit, event.stage) for event in noticed.events] == [("code outside the stages", None)]


async def test_a_blockage_that_the_run_ends_with_is_told_too(noticed: Noticed) -> None:
    async with Pipeline(map(same), watchdog=0.05).open(on_event=noticed.hear) as run:
        await run.submit(1)  # from here on somebody watches
        noticed.block()
    assert len(noticed.events) == 1


async def test_each_blockage_is_told_once_and_counted_by_culprit(noticed: Noticed) -> None:
    def block(value: object) -> object:
        noticed.seen.clear()
        return noticed.block(value)

    async with Pipeline(map(block, name="it"), watchdog=0.05).open([1, 2, 3], on_event=noticed.hear) as run:
        assert len([record async for record in run.results]) == 3
    assert [event.stage for event in noticed.events] == ["it"] * 3
    (counted,) = run.statistics().loop_blocked
    longest = max(noticed.events, key=lambda event: event.seconds)
    assert counted == watchdog.BlockedStatistics("stage 'it'", 3, longest.seconds, longest.where)
    assert f"loop    stage 'it' blocked it 3 times, {longest.seconds:.2f} s at {longest.where}" in str(run.statistics())


async def test_a_blockage_that_lasts_is_told_while_it_does_from_another_thread(
    noticed: Noticed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watchdog, "LASTING", 0.1)
    here, heard, alarmed = threading.get_ident(), list[LoopBlocked](), threading.Event()

    def alarm(event: LoopBlocked) -> None:
        assert threading.get_ident() != here
        assert noticed.events == []
        heard.append(event)
        alarmed.set()
        raise ZeroDivisionError  # harms nobody

    def block(value: object) -> object:
        assert alarmed.wait(PATIENCE)
        return value

    async with Pipeline(map(block, name="it"), watchdog=0.05).open([1], on_event=noticed.hear) as run:
        run.while_blocked(alarm)
        assert len([record async for record in run.results]) == 1
    ((during,), (after,)) = heard, noticed.events
    assert during[:3] == after[:3]
    assert 0.1 <= during.seconds <= after.seconds


async def test_without_a_watchdog_nobody_raises_an_alarm() -> None:
    async with Pipeline(map(same)).open([1]) as run:
        run.while_blocked(lambda event: pytest.fail("nobody watches"))
        assert len([record async for record in run.results]) == 1


# -- who not --------------------------------------------------------------------------------------------------------


async def test_a_loop_that_is_busy_with_many_short_visits_is_not_blocked() -> None:
    async def short(value: object) -> object:
        await anyio.lowlevel.checkpoint()  # all of them go on in the same turn of the loop
        time.sleep(0.02)  # noqa: ASYNC251 - what is tested
        return value

    async with Pipeline(map(short, concurrency=30), watchdog=0.3).open(range(60)) as run:
        assert len([record async for record in run.results]) == 60
        assert run.statistics().loop_blocked == ()


async def test_visits_one_after_the_other_are_not_taken_for_one() -> None:
    def short(value: object) -> object:
        time.sleep(0.03)
        return value

    async with Pipeline(map(short), watchdog=0.3).open(range(20)) as run:
        assert len([record async for record in run.results]) == 20
        assert run.statistics().loop_blocked == ()


def test_only_time_in_the_same_step_counts() -> None:
    step = Step(period=1.0)
    for mark in "abcabc":
        step.seen(mark, elapsed=1.0, worked=1.0)
    assert step.seconds == 0.0
    for _ in range(3):
        step.seen("c", elapsed=1.0, worked=0.0)
    assert step.seconds == 3.0


def test_time_in_which_nobody_could_look_does_not_count_unless_the_loop_was_at_work() -> None:
    step = Step(period=1.0)
    step.seen("a", elapsed=3600.0, worked=0.0)  # suspended, in a step that may have begun just now
    assert step.seconds == 0.0
    step.seen("a", elapsed=3600.0, worked=0.0)
    assert step.seconds == 2.0
    step.seen("a", elapsed=10.0, worked=9.0)  # a call that keeps the interpreter
    assert step.seconds == 11.0
    step.seen("b", elapsed=10.0, worked=9.0)
    assert step.seconds == 9.0


@in_virtual_time
async def test_hours_of_virtual_time_are_no_blockage() -> None:
    async def hour(value: object) -> object:
        await anyio.sleep(3600)
        return value

    async with Pipeline(map(hour), watchdog=0.25).open(range(5)) as run:
        assert len([record async for record in run.results]) == 5
        assert run.statistics().loop_blocked == ()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_blocking_in_virtual_time_is_real(noticed: Noticed, backend: str) -> None:
    async def hour_and_block(value: object) -> object:
        await anyio.sleep(3600)
        return noticed.block(value)

    run_in(backend, 0, noticed.watch, map(hour_and_block, name="it"))
    assert [event.stage for event in noticed.events] == ["it"]


# -- the thread -----------------------------------------------------------------------------------------------------


async def test_no_thread_is_started_without_a_watchdog_and_none_is_left_by_one() -> None:
    async with Pipeline(map(same)).open([1]) as run:
        assert len([record async for record in run.results]) == 1
        assert watchers() == []
    async with Pipeline(map(waits), watchdog=0.25).open([1, 2, 3]) as run:
        await anext(run.results)
        (thread,) = watchers()
        assert thread.daemon
    assert watchers() == []


async def test_no_thread_is_left_by_a_run_that_is_cancelled_or_fails() -> None:
    with anyio.move_on_after(0.01):
        async with Pipeline(map(same), watchdog=0.25).open():
            await anyio.sleep_forever()
    assert watchers() == []
    with pytest.raises(ZeroDivisionError):
        async with Pipeline(map(same), watchdog=0.25).open():
            raise ZeroDivisionError
    assert watchers() == []


@pytest.mark.parametrize("wrong", [0, -1.0, "1s", True])
@pytest.mark.parametrize("option", ["watchdog", "stall_timeout"])
def test_its_seconds_are_a_number_above_zero(option: str, wrong: object) -> None:
    with pytest.raises(DefinitionError) as caught:
        Pipeline(map(same), **{option: wrong})  # type: ignore[arg-type]
    assert str(caught.value) == f"pipeline, {option}: must be a number of seconds above 0, got {wrong!r}"


# -- what would be right --------------------------------------------------------------------------------------------


async def test_declared_as_blocking_the_same_function_runs_in_threads_and_the_loop_is_free() -> None:
    lock, running, most = threading.Lock(), 0, 0
    together = threading.Barrier(10, timeout=PATIENCE)

    def call(value: object) -> object:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait()
        time.sleep(0.01)
        with lock:
            running -= 1
        return value

    async with Pipeline(map(call, blocking=True, concurrency=10), watchdog=0.25).open(range(100)) as run:
        assert len([record async for record in run.results]) == 100
    assert most == 10
    assert run.statistics().loop_blocked == ()
