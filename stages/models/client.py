"""The SDK's client with exactly our headers, over a transport of ours; what the SDK would decide is switched off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import httpx2
    import openai

    from stages.models.openai import OpenAIModel

CONNECT_TIMEOUT: Final = 10.0  #: seconds; a server that is there answers the connection long before


def sdk_client(definition: OpenAIModel, key: str | None, transport: httpx2.AsyncBaseTransport) -> openai.AsyncOpenAI:
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
