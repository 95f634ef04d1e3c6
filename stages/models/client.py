"""The SDK's client with exactly our headers, over a transport of ours; what the SDK would decide is switched off.

Importing this module imports the SDK, which takes half a second; `stages.models.opening` does so when it opens one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import httpx2
import openai

from stages.models.plain_http import PlainHttp, ReadyHeaders

if TYPE_CHECKING:
    from stages.models.openai import OpenAIModel

CONNECT_TIMEOUT: Final = 10.0  #: seconds; a server that is there answers the connection long before


class PlainClient(openai.AsyncOpenAI):
    """The SDK's client, and a short way through it for plain calls.

    The SDK builds a request in a quarter of a millisecond, as much as the rest of a call takes: it copies options that
    are never set and reads one URL three times. `send` sends the same bytes to the same place by the same HTTP client,
    with the SDK's own address and authentication; what it leaves out is what is switched off.
    """

    def __init__(self, definition: OpenAIModel, key: str | None, transport: httpx2.AsyncBaseTransport) -> None:
        connect = CONNECT_TIMEOUT if definition.timeout is None else min(CONNECT_TIMEOUT, definition.timeout)
        timeout = httpx2.Timeout(None, connect=connect)  # the attempt's own policy is the clock
        self._plain_headers = _headers(definition)
        self._plain_http = PlainHttp(transport, timeout)
        super().__init__(
            api_key=key or "none",  # servers without keys take any that is not empty
            organization=definition.organization or "",  # None would be read from the environment
            project="",
            base_url=definition.base_url,
            max_retries=0,
            timeout=timeout,
            http_client=self._plain_http,
        )
        # The platform would be looked up in a worker thread by the first request, for headers that are not sent.
        self._platform = "Unknown"
        self._whole_headers = {**self.auth_headers, **self._plain_headers}
        self._targets: dict[str, tuple[httpx2.URL, ReadyHeaders]] = {}  #: by path, of which there are one or two

    @property
    def default_headers(self) -> dict[str, str | openai.Omit]:
        """Exactly ours: the SDK's own say more about this machine, and take what OPENAI_CUSTOM_HEADERS says."""
        return dict(self._plain_headers)

    async def send(self, path: str, content: bytes, headers: Mapping[str, str]) -> httpx2.Response:
        """Post `content` and return the answer, whatever its status. Raises `httpx2.TransportError`."""
        if path not in self._targets:
            url = httpx2.URL(f"{str(self.base_url).rstrip('/')}{path}")
            self._targets[path] = url, ReadyHeaders(self._whole_headers, url)
        url, ready = self._targets[path]
        if headers:
            more = httpx2.Headers(ready)
            more.update(headers)
            ready = ReadyHeaders(more, url)
        return await self._plain_http.send_ready(url, ready, content)


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
