"""What all transports keep to: one host, one answer of bounded size, plain errors; and which of them a run gets.

Reading happens in the transport, below the SDK, so that the cap holds for error bodies too, and so that connections in
use can be counted exactly. Errors are those of httpx2, whatever the transport is made of.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable, Iterable
from importlib.util import find_spec
from types import CoroutineType
from typing import Any, Final

import httpx2
import sniffio

from pipeline.core.limits import Limits
from stages.models.sockets import Sockets, sockets_of

MAX_ANSWER: Final = 16 * 1024 * 1024  #: bytes of one answer, after decoding
KEPT: Final = 5.0  #: seconds for which an idle connection is used again; servers close theirs not much later
STALE: Final = 0.05  #: seconds in which a connection that the server had closed by itself shows it

#: What describes the wire and not the content; and cookies, which would tie one item's request to another's.
_LEFT_OUT: Final = (b"content-encoding", b"content-length", b"transfer-encoding", b"set-cookie")


class TransportRefusal(Exception):
    """The transport itself said no; nothing is wrong with the connection."""


class ResponseTooLarge(TransportRefusal):
    """An answer is longer than `MAX_ANSWER`."""


class BadEncoding(TransportRefusal):
    """An answer is packed in a way that cannot be read."""


class ForeignHost(TransportRefusal):
    """A request would leave the host that its key is bound to."""


class StaleConnection(TransportRefusal):
    """A connection that had been used before was closed by the server before it read the request."""


def open_transport(base_url: str, sockets: Sockets) -> httpx2.AsyncBaseTransport:
    """Return the fastest transport for the event loop that runs: aiohttp where it is installed and can run."""
    if sniffio.current_async_library() == "asyncio" and find_spec("aiohttp") is not None:
        from stages.models.aiohttp_transport import AiohttpTransport

        return AiohttpTransport(base_url, sockets)
    from stages.models.pools import PooledTransport

    return PooledTransport(base_url, sockets)


class SharedTransport:
    """The transport of one origin, for all models of a run: opened for the first that joins, closed by the last."""

    def __init__(self, base_url: str, sockets: Sockets) -> None:
        self._base_url = base_url
        self._sockets = sockets
        self._members = 0
        self._transport: httpx2.AsyncBaseTransport | None = None

    def join(self) -> httpx2.AsyncBaseTransport:
        """Return a transport that leaves this one when it is closed."""
        if self._transport is None:
            self._transport = open_transport(self._base_url, self._sockets)
        self._members += 1
        return _Member(self._transport, self._leave)

    async def _leave(self) -> None:
        self._members -= 1
        transport = self._transport
        if not self._members and transport is not None:
            self._transport = None
            await transport.aclose()


class _Member(httpx2.AsyncBaseTransport):
    tells_departures = True  #: as all do that `open_transport` returns

    def __init__(self, transport: httpx2.AsyncBaseTransport, leave: Callable[[], Awaitable[None]]) -> None:
        self._transport = transport
        self._leave: Callable[[], Awaitable[None]] | None = leave

    def handle_async_request(self, request: httpx2.Request) -> CoroutineType[Any, Any, httpx2.Response]:
        return self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        leave, self._leave = self._leave, None
        if leave is not None:
            await leave()


def shared_transport(base_url: str, limits: Limits) -> httpx2.AsyncBaseTransport:
    """Return a transport over the connections that all models of these limits have to the origin of `base_url`.

    The keys of models stay apart: they are in the headers of each request.
    """
    sockets = sockets_of(limits)
    key = ("transport", *_parts(httpx2.URL(base_url)))
    return limits.shared(key, lambda: SharedTransport(base_url, sockets)).join()


class Origin:
    """The scheme, host and port that a transport sends to. Raises `ForeignHost` for any other."""

    def __init__(self, base_url: str) -> None:
        url = httpx2.URL(base_url)
        self.host = url.host
        self._parts = _parts(url)

    def check(self, url: httpx2.URL) -> None:
        if _parts(url) != self._parts:
            raise ForeignHost(f"a request to {url.host!r} on a connection for {self.host!r}")


def _parts(url: httpx2.URL) -> tuple[str, bytes, int | None]:
    return url.scheme, url.raw_host, url.port


def whole_response(
    status: int, raw_headers: Iterable[tuple[bytes, bytes]], body: bytes, max_answer: int
) -> httpx2.Response:
    """Return an answer that was read, unpacked. Raises `ResponseTooLarge` and `BadEncoding`."""
    encoding, headers = b"", list[tuple[bytes, bytes]]()
    for each in raw_headers:
        name = each[0].lower()
        if name not in _LEFT_OUT:
            headers.append(each)
        elif name == b"content-encoding":
            encoding = each[1]
    content = unpacked(body, encoding.decode("latin-1"), max_answer) if encoding else body
    response = _Whole(status, headers, content)
    response.headers.encoding = "latin-1"  # of HTTP; otherwise every look at them would try three
    return response


class _Whole(httpx2.Response):
    """An answer that was read: its class would read it again."""

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], content: bytes) -> None:
        super().__init__(status, headers=headers, stream=httpx2.ByteStream(content))
        self._content = content
        self.is_closed = self.is_stream_consumed = True


def unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """Return a body without the packing that we did not ask for but some servers send; never more than `limit`.

    Raises `ResponseTooLarge` for a bomb and `BadEncoding` for what cannot be unpacked.
    """
    if encoding.strip().lower() in ("", "identity"):
        return body
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        raise BadEncoding(f"the answer is packed as {encoding!r}, which was not asked for")
    unpacker = zlib.decompressobj(wbits=47)  # 47: gzip and zlib, told apart by their first bytes
    try:
        plain = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise BadEncoding(f"the answer is not packed as it says: {error}") from error
    if len(plain) > limit:
        raise too_large(limit)
    return plain


def too_large(limit: int) -> ResponseTooLarge:
    return ResponseTooLarge(f"the answer is longer than {limit:,} bytes")
