"""A model whose server does as a test says: it dies and comes back, is slow now and then, and counts requests."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import anyio
import httpx2

from pipeline.core.limits import Limits
from stages.models.openai import OpenAIModel
from stages.models.opening import OpenChat, open_chat


@dataclass(eq=False)
class Server(httpx2.AsyncBaseTransport):
    """Answers after `latency` seconds for the n-th request, unless `trouble` has something else to say then."""

    latency: Callable[[int], float] = lambda number: 1.0
    trouble: Callable[[float], int | str | None] = lambda now: None  #: a status, or the name of an error, at a time
    requests: int = 0
    in_flight: int = 0
    at: list[float] = field(default_factory=list[float])  #: when each request came
    prompts: Counter[str] = field(default_factory=Counter[str])

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        number, self.requests = self.requests, self.requests + 1
        asked = json.loads(await request.aread())["messages"][-1]["content"]
        self.prompts[asked] += 1
        self.at.append(anyio.current_time())
        if self.trouble(anyio.current_time()) == "connection":
            raise httpx2.ConnectError("refused", request=request)
        self.in_flight += 1
        try:
            await anyio.sleep(self.latency(number))
        finally:
            self.in_flight -= 1
        match self.trouble(anyio.current_time()):
            case int() as status:
                body = {"error": {"message": f"a status {status}", "type": "x"}}
                return httpx2.Response(status, content=json.dumps(body).encode())
            case str() as name:
                raise getattr(httpx2, {"connection": "RemoteProtocolError"}.get(name, name))("gone", request=request)
            case None:
                return httpx2.Response(200, content=json.dumps(answer(asked)).encode())


def answer(text: str) -> dict[str, object]:
    message = {"role": "assistant", "content": f"re: {text}"}
    return {
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    }


@dataclass(frozen=True, kw_only=True)
class Served(OpenAIModel):
    """A model that `server` answers for."""

    server: Server = field(compare=False, hash=False, repr=False)

    def open_within(self, limits: Limits) -> AbstractAsyncContextManager[OpenChat]:
        return open_chat(self, None, lambda: self.server, limits)


def served(server: Server, name: str = "m", **options: object) -> Served:
    return Served(
        provider="vllm",
        model="m",
        base_url=f"http://{name}.localhost/v1",
        server=server,
        **options,  # type: ignore[arg-type]
    )
