"""After a pause, where no rate is known: one after the other at the rate of before, then faster and faster.

Otherwise all who waited would come at once, and be refused at once.
"""

from __future__ import annotations

LEAST = 1.0  #: a second
DOUBLES = 5.0  #: seconds in which the rate doubles
ENDS = 60.0  #: seconds; by then it is four thousand times what it was


class Release:
    """When the next one may leave. What can change: that."""

    __slots__ = ("_rate", "_since", "ready_at")

    def __init__(self, since: float, rate: float) -> None:
        self._since = since
        self._rate = max(LEAST, rate)
        self.ready_at = since

    def sent(self, now: float) -> None:
        """One has left; the next one may after it."""
        rate = self._rate * 2 ** (max(now - self._since, 0.0) / DOUBLES)
        self.ready_at = now + 1 / rate

    def over(self, now: float) -> bool:
        return now > self._since + ENDS
