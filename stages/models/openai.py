"""A model behind the OpenAI-compatible chat-completions protocol, asked through the OpenAI SDK.

The SDK builds and sends requests; everything that decides stays here: retries, redirects and the environment are
switched off, and its typed models are passed by, because they accept what no answer should be. The SDK is imported when
the first model is opened (it takes half a second), so a definition costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from types import MappingProxyType

from pipeline.calls.errors import ModelError
from pipeline.core.limits import Limits
from stages.models.body import SchemaMode, TokenField
from stages.models.calling import Calling
from stages.models.checks import mapping, texts
from stages.models.endpoint import Endpoint
from stages.models.opening import OpenChat, open_alone, open_chat


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIModel(Calling):
    """A frozen description of one model of one provider. `resolve` makes it from a preset.

    The key is read from the variable `api_key_env` when the model is opened, and sent to the host of `base_url` only,
    over https (or to this machine). Raises `DefinitionError` when that cannot be.
    """

    provider: str
    model: str
    base_url: str
    api_key_env: str | None = None
    api_key_optional: bool = False  #: go without a key when its variable is not set
    organization: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str], hash=False, repr=False)
    token_field: TokenField = "max_tokens"
    schema_mode: SchemaMode = "json_schema"
    price_provider: str | None = None  #: the provider's name in the price list

    def __post_init__(self) -> None:
        texts(base_url=self.base_url, api_key_env=self.api_key_env, organization=self.organization)
        headers = mapping(self.headers, "headers")
        texts(**{f"headers.{name}": value for name, value in headers.items()})
        object.__setattr__(self, "headers", MappingProxyType(dict(headers)))
        self.check()
        Endpoint.of(self.base_url, keyed=self.api_key_env is not None)

    @property
    def name(self) -> str:
        return f"{self.provider}/{self.model}"

    def open(self) -> AbstractAsyncContextManager[OpenChat]:
        """Open the model alone. Raises `ModelError` when the key is missing."""
        return open_alone(self)

    def open_within(self, limits: Limits) -> AbstractAsyncContextManager[OpenChat]:
        """Open the model for a run, sharing quotas and connections in `limits`. Raises as `open` does."""
        from stages.models.transport import PooledTransport

        host = Endpoint.of(self.base_url, keyed=False).host
        return open_chat(self, self._key(), lambda: PooledTransport(host), limits)

    def _key(self) -> str | None:
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "")
        if not key and self.api_key_optional:
            return None
        if not key:
            raise ModelError(f"model {self.name}: the variable {self.api_key_env} is not set; put the key into it")
        if key.strip() != key or not key.isascii() or not key.isprintable():
            wrong = "holds blanks or line ends around the key, or characters that no key has"
            raise ModelError(f"model {self.name}: the variable {self.api_key_env} {wrong}; set it anew")
        return key
