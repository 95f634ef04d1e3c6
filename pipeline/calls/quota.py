"""The rates of one account and model, mirrored: what may be sent when. Arithmetic; who waits is in `turnstile`.

Each dimension (requests; tokens, or input and output apart) is a small bucket. A request takes its guess from all of
them when it is sent and settles by what it used. What the server says is left is taken over, less what was sent since;
what it says of its limits too, where the user said nothing. A refusal pauses everybody once, and takes a tenth of the
rates for some seconds; requests that were on their way then are not counted as a second one.

A mirror knows one process: another one that uses the same account shows as less and less that is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from pipeline.calls.estimate import Charge, Guess
from pipeline.calls.measured import Measured
from pipeline.calls.minute import Entry
from pipeline.calls.pace import Pace
from pipeline.calls.period import Period
from pipeline.calls.rate import Rate
from pipeline.calls.rate_headers import DIMENSIONS, Announced, Dimension
from pipeline.calls.rates import Rates, lower
from pipeline.calls.release import Release

LONGEST_PAUSE: Final = 86400.0
EPISODE: Final = 5.0  #: seconds after a cut in which there is no other one

NOTHING: Final = Charge(0.0, 0.0)


class Sums(NamedTuple):
    """What was sent so far, as it was guessed, and the sums of its squares."""

    requests: int = 0
    input: float = 0.0
    output: float = 0.0
    input_squares: float = 0.0
    output_squares: float = 0.0
    tokens_squares: float = 0.0

    def plus(self, charge: Charge) -> Sums:
        count, taken, given, taken_squares, given_squares, squares = self
        read, written = charge
        return Sums(
            count + 1,
            taken + read,
            given + written,
            taken_squares + read * read,
            given_squares + written * written,
            squares + (read + written) ** 2,
        )

    def of(self, dimension: Dimension) -> tuple[float, float]:
        match dimension:
            case "requests":
                return self.requests, self.requests
            case "input_tokens":
                return self.input, self.input_squares
            case "output_tokens":
                return self.output, self.output_squares
            case "tokens":
                return self.input + self.output, self.tokens_squares


@dataclass(slots=True, eq=False)
class Ticket:
    """One request that was let through."""

    number: int  #: of its sending, from 1
    sent_at: float
    guess: Guess
    entries: Mapping[Dimension, Entry | None]  #: where it is counted
    sums: Sums  #: of all sent so far, itself included


class Quota:
    """What can change: everything. All times are those of one clock that never goes back."""

    def __init__(self, now: float, given: Rates | None = None) -> None:
        self.rates: dict[Dimension, Rate] = {}
        self.given = Rates()  #: by users
        self.paused_until = now
        self.pace = Pace(now)
        self.sent = 0  #: requests let through
        self.in_flight = 0
        self.refused = 0  #: of them, for coming too fast
        self._said: dict[Dimension, float] = {}  #: by the server, of what it counts by the minute
        self._periods: dict[Dimension, Period] = {}  #: that the server counts by
        self._sums = Sums()
        self._cut = 0  #: the number of the last one sent before the last cut
        self._cut_until = now
        self._at = now
        self._requests = Measured()
        self._release: Release | None = None
        self.limit_to(given or Rates())

    @property
    def announced(self) -> bool:
        """Whether any rate is known, from a user or from the server."""
        return bool(self.rates)

    def limit_to(self, rates: Rates) -> None:
        """Keep to what a user gave, too; the lower number holds."""
        self.given = self.given.lowest(rates)
        self._fit()

    # -- sending ------------------------------------------------------------------------------------------------

    def ready_at(self, guess: Guess, now: float) -> float:
        """Return when a request may be sent: not later than `now` if at once."""
        self._advance(now)
        start = max(now, self.paused_until)
        ready = start if self._release is None else max(start, self._release.ready_at)
        for name, rate in self.rates.items():
            ready = max(ready, rate.ready_at(guess.reserved.of(name), start, now, self.pace))
        return ready

    def send(self, guess: Guess, now: float, *, waited: bool = True) -> Ticket:
        """Let a request through; the caller has asked `ready_at`. `waited`: others do, so the quota is used up."""
        self._advance(now)
        self._requests.add(1.0, now)
        entries: dict[Dimension, Entry | None] = {
            name: rate.send(guess.reserved.of(name), now, waited=waited) for name, rate in self.rates.items()
        }
        if self.pace.slowed:
            self.pace.keep_near(self._used(now))
        if self._release is not None:
            self._release.sent(now)
        self.sent += 1
        self.in_flight += 1
        self._sums = self._sums.plus(guess.reserved)
        return Ticket(self.sent, now, guess, entries, self._sums)

    # -- coming back --------------------------------------------------------------------------------------------

    def settle(self, ticket: Ticket, used: Charge, now: float, again: Guess | None = None) -> None:
        """A request has ended, and took `used`; the request itself is not given back.

        `again` is what would be guessed for it now; given when it was answered, so that there is something to learn.
        """
        self.in_flight -= 1
        for name, rate in self.rates.items():
            if ticket.number > rate.born:
                known = None if again is None else again.reserved.of(name)
                charged = ticket.guess.reserved.of(name)
                rate.settle(ticket.entries.get(name), charged, used.of(name), now, known=known)

    def withdraw(self, ticket: Ticket, now: float) -> None:
        """A request was never sent."""
        self.settle(ticket, NOTHING, now)
        rate = self.rates.get("requests")
        if rate is not None and ticket.number > rate.born:
            rate.bucket.give(1.0)

    def learn(self, ticket: Ticket, said: Mapping[Dimension, Announced], now: float) -> None:
        """Take over what the server says in the answer to `ticket`."""
        if not said:
            return
        self._advance(now)
        before = self._said.copy()
        for name, each in said.items():
            self._hear(name, each, now - ticket.sent_at, now)
        if self._said != before:
            self._fit()
        for name, each in said.items():
            rate = self.rates.get(name)
            if rate is not None and each.remaining is not None and not self._periods[name].other:
                total, squares = self._sums.of(name)
                then, squares_then = ticket.sums.of(name)
                rate.mirror(each.remaining, total - then, squares - squares_then, now - ticket.sent_at)

    def refuse(self, ticket: Ticket, now: float, *, wait: float = 0.0, slow_down: bool = False) -> None:
        """A request was refused for coming too fast, and everybody is asked to wait for `wait` seconds."""
        self._advance(now)
        self.refused += 1
        if self.rates and ticket.number > self._cut and now >= self._cut_until:
            self._cut, self._cut_until = self.sent, now + EPISODE
            if slow_down:
                self.pace.slow_down(self._used(now))
            else:
                self.pace.cut()
        self.pause(wait, now)

    def pause(self, seconds: float, now: float) -> None:
        """Let nobody through for so long, and then one after the other."""
        until = now + min(seconds, LONGEST_PAUSE)
        if seconds <= 0 or until <= self.paused_until:
            return
        self._advance(now)
        self.paused_until = until
        for rate in self.rates.values():
            rate.bucket.empty()
        if "requests" not in self.rates:
            self._release = Release(until, self._requests.rate(now))

    # -- arithmetic ---------------------------------------------------------------------------------------------

    def _advance(self, now: float) -> None:
        """Fill the buckets with what came since the last time; nothing comes during a pause."""
        if now == self._at:
            return
        self._at = now
        self.pace.rest(min(now, self.paused_until))
        worth = self.pace.advance(now)
        for rate in self.rates.values():
            rate.bucket.refill(worth)
        if self._release is not None and self._release.over(now):
            self._release = None

    def _hear(self, name: Dimension, said: Announced, passed: float, now: float) -> None:
        """Keep the limit that the server says, if it is one of a minute."""
        period = self._periods.get(name)
        if period is None:
            period = self._periods[name] = Period(now)
        period.see(said, passed, now)
        if period.other:
            self._said.pop(name, None)
        elif said.limit is not None:
            self._said[name] = said.limit

    def _fit(self) -> None:
        """Have each rate that is known: the lower one of what users gave and what the server said."""
        for name in DIMENSIONS:
            limit = lower(self.given.of(name), self._said.get(name))
            if limit is None:
                self.rates.pop(name, None)
            elif name not in self.rates:
                self.rates[name] = Rate(max(limit, 1.0), alike=name == "requests", born=self.sent)
            else:
                self.rates[name].bucket.resize(max(limit, 1.0))

    def _used(self, now: float) -> float:
        """The share of the rates that is really sent, of the dimension that is used most."""
        return max((rate.bucket.used(now) for rate in self.rates.values()), default=0.0)
