"""How fast and how many: what a definition says of it, shared by all that use the same account and model."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import TYPE_CHECKING

from pipeline.calls.adaptive import START
from pipeline.calls.call import Policy
from pipeline.calls.gate import Gate
from pipeline.calls.limit import SharedLimit
from pipeline.calls.pacing import Pacing
from pipeline.calls.rates import Rates
from pipeline.calls.turnstile import Turnstile
from pipeline.core.limits import Limits

if TYPE_CHECKING:
    from stages.models.openai import OpenAIModel


def quota(definition: OpenAIModel, limits: Limits) -> Policy:
    return Pacing(_turnstile(definition, limits))


def limit(definition: OpenAIModel, limits: Limits) -> Policy | None:
    """None if nothing bounds the model and nothing will be learned."""
    if not definition.adapts and definition.max_concurrency is None:
        return None
    turnstile = _turnstile(definition, limits)
    most = definition.max_concurrency or math.inf
    start = START if definition.adapts and not turnstile.quota.announced else math.inf
    made = Gate(definition.name, most=most, start=start, adapts=definition.adapts)
    gate = limits.shared(("gate", *_account(definition)), lambda: made)
    if gate is not made:
        gate.resize(min(most, gate.concurrency.most))
    return SharedLimit(gate, turnstile)


def _turnstile(definition: OpenAIModel, limits: Limits) -> Turnstile:
    made = Turnstile(definition.name, definition.token_charge)
    turnstile = limits.shared(("quota", *_account(definition)), lambda: made)
    turnstile.limit_to(
        Rates(
            requests=definition.requests_per_minute,
            tokens=definition.tokens_per_minute,
            input_tokens=definition.input_tokens_per_minute,
            output_tokens=definition.output_tokens_per_minute,
        )
    )
    return turnstile


def endpoint(definition: OpenAIModel) -> tuple[Hashable, ...]:
    """What a server and an account at it are told apart by: where it is, and who pays."""
    return definition.base_url, definition.api_key_env, definition.organization


def _account(definition: OpenAIModel) -> tuple[Hashable, ...]:
    """What a quota is told apart by: the account, and what its server is asked."""
    return *endpoint(definition), definition.model
