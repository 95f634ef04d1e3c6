"""A chat-completions server on loopback that costs next to nothing, so that its clients are what is measured.

    python quick_server.py LATENCY

Prints its port and ends with its stdin. Each request is answered with the same completion after LATENCY seconds. Each
line on stdin is answered with four numbers, of the time since the last line: requests answered, the most in flight at
once, connections taken, connections that were left before their answer. On uvloop where it is installed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from typing import ClassVar, cast

COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "quick",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "A short answer of about a dozen words, always the same one."},
            "finish_reason": "stop",
            "logprobs": None,
        }
    ],
    "usage": {"prompt_tokens": 12, "completion_tokens": 14, "total_tokens": 26},
}
BODY = json.dumps(COMPLETION).encode()
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req-1\r\ncontent-length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)


class Quick(asyncio.Protocol):
    """One connection. Requests that wait are in one queue, because all wait equally long."""

    latency = 0.0
    waiting: ClassVar[deque[tuple[float, Quick]]] = deque()
    answered = in_flight = most = taken = left = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        self.received = b""
        self.open = True
        self.busy = False
        Quick.taken += 1

    def data_received(self, data: bytes) -> None:
        self.received = self.received + data if self.received else data
        head = self.received.find(b"\r\n\r\n")
        if head < 0:
            return
        names = self.received[:head].lower()
        start = names.find(b"content-length:")
        length = int(names[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
        if len(self.received) < head + 4 + length:
            return
        self.received = self.received[head + 4 + length :]
        Quick.in_flight += 1
        Quick.most = max(Quick.most, Quick.in_flight)
        self.busy = True
        if not Quick.latency:
            self.answer()
            return
        loop = asyncio.get_running_loop()
        Quick.waiting.append((loop.time() + Quick.latency, self))
        if len(Quick.waiting) == 1:
            loop.call_later(Quick.latency, Quick.due)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self.busy:
            Quick.in_flight -= 1
            Quick.left += 1

    def answer(self) -> None:
        if self.open:
            self.busy = False
            Quick.in_flight -= 1
            Quick.answered += 1
            self.transport.write(ANSWER)

    @staticmethod
    def due() -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        while Quick.waiting and Quick.waiting[0][0] <= now:
            Quick.waiting.popleft()[1].answer()
        if Quick.waiting:
            loop.call_at(Quick.waiting[0][0], Quick.due)


async def serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Quick, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    asked = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(asked), sys.stdin)
    while await asked.readline():
        print(Quick.answered, Quick.most, Quick.taken, Quick.left, flush=True)
        Quick.answered = Quick.taken = Quick.left = 0
        Quick.most = Quick.in_flight


def main() -> None:
    Quick.latency = float(sys.argv[1])
    try:
        from uvloop import run
    except ImportError:
        from asyncio import run
    run(serve())


if __name__ == "__main__":
    main()
