"""The HTTP client under the SDK's: hands what the SDK built to the transport, and adds nothing of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Final

import httpx2

from pipeline.calls.departure import TellsDepartures, departs

#: what of a request counts for one with a body of bytes
_USUAL: Final = frozenset({"headers", "timeout", "content", "params", "files"})


class ReadyHeaders(httpx2.Headers):
    """Headers that are the same for many requests. They are not changed any more.

    All but the length of the content, which a transport adds.
    """

    def __init__(self, headers: Mapping[str, str], url: httpx2.URL) -> None:
        given = httpx2.Headers(headers)
        host = [] if "host" in given else [(b"Host", url.netloc)]
        super().__init__(host + given.raw, encoding="utf-8")
        self.pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in self.raw]


class ReadyRequest(httpx2.Request):
    """A request out of parts that are ready. The constructor of its class reads, checks and copies each part again,
    which costs as much as to send it."""

    def __init__(self, url: httpx2.URL, headers: ReadyHeaders, content: bytes, extensions: dict[str, Any]) -> None:
        self.method, self.url, self.headers, self.extensions = "POST", url, headers, extensions
        self.stream = httpx2.ByteStream(content)
        self._content = content


class PlainHttp(httpx2.AsyncClient):
    """No cookies, no redirects, no authentication, nothing from the environment; a third of the work for a request.

    What it leaves out of `build_request` and `send`, which are the two methods that the SDK calls, would all be
    switched off. Requests of another form than the usual one are built as ever.
    """

    def __init__(self, transport: httpx2.AsyncBaseTransport, timeout: httpx2.Timeout) -> None:
        super().__init__(transport=transport, timeout=timeout, trust_env=False, follow_redirects=False)
        self._sends = transport
        self._told = isinstance(transport, TellsDepartures)  #: when a request leaves, by what sends it
        self._known: dict[str, httpx2.URL] = {}  #: one or two paths; reading a URL costs as much as sending it
        self._timeouts = timeout.as_dict()

    def build_request(self, method: str, url: httpx2.URL | str, **given: Any) -> httpx2.Request:
        if not isinstance(url, str) or given.get("files") or given.get("params") or not given.keys() <= _USUAL:
            return super().build_request(method, url, **given)
        if url not in self._known:
            self._known[url] = httpx2.URL(url)
        headers, content = given.get("headers"), given.get("content")
        timeouts = {"timeout": self._timeouts}
        request = httpx2.Request(method, self._known[url], headers=headers, content=content, extensions=timeouts)
        request.headers.encoding = "utf-8"  # otherwise every look at them would try to find out
        return request

    def send_ready(self, url: httpx2.URL, headers: ReadyHeaders, content: bytes) -> Awaitable[httpx2.Response]:
        """Send what is ready."""
        if not self._told:
            departs()
        return self._sends.handle_async_request(ReadyRequest(url, headers, content, {"timeout": self._timeouts}))

    async def send(self, request: httpx2.Request, **given: Any) -> httpx2.Response:
        if not self._told:
            departs()
        response = await self._sends.handle_async_request(request)
        response.request = request
        return response
