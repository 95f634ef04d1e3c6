"""A server on loopback that a test writes by hand, bytes in and bytes out, in the test's own event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

JSON = b"content-type: application/json\r\n"


@dataclass
class Connection:
    """One connection that a client has opened."""

    stream: anyio.abc.SocketStream
    received: BufferedByteReceiveStream
    heads: list[bytes]  #: of all requests that the server has read, on any connection

    async def read(self) -> bytes:
        """Read one request and return its body. Raises `anyio.IncompleteRead` when the client leaves."""
        head = await self.received.receive_until(b"\r\n\r\n", 65536)
        self.heads.append(head)
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        return await self.received.receive_exactly(length) if length else b""

    async def write(self, data: bytes) -> None:
        await self.stream.send(data)

    async def answer(self, body: bytes = b"{}", status: str = "200 OK", headers: bytes = JSON) -> None:
        await self.write(b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n%b" % (status.encode(), headers, len(body), body))

    async def until_left(self) -> None:
        """Wait until the client has closed the connection."""
        try:
            while await self.stream.receive():
                pass
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            pass


@dataclass
class RawServer:
    """What the server saw. `opened` and `left` count connections."""

    port: int
    heads: list[bytes] = field(default_factory=list[bytes])
    opened: int = 0
    left: int = 0
    changed: anyio.Event = field(default_factory=anyio.Event)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def until_all_left(self) -> None:
        with anyio.fail_after(10):
            while self.left < self.opened:
                await self.changed.wait()


Handler = Callable[[Connection], Awaitable[object]]


@asynccontextmanager
async def raw_server(handle: Handler) -> AsyncIterator[RawServer]:
    """Let `handle` serve each connection, which is closed when it returns, until the block ends."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    server = RawServer(listener.extra(anyio.abc.SocketAttribute.local_port))

    async def serve(stream: anyio.abc.SocketStream) -> None:
        server.opened += 1
        try:
            async with stream:
                await handle(Connection(stream, BufferedByteReceiveStream(stream), server.heads))
        except (anyio.IncompleteRead, anyio.BrokenResourceError, anyio.EndOfStream):
            pass  # the client has left
        finally:
            server.left += 1
            server.changed.set()
            server.changed = anyio.Event()

    async with listener, anyio.create_task_group() as tg:
        tg.start_soon(listener.serve, serve)
        yield server
        tg.cancel_scope.cancel()


async def forever(connection: Connection) -> None:
    """Answer every request of a connection with an empty object."""
    while True:
        await connection.read()
        await connection.answer()
