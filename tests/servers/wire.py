"""A server that speaks bytes: it reads a request, sends what a test wrote down, and leaves as the test says.

async with wire_server(Wire(head(200), body, leave="reset")) as server:
    ... call server.base_url; the last wire stays ...
"""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Literal, TypeAlias

import anyio
import anyio.abc

Leaving: TypeAlias = Literal["keep", "close", "reset", "stall"]


class Wire:
    """What is sent in answer to one request, part by part; then the connection is kept, closed, reset, or stalls."""

    def __init__(self, *parts: bytes, leave: Leaving = "close") -> None:
        self.parts = parts
        self.leave = leave


def head(status: int = 200, kind: str = "application/json", *more: str) -> bytes:
    """The head of an answer whose body ends with the connection, or as `more` headers say."""
    return "\r\n".join([f"HTTP/1.1 {status} Said", f"content-type: {kind}", *more, "", ""]).encode()


def chunked(data: bytes) -> bytes:
    """One chunk of a chunked body; the last one is of nothing."""
    return b"%x\r\n%s\r\n" % (len(data), data)


class WireServer:
    """Counts its requests and its connections."""

    def __init__(self, port: int, wires: tuple[Wire, ...]) -> None:
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self.requests = 0
        self.connections = 0
        self._wires = list(wires)

    async def handle(self, stream: anyio.abc.SocketStream) -> None:
        self.connections += 1
        try:
            async with stream:
                while await self._read(stream):
                    self.requests += 1
                    wire = self._wires.pop(0) if len(self._wires) > 1 else self._wires[0]
                    for part in wire.parts:
                        await stream.send(part)
                    if wire.leave == "stall":
                        await stream.receive()  # until the client leaves
                    if wire.leave == "reset":
                        raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)
                        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    if wire.leave != "keep":
                        return
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass

    async def _read(self, stream: anyio.abc.SocketStream) -> bool:
        """Read one request; False when the client has gone."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive()
        top, _, body = data.partition(b"\r\n\r\n")
        lengths = [line for line in top.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        missing = int(lengths[0].partition(b":")[2]) - len(body)
        while missing > 0:
            missing -= len(await stream.receive())
        return True


@asynccontextmanager
async def wire_server(*wires: Wire) -> AsyncGenerator[WireServer]:
    """Serve on a free port of this machine, on the event loop that runs, until the block ends."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    server = WireServer(listener.extra(anyio.abc.SocketAttribute.local_port), wires)
    async with listener, anyio.create_task_group() as tg:
        tg.start_soon(listener.serve, server.handle)
        yield server
        tg.cancel_scope.cancel()
