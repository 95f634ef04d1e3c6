"""Which share of its rates a quota uses: all of it, less after a refusal, and slowly all of it again."""

from __future__ import annotations

import math

CUT = 0.9
GROWTH = 0.01  #: of the full rate, a second
LEAST = 0.05
SLOW_CUT = 0.5
SLOW_GROWTH = 0.5 / 900  #: of the rate that was left, a second: half as much again in a quarter of an hour
SLOW_MOST = 2.0  #: times what is really sent


class Pace:
    """A share that grows in time. What can change: the share, and how fast and how far it grows.

    A minute at half the share brings as much as half a minute at all of it; so buckets are filled in seconds at the
    full rate, and this translates.
    """

    __slots__ = ("_at", "_growth", "_most", "_share")

    def __init__(self, now: float) -> None:
        self._at = now
        self._share = 1.0
        self._growth = GROWTH
        self._most = 1.0

    def share(self, now: float) -> float:
        return min(self._most, self._share + self._growth * max(now - self._at, 0.0))

    @property
    def slowed(self) -> bool:
        """The server said that we go too fast too soon, and the share has not grown back."""
        return self._growth != GROWTH

    def advance(self, now: float) -> float:
        """Go on to `now`; return what the time until then was worth in seconds at the full rate."""
        passed = max(now - self._at, 0.0)
        growing = min(passed, self._growing())
        worth = self._share * growing + self._growth * growing**2 / 2 + self._most * (passed - growing)
        self._share, self._at = self.share(now), max(now, self._at)
        if self._share >= 1.0:
            self._growth, self._most = GROWTH, 1.0
        return worth

    def rest(self, now: float) -> None:
        """Go on to `now` without growing: nobody was let through."""
        self._at = max(now, self._at)

    def after(self, seconds: float) -> float:
        """Return how long it takes, from where it was advanced to, until `seconds` at the full rate have passed."""
        growing = self._growing()
        then = self._share * growing + self._growth * growing**2 / 2
        if seconds > then:
            return growing + (seconds - then) / self._most
        return (math.sqrt(self._share**2 + 2 * self._growth * seconds) - self._share) / self._growth

    def cut(self) -> None:
        """A refusal: a tenth less, back in ten seconds."""
        self._share = max(LEAST, self._share * CUT)

    def slow_down(self, used: float) -> None:
        """Too fast too soon: half of the share that is `used`, and half of that more in a quarter of an hour."""
        self._share = max(LEAST, SLOW_CUT * min(self._share, used))
        self._growth = SLOW_GROWTH * self._share
        self.keep_near(used)

    def keep_near(self, used: float) -> None:
        """While slowed: never above twice the share that is really `used`, so that a rest is not followed by a rush."""
        if self.slowed:
            self._most = max(LEAST, min(1.0, SLOW_MOST * used))
            self._share = min(self._share, self._most)

    def _growing(self) -> float:
        """How long the share still grows."""
        return max(0.0, (self._most - self._share) / self._growth)
