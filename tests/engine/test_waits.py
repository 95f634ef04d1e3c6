"""The chain of waits says what holds a run, from the oldest open root on. One way of waiting a test."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from pipeline.core.machine import Machine
from pipeline.core.pipeline import Pipeline
from pipeline.core.run import Run
from pipeline.core.stage import Stage
from pipeline.core.virtual import Stalled
from pipeline.core.visit import Visit
from pipeline.core.waits import wait_chain
from stages import agent, batch, flat_map, loop, map, parallel, partition_by, scatter
from stages.models.simulated import SimulatedModel
from tests.engine.schedules import in_virtual_time, run_in


async def forever(value: object) -> object:
    await anyio.sleep_forever()
    return value


async def at_once(value: object) -> object:
    await anyio.lowlevel.checkpoint()
    return value


def zero_after(seconds: float) -> Callable[[int], Any]:
    """One after the other, but 0, which comes later than all others."""

    async def delay(value: int) -> int:
        await anyio.sleep(value / 100 if value else seconds)
        return value

    return delay


async def chain_of(stages: Stage, source: object, at: float = 5.0, **options: Any) -> tuple[str, ...]:
    """The chain of a run `at` seconds after its start; nobody reads its results."""
    chain: tuple[str, ...] = ()
    with anyio.CancelScope() as scope:
        async with Pipeline(stages, **options).open(source) as run:  # type: ignore[arg-type]
            await anyio.sleep(at)
            chain = run.wait_chain()
            scope.cancel()
    return chain


def machine_of(run: Run) -> Machine:
    return run._machine


# -- the ends -------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_without_an_open_root_it_is_the_source_that_is_waited_for() -> None:
    async def silent() -> AsyncIterator[int]:
        await anyio.sleep_forever()
        yield 1

    assert await chain_of(map(at_once), silent()) == ("no root is open: the source is waited for",)


@in_virtual_time
async def test_a_run_for_submits_alone_waits_for_nobody() -> None:
    assert await chain_of(map(at_once), None) == ("no root is open, and no source gives more",)


@in_virtual_time
async def test_a_run_that_is_over_waits_for_nothing() -> None:
    async with Pipeline(map(at_once)).open([1]) as run:
        assert len([record async for record in run.results]) == 1
    assert run.wait_chain() == ("the run is over",)


@in_virtual_time
async def test_a_paused_run_says_so() -> None:
    async with Pipeline(map(forever)).open() as run, anyio.create_task_group() as host:
        run.pause()
        host.start_soon(run.submit, 1)
        await anyio.sleep(1)
        paused = "the run is paused: no root is admitted until it is resumed"
        assert run.wait_chain() == (paused,)
        run.resume()
        await anyio.sleep(1)
        run.pause()
        assert run.wait_chain() == (paused, "root 'submit-0' is visited by stage 'forever'")
        host.cancel_scope.cancel()


@in_virtual_time
async def test_a_run_that_drains_says_so() -> None:
    async with Pipeline(map(forever)).open([1]) as run:
        await anyio.sleep(1)
        run.drain()
        assert run.wait_chain() == (
            "the run takes nothing new in: it drains",
            "root '0' is visited by stage 'forever'",
        )


@in_virtual_time
async def test_records_wait_for_a_reader_who_does_not_come_and_new_roots_for_their_credits() -> None:
    assert await chain_of(map(at_once), range(9), max_in_flight=2) == (
        "new roots wait for a credit (2/2 taken)",
        "root '0' is the oldest of 2 that are open",
        "the record of root '0' waits for the reader (2 records wait)",
    )


@in_virtual_time
async def test_records_of_children_wait_for_a_reader_too() -> None:
    assert await chain_of(flat_map(range, name="many") | map(at_once), [3]) == (
        "the records of root '0', made by 'many', wait for the reader",
    )


# -- edges and slots ------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_visit_is_named_with_its_age_once_that_is_a_second() -> None:
    async with Pipeline(map(forever, name="slow")).open([1]) as run:
        await anyio.sleep(1)
        assert run.wait_chain() == ("root '0' is visited by stage 'slow'",)
        (worker,) = machine_of(run).crews["slow"].slots.leases
        worker.since -= 312.0  # type: ignore[attr-defined]
        assert run.wait_chain() == ("root '0' is visited by stage 'slow' for 312 s",)
        run.abort()


@in_virtual_time
async def test_an_item_in_a_buffer_waits_for_the_stage_behind_it() -> None:
    stages = map(zero_after(1), name="first", concurrency=2) | map(forever, name="second")
    assert await chain_of(stages, range(2), buffer_size=1) == (
        "root '0' is the oldest of 2 that are open",
        "root '0' waits in front of 'second' (1/1 in the buffer)",
        "stage 'second' has 1 of 1 slots taken",
        "root '1' is visited by stage 'second'",
    )


@in_virtual_time
async def test_behind_a_full_edge_an_item_is_in_its_senders_hand_and_so_back_to_the_slow_stage() -> None:
    stages = (
        map(zero_after(1), name="first", concurrency=9)
        | map(at_once, name="second")
        | map(forever, name="third", concurrency=1)
    )
    assert await chain_of(stages, range(5), buffer_size=1) == (
        "root '0' is the oldest of 5 that are open",
        "root '0' is in its sender's hand and waits for room in front of 'second' (1/1 in the buffer, 1 senders wait)",
        "stage 'second' waits until what it has done is taken",
        "root '3' is in its sender's hand and waits for room in front of 'third' (1/1 in the buffer, 1 senders wait)",
        "stage 'third' has 1 of 1 slots taken",
        "root '1' is visited by stage 'third'",
    )


@in_virtual_time
async def test_hand_to_hand_there_is_no_buffer_to_wait_in() -> None:
    stages = map(zero_after(1), name="first", concurrency=2) | map(forever, name="second")
    assert await chain_of(stages, range(2), buffer_size=0) == (
        "root '0' is the oldest of 2 that are open",
        "root '0' is in its sender's hand and waits for room in front of 'second' (0/0 in the buffer, 1 senders wait)",
        "stage 'second' has 1 of 1 slots taken",
        "root '1' is visited by stage 'second'",
    )


@in_virtual_time
async def test_a_visit_that_wants_its_slot_back_waits_for_the_visit_that_has_it() -> None:
    async def lends(value: int, visit: Visit) -> int:
        if not value:
            async with visit.without_slot():
                await anyio.sleep(1)
        await anyio.sleep_forever()
        return value

    assert await chain_of(map(lends, name="ask"), range(2)) == (
        "root '0' is the oldest of 2 that are open",
        "root '0' waits for a slot of stage 'ask' (1/1 taken)",
        "root '1' is visited by stage 'ask'",
    )
    assert await chain_of(map(lends, name="ask"), range(1), at=0.5) == (
        "root '0' is visited by stage 'ask'",
        "it waits for its next attempt",
    )


@in_virtual_time
async def test_a_slot_may_be_held_by_a_visit_that_was_told_to_end_and_takes_its_time() -> None:
    async def stubborn(value: int) -> int:
        with anyio.CancelScope(shield=not value):
            await anyio.sleep_forever() if value else await anyio.sleep(100)
        return value

    stages = parallel("race", join="any", a=map(stubborn, name="stubborn"), b=map(zero_after(1), name="late"))
    async with Pipeline(stages | map(at_once, name="next")).open([0, 0]) as run:
        assert (await anext(run.results)).status == "ok"
        await anyio.sleep(5)
        assert run.wait_chain() == (
            "the record of root '1' waits for the reader (1 records wait)",
        )  # what was told to end holds up nobody who does not need it


@in_virtual_time
async def test_a_thread_that_does_not_return_is_counted() -> None:
    started, release = threading.Semaphore(0), threading.Event()

    def blocks(value: object) -> object:
        started.release()
        release.wait(10)
        return value

    async with Pipeline(map(blocks, name="call", blocking=True)).open([1]) as run:
        await anyio.to_thread.run_sync(started.acquire)
        chain = run.wait_chain()
        release.set()
        assert len([record async for record in run.results]) == 1
    assert chain == ("root '0' is visited by stage 'call'", "1 blocking calls of 'call' have not returned")


# -- composites -----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_group_waits_for_the_branches_that_are_not_done_however_deep() -> None:
    inner = parallel(
        "inner", quick=map(at_once, name="quick"), slow=map(at_once, name="to") | map(forever, name="slow")
    )
    stages = parallel("views", facts=map(at_once, name="facts"), style=inner)
    assert await chain_of(stages, [1]) == (
        "root '0' is in 'views', which waits for style",
        "views.style of root '0' is in 'inner', which waits for slow",
        "views.style.inner.slow of root '0' is visited by stage 'slow'",
    )


@in_virtual_time
async def test_of_many_members_a_few_are_named() -> None:
    stages = scatter("dig", split=lambda value: range(9), each=map(forever, name="dig_one", concurrency=2))
    assert await chain_of(stages, [1], buffer_size=0) == (
        "root '0' is in 'dig', which waits for 0, 1, 2",
        "dig.0 of root '0' is visited by stage 'dig_one'",
    )
    assert await chain_of(stages, [1], buffer_size=8) == (
        "root '0' is in 'dig', which waits for 0, 1, 2 and 6 more",
        "dig.0 of root '0' is visited by stage 'dig_one'",
    )


@in_virtual_time
async def test_a_split_that_gives_nothing_more_is_waited_for() -> None:
    async def one_and_no_end(value: object) -> AsyncIterator[object]:
        yield value
        await anyio.sleep_forever()

    assert await chain_of(scatter("dig", split=one_and_no_end, each=map(at_once)), [1]) == (
        "root '0' is in 'dig', which waits for the next part of it",
    )


@in_virtual_time
async def test_what_is_joined_waits_for_room_behind_the_composite() -> None:
    views = parallel("views", a=map(zero_after(1), name="a", concurrency=9), b=map(at_once, name="b", concurrency=9))
    assert await chain_of(views | map(forever, name="next"), range(4), buffer_size=1) == (
        "root '0' is the oldest of 4 that are open",
        "root '0' was joined by 'views' and waits for what was joined before it",
        "root '3' is in its sender's hand and waits for room in front of 'next' (1/1 in the buffer, 1 senders wait)",
        "stage 'next' has 1 of 1 slots taken",
        "root '1' is visited by stage 'next'",
    )


@in_virtual_time
async def test_an_item_in_front_of_a_composite_waits_for_room_in_its_bodies() -> None:
    stages = map(zero_after(1), name="first", concurrency=9) | parallel("views", a=map(forever, name="body"))
    assert await chain_of(stages, range(4), buffer_size=1) == (
        "root '0' is the oldest of 4 that are open",
        "root '0' waits in front of 'views' (1/1 in the buffer)",
        "'views' waits for room in front of 'body' (1/1 in the buffer, 1 senders wait)",
        "stage 'body' has 1 of 1 slots taken",
        "views.a of root '1' is visited by stage 'body'",
    )


@in_virtual_time
async def test_an_item_in_front_of_an_expansion_waits_for_the_children_of_the_one_before() -> None:
    async def twenty(value: int) -> list[int]:
        await anyio.sleep(0 if value else 1)
        return [value] * 20

    stages = map(zero_after(1), name="first", concurrency=9) | flat_map(twenty, name="many") | map(forever, name="work")
    assert await chain_of(stages, range(2), buffer_size=1) == (
        "root '0' is the oldest of 2 that are open",
        "root '0' waits in front of 'many' (1/1 in the buffer)",
        "stage 'many' is expanding root '1'",
        "root '1' is in 'many', which waits for 0, 1, 2",
        "many.0 of root '1' is visited by stage 'work'",
    )


@in_virtual_time
async def test_a_round_of_a_loop_is_told_like_a_member() -> None:
    again = loop(map(forever, name="body"), until=lambda value: True, max_rounds=3, name="polish")
    assert await chain_of(again, [1]) == (
        "root '0' is in 'polish', which waits for 1",
        "polish.1 of root '0' is visited by stage 'body'",
    )


@in_virtual_time
async def test_an_item_of_a_busy_key_waits_for_the_one_before_it() -> None:
    stages = map(zero_after(1), name="first", concurrency=2) | partition_by(
        lambda value: "key", map(forever, name="turn"), name="chat"
    )
    assert await chain_of(stages, range(2)) == (
        "root '0' is the oldest of 2 that are open",
        "root '0' is held by 'chat' until the item of its key that is in the body has left it",
        "root '1' is in 'chat', which waits for body",
        "chat.body of root '1' is visited by stage 'turn'",
    )


@in_virtual_time
async def test_a_key_that_is_asked_for_is_waited_for() -> None:
    assert await chain_of(partition_by(forever, map(at_once), name="chat"), [1]) == (
        "root '0' waits for what 'chat' asks of it",
    )


@in_virtual_time
async def test_a_batch_waits_to_be_filled_and_then_travels_as_one() -> None:
    stages = batch(map(forever, name="judge"), size=3, within=60, name="three")
    assert await chain_of(stages, range(2)) == (
        "root '0' is the oldest of 2 that are open",
        "root '0' waits in 'three' for its batch to fill (2 items so far)",
    )
    assert await chain_of(stages, range(3)) == (
        "root '0' is the oldest of 3 that are open",
        "root '0' is one of 3 in batch 'three:0'",
        "batch 'three:0' is visited by stage 'judge'",
    )


# -- calls ----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_call_waits_for_its_model_and_for_the_calls_that_have_its_limit() -> None:
    model = SimulatedModel(model="echo", max_concurrency=1, hang_when="x", timeout=None)
    stages = map(zero_after(1), name="first", concurrency=2) | agent("ask", model=model, prompt="x {{ first }}")
    assert await chain_of(stages, range(2)) == (
        "root '0' is the oldest of 2 that are open",
        "root '0' is visited by stage 'ask'",
        "it waits for the answer of model sim/echo",
        "it waits for the model's max_concurrency (1/1 attempts in flight)",
        "root '1' is visited by stage 'ask'",
        "it waits for the answer of model sim/echo",
    )


# -- in a circle ----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_what_was_told_is_not_told_again() -> None:
    async with Pipeline(map(forever, name="work")).open([1]) as run:
        await anyio.sleep(1)
        machine = machine_of(run)
        (root,) = machine.window.roots

        class Circle:
            label, untaken = "circle", False

            def revoke(self) -> None: ...

            def waits_for(self) -> tuple[str, object]:
                return "it is done", root

        root.inner = Circle()
        assert wait_chain(machine) == (
            "root '0' is held by 'circle' until it is done",
            "root '0' is told of above",
        )
        root.inner = None
        run.abort()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_stall_in_virtual_time_shows_the_chain(backend: str) -> None:
    async def without_a_timer(value: object) -> None:
        await anyio.Event().wait()

    with pytest.raises(Stalled) as caught:
        run_in(backend, 0, Pipeline(map(without_a_timer, name="stuck")).collect, [1])
    assert str(caught.value).endswith("\nroot '0' is visited by stage 'stuck'")
