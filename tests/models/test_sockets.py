"""Connections are kept within the limit of open files: first come, first served, and said in words."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from math import inf
from pathlib import Path
from typing import cast

import anyio
import pytest

from pipeline.core.errors import CallsClosed
from pipeline.core.limits import Limits
from pipeline.core.state import Message
from stages.models import resolve
from stages.models.openai import OpenAIModel
from stages.models.sockets import FEWEST, MOMENT, RECOVERY, RESERVE, Sockets, no_descriptor, sockets_of, soft_limit
from tests.calls.visits import FakeVisit
from tests.engine.schedules import in_virtual_time
from tests.servers.chat import Answer, ChatServer, chat_server
from tests.servers.raw import Connection, raw_server

ROOT = Path(__file__).parents[2]


async def test_connections_are_given_out_first_come_first_served() -> None:
    sockets = Sockets(100, 2)
    order: list[int] = []

    async def take(number: int) -> None:
        await sockets.take(FakeVisit())
        order.append(number)

    async with anyio.create_task_group() as tg:
        for number in range(6):
            tg.start_soon(take, number)
            await anyio.wait_all_tasks_blocked()
        for taken in range(2, 7):
            assert (order, sockets.busy, sockets.statistics().waiting) == ([*range(taken)], 2, 6 - taken)
            sockets.give_back()
            await anyio.wait_all_tasks_blocked()
    assert sockets.busy == 1


async def test_who_is_cancelled_while_waiting_takes_nothing_and_loses_nothing() -> None:
    sockets = Sockets(100, 1)
    await sockets.take(FakeVisit())
    taken = anyio.Event()

    async def wait_and_take() -> None:
        await sockets.take(FakeVisit())
        taken.set()

    async with anyio.create_task_group() as tg:
        cancelled = anyio.CancelScope()

        async def leave() -> None:
            with cancelled:
                await sockets.take(FakeVisit())
                sockets.give_back()  # where it was woken before it was cancelled

        tg.start_soon(leave)
        await anyio.wait_all_tasks_blocked()
        tg.start_soon(wait_and_take)
        await anyio.wait_all_tasks_blocked()
        sockets.give_back()  # to the first, which is cancelled before it wakes up
        cancelled.cancel()
        await taken.wait()
    assert sockets.busy == 1
    sockets.give_back()
    assert (sockets.busy, sockets.statistics().waiting) == (0, 0)


async def test_a_run_that_stops_making_calls_waits_for_no_connection() -> None:
    sockets, visit = Sockets(100, 1), FakeVisit()
    await sockets.take(FakeVisit())
    closed: list[int] = []

    async def take(number: int) -> None:
        with pytest.raises(CallsClosed):
            await sockets.take(visit)
        closed.append(number)

    async with anyio.create_task_group() as tg:
        for number in range(3):
            tg.start_soon(take, number)
        await anyio.wait_all_tasks_blocked()
        visit.close()
    await take(3)
    assert closed[-1] == 3
    assert sorted(closed) == [0, 1, 2, 3]
    assert (sockets.busy, sockets.statistics().waiting) == (1, 0)


async def test_who_leaves_the_line_is_passed_over() -> None:
    sockets = Sockets(100, 1)
    await sockets.take(FakeVisit())
    async with anyio.create_task_group() as tg:
        tg.start_soon(sockets.take, FakeVisit())
        await anyio.wait_all_tasks_blocked()
        tg.cancel_scope.cancel()
    sockets.give_back()
    assert (sockets.busy, sockets.statistics().waiting) == (0, 0)


class FakePool:
    """Idle connections, by when they were used last. Satisfies `stages.models.sockets.Pool`."""

    def __init__(self, sockets: Sockets, *used: float) -> None:
        self.used = list(used)
        sockets.pools.append(self)

    @property
    def idle(self) -> int:
        return len(self.used)

    @property
    def oldest(self) -> float:
        return min(self.used, default=inf)

    async def close_oldest(self) -> None:
        self.used.remove(self.oldest)


async def busy(sockets: Sockets, connections: int) -> None:
    for _ in range(connections):
        await sockets.take(FakeVisit())


async def test_the_oldest_idle_connection_of_any_pool_makes_room_for_a_new_one() -> None:
    sockets = Sockets(100, 5)
    one, two = FakePool(sockets, 3.0, 1.0), FakePool(sockets, 2.0)
    await busy(sockets, 2)
    await sockets.make_room()
    assert (one.used, two.used, sockets.statistics().idle) == ([3.0, 1.0], [2.0], 3)
    await busy(sockets, 1)
    await sockets.make_room()
    await busy(sockets, 1)
    await sockets.make_room()
    assert (one.used, two.used) == ([3.0], [])
    await busy(sockets, 1)
    await sockets.make_room()
    await sockets.make_room()  # nothing is left to close: who is counted may open
    assert (one.used, two.used, sockets.idle) == ([], [], 0)


async def test_what_is_unused_for_too_long_is_closed_in_all_pools() -> None:
    sockets = Sockets(None, None)
    one, two = FakePool(sockets, 3.0, 1.0), FakePool(sockets, 2.0, 4.0)
    await sockets.close_unused(3.0)
    assert (one.used, two.used) == ([3.0], [4.0])


async def test_who_finds_no_descriptor_closes_an_idle_connection_and_tries_again() -> None:
    sockets = Sockets(1024, None)
    pool = FakePool(sockets, 1.0)
    await busy(sockets, 50)
    await sockets.take_again()
    assert (sockets.most, sockets.busy, pool.used, sockets.ran_out) == (50, 50, [], 1)


async def test_who_finds_no_descriptor_waits_for_room_before_all_who_came_later() -> None:
    sockets = Sockets(1024, 50)
    order: list[str] = []

    async def wait(name: str, wait: Callable[[], Awaitable[None]]) -> None:
        await wait()
        order.append(name)

    await busy(sockets, 50)
    async with anyio.create_task_group() as tg:
        tg.start_soon(wait, "later", partial(sockets.take, FakeVisit()))
        await anyio.wait_all_tasks_blocked()
        for name in ("first again", "again"):
            tg.start_soon(wait, name, sockets.take_again)
            await anyio.wait_all_tasks_blocked()
        assert (sockets.most, sockets.busy, sockets.statistics().waiting) == (48, 48, 3)
        for number in range(1, 4):
            sockets.give_back()
            await anyio.wait_all_tasks_blocked()
            assert (order, sockets.busy) == (["first again", "again", "later"][:number], 48)


@pytest.mark.parametrize("connections", [1, 50])
async def test_who_is_cancelled_while_it_waits_for_a_descriptor_still_has_its_room(connections: int) -> None:
    sockets = Sockets(1024, None)
    await busy(sockets, connections)
    async with anyio.create_task_group() as tg:
        tg.start_soon(sockets.take_again)
        await anyio.wait_all_tasks_blocked()
        assert (sockets.busy, sockets.statistics().waiting) == (connections - 1, 1)
        tg.cancel_scope.cancel()
    assert (sockets.busy, sockets.statistics().waiting) == (connections, 0)


def test_what_shows_that_no_descriptor_was_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that could not be looked up shows it only when there is none at that moment."""
    unnamed, refused = socket.gaierror(socket.EAI_AGAIN, "try again"), ConnectionRefusedError(errno.ECONNREFUSED, "no")
    assert no_descriptor([refused, OSError(errno.EMFILE, "too many")])
    assert no_descriptor([OSError(errno.ENFILE, "too many")])
    assert not no_descriptor([refused, unnamed])

    def none_left(path: str, flags: int) -> int:
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(os, "open", none_left)
    assert no_descriptor([unnamed])
    assert not no_descriptor([refused])


