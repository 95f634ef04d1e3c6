"""An answer that is handed on as it comes: what a transport and the reader of a stream agree upon.

A request that wants one says so with its `Accept` header. A transport hands on only what is a stream, with status 200
and not packed; everything else it reads whole, whoever asked, so that errors are read and capped in one way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

import httpx2

EVENT_STREAM: Final = "text/event-stream"

_PLAIN: Final = ("", "identity")


def wants_stream(request: httpx2.Request) -> bool:
    """Say whether a request asks for its answer as it comes."""
    return EVENT_STREAM in request.headers.get("accept", "")


def is_stream(status: int, headers: Mapping[str, str]) -> bool:
    """Say whether an answer can be handed on as it comes; `headers` are looked up in lower case."""
    kind, packed = headers.get("content-type", ""), headers.get("content-encoding", "")
    return status == 200 and kind.lower().startswith(EVENT_STREAM) and packed.strip().lower() in _PLAIN


def open_response(response: httpx2.Response, release: Callable[[], None]) -> httpx2.Response:
    """Return `response` so that closing it also calls `release`, once."""
    stream = response.stream
    assert isinstance(stream, httpx2.AsyncByteStream)
    return httpx2.Response(
        response.status_code,
        headers=response.headers,
        stream=_Released(stream, release),
        extensions=response.extensions,
    )


class _Released(httpx2.AsyncByteStream):
    """Hands on the parts of a stream, and gives back what it held when it is closed."""

    def __init__(self, stream: httpx2.AsyncByteStream, release: Callable[[], None]) -> None:
        self._stream = stream
        self._release: Callable[[], None] | None = release

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()  # not a generator of its own: one less to be left half read

    async def aclose(self) -> None:
        release, self._release = self._release, None
        try:
            await self._stream.aclose()
        finally:
            if release is not None:
                release()
