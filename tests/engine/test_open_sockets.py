"""A run that asks a real server over loopback leaves no socket open, at whatever step it is cancelled.

Sockets know no virtual time, so steps are counted in real runs, which are nearly the same each time.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import anyio
import httpx2
import pytest
from anyio.abc import SocketStream

from pipeline.core.pipeline import Pipeline
from pipeline.core.run import Run
from stages import agent, parallel, resolve
from tests.engine.steps import Steps, counted
from tests.engine.topologies import nothing_is_left

BODY = b'{"id":"1","object":"chat.completion","created":0,"model":"x","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"hello"}}]}'  # noqa: E501
REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


class Server:
    """Answers every request; `connected` is how many clients have not hung up."""

    def __init__(self) -> None:
        self.connected = 0
        self.quiet = anyio.Event()

    async def __call__(self, stream: SocketStream) -> None:
        self.connected += 1
        try:
            async with stream:
                while True:
                    await read_request(stream)
                    await stream.send(REPLY)
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            pass
        finally:
            self.connected -= 1
            self.quiet.set()

    async def until_quiet(self) -> None:
        with anyio.fail_after(10):
            while self.connected:
                self.quiet = anyio.Event()
                await self.quiet.wait()


async def read_request(stream: SocketStream) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += await stream.receive()
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    left = int(fields[b"content-length"]) - len(body)
    while left > 0:
        left -= len(await stream.receive())


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Server, int]]:
    server = Server()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tg:
        tg.start_soon(listener.serve, server)
        yield server, listener.extra(anyio.abc.SocketAttribute.local_port)
        tg.cancel_scope.cancel()


async def call(port: int, steps: Steps) -> None:
    """One run of two calls, which is cancelled at the step."""
    model = resolve("ollama/x", base_url=f"http://127.0.0.1:{port}/v1", attempts=1)
    pipe = Pipeline(parallel("both", a=agent("a", model=model), b=agent("b", model=model)))
    opened: list[Run] = []
    with anyio.CancelScope() as scope:
        steps.arm(scope.cancel)
        async with pipe.open(["x"]) as run:
            opened.append(run)
            records = [record async for record in run.results]
            assert [record.output for record in records] == [{"a": "hello", "b": "hello"}]
    steps.disarm()
    for run in opened:
        nothing_is_left(run)


@pytest.fixture(autouse=True)
def _one_trust_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading it takes more time than all the rest of a run."""
    store = httpx2.create_ssl_context(trust_env=False)
    monkeypatch.setattr(httpx2, "create_ssl_context", lambda **options: store)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_no_socket_is_left_at_whatever_step_a_call_is_cancelled(backend: str) -> None:
    async def main(steps: Steps) -> None:
        async with serving() as (server, port):
            files = len(os.listdir("/dev/fd"))
            with counted(backend, steps):
                await call(port, steps)
            await server.until_quiet()
            assert len(os.listdir("/dev/fd")) == files

    for at in count():
        steps = Steps(at)
        anyio.run(main, steps, backend=backend)
        if not steps.acted:
            break
    assert steps.passed > 50