@in_virtual_time
async def test_when_others_have_all_descriptors_a_moment_passes_before_it_is_tried_again() -> None:
    sockets = Sockets(1024, None)
    await busy(sockets, 1)
    await sockets.take_again()
    assert (anyio.current_time(), sockets.most, sockets.busy) == (MOMENT, FEWEST, 1)


@in_virtual_time
async def test_there_may_slowly_be_as_many_connections_again_as_at_first() -> None:
    sockets = Sockets(1024, 60)
    FakePool(sockets, 1.0)
    await busy(sockets, 50)
    await sockets.take_again()
    most: list[int | None] = []
    for _ in range(5):
        await anyio.sleep(RECOVERY / 2)
        sockets.give_back()
        most.append(sockets.most)
    assert most == [50, 56, 56, 60, 60]


def test_the_text_says_what_limits_and_what_to_do() -> None:
    sockets = Sockets(1024, 950, busy=950)
    assert str(sockets.statistics()) == "connections: 950/950 in use, 0 wait"
    sockets.ran_out = 1
    assert str(sockets.statistics()) == (
        "connections: 950/950 in use, 0 wait; the limit of open files is 1024, which leaves 950 connections, "
        "and 950 calls want one; raise it with `ulimit -n 2048`"
    )
    assert str(sockets).startswith("a connection (the limit of open files is 1024, which")
    unlimited = Sockets(None, None, busy=3)
    assert str(unlimited.statistics()) == "connections: 3 in use"
    FakePool(unlimited, 1.0, 2.0)
    assert str(unlimited.statistics()) == "connections: 3 in use, 2 idle"
    FakePool(sockets, 1.0)
    assert str(sockets.statistics()).startswith("connections: 950/950 in use, 1 idle, 0 wait; the limit")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
