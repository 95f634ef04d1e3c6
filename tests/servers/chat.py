"""A small chat-completions server on a free loopback port, which does what a test scripted and logs what it saw.

with chat_server() as server:
    server.script("hello", Answer(status=500), Answer("hi"))     # by the last user message, in order; the last stays
    ... call server.base_url ...
    assert server.started("hello") == 2
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route


@dataclass(frozen=True)
class Answer:
    """What the server does with one request: wait `delay` seconds, then answer; or wait until the client leaves."""

    text: str = "ok"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes | None = None  #: sent as it is in place of a completion or an error
    code: str | None = None  #: of the error object, when the status is not 200
    message: str = "scripted"
    delay: float = 0.0
    never: bool = False
    finish_reason: str | None = "stop"
    usage: Mapping[str, object] | None = field(default_factory=lambda: {"prompt_tokens": 10, "completion_tokens": 5})


@dataclass
class Seen:
    """One request. `state` is started, finished or disconnected."""

    prompt: str
    body: dict[str, object]
    headers: dict[str, str]
    state: str = "started"


@dataclass
class ChatServer:
    """The server's script and log; safe to use from the test's thread."""

    port: int
    log: list[Seen] = field(default_factory=list[Seen])
    scripts: dict[str, list[Answer]] = field(default_factory=dict[str, list[Answer]])
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def script(self, prompt: str, *answers: Answer) -> None:
        self.scripts[prompt] = list(answers)

    def seen(self, prompt: str) -> list[Seen]:
        with self.changed:
            return [each for each in self.log if each.prompt == prompt]

    def started(self, prompt: str) -> int:
        return len(self.seen(prompt))

    def count(self, prompt: str, state: str) -> int:
        return sum(each.state == state for each in self.seen(prompt))

    async def until(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Wait until `condition` holds, looked at whenever the log changes; fails after `timeout` seconds."""

        def wait() -> bool:
            with self.changed:
                return self.changed.wait_for(condition, timeout)

        assert await anyio.to_thread.run_sync(wait, abandon_on_cancel=True), "the server did not see it"

    def _record(self, seen: Seen, state: str) -> None:
        with self.changed:
            seen.state = state
            if state == "started":
                self.log.append(seen)
            self.changed.notify_all()

    def _next(self, prompt: str) -> Answer:
        script = self.scripts.get(prompt)
        if not script:
            return Answer(f"echo: {prompt}")
        return script.pop(0) if len(script) > 1 else script[0]

    async def handle(self, request: Request) -> Response:
        try:
            body = json.loads(await request.body())
        except ClientDisconnect:
            return Response(status_code=499)
        prompt = next((m["content"] for m in reversed(body["messages"]) if m["role"] == "user"), "")
        seen = Seen(prompt, body, dict(request.headers))
        answer = self._next(prompt)
        self._record(seen, "started")
        with anyio.move_on_after(None if answer.never else answer.delay):
            while answer.never or answer.delay:
                if (await request.receive())["type"] == "http.disconnect":
                    self._record(seen, "disconnected")
                    return Response(status_code=499)
        self._record(seen, "finished")
        return _response(answer, str(body.get("model")))


def _response(answer: Answer, model: str) -> Response:
    content = answer.body
    if content is None and answer.status == 200:
        message = {"role": "assistant", "content": answer.text}
        choice = {"index": 0, "message": message, "finish_reason": answer.finish_reason}
        content = json.dumps({"id": "c1", "model": model, "choices": [choice], "usage": answer.usage}).encode()
    elif content is None:
        error = {"message": answer.message, "type": "scripted", "code": answer.code}
        content = json.dumps({"error": error}).encode()
    headers = {"content-type": "application/json", "x-request-id": "req-1", **answer.headers}
    return Response(content, answer.status, headers)


@contextmanager
def chat_server() -> Generator[ChatServer]:
    """Run a server in a thread until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    chat = ChatServer(listener.getsockname()[1])
    app = Starlette(routes=[Route("/v1/chat/completions", chat.handle, methods=["POST"])])
    config = uvicorn.Config(app, lifespan="off", log_config=None, timeout_graceful_shutdown=2, ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="chat-server")
    thread.start()
    try:
        yield chat
    finally:
        server.should_exit = True
        thread.join(15)
        listener.close()
        assert not thread.is_alive(), "the chat server did not stop"
