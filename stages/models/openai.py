"""A model behind the OpenAI-compatible chat-completions protocol, asked through the OpenAI SDK.

The SDK builds and sends requests; everything that decides stays here: retries, redirects and the environment are
switched off, and its typed models are passed by, because they accept what no answer should be. The SDK is imported when
the first model is opened (it takes half a second), so a definition costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, cast

import anyio

from pipeline.calls.call import Call, CallIdentity, Reply, Request
from pipeline.calls.envelope import Answer, read_answer, read_body, read_error, whole_text
from pipeline.calls.errors import CallError, ModelError, redacted
from pipeline.calls.faults import Fault, fault_of_cause, fault_of_status
from pipeline.calls.parameters import Parameters
from pipeline.calls.pricing import price
from pipeline.calls.retry import Retry
from pipeline.calls.retry_after import retry_after
from pipeline.calls.schema import Schema, SchemaLike
from pipeline.calls.stack import call_stack
from pipeline.core.ports import Visit
from pipeline.core.state import Message
from pipeline.core.usage import Cost, Usage
from stages.models.body import SchemaMode, TokenField, chat_body
from stages.models.checks import count, seconds, texts
from stages.models.endpoint import Endpoint

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
        texts(**{f"headers.{name}": value for name, value in self.headers.items()})
        object.__setattr__(self, "headers", MappingProxyType(dict(self.headers)))
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
    client = _client(definition, key, make_transport())
    provider = _Provider(
        definition,
        client,
        key,
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
    key: str | None = field(repr=False)
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
            raise self._broken(error.__cause__ or error) from None
        except TransportRefusal as error:
            raise self._broken(error) from None
        return self._reply(response, request)

    def _reply(self, response: httpx2.Response, request: Request) -> Reply:
        if response.status_code != 200:
            raise self._refused(response, 0.0)
        try:
            answer = read_answer(read_body(response.content))
        except CallError as error:
            said = redacted(error.message, self.key, limit=500)
            error.message = f"{self.definition.name}: {said}"
            error.args = (error.message,)
            error.request_id = _request_id(response)
            error.cost = self.price_of(error.usage) if error.usage.output_tokens else None
            raise
        usage = answer.usage or _estimate(request, answer)
        return Reply(
            text=answer.text,
            usage=usage,
            cost=self.price_of(usage),
            finish_reason=answer.finish_reason,
            model=answer.model,
            request_id=_request_id(response),
        )

    def _refused(self, response: httpx2.Response, waited: float) -> CallError:
        """Class an answer that is not a 200. The words for a refused key are ours: servers quote the key in theirs."""
        said = read_error(response.content)
        headers = {name.lower(): value for name, value in response.headers.items()}
        fault = fault_of_status(
            response.status_code,
            code=said.code,
            error_type=said.type,
            message=said.message,
            headers=headers,
            waited=waited,
        )
        return CallError(
            f"{self.definition.name}: HTTP {response.status_code}, {self._words(fault, said.message)}",
            fault=fault.fault,
            type=fault.type,
            http_status=response.status_code,
            request_id=_request_id(response),
            retry_after=retry_after(headers, datetime.now(UTC)),
        )

    def _words(self, fault: Fault, message: str) -> str:
        said = redacted(whole_text(message), self.key)
        variable = self.definition.api_key_env
        match fault.type:
            case "key_refused" if self.key:
                words = f"the key in {variable} was refused"
            case "key_refused":
                words = f"it wants a key, set {variable or 'api_key_env'}"
            case "no_money":
                words = f"the account of the key in {variable} has no credit or quota left"
            case "redirected":
                return "the server redirects, and redirects are not followed; give the final base_url"
            case _:
                return said or "no reason given"
        return f"{words}: {said}" if said else words

    def _broken(self, error: BaseException) -> CallError:
        fault = fault_of_cause(error)
        host = Endpoint.of(self.definition.base_url, keyed=False).host
        said = redacted(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__, self.key)
        return CallError(f"{self.definition.name}: {host}: {said}", fault=fault.fault, type=fault.type)


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


def _request_id(response: httpx2.Response) -> str | None:
    return response.headers.get("x-request-id")


def _estimate(request: Request, answer: Answer) -> Usage:
    """Four characters are about a token; said to be an estimate wherever it goes."""
    asked = sum(len(each.content) for each in request.messages)
    return Usage(-(-asked // 4), -(-len(answer.text) // 4), requests=1, estimated=True)
