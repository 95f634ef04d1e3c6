"""Asks a model's server once: the innermost call, which makes a reply or a `CallError` of whatever comes back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

import anyio

from pipeline.calls.call import Reply, Request
from pipeline.calls.envelope import read_body
from pipeline.calls.errors import CallError
from pipeline.calls.server_errors import whole_text
from pipeline.core.codec import encode
from pipeline.core.usage import Cost, Usage
from stages.models.refusals import Refusals
from stages.models.replies import Replies
from stages.models.wires import Wire, wire_of

if TYPE_CHECKING:
    import httpx2

    from stages.models.client import PlainClient
    from stages.models.openai import OpenAIModel

_HALF: Final = rb"\ud"  #: how a half character begins in JSON, where nothing else has to be escaped so
_STREAM: Final[Mapping[str, str]] = {"Accept": "text/event-stream"}


@dataclass(frozen=True, slots=True)
class ChatProvider:
    """Asks once: the innermost call, which turns answers into replies and everything else into `CallError`."""

    definition: OpenAIModel
    client: PlainClient = field(repr=False)
    refusals: Refusals
    price_of: Callable[[Usage], Cost]
    headers_of: Callable[[Request], Mapping[str, str]]
    wire: Wire = field(init=False)
    replies: Replies = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "wire", wire_of(self.definition))
        object.__setattr__(self, "replies", Replies(self.definition, self.refusals, self.price_of))

    async def ask(self, request: Request) -> Reply:
        response = await self._sent(request)
        headers = _headers(response)
        if not request.stream:
            return self._reply(response, headers, request)
        from stages.models.stream_reader import StreamReader

        return await StreamReader(self.wire, self.replies, self.refusals).read(response, headers, request)

    async def _sent(self, request: Request) -> httpx2.Response:
        """Send the request and return its 200. Raises `CallError` for everything else."""
        import httpx2
        import openai

        from stages.models.transport import TransportRefusal

        content, headers, started = _bytes(self.wire.body(request)), self.headers_of(request), anyio.current_time()
        try:
            if request.stream:
                response = await self._opened(content, headers)
            else:
                response = await self.client.send(self.wire.path, content, headers)
        except openai.APIStatusError as error:
            raise self._refused(error.response, anyio.current_time() - started) from None
        except openai.APIConnectionError as error:
            raise self.refusals.of_cause(error.__cause__ or error) from None
        except (httpx2.RequestError, TransportRefusal) as error:
            raise self.refusals.of_cause(error) from None
        if response.status_code != 200:
            raise self._refused(response, anyio.current_time() - started)
        return response

    async def _opened(self, content: bytes, headers: Mapping[str, str]) -> httpx2.Response:
        """Send the request and return the answer while it still comes; one that is no stream has been read."""
        import httpx2
        import openai

        response: object = await self.client.post(
            self.wire.path,
            content=content,
            cast_to=httpx2.Response,
            options={"headers": {**headers, **_STREAM}},
            stream=True,
            stream_cls=openai.AsyncStream[object],  # not used: what is cast to a response is returned as it is
        )
        return cast("httpx2.Response", response)

    def _reply(self, response: httpx2.Response, headers: Mapping[str, str], request: Request) -> Reply:
        try:
            answer = self.wire.read(read_body(response.content), request)
        except CallError as error:
            self.replies.failed(error, headers)
            raise
        return self.replies.of(answer, request, headers)

    def _refused(self, response: httpx2.Response, waited: float) -> CallError:
        return self.refusals.of_status(response.status_code, _headers(response), response.content, waited)


def _headers(response: httpx2.Response) -> Mapping[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def _bytes(body: Mapping[str, object]) -> bytes:
    """Return a body as it is sent: in place of half characters, which strict servers refuse, U+FFFD."""
    content = encode(body)
    return encode(_whole(body)) if _HALF in content else content


def _whole(value: object) -> object:
    if isinstance(value, str):
        return whole_text(value)
    if isinstance(value, Mapping):
        return {_whole(key): _whole(each) for key, each in cast("Mapping[str, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_whole(each) for each in cast("Sequence[object]", value)]
    return value
