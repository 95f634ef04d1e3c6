"""Cancelling many calls in flight neither leaks a connection nor blocks the next call."""

from __future__ import annotations

from random import Random

import anyio
import anyio.abc
import pytest

from pipeline.calls.errors import CallError
from pipeline.core.state import Message
from stages.models import resolve
from tests.calls.visits import FakeVisit
from tests.servers.chat import Answer, ChatServer


async def test_after_many_cancelled_calls_the_next_ones_are_answered(server: ChatServer) -> None:
    server.script("work", Answer("done", delay=0.004))
    chance = Random(5)

    async def worker(number: int) -> None:
        for turn in range(20):
            with anyio.move_on_after(chance.uniform(0.0, 0.008)):
                await chat.call(FakeVisit(item_id=f"{number}.{turn}"), [Message("user", "work")])

    async with resolve("ollama/x", base_url=server.base_url, max_concurrency=10, attempts=1).open() as chat:
        async with anyio.create_task_group() as tg:
            for number in range(20):
                tg.start_soon(worker, number)
        for number in range(30):
            reply = await chat.call(FakeVisit(item_id=f"after {number}"), [Message("user", "work")])
            assert reply.text == "done"
    await server.until(lambda: server.count("work", "started") == 0)


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
