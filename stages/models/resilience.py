"""What a definition asks for against failures: its policies, and what they share with other models in the limits."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, cast
from urllib.parse import urlsplit

from pipeline.calls.breaker import Breaker
from pipeline.calls.call import Policy, Request
from pipeline.calls.circuit import Circuit
from pipeline.calls.detector import Detector, FirstCalls
from pipeline.calls.fallback import Fallback, Substitute
from pipeline.calls.hedge import Hedge, hedge_allowance
from pipeline.calls.latencies import Latencies
from pipeline.calls.retry import Retry
from pipeline.calls.retry_budget import retry_budget
from pipeline.calls.secrets import without_secrets
from pipeline.core.limits import Limits
from pipeline.core.ports import SharesLimits
from stages.models.limiting import endpoint

if TYPE_CHECKING:
    from stages.models.openai import OpenAIModel

SIMULATED: Final = "sim"


class TakesOver(SharesLimits[Substitute], Protocol):
    """The definition of a model that can take over from another one."""

    @property
    def name(self) -> str: ...


def retry(definition: OpenAIModel, limits: Limits) -> Policy:
    where, name = _endpoint(definition)
    budget = limits.shared(("retries", *where), lambda: retry_budget(name))
    return Retry(attempts=definition.attempts, budget=budget)


def breaker(definition: OpenAIModel, limits: Limits) -> Policy:
    where, name = _endpoint(definition)
    circuit = limits.shared(("circuit", *where), lambda: Circuit(name))
    return Breaker(circuit, definition.model, patient=not definition.fallback, name=definition.name)


def detector() -> Policy:
    """Not shared: what one run asked for wrongly says nothing of the next run, nor of other options for the model."""
    return Detector(FirstCalls())


def hedge(definition: OpenAIModel, limits: Limits) -> Policy | None:
    if definition.hedge is None:
        return None
    where, _ = _endpoint(definition)
    latencies = limits.shared(("latencies", *where, definition.model), Latencies)
    allowance = limits.shared(("hedges", *where, definition.model), lambda: hedge_allowance(definition.name))
    return Hedge(int(definition.hedge.removeprefix("p")) / 100, latencies, allowance)


async def fallback(definition: OpenAIModel, limits: Limits) -> Policy | None:
    """Open the models that `definition` falls back to, each once within the limits. Raises `ModelError`."""
    models: list[Substitute] = []
    names = [definition.name]
    for other in definition.fallback:
        opens = cast("TakesOver", other)
        models.append(await limits.opened(("fallback", other), lambda opens=opens: opens.open_within(limits)))
        names.append(opens.name)
    return Fallback(tuple(models), tuple(names)) if models else None


async def cache(
    definition: OpenAIModel, limits: Limits, body_of: Callable[[Request], object], server: str
) -> Policy | None:
    """Open the file that `definition` keeps its answers in. Raises `ModelError`.

    They depend on `server` too, on who pays, and on headers, by which gateways choose between servers; but not on
    secrets, which change while all else stays.
    """
    if definition.cache is False:
        return None
    from pipeline.calls.cache import open_cache, usual_place
    from pipeline.calls.cached import Cached
    from pipeline.calls.flights import Flights

    path = usual_place() if definition.cache is True else _place(definition.cache)
    kept = await limits.opened(("cache", path), lambda: open_cache(path))
    flights = limits.shared(("flights", path), Flights)
    scope = (server, definition.api, definition.organization, definition.api_key_env)
    headers = sorted(without_secrets(definition.headers).items())
    return Cached(kept, flights, (*scope, *itertools.chain(*headers)), body_of)


def _place(path: str) -> Path:
    return Path(path).expanduser().absolute()


def _endpoint(definition: OpenAIModel) -> tuple[tuple[Hashable, ...], str]:
    """What an endpoint is told apart by, and its name: one server and account. Simulated models have one each."""
    if definition.provider == SIMULATED:
        return (definition,), definition.name
    return endpoint(definition), urlsplit(definition.base_url).netloc
