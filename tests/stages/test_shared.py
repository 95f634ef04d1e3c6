"""SharedState: tasks and threads in one queue, no lost update, nothing left over by whoever leaves early."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from types import TracebackType
from typing import Any

import anyio
import anyio.from_thread
import pytest
from anyio import CancelScope, RunFinishedError, to_thread
from anyio.lowlevel import EventLoopToken, checkpoint

from pipeline import Pipeline, PipelineError
from stages import map
from stages.shared import SharedState
from stages.turns import TaskTicket, ThreadTicket, Turns


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until `condition` holds, threads among them."""
    while not condition():
        await checkpoint()


async def add(state: SharedState[str, int], name: str = "n") -> None:
    async with state.update() as values:
        before = values.get(name, 0)
        await checkpoint()
        values[name] = before + 1


def add_sync(state: SharedState[str, int], name: str = "n") -> None:
    with state.update_sync() as values:
        before = values.get(name, 0)
        time.sleep(0)
        values[name] = before + 1


async def assert_usable(state: SharedState[str, int]) -> None:
    """Nobody has the turn, nobody waits, and tasks and threads can still change the state."""
    before = state.snapshot().get("usable", 0)
    assert state.waiting == 0
    with anyio.fail_after(5):
        await add(state, "usable")
        await to_thread.run_sync(add_sync, state, "usable")
        await add(state, "usable")
    assert state.snapshot()["usable"] == before + 3


