"""One transport made of many small connection pools, which reads each answer whole and never more than a cap of it.

The HTTP library's pool does work in proportion to its connections for every request; pools of at most `POOL` requests
each keep that small with thousands in flight. Reading happens here, below the SDK, so that the cap holds for error
bodies too, and so that the requests in each pool can be counted exactly.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Final

import anyio
import httpx2

from stages.models.streaming import is_stream, open_response, wants_stream

POOL: Final = 32  #: requests in flight of one pool
MAX_ANSWER: Final = 16 * 1024 * 1024  #: bytes of one answer, after decoding


#: What describes the wire and not the content; and cookies, which would tie one item's request to another's.
_LEFT_OUT: Final = ("content-encoding", "content-length", "transfer-encoding", "set-cookie")


class TransportRefusal(Exception):
    """The transport itself said no; nothing is wrong with the connection."""


class ResponseTooLarge(TransportRefusal):
    """An answer is longer than `MAX_ANSWER`."""


class BadEncoding(TransportRefusal):
    """An answer is packed in a way that cannot be read."""


class ForeignHost(TransportRefusal):
    """A request would leave the host that its key is bound to."""


@dataclass(slots=True, eq=False)
class _Pool:
    transport: httpx2.AsyncHTTPTransport
    busy: int = 0  #: requests in flight; changed without an await in between, so no lock

    def leave(self) -> None:
        self.busy -= 1


@dataclass(slots=True, eq=False)
class PooledTransport(httpx2.AsyncBaseTransport):
    """Sends to `host` only. A request goes to the first pool with room, so that an idle run keeps few connections."""

    host: str
    max_answer: int = MAX_ANSWER
    _pools: list[_Pool] = field(default_factory=list["_Pool"])
    _tls: object = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.raw_host.decode("ascii").strip("[]") != self.host:
            raise ForeignHost(f"a request to {request.url.host!r} on a connection for {self.host!r}")
        pool = self._pool_with_room()
        pool.busy += 1
        handed_on = False
        try:
            response = await pool.transport.handle_async_request(request)
            if wants_stream(request) and is_stream(response.status_code, response.headers):
                handed_on = True
                return open_response(response, pool.leave)
            try:
                return await self._whole(response)
            finally:
                await response.aclose()
        finally:
            if not handed_on:
                pool.leave()

    async def aclose(self) -> None:
        while self._pools:
            await self._pools.pop().transport.aclose()

    def _pool_with_room(self) -> _Pool:
        for pool in self._pools:
            if pool.busy < POOL:
                return pool
        if self._tls is None:  # reading the trust store takes milliseconds, so all pools share one
            self._tls = httpx2.create_ssl_context(trust_env=False)
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=POOL)
        pool = _Pool(httpx2.AsyncHTTPTransport(verify=self._tls, limits=limits, trust_env=False))  # pyright: ignore[reportArgumentType]
        self._pools.append(pool)
        return pool

    async def _whole(self, response: httpx2.Response) -> httpx2.Response:
        parts: list[bytes] = []
        size = 0
        # Leaving the loop early would leave the library's nested generators half read, to be closed by nobody;
        # cancelled, they unwind from the inside and close the connection.
        with anyio.CancelScope() as scope:
            async for part in response.aiter_raw():
                size += len(part)
                if size > self.max_answer:
                    scope.cancel()
                else:
                    parts.append(part)
        if size > self.max_answer:
            raise _too_large(self.max_answer)
        content = unpacked(b"".join(parts), response.headers.get("content-encoding", ""), self.max_answer)
        headers = [each for each in response.headers.multi_items() if each[0].lower() not in _LEFT_OUT]
        return httpx2.Response(response.status_code, headers=headers, content=content)


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
        raise _too_large(limit)
    return plain


def _too_large(limit: int) -> ResponseTooLarge:
    return ResponseTooLarge(f"the answer is longer than {limit:,} bytes")
