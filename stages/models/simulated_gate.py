"""Lets requests in or refuses them by the limits of a simulated server, and writes what is left into headers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from stages.models.simulated_limits import MINUTE, Meter, ServerLimits, meter


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a request is not let in; `wait` is the seconds until it would be, None when nobody can tell."""

    message: str
    wait: float | None


class Gate:
    """What is in use of the limits. `max_concurrency` may be set anew at any time, what can change besides are counts.

    A refused request counts against no limit.
    """

    def __init__(self, limits: ServerLimits) -> None:
        self.limits = limits
        self.max_concurrency = limits.max_concurrency
        self.busy = 0
        self._now = -math.inf
        rates = {"requests": limits.requests_per_minute, "tokens": limits.tokens_per_minute}
        self._meters: Mapping[str, Meter] = {
            name: meter(limits, limit) for name, limit in rates.items() if limit is not None
        }

    def enter(self, tokens: int, now: float) -> Refused | None:
        """Count a request of `tokens` as being in, or say why it is refused. Who is let in calls `leave` once.

        A time that lies before that of another request is taken for that one.
        """
        now = self._now = max(self._now, now)
        amounts = {"requests": 1, "tokens": tokens}
        if self.max_concurrency is not None and self.busy >= self.max_concurrency:
            return Refused(f"{self.busy} requests are being answered, and no more than that at once", None)
        for name, each in self._meters.items():
            if amounts[name] > each.limit:
                return Refused(f"Request too large: {amounts[name]:,} {name}, limit {each.limit:,} a minute", None)
        waits = {name: each.wait(amounts[name], now) for name, each in self._meters.items()}
        longest = max(waits, key=lambda name: waits[name], default=None)
        if longest is not None and waits[longest] > 0:
            limit = self._meters[longest].limit
            said = f"Rate limit reached for {longest}: limit {limit:,} a minute; try again in"
            return Refused(f"{said} {duration(waits[longest])}", waits[longest])
        for name, each in self._meters.items():
            each.take(amounts[name], now)
        self.busy += 1
        return None

    def leave(self) -> None:
        self.busy -= 1

    def headers(self, now: float) -> dict[str, str]:
        """Return what is allowed, what is left of it, and when all of it is there again."""
        found: dict[str, str] = {}
        now = self._now = max(self._now, now)
        for name, each in self._meters.items():
            found[f"x-ratelimit-limit-{name}"] = str(each.limit)
            found[f"x-ratelimit-remaining-{name}"] = str(each.remaining(now))
            found[f"x-ratelimit-reset-{name}"] = duration(each.reset(now))
        return found


def retry_headers(wait: float | None) -> dict[str, str]:
    """Return when to come again; never too early, as both are rounded up."""
    if wait is None:
        return {}
    return {"retry-after": str(math.ceil(wait)), "retry-after-ms": str(math.ceil(wait * 1000))}


def duration(seconds: float) -> str:
    """Write seconds as providers do: `17ms`, `1.5s`, `6m0s`."""
    milliseconds = math.ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, int(MINUTE * 1000))
    return f"{minutes}m{rest / 1000:g}s" if minutes else f"{rest / 1000:g}s"
