"""Where the attempts of one account and model wait for their quota, and what is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import anyio

from pipeline.calls.call import Reply, Request
from pipeline.calls.errors import CallError
from pipeline.calls.estimate import Charge, Estimates, TokenCharge
from pipeline.calls.line import Line
from pipeline.calls.period import LONGEST
from pipeline.calls.quota import NOTHING, Quota, Ticket
from pipeline.calls.rate_headers import Announced, Dimension, rates_announced
from pipeline.calls.rates import Rates
from pipeline.core.ports import Visit
from pipeline.core.usage import NO_USAGE

JITTER = 0.05  #: the share of a pause that is added to it, at most, so that processes do not come back together
JITTER_MOST = 1.0  #: seconds

_WORDS = {"requests": "requests", "tokens": "tokens", "input_tokens": "input tokens", "output_tokens": "output tokens"}


@dataclass(frozen=True, slots=True)
class QuotaStatistics:
    """A quota at one instant."""

    name: str
    rates: tuple[tuple[str, float, float, float], ...]  #: dimension, limit a minute, level, burst
    share: float  #: of the rates that is used; less than 1 after a refusal
    in_flight: int
    waiting: int
    sent: int
    refused: int
    paused: float  #: seconds that are left of a pause

    @property
    def what(self) -> str:
        """What holds those who wait: a pause, or the rate that is whole again last."""
        if self.paused > 0 or not self.rates:
            return f"the end of a pause of {self.name}"
        name, limit, *_ = max(self.rates, key=lambda rate: (rate[3] - rate[2]) / rate[1])
        return f"{limit:g} {_WORDS[name]}/min"

    def __str__(self) -> str:
        rates = [f"{limit:,.10g} {_WORDS[name]}/min" for name, limit, _, _ in self.rates]
        parts = [", ".join(rates) or "no rates known", f"{self.in_flight} in flight", f"{self.waiting} wait"]
        parts.append(f"{self.refused} of {self.sent} refused")
        if self.share < 1.0:
            parts.append(f"at {self.share:.0%} of the rates")
        if self.paused > 0:
            parts.append(f"paused for {self.paused:.1f} s more")
        return f"quota of {self.name}: {'; '.join(parts)}"


class Turnstile:
    """Lets attempts through, one line for all. Kept in `Limits`; satisfies `ports.Hold`. What can change: its parts."""

    def __init__(self, name: str, counts: TokenCharge = "used", *, wait_max: float = 60.0) -> None:
        self.name = name
        self.wait_max = wait_max  #: a pause that is longer is nothing to wait for: calls are parked
        self.estimates = Estimates(counts)
        self.quota = Quota(anyio.current_time())
        self.line = Line()

    def limit_to(self, rates: Rates) -> None:
        """Keep to what one more definition says; the lower number holds."""
        self.quota.limit_to(rates)
        self.line.call_front()

    # -- through -------------------------------------------------------------------------------------------------

    async def enter(self, request: Request) -> Ticket:
        """Wait until `request` may be sent. Raises `CallError` of class park when a pause is longer than anybody waits,
        or does not end before the item does."""
        guess, deadline = self.estimates.guess(request), request.visit.deadline
        now = anyio.current_time()
        self._check_pause(now, deadline)
        if not self.line and self.quota.ready_at(guess, now) <= now:
            return self.quota.send(guess, now, waited=False)

        def due(now: float) -> float:
            nonlocal guess
            guess = self.estimates.guess(request)  # anew, because more may have been learned while it stood in line
            return self.quota.ready_at(guess, now)

        with request.visit.waiting_to_send(self):
            await self.line.stand(request.arrival, due, lambda now: self._check_pause(now, deadline))
            return self.quota.send(guess, anyio.current_time(), waited=len(self.line) > 0)

    def _check_pause(self, now: float, deadline: float | None) -> None:
        until = self.quota.paused_until
        if until <= now:
            return
        if until - now > self.wait_max:
            raise self._parked(until - now, f"longer than {self.wait_max:g} s")
        if deadline is not None and until >= deadline:
            raise self._parked(until - now, "which would be too late for the item")

    def _parked(self, seconds: float, why: str) -> CallError:
        asked = f"the server asks to wait {seconds:.0f} s more, {why}"
        return CallError(
            f"{self.name}: its quota is used up; {asked}",
            fault="park",
            type="rate_limited",
            retry_after=seconds,
            usage=NO_USAGE,
        )

    # -- back ----------------------------------------------------------------------------------------------------

    def answered(self, ticket: Ticket, request: Request, reply: Reply) -> None:
        """Settle by what the server counted, and learn from it."""
        now, again = anyio.current_time(), None
        if not reply.usage.estimated:
            self.estimates.learn(request.visit.stage, ticket.guess, reply.usage)
            again = self.estimates.guess(request)
        self.quota.settle(ticket, self.estimates.settled(ticket.guess, reply.usage), now, again)
        self.quota.learn(ticket, self._said(reply.headers), now)
        self.line.call_front()

    def failed(self, ticket: Ticket, request: Request, error: CallError) -> None:
        """A failed attempt was a request; its tokens come back unless they may have been used.

        A refusal that only its headers say the end of gets it as `retry_after`, so that its call waits as all others.
        """
        now, said = anyio.current_time(), self._said(error.headers)
        paused_until = max(self.quota.paused_until, now)
        self.quota.settle(ticket, self._used(ticket, error), now)
        self.quota.learn(ticket, said, now)
        if error.type in ("rate_limited", "slow_down", "overloaded"):
            wait = _asked(ticket, error.retry_after, said)
            error.retry_after = error.retry_after or wait or None
            wait += min(wait * JITTER, JITTER_MOST) * _share(request)
            if error.type == "overloaded":
                self.quota.pause(wait, now)
            else:
                self.quota.refuse(ticket, now, wait=wait, slow_down=error.type == "slow_down")
        if self.quota.paused_until > paused_until + JITTER_MOST:
            self.line.call_all()
        else:
            self.line.call_front()

    def given_up(self, ticket: Ticket) -> None:
        """It was sent and nobody waits for it any more; what it took stays taken."""
        self.quota.settle(ticket, ticket.guess.reserved, anyio.current_time())

    def not_sent(self, ticket: Ticket) -> None:
        self.quota.withdraw(ticket, anyio.current_time())
        self.line.call_front()

    def _used(self, ticket: Ticket, error: CallError) -> Charge:
        if error.usage.input_tokens or error.usage.output_tokens:
            return self.estimates.settled(ticket.guess, error.usage)
        return ticket.guess.reserved if error.fault == "ambiguous" else NOTHING

    def _said(self, headers: Mapping[str, str]) -> Mapping[Dimension, Announced]:
        return rates_announced(headers, datetime.now(UTC)) if headers else {}

    # -- for people ----------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        paused = self.quota.paused_until - _now(self.quota.paused_until)
        if paused > 0:
            return f"the end of a pause that the server asked for ({paused:.1f} s more)"
        rates = ", ".join(f"{rate.bucket.limit:,.10g} {_WORDS[name]}" for name, rate in self.quota.rates.items())
        return f"the model's quota ({rates or 'unknown'} a minute, {len(self.line)} wait)"

    def holders(self) -> Sequence[Visit]:
        return ()

    def statistics(self) -> QuotaStatistics | None:
        """None while there is nothing to say: no rate is known, and nothing was refused."""
        quota, now = self.quota, _now(self.quota.paused_until)
        if not quota.announced and not quota.refused and now >= quota.paused_until:
            return None
        return QuotaStatistics(
            self.name,
            tuple(
                (name, each.bucket.limit, each.bucket.level, each.bucket.burst) for name, each in quota.rates.items()
            ),
            quota.pace.share(now),
            quota.in_flight,
            len(self.line),
            quota.sent,
            quota.refused,
            max(quota.paused_until - now, 0.0),
        )


def _asked(ticket: Ticket, retry_after: float | None, said: Mapping[Dimension, Announced]) -> float:
    """Return the seconds that a refusal asks for: the longest of what it says of what is used up.

    A longer period than the minute counts only if nothing else is said; `retry-after` knows better.
    """
    resets = [
        each.reset
        for name, each in said.items()
        if each.reset is not None and (each.remaining is None or each.remaining < ticket.guess.reserved.of(name))
    ]
    if retry_after is not None:
        resets = [retry_after, *(each for each in resets if each <= LONGEST)]
    return max(resets, default=0.0)


def _share(request: Request) -> float:
    return int.from_bytes(request.identity.digest("pause", request.attempt)[:8], "big") / 2**64


def _now(otherwise: float) -> float:
    """The time, also for who looks at a run from outside of its loop."""
    try:
        return anyio.current_time()
    except RuntimeError:
        return otherwise
