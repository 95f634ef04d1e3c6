"""Connections are kept within the limit of open files: first come, first served, and said in words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from pipeline.core.limits import Limits
from stages.models.sockets import FEWEST, RESERVE, Sockets, sockets_of, soft_limit
from tests.calls.visits import FakeVisit
from tests.servers.chat import Answer, ChatServer

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


async def test_who_leaves_the_line_is_passed_over() -> None:
    sockets = Sockets(100, 1)
    await sockets.take(FakeVisit())
    async with anyio.create_task_group() as tg:
        tg.start_soon(sockets.take, FakeVisit())
        await anyio.wait_all_tasks_blocked()
        tg.cancel_scope.cancel()
    sockets.give_back()
    assert (sockets.busy, sockets.statistics().waiting) == (0, 0)


async def test_running_out_of_descriptors_leaves_fewer_connections_than_there_were() -> None:
    sockets = Sockets(1024, None)
    for _ in range(50):
        await sockets.take(FakeVisit())
    sockets.out_of_descriptors()
    assert (sockets.most, sockets.full) == (49, True)
    sockets.give_back()
    sockets.give_back()
    assert not sockets.full
    for _ in range(47):
        sockets.give_back()
    sockets.out_of_descriptors()
    assert (sockets.most, sockets.statistics().ran_out) == (FEWEST, 2)


def test_the_text_says_what_limits_and_what_to_do() -> None:
    sockets = Sockets(1024, 950, busy=950)
    assert str(sockets.statistics()) == "connections: 950/950 in use, 0 wait"
    sockets.ran_out = 1
    assert str(sockets.statistics()) == (
        "connections: 950/950 in use, 0 wait; the limit of open files is 1024, which leaves 950 connections, "
        "and 950 calls want one; raise it with `ulimit -n 2048`"
    )
    assert str(sockets).startswith("a connection (the limit of open files is 1024, which")
    assert str(Sockets(None, None, busy=3).statistics()) == "connections: 3 in use"


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
base_url, backend, blind = json.loads(sys.argv[1])
if blind:  # as if there were no limit, so that the process runs out of descriptors for real
    sockets.soft_limit = lambda: None
async def main():
    model = resolve("ollama/x", base_url=base_url, attempts=8, max_concurrency=200)
    pipe = Pipeline(agent("ask", model=model, concurrency=200), max_in_flight=200)
    async with pipe.open(["go"] * 400) as run:
        async for record in run.results:
            counts[record.status] = counts.get(record.status, 0) + 1
        return [str(each) for each in run.statistics().limits if "connections" in str(each)]
counts = {}
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
lines = anyio.run(main, backend=backend)
print(json.dumps([counts, lines, resource.getrlimit(resource.RLIMIT_NOFILE)[0]]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
@pytest.mark.parametrize("blind", [False, True], ids=["capped", "ran out"])
def test_more_calls_than_descriptors_are_all_answered(server: ChatServer, anyio_backend: str, blind: bool) -> None:
    """The limit of the process is left alone, by a run that knows it and by one that runs into it."""
    server.script("go", Answer("gone", delay=0.2))
    given = json.dumps([server.base_url, anyio_backend, blind])
    done = subprocess.run([sys.executable, "-c", RUN, given], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    counts, lines, limit = json.loads(done.stdout)
    assert (counts, limit, len(lines)) == ({"ok": 400}, 128, 1)
    assert ("raise it with `ulimit -n" in lines[0]) is blind