async def test_a_run_has_one_count_from_what_its_process_has_left() -> None:
    async with Limits() as limits:
        sockets = sockets_of(limits)
        assert sockets_of(limits) is sockets
    soft = soft_limit()
    assert sockets.descriptors == soft
    assert soft is None or (sockets.most is not None and sockets.most < soft - RESERVE)


RUN = """
import json, resource, sys
import anyio
from pipeline import Pipeline
from stages import agent
from stages.models import resolve
from stages.models import sockets
base_urls, backend, blind = json.loads(sys.argv[1])
if blind:  # as if there were no limit, so that the process runs out of descriptors for real
    sockets.soft_limit = lambda: None
def stage(number, base_url):
    model = resolve("ollama/x", base_url=base_url, attempts=1, max_concurrency=200)
    return agent(f"ask{number}", model=model, concurrency=200, prompt="go")
async def main():
    first, *others = [stage(number, base_url) for number, base_url in enumerate(base_urls)]
    for other in others:
        first = first | other
    async with Pipeline(first, max_in_flight=200).open(["go"] * 400) as run:
        async for record in run.results:
            counts[record.status] = counts.get(record.status, 0) + 1
        return [str(each) for each in run.statistics().limits if "connections" in str(each)]
counts = {}
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
lines = anyio.run(main, backend=backend)
print(json.dumps([counts, lines, resource.getrlimit(resource.RLIMIT_NOFILE)[0]]))
"""


def run_with_few_descriptors(base_urls: list[str], backend: str, blind: bool) -> list[str]:
    """Run 400 items through an agent for each address, each of them asked once; return the lines about connections."""
    given = json.dumps([base_urls, backend, blind])
    done = subprocess.run([sys.executable, "-c", RUN, given], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    counts, lines, limit = json.loads(done.stdout)
    assert (counts, limit, len(lines)) == ({"ok": 400}, 128, 1)
    return lines


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
@pytest.mark.parametrize("blind", [False, True], ids=["capped", "ran out"])
def test_more_calls_than_descriptors_are_all_answered(server: ChatServer, anyio_backend: str, blind: bool) -> None:
    """The limit of the process is left alone, by a run that knows it and by one that runs into it."""
    server.script("go", Answer("gone", delay=0.2))
    line = run_with_few_descriptors([server.base_url], anyio_backend, blind)[0]
    assert ("raise it with `ulimit -n" in line) is blind


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
@pytest.mark.parametrize("blind", [False, True], ids=["capped", "ran out"])
def test_what_one_model_leaves_idle_takes_no_descriptor_from_another(
    server: ChatServer, anyio_backend: str, blind: bool
) -> None:
    with chat_server() as other:
        for each in (server, other):
            each.script("go", Answer("gone", delay=0.2))
        line = run_with_few_descriptors([server.base_url, other.base_url], anyio_backend, blind)[0]
    assert ("raise it with `ulimit -n" in line) is blind


async def test_models_of_one_origin_share_its_connections() -> None:
    async def handle(connection: Connection) -> None:
        while True:
            await connection.read()
            await connection.answer(b'{"choices": [{"message": {"content": "done"}, "finish_reason": "stop"}]}')

    async with raw_server(handle) as server, Limits() as limits:
        models = [cast("OpenAIModel", resolve(f"ollama/{name}", base_url=server.base_url)) for name in ("a", "b")]
        async with AsyncExitStack() as stack:
            for model in models:
                chat = await stack.enter_async_context(model.open_within(limits))
                assert (await chat.call(FakeVisit(), [Message("user", "x")])).text == "done"
            assert (server.opened, server.left, sockets_of(limits).idle) == (1, 0, 1)
        await server.until_all_left()
        async with models[0].open_within(limits) as chat:  # what was closed with the last is opened anew
            assert (await chat.call(FakeVisit(), [Message("user", "x")])).text == "done"
        assert (server.opened, len(sockets_of(limits).pools)) == (2, 0)
