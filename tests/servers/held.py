"""A chat-completions server that holds its answers back until it is told to give them, and notes when it was asked."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - not in the middle of a fork, around which it takes its lock
import json
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route


@dataclass
class HeldServer:
    """What it saw and how it behaves; safe to use from the test's thread."""

    port: int
    holding: bool = False  #: no answer goes out
    refusing: bool = False  #: every request gets a 500 at once, and is to come again 5 s later
    asked: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])  #: when, by the shared clock; what
    answered: list[str] = field(default_factory=list[str])
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def reset(self) -> None:
        """Behave well, and forget."""
        self.holding = self.refusing = False
        with self.changed:
            self.asked.clear()
            self.answered.clear()

    def until(self, condition: Callable[[], bool], timeout: float = 15.0) -> None:
        """Wait until `condition` holds, looked at whenever the server has seen something."""
        with self.changed:
            assert self.changed.wait_for(condition, timeout), f"asked {self.asked}, answered {self.answered}"

    def latest(self) -> float:
        """When it was asked last."""
        return max((at for at, _ in self.asked), default=0.0)

    async def handle(self, request: Request) -> Response:
        at = time.monotonic()
        try:
            messages = json.loads(await request.body())["messages"]
        except ClientDisconnect:
            return Response(status_code=499)
        prompt = str(messages[-1]["content"])
        with self.changed:
            self.asked.append((at, prompt))
            self.changed.notify_all()
        if self.refusing:
            refused = _json({"error": {"message": "refused by the test", "type": "server_error"}}, 500)
            refused.headers["retry-after"] = "5"  # so long that what a test does meanwhile is surely done in it
            return refused
        while self.holding:
            with anyio.move_on_after(0.01):
                if (await request.receive())["type"] == "http.disconnect":
                    return Response(status_code=499)
        with self.changed:
            self.answered.append(prompt)
            self.changed.notify_all()
        message = {"role": "assistant", "content": f"echo: {prompt}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 10, "completion_tokens": 5}
        return _json({"id": "c1", "model": "any", "choices": [choice], "usage": usage}, 200)


def _json(document: object, status: int) -> Response:
    return Response(json.dumps(document), status, {"content-type": "application/json"})


@contextmanager
def held_server() -> Generator[HeldServer]:
    """Run a server in a thread until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    held = HeldServer(listener.getsockname()[1])
    app = Starlette(routes=[Route("/v1/chat/completions", held.handle, methods=["POST"])])
    config = uvicorn.Config(app, lifespan="off", log_config=None, timeout_graceful_shutdown=2, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="held-server")
    thread.start()
    try:
        yield held
    finally:
        held.holding = False
        server.should_exit = True
        thread.join(15)
        listener.close()
        assert not thread.is_alive(), "the server did not stop"
