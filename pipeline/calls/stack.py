"""Puts the policies around a provider's call in the one right order; `pipeline.calls` says why it is right."""

from __future__ import annotations

from collections.abc import Sequence

import anyio

from pipeline.calls.account import Account
from pipeline.calls.call import Call, Policy
from pipeline.calls.deadline import Deadline
from pipeline.calls.limit import SharedLimit
from pipeline.calls.retry import Retry
from pipeline.calls.structured import structured
from pipeline.calls.timeout import AttemptTimeout


def call_stack(
    attempt: Call, *, retry: Retry, timeout: float | None, limiter: anyio.CapacityLimiter | None = None
) -> Call:
    """Return the call that a stage makes, around `attempt`, which asks the provider once."""
    policies: list[Policy] = [Deadline(), retry]
    if limiter is not None:
        policies.append(SharedLimit(limiter))
    policies.append(Account())
    if timeout is not None:
        policies.append(AttemptTimeout(timeout))
    return structured(wrapped(attempt, policies))


def wrapped(call: Call, policies: Sequence[Policy]) -> Call:
    """Wrap `call` so that the first of `policies` is the outermost."""
    for policy in reversed(policies):
        call = policy(call)
    return call
