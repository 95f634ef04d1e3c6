"""A model behind the OpenAI-compatible chat-completions protocol, asked through the OpenAI SDK.

The SDK builds and sends requests; everything that decides stays here: retries, redirects and the environment are
switched off, and its typed models are passed by, because they accept what no answer should be. The SDK is imported when
the first model is opened (it takes half a second), so a definition costs nothing.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, cast

import anyio
import anyio.to_thread

from pipeline.calls.call import Call, CallIdentity, Reply, Request
from pipeline.calls.envelope import Answer, read_answer, read_body
from pipeline.calls.errors import CallError, ModelError
from pipeline.calls.parameters import Parameters
from pipeline.calls.pricing import price
from pipeline.calls.retry import Retry
from pipeline.calls.schema import Schema, SchemaLike
from pipeline.calls.stack import call_stack
from pipeline.core.ports import Visit
from pipeline.core.state import Message
from pipeline.core.usage import Cost, Usage
from stages.models.body import SchemaMode, TokenField, chat_body
from stages.models.checks import count, mapping, seconds, texts
from stages.models.endpoint import Endpoint
from stages.models.refusals import REQUEST_ID, Refusals

if TYPE_CHECKING:
    import httpx2
    import openai

CONNECT_TIMEOUT: Final = 10.0  #: seconds; a server that is there answers the connection long before
CLOSE_TIMEOUT: Final = 5.0  #: seconds that closing connections may take when the run is being cancelled

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIModel:
    """A frozen description of one model of one provider. `resolve` makes it from a preset.

    The key is read from the variable `api_key_env` when the model is opened, and sent to the host of `base_url` only,
    over https (or to this machine). Raises `DefinitionError` when that cannot be.
    """

    provider: str
    model: str
    base_url: str
    api_key_env: str | None = None
    api_key_optional: bool = False  #: go without a key when its variable is not set
    organization: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str], hash=False, repr=False)
    max_concurrency: int | None = None  #: attempts in flight over all stages of a run; None leaves it to the stages
    timeout: float | None = 120.0  #: seconds of one attempt
    attempts: int = 4
    parameters: Parameters = field(default_factory=Parameters)
    token_field: TokenField = "max_tokens"
    schema_mode: SchemaMode = "json_schema"
    price_provider: str | None = None  #: the provider's name in the price list

    def __post_init__(self) -> None:
        texts(base_url=self.base_url, api_key_env=self.api_key_env, organization=self.organization)
        headers = mapping(self.headers, "headers")
        texts(**{f"headers.{name}": value for name, value in headers.items()})
        object.__setattr__(self, "headers", MappingProxyType(dict(headers)))
        count(self.attempts, "attempts")
        if self.max_concurrency is not None:
            count(self.max_concurrency, "max_concurrency")
        if self.timeout is not None:
            object.__setattr__(self, "timeout", seconds(self.timeout, "timeout"))
        Endpoint.of(self.base_url, keyed=self.api_key_env is not None)

    @property
    def name(self) -> str:
        return f"{self.provider}/{self.model}"

    def open(self) -> AbstractAsyncContextManager[OpenChat]:
        """Open the model for a run. Raises `ModelError` when the key is missing."""
        from stages.models.transport import PooledTransport

        host = Endpoint.of(self.base_url, keyed=False).host
        return open_chat(self, self._key(), lambda: PooledTransport(host))

    def _key(self) -> str | None:
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "")
        if not key and self.api_key_optional:
            return None
        if not key:
            raise ModelError(f"model {self.name}: the variable {self.api_key_env} is not set; put the key into it")
        if key.strip() != key or not key.isascii() or not key.isprintable():
            wrong = "holds blanks or line ends around the key, or characters that no key has"
            raise ModelError(f"model {self.name}: the variable {self.api_key_env} {wrong}; set it anew")
        return key


@asynccontextmanager
async def open_chat(
    definition: OpenAIModel,
    key: str | None,
    make_transport: Callable[[], httpx2.AsyncBaseTransport],
    *,
    price_with: Callable[[Usage], Cost] | None = None,
    headers_of: Callable[[Request], Mapping[str, str]] | None = None,
) -> AsyncGenerator[OpenChat]:
    """Open `definition` over a transport. Closing is shielded from cancellation for `CLOSE_TIMEOUT` seconds."""
    if "openai" not in sys.modules:  # half a second of imports, which a host's event loop need not stand still for
        await anyio.to_thread.run_sync(importlib.import_module, "openai")
    client = _client(definition, key, make_transport())
    host = Endpoint.of(definition.base_url, keyed=False).host
    provider = _Provider(
        definition,
        client,
        Refusals(definition.name, host, definition.api_key_env, key),
        price_with or (lambda usage: price(usage, definition.model, definition.price_provider)),
        headers_of or (lambda request: _NO_HEADERS),
    )
    limit = definition.max_concurrency
    call = call_stack(
        provider.ask,
        retry=Retry(attempts=definition.attempts),
        timeout=definition.timeout,
        limiter=anyio.CapacityLimiter(limit) if limit else None,
    )
    try:
        yield OpenChat(definition, call)
    finally:
        with anyio.move_on_after(CLOSE_TIMEOUT, shield=True):
            await client.close()


@dataclass(frozen=True, slots=True)
class OpenChat:
    """A model that is open for a run."""

    definition: OpenAIModel
    _call: Call = field(repr=False)

    async def call(self, visit: Visit, messages: Sequence[Message], **params: object) -> Reply:
        """Ask the model, with the parameters of `Parameters` and `schema`; the definition's stand for those not given.

        Raises `CallError` with the class of the fault. Cancellation closes the request's connection.
        """
        schema = cast("SchemaLike | None", params.pop("schema", None))
        request = Request(
            messages=tuple(messages),
            parameters=self.definition.parameters.updated(params) if params else self.definition.parameters,
            schema=None if schema is None else Schema.of(schema),
            visit=visit,
            identity=CallIdentity(visit.item_id, visit.path, visit.next_ordinal()),
        )
        return await self._call(request)


@dataclass(frozen=True, slots=True)
class _Provider:
    """Asks once: the innermost call, which turns answers into replies and everything else into `CallError`."""

    definition: OpenAIModel
    client: openai.AsyncOpenAI = field(repr=False)
    refusals: Refusals
    price_of: Callable[[Usage], Cost]
    headers_of: Callable[[Request], Mapping[str, str]]

    async def ask(self, request: Request) -> Reply:
        import httpx2
        import openai

        from stages.models.transport import TransportRefusal

        body = chat_body(request, self.definition.model, self.definition.token_field, self.definition.schema_mode)
        headers, started = self.headers_of(request), anyio.current_time()
        try:
            response = await self.client.post(
                "/chat/completions", body=body, cast_to=httpx2.Response, options={"headers": dict(headers)}
            )
        except openai.APIStatusError as error:
            raise self._refused(error.response, anyio.current_time() - started) from None
        except openai.APIConnectionError as error:
            raise self.refusals.of_cause(error.__cause__ or error) from None
        except TransportRefusal as error:
            raise self.refusals.of_cause(error) from None
        if response.status_code != 200:
            raise self._refused(response, anyio.current_time() - started)
        return self._reply(response, request)

    def _reply(self, response: httpx2.Response, request: Request) -> Reply:
        try:
            answer = read_answer(read_body(response.content))
        except CallError as error:
            error.cost = self.price_of(error.usage) if error.usage.output_tokens else None
            self.refusals.complete(error, _headers_of(response))
            raise
        usage = answer.usage or _estimate(request, answer)
        return Reply(
            text=answer.text,
            usage=usage,
            cost=self.price_of(usage),
            finish_reason=answer.finish_reason,
            model=answer.model,
            request_id=response.headers.get(REQUEST_ID),
        )

    def _refused(self, response: httpx2.Response, waited: float) -> CallError:
        return self.refusals.of_status(response.status_code, _headers_of(response), response.content, waited)


def _client(definition: OpenAIModel, key: str | None, transport: httpx2.AsyncBaseTransport) -> openai.AsyncOpenAI:
    """Make the SDK's client with exactly our headers: its own would add what OPENAI_CUSTOM_HEADERS says, and more."""
    import httpx2
    import openai

    headers = _headers(definition)

    class PlainClient(openai.AsyncOpenAI):
        @property
        def default_headers(self) -> dict[str, str | openai.Omit]:
            return dict(headers)

        def without_lookup(self) -> openai.AsyncOpenAI:
            # The platform would be looked up in a worker thread by the first request, for headers that are not sent.
            self._platform = "Unknown"
            return self

    connect = CONNECT_TIMEOUT if definition.timeout is None else min(CONNECT_TIMEOUT, definition.timeout)
    return PlainClient(
        api_key=key or "none",  # servers without keys take any that is not empty
        organization=definition.organization or "",  # None would be read from the environment
        project="",
        base_url=definition.base_url,
        max_retries=0,
        timeout=httpx2.Timeout(None, connect=connect),  # the attempt's own policy is the clock
        http_client=httpx2.AsyncClient(transport=transport, trust_env=False, follow_redirects=False),
    ).without_lookup()


def _headers(definition: OpenAIModel) -> Mapping[str, str]:
    headers = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",  # answers are small, and what is not packed cannot be a bomb
        "Content-Type": "application/json",
        "User-Agent": "penstock",
    }
    if definition.organization:
        headers["OpenAI-Organization"] = definition.organization
    return {**headers, **definition.headers}


def _headers_of(response: httpx2.Response) -> Mapping[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _estimate(request: Request, answer: Answer) -> Usage:
    """Four characters are about a token; said to be an estimate wherever it goes."""
    asked = sum(len(each.content) for each in request.messages)
    return Usage(-(-asked // 4), -(-len(answer.text) // 4), requests=1, estimated=True)
