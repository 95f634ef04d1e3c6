"""How many attempts may be repeated at one endpoint: few, compared to its calls, or it would be asked four times as
often just when it can do least."""

from __future__ import annotations

from typing import Final

from pipeline.calls.allowance import Allowance
from pipeline.calls.errors import CallError

SHARE: Final = 0.10
BURST: Final = 20.0


def retry_budget(endpoint: str) -> Allowance:
    """Return the allowance that all calls of an endpoint share."""
    return Allowance(f"retries at {endpoint}", SHARE, BURST)


def draws(error: CallError) -> bool:
    """Whether another attempt after `error` is paid from the allowance.

    A server that says it is asked too much, or how long to wait, is slowed down for by all calls together; what is
    asked again then is no more than it can take.
    """
    return error.type not in ("rate_limited", "slow_down", "overloaded") and error.retry_after is None
