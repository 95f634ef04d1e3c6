"""The transport over aiohttp, which asyncio alone has: a third of the work of the other one for each request.

It keeps to the same contract: one origin, nothing from the environment, no redirects, no cookies, answers read whole up
to a cap, errors of httpx2. The only door of aiohttp.
"""

from __future__ import annotations

import errno
import time
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Final

import aiohttp
import httpx2
import yarl

from stages.models.sockets import Sockets
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
    """Sends to the origin of `base_url` only. `sockets` is told when the process runs out of descriptors."""

    def __init__(self, base_url: str, sockets: Sockets, max_answer: int = MAX_ANSWER) -> None:
        self._origin = Origin(base_url)
        self._sockets = sockets
        self._max_answer = max_answer
        self._targets: dict[bytes, yarl.URL] = {}
        self._session: aiohttp.ClientSession | None = None
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
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _leave(self) -> None:
        self.busy -= 1

    def _open(self) -> aiohttp.ClientSession:
        tls = httpx2.create_ssl_context(trust_env=False) if self._secure else True
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT, ssl=tls)
        connections = aiohttp.TraceConfig()
        connections.on_connection_create_start.append(_is_new)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            trace_configs=[connections],
        )
        return self._session

    def _target(self, url: httpx2.URL) -> yarl.URL:
        target = self._targets.get(url.raw_path)
        if target is None:
            target = self._targets[url.raw_path] = yarl.URL(str(url), encoded=True)
        return target

    async def _sent(self, session: aiohttp.ClientSession, request: httpx2.Request) -> aiohttp.ClientResponse:
        timeout = request.extensions.get("timeout", {})
        sending = _Sending(time.monotonic())
        try:
            with _as_httpx():
                return await session.request(
                    request.method,
                    self._target(request.url),
                    data=request.content,
                    headers=[(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw],
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeout.get("connect")),
                    trace_request_ctx=sending,
                )
        except httpx2.TransportError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in (errno.EMFILE, errno.ENFILE):
                self._sockets.out_of_descriptors()
            if not sending.new and isinstance(cause, _GONE) and time.monotonic() - sending.started < STALE:
                raise StaleConnection("the server had closed the connection, unused for a while") from error
            raise


class _Sending:
    """One request on its way. `new`: a connection was opened for it."""

    __slots__ = ("new", "started")

    def __init__(self, started: float) -> None:
        self.started = started
        self.new = False


async def _is_new(session: aiohttp.ClientSession, context: SimpleNamespace, what: object) -> None:
    context.trace_request_ctx.new = True


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
