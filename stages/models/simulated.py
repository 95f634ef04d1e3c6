"""A model that needs no key and no network: an HTTP server in the process, behind the real SDK.

The same code asks it as asks a provider, so what is tried on it is what will run. Its answers are drawn from the seed
and from which attempt of which call of which item it is, never from order or time, so they are equal on both backends
and in every run.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, cast

from pipeline.calls.call import Reply, Request
from pipeline.calls.pricing import Tariff
from pipeline.core.budget import Budget
from pipeline.core.errors import DefinitionError, Problem
from pipeline.core.limits import Limits
from pipeline.core.ports import Visit
from pipeline.core.state import Message
from stages.models.calling import Calling
from stages.models.checks import mapping, texts, whole
from stages.models.distribution import Distribution
from stages.models.openai import OpenAIModel
from stages.models.opening import OpenChat, open_alone, open_chat
from stages.models.paying import against_budget
from stages.models.simulated_faults import Faults
from stages.models.simulated_limits import ServerLimits

if TYPE_CHECKING:
    from stages.models.simulated_ledger import Ledger
    from stages.models.simulated_service import SimulatedServer

IDENTITY_HEADER: Final = "x-penstock-call"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedModel(Calling):
    """A frozen description of a simulated model.

    `latency` is the time of an answer in seconds (`0.5`, `"250ms"`, `"uniform:0.5s..2s"`, `"lognormal:1s,0.5"`,
    `"exponential:1s"`), `tokens` the length of one in tokens (the same forms; None: as long as it needs), `errors` the
    share of attempts that fail by status or name (`{"429": "3%", "timeout": 0.01}`, names in `simulated_faults`).
    `model` "echo" answers with the prompt itself; any other name answers a text that says it is simulated. `limits` are
    the server's own, with the fields of `ServerLimits`, whatever the client has been told; models of the same name and
    limits in one run share them. Raises `DefinitionError`.
    """

    model: str = "default"
    seed: int = 0
    latency: Distribution | str | float = 0.0
    tokens: Distribution | str | float | None = None
    errors: Mapping[str, object] = field(default_factory=dict[str, object], hash=False)
    fail_when: str | None = None  #: prompts with this text are refused (400)
    hang_when: str | None = None  #: prompts with this text are never answered
    limits: ServerLimits | Mapping[str, object] | None = None  #: what the simulated server allows its clients

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        for check in (
            self._check_texts,
            self._check_latency,
            self._check_tokens,
            self._check_errors,
            self._check_limits,
            self._check_endpoint,
        ):
            try:
                check()
            except DefinitionError as error:
                problems += error.problems
        if problems:
            raise DefinitionError(*dict.fromkeys(problems))

    def _check_texts(self) -> None:
        whole(self.seed, "seed")
        texts(model=self.model, fail_when=self.fail_when, hang_when=self.hang_when)

    def _check_latency(self) -> None:
        object.__setattr__(self, "latency", Distribution.parse(self.latency, "latency"))

    def _check_tokens(self) -> None:
        if self.tokens is not None:
            object.__setattr__(self, "tokens", Distribution.parse(self.tokens, "tokens"))

    def _check_errors(self) -> None:
        object.__setattr__(self, "errors", MappingProxyType(dict(mapping(self.errors, "errors"))))
        self.faults()

    def _check_limits(self) -> None:
        if self.limits is not None:
            object.__setattr__(self, "limits", ServerLimits.parse(self.limits))

    def _check_endpoint(self) -> None:
        self.check()
        self.as_endpoint()

    @property
    def name(self) -> str:
        return f"sim/{self.model}"

    def faults(self) -> Faults:
        return Faults.parse(self.errors, self.fail_when, self.hang_when)

    def open(self) -> AbstractAsyncContextManager[OpenSimulated]:
        """Open the model alone."""
        return open_alone(self)

    def open_within(self, limits: Limits) -> AbstractAsyncContextManager[OpenSimulated]:
        """Open the model for a run, sharing quotas in `limits`."""
        return _open(self, limits)

    def tariff(self) -> Tariff:
        """What it costs: nothing, or its own prices, so that a budget can be tried."""
        return self.as_endpoint().tariff()

    def against_budget(self, budget: Budget, parameters: Mapping[str, object] | None) -> list[Problem]:
        """Satisfies `pipeline.core.budget.Payable`."""
        return against_budget(self, budget, parameters)

    def as_endpoint(self) -> OpenAIModel:
        """Return the definition that asks this model as it would ask a provider."""
        return OpenAIModel(
            provider="sim",
            model=self.model,
            base_url="http://sim.localhost/v1",  # never looked up: the transport answers by itself
            token_field="max_completion_tokens",
            adapts=self.limits is not None,  # what it refuses by chance says nothing of how much it takes
            **{each.name: getattr(self, each.name) for each in fields(Calling)},
        )


@dataclass(frozen=True, slots=True)
class OpenSimulated:
    """A simulated model that is open, and its server, whose `ledger` counts what it saw."""

    chat: OpenChat
    server: SimulatedServer

    @property
    def ledger(self) -> Ledger:
        return self.server.ledger

    async def call(self, visit: Visit, messages: Sequence[Message], **params: object) -> Reply:
        """As `OpenChat.call`."""
        return await self.chat.call(visit, messages, **params)

    async def take_over(self, request: Request) -> Reply:
        """As `OpenChat.take_over`."""
        return await self.chat.take_over(request)


@asynccontextmanager
async def _open(definition: SimulatedModel, limits: Limits) -> AsyncGenerator[OpenSimulated]:
    from stages.models.simulated_gate import Gate
    from stages.models.simulated_server import SimulatedTransport

    rules = cast("ServerLimits | None", definition.limits) or ServerLimits()
    gate = limits.shared(("simulated", definition.name, rules), lambda: Gate(rules))
    transport = SimulatedTransport(definition, gate)
    async with open_chat(
        definition.as_endpoint(),
        None,
        lambda: transport,
        limits,
        headers_of=_identity,
        server=repr((definition.seed, definition.tokens, definition.errors)),  # answers depend on what no request says
    ) as chat:
        yield OpenSimulated(chat, transport.server)


def _identity(request: Request) -> Mapping[str, str]:
    return {IDENTITY_HEADER: request.identity.digest(request.attempt).hex()}