class Holder:
    """Somebody who has the turn, in a thread of its own, until `release`; a release waits for the thread to end."""

    def __init__(self, state: SharedState[str, int]) -> None:
        self._state = state
        self._inside = threading.Event()
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._hold)

    def _hold(self) -> None:
        with self._state.update_sync():
            self._inside.set()
            self._leave.wait()

    def release(self) -> None:
        self._leave.set()
        self._thread.join()

    def __enter__(self) -> Holder:
        self._thread.start()
        self._inside.wait()
        return self

    def __exit__(self, type: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.release()


# -- values -----------------------------------------------------------------------------------------------------


async def test_what_the_dict_holds_at_the_end_of_the_block_is_committed() -> None:
    given = {"n": 1}
    state = SharedState(given)
    given["n"] = 9
    before = state.snapshot()
    async with state.update() as values:
        values["n"] += 1
        assert state.snapshot() == {"n": 1}
    with pytest.raises(TypeError):
        state.snapshot()["n"] = 3  # type: ignore[index]
    values["n"] = 7  # kept after the block: nobody's dict any more
    assert state.snapshot() == {"n": 2}
    assert before == {"n": 1}
    assert repr(state) == "SharedState({'n': 2})"


def test_a_thread_without_any_loop_updates_too() -> None:
    state = SharedState({"n": 1})
    with state.update_sync() as values:
        values["n"] += 1
        del values["n"]
        values["m"] = 5
        assert state.snapshot() == {"n": 1}
    assert state.snapshot() == {"m": 5}


async def test_a_block_that_raises_changes_nothing_and_passes_the_turn_on() -> None:
    state = SharedState({"n": 1})
    with pytest.raises(ZeroDivisionError):
        async with state.update() as values:
            values["n"] = 1 // 0

    def fails() -> None:
        with state.update_sync() as values:
            values["n"] = 2
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await to_thread.run_sync(fails)
    assert state.snapshot() == {"n": 1}
    await assert_usable(state)


async def test_a_block_that_is_cancelled_changes_nothing_and_passes_the_turn_on() -> None:
    state = SharedState({"n": 1})
    with CancelScope() as scope:
        async with state.update() as values:
            values["n"] = 2
            scope.cancel()
            await checkpoint()
    assert scope.cancelled_caught
    assert state.snapshot() == {"n": 1}
    await assert_usable(state)


# -- turns ------------------------------------------------------------------------------------------------------


async def test_tasks_and_threads_take_turns_in_the_order_in_which_they_came() -> None:
    state: SharedState[str, tuple[str, ...]] = SharedState({"order": ()})

    async def as_task(name: str) -> None:
        async with state.update() as values:
            await checkpoint()
            values["order"] += (name,)

    def as_thread(name: str) -> None:
        with state.update_sync() as values:
            time.sleep(0)
            values["order"] += (name,)

    names = [f"{kind} {n}" for n in range(4) for kind in ("task", "thread", "another thread", "another task")]
    async with anyio.create_task_group() as tg, state.update():
        for count, name in enumerate(names, 1):
            if "task" in name:
                tg.start_soon(as_task, name)
            else:
                tg.start_soon(to_thread.run_sync, as_thread, name)
            await until(lambda count=count: state.waiting == count)  # type: ignore[misc]
    assert state.snapshot()["order"] == tuple(names)


async def test_a_task_that_comes_back_at_once_stands_behind_those_who_wait() -> None:
    state: SharedState[str, tuple[str, ...]] = SharedState({"order": ()})

    async def twice(name: str) -> None:
        for _ in range(2):
            async with state.update() as values:
                await checkpoint()
                values["order"] += (name,)

    async with anyio.create_task_group() as tg, state.update():
        for count, name in enumerate("abc", 1):
            tg.start_soon(twice, name)
            await until(lambda count=count: state.waiting == count)  # type: ignore[misc]
    assert state.snapshot()["order"] == tuple("abcabc")


async def test_updates_without_anybody_waiting_still_let_others_run() -> None:
    state = SharedState({"n": 0})
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await checkpoint()
            turns += 1

    async with anyio.create_task_group() as tg:
        tg.start_soon(count)
        for _ in range(10):
            async with state.update() as values:
                values["n"] += 1
        tg.cancel_scope.cancel()
    assert turns >= 5


async def test_a_snapshot_never_waits() -> None:
    state = SharedState({"n": 1})
    with Holder(state):
        assert state.snapshot() == {"n": 1}
        assert await to_thread.run_sync(state.snapshot) == {"n": 1}


def test_one_state_serves_two_event_loops_and_threads_at_once() -> None:
    state = SharedState({"n": 0})

    async def many() -> None:
        async with anyio.create_task_group() as tg:
            for _ in range(100):
                tg.start_soon(add, state)
            for _ in range(4):
                tg.start_soon(to_thread.run_sync, add_sync, state)

    threads = [threading.Thread(target=partial(anyio.run, many, backend=name)) for name in ("asyncio", "trio")]
    for thread in threads:
        thread.start()
    for _ in range(20):
        add_sync(state)
    for thread in threads:
        thread.join()
    assert state.snapshot() == {"n": 2 * 104 + 20}


async def test_stages_on_the_loop_and_in_threads_share_a_state() -> None:
    state = SharedState({"n": 0})

    async def on_the_loop(n: int) -> int:
        await add(state)
        return n

    def in_a_thread(n: int) -> int:
        add_sync(state)
        return n

    pipe = Pipeline(map(on_the_loop, concurrency=8) | map(in_a_thread, blocking=True, concurrency=8))
    records = await pipe.collect(range(200))
    assert [record.status for record in records] == ["ok"] * 200
    assert state.snapshot() == {"n": 400}


# -- leaving early ----------------------------------------------------------------------------------------------


async def test_who_is_cancelled_while_waiting_leaves_the_queue_and_the_others_keep_their_order() -> None:
    state: SharedState[str, Any] = SharedState({"order": ()})
    scopes = {name: CancelScope() for name in "abcd"}

    async def wait(name: str) -> None:
        with scopes[name]:
            async with state.update() as values:
                values["order"] += (name,)

    async with anyio.create_task_group() as tg:
        with Holder(state):
            for count, name in enumerate("abcd", 1):
                tg.start_soon(wait, name)
                await until(lambda count=count: state.waiting == count)  # type: ignore[misc]
            for name in "ac":
                scopes[name].cancel()
            await until(lambda: state.waiting == 2)
    assert state.snapshot()["order"] == ("b", "d")
    await assert_usable(state)


@pytest.mark.parametrize("holder", ["task", "thread"])
async def test_a_turn_given_in_the_instant_of_the_cancellation_is_passed_on(holder: str) -> None:
    state: SharedState[str, Any] = SharedState({"order": ()})
    scope = CancelScope()

    async def wait(name: str, scope: CancelScope) -> None:
        with scope:
            async with state.update() as values:
                await checkpoint()
                values["order"] += (name,)

    async def queue_up() -> None:
        tg.start_soon(wait, "cancelled", scope)
        await until(lambda: state.waiting == 1)
        tg.start_soon(wait, "next", CancelScope())
        await until(lambda: state.waiting == 2)

    async with anyio.create_task_group() as tg:
        if holder == "task":
            async with state.update():
                await queue_up()
        else:
            with Holder(state):
                await queue_up()
        # the turn has been given, and the task that it was given to has not run since
        scope.cancel()
    assert state.snapshot()["order"] == ("next",)
    assert scope.cancelled_caught
    await assert_usable(state)


@pytest.mark.parametrize("holder", ["task", "thread", "nobody"])
async def test_cancellation_after_any_number_of_turns_of_the_loop_leaves_a_usable_state(holder: str) -> None:
    for held in range(1 if holder == "nobody" else 4):
        for late in range(8):
            state = SharedState({"n": 0})
            async with anyio.create_task_group() as tg:
                with CancelScope() as scope:
                    tg.start_soon(_cancel_after, scope, held + late)
                    tg.start_soon(_hold_for, state, holder, held)
                    await checkpoint()
                    await add(state)
                    await add(state)
            assert state.snapshot()["n"] in (0, 1, 2)
            assert scope.cancelled_caught or state.snapshot()["n"] == 2
            await assert_usable(state)


async def _cancel_after(scope: CancelScope, turns: int) -> None:
    for _ in range(turns):
        await checkpoint()
    scope.cancel()


async def _hold_for(state: SharedState[str, int], holder: str, turns: int) -> None:
    if holder == "task":
        async with state.update():
            for _ in range(turns):
                await checkpoint()
    elif holder == "thread":
        held = await to_thread.run_sync(Holder(state).__enter__)
        for _ in range(turns):
            await checkpoint()
        await to_thread.run_sync(held.release)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_native_cancellation_of_a_task_that_waits_loses_nothing() -> None:
    for turns in range(6):
        state = SharedState({"n": 0})
        with Holder(state):
            task = asyncio.create_task(add(state))
            await until(lambda state=state: state.waiting == 1)  # type: ignore[misc]
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        assert state.snapshot()["n"] == (1 if result is None else 0)
        await assert_usable(state)


class Left:
    """A visit in a thread whose time is up before it calls `work`; notes how that ends."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._go = threading.Event()
        self.ended: list[str] = []

    def __call__(self, value: object) -> None:
        self._go.wait(20)
        try:
            self.ended.append(str(self._work()))
        except PipelineError as error:
            self.ended.append(f"{type(error).__name__}: {error}")

    async def visit(self) -> None:
        async with Pipeline(map(self, name="left", blocking=True, timeout=0.05)).open() as run:
            record = await run.submit("x")
            assert record.error is not None
            assert record.error.type == "VisitTimeout"
            self._go.set()
            await until(lambda: bool(self.ended))


ABANDONED = "Abandoned: the visit of this call has ended, so what the call would change is discarded"


async def test_what_a_thread_changes_after_its_visit_is_discarded() -> None:
    state = SharedState({"n": 5})
    for work in (partial(add_sync, state), partial(anyio.from_thread.run, add, state)):
        left = Left(work)
        await left.visit()
        assert (left.ended, state.snapshot()) == ([ABANDONED], {"n": 5})
    await assert_usable(state)


async def test_a_thread_that_has_its_turn_when_its_visit_ends_does_not_commit() -> None:
    state = SharedState({"n": 5})

    inside, go = threading.Event(), threading.Event()

    def slow(value: object) -> None:
        with state.update_sync() as values:
            values["n"] = 9
            inside.set()
            go.wait(20)

    async with Pipeline(map(slow, blocking=True)).open(["x"]) as run:
        await until(inside.is_set)
        run.abort()
    go.set()
    await until(lambda: not run.statistics().threads)
    assert state.snapshot() == {"n": 5}
    await assert_usable(state)


async def test_what_a_run_inside_an_abandoned_thread_changes_is_discarded_as_well() -> None:
    state = SharedState({"n": 5})

    def in_a_thread(value: object) -> None:
        add_sync(state)

    async def in_a_task(value: object) -> None:
        await add(state)

    def nested(inner: Pipeline) -> str | None:
        (record,) = inner.run_sync(["y"])
        return record.error and record.error.type

    for inner in (map(in_a_thread, blocking=True), map(in_a_task)):
        left = Left(partial(nested, Pipeline(inner)))
        await left.visit()
        assert (left.ended, state.snapshot()) == (["Abandoned"], {"n": 5})
    await assert_usable(state)


async def test_what_a_thread_has_started_may_change_the_state_after_a_visit_that_ended_well() -> None:
    state = SharedState({"n": 5})
    ended = anyio.Event()

    async def afterwards() -> None:
        await ended.wait()
        await add(state)

    async with anyio.create_task_group() as tg:

        def starts(value: object) -> None:
            anyio.from_thread.run_sync(tg.start_soon, afterwards)

        (record,) = await Pipeline(map(starts, blocking=True)).collect(["x"])
        ended.set()
    assert (record.status, state.snapshot()) == ("ok", {"n": 6})


class Deaf(ThreadTicket):
    """A waiter whose loop ends in the instant of its call: its task has passed the turn on, and the call fails."""

    __slots__ = ("turns",)

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self.owner = object()
        self.turns = turns

    def call(self, caller: EventLoopToken | None) -> None:
        self.turns.leave(self)
        raise RunFinishedError


def in_thread() -> ThreadTicket:
    ticket = ThreadTicket()
    ticket.owner = object()  # as if each were made in a thread of its own
    return ticket


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_waiters_of_a_loop_that_has_ended_are_passed_over(backend: str) -> None:
    async def make() -> TaskTicket:
        return TaskTicket()

    turns = Turns()
    first, *ended = in_thread(), anyio.run(make, backend=backend), anyio.run(make, backend=backend)
    following, last = in_thread(), anyio.run(make, backend=backend)
    assert turns.draw(first)
    assert [turns.draw(ticket) for ticket in (*ended, following, last)] == [False] * 4
    turns.leave(first)
    assert (following.called.is_set(), turns.waiting) == (True, 1)
    turns.leave(following)
    assert turns.draw(in_thread())


def test_a_turn_that_was_passed_on_while_its_call_failed_is_given_once() -> None:
    turns = Turns()
    first, deaf, following, last = in_thread(), Deaf(turns), in_thread(), in_thread()
    assert turns.draw(first)
    for ticket in (deaf, following, last):
        assert not turns.draw(ticket)
    turns.leave(first)
    assert (following.called.is_set(), last.called.is_set()) == (True, False)
    turns.leave(first)  # once more changes nothing
    assert not last.called.is_set()
    turns.leave(following)
    assert last.called.is_set()


# -- refused ----------------------------------------------------------------------------------------------------


async def test_update_sync_is_refused_where_it_would_block_the_loop() -> None:
    state = SharedState({"n": 0})
    with pytest.raises(PipelineError) as caught, state.update_sync():
        pass
    assert str(caught.value) == (
        "update_sync() would block the event loop; here, write `async with state.update() as values:`"
    )
    await assert_usable(state)


async def test_threads_of_other_makers_may_update(anyio_backend_name: str) -> None:
    state = SharedState({"n": 0})
    thread = threading.Thread(target=add_sync, args=(state,))
    thread.start()
    await to_thread.run_sync(thread.join)
    if anyio_backend_name == "asyncio":
        await asyncio.to_thread(add_sync, state)  # it carries the loop's context, not the loop
    await to_thread.run_sync(add_sync, state)
    assert state.snapshot()["n"] == (3 if anyio_backend_name == "asyncio" else 2)


SELF = "update() inside an update of the same state would wait for itself; change the values of the outer one"


async def test_an_update_inside_an_update_by_the_same_task_is_refused() -> None:
    state, other = SharedState({"n": 0}), SharedState({"n": 0})
    async with state.update() as values:
        with pytest.raises(PipelineError) as caught:
            await add(state)
        assert str(caught.value) == SELF
        await add(other)
        values["n"] = 5
    assert state.snapshot() == {"n": 5}
    assert other.snapshot() == {"n": 1}
    await assert_usable(state)


def test_an_update_inside_an_update_by_the_same_thread_is_refused() -> None:
    state = SharedState({"n": 0})
    with state.update_sync() as values:
        with pytest.raises(PipelineError) as caught:
            add_sync(state)
        assert str(caught.value) == SELF
        values["n"] = 5
    add_sync(state)
    assert state.snapshot() == {"n": 6}


async def test_a_task_started_inside_an_update_waits_like_any_other() -> None:
    state = SharedState({"n": 0})
    async with anyio.create_task_group() as tg, state.update() as values:
        tg.start_soon(add, state)
        await until(lambda: state.waiting == 1)
        values["n"] = 5
    assert state.snapshot() == {"n": 6}


# -- hammer -----------------------------------------------------------------------------------------------------

THREADS, ROUNDS, TASKS = 8, 125, 1_000


class Unlocked:
    """The same interface over a dict that everybody changes as they like."""

    def __init__(self) -> None:
        self.values = {"n": 0}

    @asynccontextmanager
    async def update(self) -> AsyncIterator[dict[str, int]]:
        yield self.values

    @contextmanager
    def update_sync(self) -> Iterator[dict[str, int]]:
        yield self.values

    def snapshot(self) -> dict[str, int]:
        return self.values


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


async def hammer(state: Any) -> int:
    """Count to the number of updates, with a call between reading and writing. Returns what was counted."""

    def threaded() -> None:
        for _ in range(ROUNDS):
            add_sync(state)

    async with anyio.create_task_group() as tg:
        for _ in range(THREADS):
            tg.start_soon(to_thread.run_sync, threaded)
        for _ in range(TASKS):
            tg.start_soon(add, state)
    return int(state.snapshot()["n"])


@pytest.mark.usefixtures("hasty_threads")
async def test_8_threads_and_1000_tasks_lose_no_update_and_without_the_lock_they_do() -> None:
    assert await hammer(SharedState({"n": 0})) == THREADS * ROUNDS + TASKS
    assert await hammer(Unlocked()) < THREADS * ROUNDS + TASKS
