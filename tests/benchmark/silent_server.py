"""A server on loopback that takes connections, reads requests and never answers. Prints its port, ends with its stdin.

Each line on stdin is answered with two numbers: the requests that have arrived so far, and the connections open now.
"""

from __future__ import annotations

import asyncio
import sys


class Silent(asyncio.Protocol):
    """One connection."""

    arrived = 0
    opened = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.seen = False
        Silent.opened += 1

    def data_received(self, data: bytes) -> None:
        if not self.seen:
            self.seen = True
            Silent.arrived += 1

    def connection_lost(self, exc: Exception | None) -> None:
        Silent.opened -= 1


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Silent, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    asked = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    while await asked.readline():
        print(Silent.arrived, Silent.opened, flush=True)


if __name__ == "__main__":
    asyncio.run(serve())
