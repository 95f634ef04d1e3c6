"""The transport over aiohttp, which asyncio alone has: a third of the work of the other one for each request.

It keeps to the same contract: one origin, nothing from the environment, no redirects, no cookies, answers read whole up
to a cap, errors of httpx2. The only door of aiohttp.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final, Protocol

import aiohttp
import anyio.lowlevel
import httpx2
import yarl

from pipeline.calls.departure import departs
from stages.models.plain_http import ReadyHeaders
from stages.models.sockets import Sockets, no_descriptor
from stages.models.streaming import is_stream, open_response, wants_stream
from stages.models.transport import (
    KEPT,
    MAX_ANSWER,
    STALE,
    Origin,
    StaleConnection,
    too_large,
    whole_response,
)

if TYPE_CHECKING:
    from ssl import SSLContext

    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

#: The first that fits counts. What says nothing of how far it got is as bad as a broken answer: it may have been paid.
_ERRORS: Final[tuple[tuple[type[Exception], type[httpx2.TransportError]], ...]] = (
    (aiohttp.ConnectionTimeoutError, httpx2.ConnectTimeout),
    (aiohttp.ServerTimeoutError, httpx2.ReadTimeout),
    (aiohttp.ClientConnectorError, httpx2.ConnectError),
    (aiohttp.ServerFingerprintMismatch, httpx2.ConnectError),
    (aiohttp.ServerDisconnectedError, httpx2.RemoteProtocolError),
    (aiohttp.ClientConnectionResetError, httpx2.WriteError),
    (aiohttp.ClientPayloadError, httpx2.RemoteProtocolError),
    (aiohttp.ClientResponseError, httpx2.RemoteProtocolError),
    (aiohttp.InvalidURL, httpx2.UnsupportedProtocol),
    (aiohttp.ClientError, httpx2.ReadError),
    (OSError, httpx2.ReadError),
    (ValueError, httpx2.LocalProtocolError),  # a header that cannot be sent
)
_GONE: Final = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, aiohttp.ClientConnectionResetError)


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """Sends to the origin of `base_url` only. Its idle connections are counted by `sockets`, which says how many."""

    tells_departures = True

    def __init__(self, base_url: str, sockets: Sockets, max_answer: int = MAX_ANSWER) -> None:
        self._origin = Origin(base_url)
        self._sockets = sockets
        self._max_answer = max_answer
        self._targets: dict[bytes, yarl.URL] = {}
        self._session: aiohttp.ClientSession | None = None
        self._connector: Connector | None = None
        self._secure = httpx2.URL(base_url).scheme == "https"
        self.busy = 0  #: requests in flight

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self._origin.check(request.url)
        session = self._session or self._open()
        self.busy += 1
        handed_on = False
        try:
            response = await self._sent(session, request)
            headers = response.raw_headers
            if wants_stream(request) and is_stream(response.status, httpx2.Headers(headers)):
                handed_on = True
                opened = httpx2.Response(response.status, headers=headers, stream=_Parts(response))
                return open_response(opened, self._leave)
            try:
                with _as_httpx():
                    body = await _whole(response, self._max_answer)
            finally:
                response.close()  # nothing is left to close when it was read to its end
            return whole_response(response.status, headers, body, self._max_answer)
        finally:
            if not handed_on:
                self._leave()

    async def aclose(self) -> None:
        session, connector = self._session, self._connector
        self._session = self._connector = None
        if session is not None and connector is not None:
            self._sockets.pools.remove(connector)
            await session.close()

    def _leave(self) -> None:
        self.busy -= 1

    def _open(self) -> aiohttp.ClientSession:
        tls = httpx2.create_ssl_context(trust_env=False) if self._secure else True
        self._connector = Connector(self._sockets, limit=0, keepalive_timeout=KEPT, ssl=tls)
        self._sockets.pools.append(self._connector)
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )
        return self._session

    def _target(self, url: httpx2.URL) -> yarl.URL:
        target = self._targets.get(url.raw_path)
        if target is None:
            target = self._targets[url.raw_path] = yarl.URL(str(url), encoded=True)
        return target

    async def _sent(self, session: aiohttp.ClientSession, request: httpx2.Request) -> aiohttp.ClientResponse:
        timeout = request.extensions.get("timeout", {})
        sending = _Sending()
        _SENDING.set(sending)
        body = request.content
        if not body:
            departs()
        started = time.monotonic()
        try:
            with _as_httpx():
                return await session.request(
                    request.method,
                    self._target(request.url),
                    data=_Body(body) if body else None,
                    headers=_pairs(request.headers),
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeout.get("connect")),
                )
        except httpx2.TransportError as error:
            if sending.used and isinstance(error.__cause__, _GONE) and time.monotonic() - started < STALE:
                raise StaleConnection("the server had closed the connection, unused for a while") from error
            raise


def _pairs(headers: httpx2.Headers) -> list[tuple[str, str]]:
    if isinstance(headers, ReadyHeaders):
        return headers.pairs
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers.raw]


class _Sending:
    """One request on its way. `used`: its connection was used before."""

    __slots__ = ("used",)

    def __init__(self) -> None:
        self.used = False


#: of the task that sends; nothing else reaches from a request to the connector
_SENDING: Final = ContextVar[_Sending]("sending")


class _Body(aiohttp.BytesPayload):
    """The body of a request, which leaves in one write together with the head."""

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        departs()
        await super().write_with_length(writer, content_length)


class Socket(Protocol):
    """What is needed of a connection."""

    def is_closing(self) -> bool: ...

    def abort(self) -> None: ...

    def get_extra_info(self, name: str) -> object: ...

    def set_write_buffer_limits(self, high: int) -> None: ...


def write_at_once(socket: Socket) -> None:
    """Have what is written given to the system in that moment, where uvloop gathers it until the end of its turn:
    between a departure and the bytes on their way nothing else is to happen.

    Not with TLS, whose transports take an empty buffer for one that is over a limit of 0, and pause who writes."""
    if socket.get_extra_info("sslcontext") is None:
        socket.set_write_buffer_limits(0)


class Connector(aiohttp.TCPConnector):
    """Keeps `sockets`. aiohttp keeps the idle connections itself, uses the oldest first and closes them after a while;
    here stands only which they are."""

    def __init__(self, sockets: Sockets, *, limit: int, keepalive_timeout: float, ssl: SSLContext | bool) -> None:
        super().__init__(limit=limit, keepalive_timeout=keepalive_timeout, ssl=ssl)  # pyright: ignore[reportUnknownMemberType]
        self._sockets = sockets
        self._unused: dict[Socket, float] = {}  #: and since when; the oldest first

    @property
    def idle(self) -> int:
        self._forget_closed()
        return len(self._unused)

    @property
    def oldest(self) -> float:
        """When the connection that is unused for longest was used last."""
        self._forget_closed()
        return next(iter(self._unused.values()), inf)

    async def close_oldest(self) -> None:
        socket = next(iter(self._unused))
        del self._unused[socket]
        socket.abort()
        await anyio.lowlevel.checkpoint()  # the event loop frees the descriptor in its next turn

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        socket = connection.transport
        if socket is not None:
            _SENDING.get().used = self._unused.pop(socket, None) is not None
            connection.add_callback(partial(self._left, socket))
        return connection

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        while True:
            await self._sockets.make_room()
            try:
                protocol = await super()._create_connection(req, traces, timeout)
            except aiohttp.ClientConnectorError as error:
                if not no_descriptor((error, error.os_error)):
                    raise
            else:
                if protocol.transport is not None:
                    write_at_once(protocol.transport)
                return protocol
            await self._sockets.take_again()

    def _left(self, socket: Socket) -> None:
        self._unused[socket] = time.monotonic()
        self._forget_closed()

    def _forget_closed(self) -> None:
        while self._unused and (socket := next(iter(self._unused))).is_closing():
            del self._unused[socket]


class _Parts(httpx2.AsyncByteStream):
    """The parts of an answer as they come, with the errors of httpx2."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        with _as_httpx():
            part = await self._response.content.readany()
        if not part:
            raise StopAsyncIteration
        return part

    async def aclose(self) -> None:
        self._response.close()


async def _whole(response: aiohttp.ClientResponse, limit: int) -> bytes:
    content = response.content
    first = await content.readany()
    if content.at_eof():
        if len(first) > limit:
            raise too_large(limit)
        return first
    parts, size = [first], len(first)
    while size <= limit and (part := await content.readany()):
        size += len(part)
        parts.append(part)
    if size > limit:
        raise too_large(limit)
    return b"".join(parts)


@contextmanager
def _as_httpx() -> Generator[None]:
    """Raise what httpx2 would, with what aiohttp raised as its cause."""
    try:
        yield
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise _known(error)(str(error) or type(error).__name__) from error


def _known(error: Exception) -> type[httpx2.TransportError]:
    return next(known for kind, known in _ERRORS if isinstance(error, kind))
