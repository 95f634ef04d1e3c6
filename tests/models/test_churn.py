"""Cancelling many calls in flight neither leaks a connection nor blocks the next call.

    PENSTOCK_CHURN=50000 python -m pytest tests/models/test_churn.py

cancels that many calls for each transport; a slice of it runs with the other tests.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from random import Random

import anyio
import anyio.abc
import anyio.lowlevel
import pytest

from pipeline.calls.errors import CallError
from pipeline.core.limits import Limits
from pipeline.core.state import Message
from stages.models import openai, resolve
from stages.models.aiohttp_transport import AiohttpTransport
from stages.models.openai import OpenAIModel
from stages.models.pools import PooledTransport
from stages.models.sockets import Sockets, sockets_of
from tests.calls.visits import FakeVisit
from tests.servers.raw import Connection, RawServer, raw_server

CANCELLED = int(os.environ.get("PENSTOCK_CHURN", "2000"))
AT_ONCE, WORKERS, AFTER = 10, 20, 100
ANSWER = b'{"choices": [{"message": {"content": "done"}, "finish_reason": "stop"}]}'

Transport = PooledTransport | AiohttpTransport


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("anyio_backend", "opens"),
    [("asyncio", PooledTransport), ("trio", PooledTransport), ("asyncio", AiohttpTransport)],
    ids=["pools-asyncio", "pools-trio", "aiohttp-asyncio"],
)
@pytest.mark.skipif(sys.platform != "linux", reason="descriptors are counted in /proc")
async def test_after_many_cancelled_calls_nothing_is_left_and_the_next_ones_are_answered(
    opens: Callable[[str, Sockets], Transport], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls are cancelled at any point: while they wait, connect, send, are thought about, and are answered."""
    chance = Random(5)
    made: list[Transport] = []

    async def handle(connection: Connection) -> None:
        while True:
            await connection.read()
            for _ in range(chance.randrange(12)):
                await anyio.lowlevel.checkpoint()
            await connection.answer(ANSWER[: len(ANSWER) // 2] + ANSWER[len(ANSWER) // 2 :])

    def transport(base_url: str, sockets: Sockets) -> Transport:
        made.append(opens(base_url, sockets))
        return made[0]

    monkeypatch.setattr("stages.models.transport.open_transport", transport)
    async with raw_server(handle) as server, Limits() as limits:
        model = resolve("ollama/x", base_url=server.base_url, max_concurrency=AT_ONCE, attempts=1, timeout=None)
        assert isinstance(model, OpenAIModel)
        before = open_descriptors()
        async with model.open_within(limits) as chat:
            await chat.call(FakeVisit(), [Message("user", "warm")])
            cancelled, most = await churn(chat, server, sockets_of(limits), chance)
            assert (cancelled, most <= AT_ONCE) == (CANCELLED, True)
            assert (made[0].busy, sockets_of(limits).busy) == (0, 0)
            for number in range(AFTER):
                reply = await chat.call(FakeVisit(item_id=f"after {number}"), [Message("user", "work")])
                assert reply.text == "done"
            assert server.opened - server.left <= AT_ONCE
        await server.until_all_left()
        assert open_descriptors() <= before


async def churn(chat: openai.OpenChat, server: RawServer, sockets: Sockets, chance: Random) -> tuple[int, int]:
    """Cancel `CANCELLED` calls from `WORKERS` tasks; returns how many were, and the most connections in use at once."""
    cancelled = most = 0

    async def worker(number: int) -> None:
        nonlocal cancelled, most
        while cancelled < CANCELLED:
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tg:
                    tg.start_soon(cancel_later, scope, chance.randrange(1, 40))
                    await chat.call(FakeVisit(item_id=str(number)), [Message("user", "work")])
                    tg.cancel_scope.cancel()
            most = max(most, sockets.busy)
            cancelled += scope.cancelled_caught and cancelled < CANCELLED

    async def cancel_later(scope: anyio.CancelScope, steps: int) -> None:
        for _ in range(steps):
            await anyio.lowlevel.checkpoint()
        scope.cancel()

    async with anyio.create_task_group() as tg:
        for number in range(WORKERS):
            tg.start_soon(worker, number)
    return cancelled, most


async def test_a_server_that_drops_every_connection_is_an_error_and_not_a_hang(free_tcp_port: int) -> None:
    async def slam(stream: anyio.abc.SocketStream) -> None:
        await stream.aclose()

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=free_tcp_port)
    async with anyio.create_task_group() as tg:
        tg.start_soon(listener.serve, slam)
        async with resolve("ollama/x", base_url=f"http://127.0.0.1:{free_tcp_port}/v1").open() as chat:
            with pytest.raises(CallError) as caught:
                await chat.call(FakeVisit(), [Message("user", "x")])
            assert (caught.value.fault, caught.value.attempts) == ("ambiguous", 2)
        tg.cancel_scope.cancel()
    await listener.aclose()
