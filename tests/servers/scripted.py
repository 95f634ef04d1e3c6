"""A server in the process that does what a test wrote down, request by request, and keeps a ledger of all of them.

The real SDK is asked, over a transport that behaves as ours does: a stream is handed on as it comes, all else is whole.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import cast

import anyio
import httpx2
import orjson

from pipeline.core.limits import Limits
from stages.models.openai import OpenAIModel
from stages.models.opening import OpenChat, open_alone, open_chat
from stages.models.streaming import wants_stream


@dataclass(frozen=True)
class Sent:
    """What the server does with one request: `raises` in place of an answer, or sends `parts`, then ends badly."""

    status: int = 200
    parts: tuple[bytes, ...] = ()
    kind: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    raises: Callable[[], Exception] | None = None
    breaks: Callable[[], Exception] | None = None
    stalls: bool = False
    delay: float = 0.0  #: seconds before the answer
    drips: float = 0.0  #: seconds before each part


@dataclass
class Ledger:
    """What the server saw: the bodies of all requests, when each came, and how many streams were left open."""

    bodies: list[dict[str, object]] = field(default_factory=list[dict[str, object]])
    headers: list[Mapping[str, str]] = field(default_factory=list[Mapping[str, str]])
    times: list[float] = field(default_factory=list[float])
    open: int = 0


class ScriptedTransport(httpx2.AsyncBaseTransport):
    """Answers the first request with the first of `script` and so on; the last one stays."""

    def __init__(self, script: tuple[Sent, ...], ledger: Ledger) -> None:
        self.script = list(script)
        self.ledger = ledger

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.ledger.bodies.append(cast("dict[str, object]", orjson.loads(await request.aread())))
        self.ledger.headers.append(dict(request.headers))
        self.ledger.times.append(anyio.current_time())
        sent = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        await anyio.sleep(sent.delay)
        if sent.raises is not None:
            raise sent.raises()
        headers = {"content-type": sent.kind, "x-request-id": "req-1", **sent.headers}
        if sent.kind == "text/event-stream" and sent.status == 200 and wants_stream(request):
            self.ledger.open += 1
            return httpx2.Response(200, headers=headers, stream=_Body(sent, self.ledger))
        return httpx2.Response(sent.status, headers=headers, content=b"".join([part async for part in _parts(sent)]))


class _Body(httpx2.AsyncByteStream):
    def __init__(self, sent: Sent, ledger: Ledger) -> None:
        self._sent = sent
        self._ledger = ledger

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _parts(self._sent)

    async def aclose(self) -> None:
        self._ledger.open -= 1


async def _parts(sent: Sent) -> AsyncIterator[bytes]:
    for part in sent.parts:
        await anyio.sleep(sent.drips)
        yield part
    if sent.breaks is not None:
        raise sent.breaks()
    if sent.stalls:
        await anyio.sleep_forever()


@dataclass(frozen=True, eq=False)
class ScriptedModel:
    """A model behind a scripted server. Satisfies `ports.Resource`; one of its own for each run."""

    definition: OpenAIModel
    script: tuple[Sent, ...]
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def name(self) -> str:
        return self.definition.name

    def open(self) -> AbstractAsyncContextManager[OpenChat]:
        return open_alone(self)

    def open_within(self, limits: Limits) -> AbstractAsyncContextManager[OpenChat]:
        return open_chat(self.definition, None, lambda: ScriptedTransport(self.script, self.ledger), limits)
