"""A transport of single connections on a stack, for both event loops.

The HTTP library's own pool does work in proportion to its connections for every request. Here a request takes the
connection that was used last, or opens one; what lies unused at the bottom is closed after a while, or when any pool
needs the room. So a run keeps as many connections as it has requests in flight, and each request costs the same,
however many there are.
"""

from __future__ import annotations

import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from functools import partial
from math import inf
from typing import cast

import anyio
import httpcore2
import httpx2

from pipeline.calls.departure import awaited, departs
from stages.models.plain_http import ReadyRequest
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


class PooledTransport(httpx2.AsyncBaseTransport):
    """Sends to the origin of `base_url` only. Its idle connections are counted by `sockets`, which says how many."""

    tells_departures = True

    def __init__(self, base_url: str, sockets: Sockets, max_answer: int = MAX_ANSWER) -> None:
        self._origin = Origin(base_url)
        self._sockets = sockets
        self._max_answer = max_answer
        self._tls: ssl.SSLContext | None = None
        self._targets: dict[bytes, httpcore2.URL] = {}
        self._idle: deque[tuple[float, httpcore2.AsyncHTTPConnection]] = deque()  # used last at the right
        sockets.pools.append(self)
        self.busy = 0  #: connections in use; changed without an await in between, so no lock
        self._closed = False

    @property
    def idle(self) -> int:
        """Connections that wait to be used again."""
        return len(self._idle)

    @property
    def oldest(self) -> float:
        """When the connection that is unused for longest was used last."""
        return self._idle[0][0] if self._idle else inf

    async def close_oldest(self) -> None:
        with anyio.CancelScope(shield=True):
            await self._idle.popleft()[1].aclose()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self._origin.check(request.url)
        self.busy += 1
        connection, handed_on = None, False
        try:
            connection, response = await self._begun(self._core_request(request))
            headers = response.headers
            if wants_stream(request) and is_stream(response.status, httpx2.Headers(headers)):
                handed_on = True
                opened = httpx2.Response(response.status, headers=headers, stream=_Parts(response))
                return open_response(opened, partial(self._leave, connection))
            try:
                body = await _whole(response, self._max_answer)
            finally:
                await _close(response)
            return whole_response(response.status, headers, body, self._max_answer)
        finally:
            if not handed_on:
                self._leave(connection)

    async def aclose(self) -> None:
        self._closed = True
        if self in self._sockets.pools:
            self._sockets.pools.remove(self)
        while self._idle:
            await self._idle.pop()[1].aclose()

    def _core_request(self, request: httpx2.Request) -> httpcore2.Request:
        url = request.url
        target = self._targets.get(url.raw_path)
        if target is None:
            target = self._targets[url.raw_path] = httpcore2.URL(
                scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
            )
        headers, content = request.headers.raw, request.content
        if isinstance(request, ReadyRequest):
            headers.append((b"Content-Length", b"%d" % len(content)))
        return httpcore2.Request(
            request.method, target, headers=headers, content=content, extensions=request.extensions
        )

    async def _begun(self, request: httpcore2.Request) -> tuple[httpcore2.AsyncHTTPConnection, httpcore2.Response]:
        """Send the request; return its answer when that begins, and the connection, which is ours from now on."""
        await self._sockets.close_unused(time.monotonic() - KEPT)
        while True:
            while self._idle:
                _, connection = self._idle.pop()
                if not connection.has_expired():
                    return connection, await self._sent(connection, _traced(request), used=True)
                await connection.aclose()  # the server has closed it, or is about to
            await self._sockets.make_room()
            connection = self._opened(request)
            try:
                return connection, await self._sent(connection, _traced(request), used=False)
            except httpx2.ConnectError as error:
                if not no_descriptor(_causes(error)):
                    raise
            await self._sockets.take_again()

    def _opened(self, request: httpcore2.Request) -> httpcore2.AsyncHTTPConnection:
        if self._tls is None and request.url.scheme == b"https":  # reading the trust store takes milliseconds
            self._tls = httpx2.create_ssl_context(trust_env=False)
        return httpcore2.AsyncHTTPConnection(request.url.origin, ssl_context=self._tls, keepalive_expiry=KEPT)

    async def _sent(
        self, connection: httpcore2.AsyncHTTPConnection, request: httpcore2.Request, *, used: bool
    ) -> httpcore2.Response:
        started = time.monotonic()
        try:
            return await connection.handle_async_request(request)
        except Exception as error:
            if used and time.monotonic() - started < STALE and _is_closed(error):
                raise StaleConnection("the server had closed the connection, unused for a while") from error
            raise _as_httpx(error) from error
        except BaseException:
            if not connection.is_closed():  # cancelled before it was used
                with anyio.CancelScope(shield=True):
                    await connection.aclose()
            raise

    def _leave(self, connection: httpcore2.AsyncHTTPConnection | None) -> None:
        self.busy -= 1
        if connection is not None and connection.is_available() and not self._closed:
            self._idle.append((time.monotonic(), connection))


class _Parts(httpx2.AsyncByteStream):
    """The parts of an answer as they come, with the errors of httpx2."""

    def __init__(self, response: httpcore2.Response) -> None:
        self._response = response
        self._parts: AsyncIterator[bytes] | None = None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._parts is None:
            self._parts = self._response.aiter_stream()
        try:
            return await anext(self._parts)
        except StopAsyncIteration:
            raise
        except Exception as error:
            raise _as_httpx(error) from error

    async def aclose(self) -> None:
        await _close(self._response)


async def _close(response: httpcore2.Response) -> None:
    """Let the connection be used again, or close it; shielded, because half of that would leave it open for good."""
    with anyio.CancelScope(shield=True):
        await response.aclose()


async def _whole(response: httpcore2.Response, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    # Leaving the loop early would leave the library's nested generators half read, to be closed by nobody; cancelled,
    # they unwind from the inside and close the connection.
    with anyio.CancelScope() as scope:
        async for part in _Parts(response):
            size += len(part)
            if size > limit:
                scope.cancel()
            else:
                parts.append(part)
    if size > limit:
        raise too_large(limit)
    return b"".join(parts) if len(parts) != 1 else parts[0]


def _traced(request: httpcore2.Request) -> httpcore2.Request:
    """The same request, which says when it leaves: there is a connection then, and nothing else to be done."""
    if not awaited():
        return request

    async def trace(what: str, info: object) -> None:
        if what.endswith("send_request_headers.started"):
            departs()

    request.extensions["trace"] = trace  # pyright: ignore[reportUnknownMemberType]
    return request


def _is_closed(error: Exception) -> bool:
    """Whether there was no answer at all, not even a wrong one."""
    if isinstance(error, httpcore2.RemoteProtocolError):
        return error.__cause__ is None
    return isinstance(error, httpcore2.ReadError | httpcore2.WriteError)


def _as_httpx(error: Exception) -> Exception:
    """The error of httpx2 for one of the layer below it, which have the same names, or for one that it lets through."""
    known = getattr(httpx2, type(error).__name__, None)
    if isinstance(known, type) and issubclass(known, httpx2.HTTPError):
        return cast("type[httpx2.TransportError]", known)(str(error))
    if isinstance(error, ssl.SSLError | anyio.EndOfStream | anyio.BrokenResourceError | anyio.ClosedResourceError):
        return httpx2.ReadError(str(error))
    return error


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and everything that led to it."""
    here: BaseException | None = error
    while here is not None:
        yield here
        if isinstance(here, BaseExceptionGroup):
            for each in cast("BaseExceptionGroup[BaseException]", here).exceptions:
                yield from _causes(each)
        here = here.__cause__ or here.__context__
