"""Opens a model for a run: the SDK's client, and around each attempt the policies that its definition asks for."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, TypeVar, cast
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from pipeline.calls.account import Account
from pipeline.calls.budget import Reserve
from pipeline.calls.call import Call, CallIdentity, Judgement, Reply, Request, Tries
from pipeline.calls.errors import NO_HEADERS
from pipeline.calls.journalled import Journalled
from pipeline.calls.observed import ObservedAttempt, ObservedCall
from pipeline.calls.prices import ListPrice
from pipeline.calls.pricing import Tariff
from pipeline.calls.schema import Schema, SchemaLike
from pipeline.calls.secrets import Secrets
from pipeline.calls.stack import Stack
from pipeline.calls.timeout import AttemptTimeout
from pipeline.calls.tool import Tool
from pipeline.core.limits import Limits
from pipeline.core.ports import SharesLimits, Visit
from pipeline.core.state import Message
from stages.models import limiting, resilience
from stages.models.chat import ChatProvider
from stages.models.refusals import Refusals
from stages.models.sockets import Sockets, WithinSockets

if TYPE_CHECKING:
    import httpx2

    from stages.models.openai import OpenAIModel

T = TypeVar("T")

CLOSE_TIMEOUT: Final = 5.0  #: seconds that closing connections may take when the run is being cancelled


@asynccontextmanager
async def open_alone(definition: SharesLimits[T]) -> AsyncGenerator[T]:
    """Open a definition within limits of its own."""
    async with Limits() as limits, definition.open_within(limits) as opened:
        yield opened


@asynccontextmanager
async def open_chat(
    definition: OpenAIModel,
    key: str | None,
    make_transport: Callable[[], httpx2.AsyncBaseTransport],
    limits: Limits,
    *,
    sockets: Sockets | None = None,
    headers_of: Callable[[Request], Mapping[str, str]] | None = None,
    server: str = "",
) -> AsyncGenerator[OpenChat]:
    """Open `definition` over a transport. Closing is shielded from cancellation for `CLOSE_TIMEOUT` seconds."""
    if "openai" not in sys.modules:  # half a second of imports, which a host's event loop need not stand still for
        await anyio.to_thread.run_sync(importlib.import_module, "openai")
    tariff = definition.tariff()
    if isinstance(tariff, ListPrice):
        await tariff.load()
    from stages.models.client import PlainClient

    client = PlainClient(definition, key, make_transport())
    host = urlsplit(definition.base_url).netloc
    provider = ChatProvider(
        definition,
        client,
        Refusals(definition.name, host, definition.api_key_env, key, Secrets.of(key, definition.headers)),
        tariff.cost,
        headers_of or (lambda request: NO_HEADERS),
    )
    arrivals = limits.shared("arrivals", itertools.count)
    try:
        cached = await resilience.cache(definition, limits, provider.wire.body, server or definition.base_url)
        others = await resilience.fallback(definition, limits)
        connection = WithinSockets(sockets) if sockets is not None else None
        journal = Journalled((server or definition.base_url, definition.api), provider.wire.body)
        stack = replace(
            _stack(definition, limits, tariff), journal=journal, cache=cached, fallback=others, connection=connection
        )
        yield OpenChat(definition, stack.around(provider.ask), stack.instead(provider.ask), arrivals)
    finally:
        with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
            await client.close()


def _stack(definition: OpenAIModel, limits: Limits, tariff: Tariff) -> Stack:
    """Return the policies of a definition; what they share with other models of the account is in `limits`."""
    return Stack(
        observe=ObservedCall(definition.name),
        detector=resilience.detector(),
        retry=resilience.retry(definition, limits),
        hedge=resilience.hedge(definition, limits),
        breaker=resilience.breaker(definition, limits),
        budget=Reserve(definition.name, tariff),
        account=Account(definition.name),
        limit=limiting.limit(definition, limits),
        quota=limiting.quota(definition, limits),
        sending=ObservedAttempt(definition.name),
        timeout=None if definition.timeout is None else AttemptTimeout(definition.timeout),
    )


@dataclass(frozen=True, slots=True)
class OpenChat:
    """A model that is open for a run."""

    definition: OpenAIModel
    ask: Call = field(repr=False)  #: the whole stack
    instead: Call = field(repr=False)  #: the part of it that is this model's own, when another one falls back to it
    arrivals: Iterator[int] = field(repr=False)

    async def call(self, visit: Visit, messages: Sequence[Message], **params: object) -> Reply:
        """Ask the model, with the parameters of `Parameters`; the definition's stand for those not given.

        `schema` is what the answer must fit, `tools` a sequence of `Tool` that the model may want to be called,
        `stream` asks for the answer piece by piece (each a `TextStreamed` event), `on_truncated` and `on_refused` say
        what an answer that is not whole becomes, "accept" or "fail". Raises `CallError` with the class of the fault.
        Cancellation closes the request's connection.
        """
        schema = cast("SchemaLike | None", params.pop("schema", None))
        request = Request(
            messages=tuple(messages),
            schema=None if schema is None else Schema.of(schema),
            visit=visit,
            identity=CallIdentity(visit.item_id, visit.path, visit.next_ordinal()),
            arrival=next(self.arrivals),
            tools=tuple(cast("Sequence[Tool]", params.pop("tools", ()))),
            stream=bool(params.pop("stream", False)),
            on_truncated=cast("Judgement", params.pop("on_truncated", "accept")),
            on_refused=cast("Judgement", params.pop("on_refused", "accept")),
            parameters=self.definition.parameters.updated(params) if params else self.definition.parameters,
            asked=params,
            tries=None if visit.page is None else Tries(),
        )
        return await self.ask(request)

    async def take_over(self, request: Request) -> Reply:
        """Satisfies `pipeline.calls.fallback.Substitute`."""
        parameters = self.definition.parameters.updated(request.asked)
        return await self.instead(replace(request, parameters=parameters))
