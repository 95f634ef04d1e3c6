"""An even pace, as arithmetic: what may be sent now, and when there is enough for the next one.

The bucket is small and starts with no more than it holds, because a server may count over any sliding minute: then
rate x 60 s + burst must stay below its limit, with a little left for requests that travel for different times.
"""

from __future__ import annotations

from typing import Final

from pipeline.calls.measured import Measured

USE: Final = 0.995  #: the share of a limit that is sent
BURST: Final = 0.004  #: the share of a limit that may go at once
BURST_SECONDS: Final = 1.0  #: and no more than the rate gives in this time
MAKE_UP: Final = 0.1  #: the share of the rate that goes faster to make up for what was not sent
MOST_SAVED: Final = 0.1  #: the share of a limit that is made up for
_EXACT: Final = 1e-6  #: levels are sums of floats; a bucket that lacks less than this is full


class Bucket:
    """What is left of one rate. What can change: everything but its use; times are seconds at the full rate."""

    __slots__ = ("_saved", "_sent", "_use", "burst", "held", "level", "limit", "rate")

    def __init__(self, limit: float, use: float = USE) -> None:
        self._use = use
        self._measure(limit)
        self.level = self.burst  #: below 0 when more was used than was put aside for it
        self.held = False  #: something else holds back what the level would let go
        self._saved = 0.0  #: what was not sent though it might have been
        self._sent = Measured()

    def _measure(self, limit: float) -> None:
        self.limit = limit  #: a minute
        self.rate = self._use * limit / 60  #: what comes in a second, at the full rate
        #: the most that it gathers while nobody sends; one request may always go
        self.burst = max(1.0, min(BURST * limit, BURST_SECONDS * self.rate))

    def used(self, now: float) -> float:
        """Return the share of the rate that is sent, lately."""
        return self._sent.rate(now) / self.rate

    def resize(self, limit: float) -> None:
        if limit != self.limit:
            self._measure(limit)
            self.level = min(self.level, self.burst)

    def refill(self, seconds: float) -> None:
        """Add what `seconds` bring up to the burst, and a little of what was saved."""
        back = min(self._saved, MAKE_UP * self.rate * seconds)
        self._saved -= back
        level = self.level + self.rate * seconds + back
        if level > self.burst:
            if self.held:
                self.save(level - self.burst)
            level = max(self.level, self.burst)
        self.level = level

    def wait(self, charge: float) -> float:
        """Return the seconds until `charge` may go: at once if the level has it.

        A charge that is larger than the bucket goes alone: when the bucket is full.
        """
        missing = min(charge, self.burst) - self.level
        return 0.0 if missing <= _EXACT else missing / self.rate

    def take(self, charge: float, now: float) -> None:
        self._sent.add(charge, now)
        self._set(self.level - charge)

    def give(self, charge: float) -> None:
        """Give back what was taken too much; below 0 takes what was taken too little."""
        self._set(self.level + charge)

    def save(self, charge: float) -> None:
        """Keep `charge` for later, when it is made up for little by little."""
        self._saved = min(self._saved + charge, MOST_SAVED * self.limit)

    def settle_down(self) -> None:
        """Keep no more than the burst: nobody waits, so what was given back would go at once some other time."""
        self.level = min(self.level, self.burst)
        self._saved = 0.0

    def empty(self) -> None:
        """Begin with nothing."""
        self.level = min(self.level, 0.0)
        self._saved = 0.0

    def mirror(self, level: float, *, alone: bool) -> None:
        """Take over what the server says is left. `alone`: nothing was sent since, so that a debt may be forgiven.

        It is never raised above nothing: a server that has a whole minute left would have all of it sent at once.
        """
        forgiven = max(self.level, 0.0) if alone else self.level
        self._set(min(forgiven, level))

    def _set(self, level: float) -> None:
        # a server has forgotten after a minute what was sent before it, so nobody has to wait for longer than that
        self.level = max(level, self.burst - max(self.limit, 1.0))
