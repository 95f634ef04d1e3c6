"""A model behind the OpenAI-compatible protocol, asked through the OpenAI SDK: chat completions, or responses.

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
from pipeline.calls.estimate import TokenCharge
from pipeline.calls.prices import ListPrice
from pipeline.calls.pricing import SIMULATED, Given, Tariff
from pipeline.core.budget import Budget
from pipeline.core.errors import DefinitionError, Problem
from pipeline.core.limits import Limits
from stages.models.body import SchemaMode, TokenField
from stages.models.calling import Calling
from stages.models.checks import mapping, texts
from stages.models.endpoint import Endpoint
from stages.models.opening import OpenChat, open_alone, open_chat
from stages.models.paying import against_budget
from stages.models.responses import MISSING
from stages.models.sockets import sockets_of
from stages.models.wires import Api


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
    api: Api = "chat"  #: what it is asked through; there is no way from one to the other at run time
    apis: tuple[Api, ...] = ("chat", "responses")  #: those that its server has
    stream_usage: bool = True  #: ask a stream to count its tokens; off for servers that refuse to be asked
    finish_optional: bool = False  #: its server may leave out why an answer ends, so that a cut one looks like a whole
    price_provider: str | None = None  #: the provider's name in the price list
    token_charge: TokenCharge = "used"  #: how it counts tokens against the account's rates
    adapts: bool = True  #: how much its server takes is learned from what it refuses

    def __post_init__(self) -> None:
        texts(base_url=self.base_url, api_key_env=self.api_key_env, organization=self.organization)
        object.__setattr__(self, "base_url", self.base_url.rstrip("/"))  # it is part of what is shared
        headers = mapping(self.headers, "headers")
        texts(**{f"headers.{name}": value for name, value in headers.items()})
        object.__setattr__(self, "headers", MappingProxyType(dict(headers)))
        self.check()
        self._check_api()
        Endpoint.of(self.base_url, keyed=self.api_key_env is not None)

    def _check_api(self) -> None:
        if self.api not in ("chat", "responses"):
            raise DefinitionError(Problem(None, "api", f"is {self.api!r}", "chat or responses"))
        if self.api not in self.apis:
            said = f"{self.provider} has no such API as far as is known"
            raise DefinitionError(Problem(None, "api", said, f"leave it out for {self.apis[0]}"))
        missing = [name for name in MISSING if getattr(self.parameters, name)]
        if self.api == "responses" and missing:
            text = f"the Responses API has no {' and no '.join(missing)}"
            raise DefinitionError(Problem(None, missing[0], text, "leave it out, or set api: chat"))

    @property
    def name(self) -> str:
        return f"{self.provider}/{self.model}"

    def open(self) -> AbstractAsyncContextManager[OpenChat]:
        """Open the model alone. Raises `ModelError` when the key is missing."""
        return open_alone(self)

    def open_within(self, limits: Limits) -> AbstractAsyncContextManager[OpenChat]:
        """Open the model for a run, sharing quotas and connections in `limits`. Raises as `open` does."""
        from stages.models.transport import shared_transport

        sockets = sockets_of(limits)
        return open_chat(self, self._key(), lambda: shared_transport(self.base_url, limits), limits, sockets=sockets)

    def tariff(self) -> Tariff:
        """What it costs: its own prices, or those of the installed list."""
        if self.price is not None:
            return Given.of(self.price)
        return SIMULATED if self.provider == "sim" else ListPrice(self.model, self.price_provider)

    def against_budget(self, budget: Budget, parameters: Mapping[str, object] | None) -> list[Problem]:
        """Satisfies `pipeline.core.budget.Payable`."""
        return against_budget(self, budget, parameters)

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
