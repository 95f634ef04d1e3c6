"""Whether a server counts one of its rates by the minute. Its headers do not say so, but their resets show it in time.

A bucket that fills evenly is whole again after the share of a minute that was used of it, so a reset is never much
shorter than that. A window that ends by the clock has short resets near its end, but long ones soon after. What is
always whole again far too soon has a period of a second, or some.
"""

from __future__ import annotations

from typing import Final

from pipeline.calls.rate_headers import Announced

LONGEST: Final = 61.0  #: what is whole again only later than this is no rate of a minute
SHORT: Final = 20.0  #: and what is always whole again earlier than this may be none
GAP: Final = 35.0  #: seconds without an answer in which nothing is missed: a minute's window shows what is not SHORT
TOO_SOON: Final = 4.0  #: times as soon as an even minute; servers round
ANSWERS: Final = 3  #: that came too soon


class Period:
    """What the answers say of one rate. What can change: what was seen, and what is known by that."""

    __slots__ = ("_last", "_longest", "_most", "_since", "_too_soon", "other")

    def __init__(self, now: float) -> None:
        self.other = False  #: it is known to be no minute
        self._most = 0.0  #: that was left
        self._begin(now)

    def see(self, said: Announced, passed: float, now: float) -> None:
        """Learn from what an answer said at `now`, when `passed` seconds had gone by since its request was sent."""
        if said.reset is None:
            return
        if said.reset > LONGEST:
            self.other = True
        if self.other or not said.exact or not said.limit or said.remaining is None:
            return
        if now - self._last > GAP:
            self._begin(now)
        self._last = now
        self._most = max(self._most, said.remaining)
        self._longest = max(self._longest, said.reset)
        self._too_soon += _too_soon(min(self._most + 1, said.limit) - said.remaining, said.limit, said.reset, passed)
        # Less than half of the limit: it is a minute's, of which only a part may be sent at once. A window of a minute
        # would have shown a reset as long as it was watched, or have ended and shown a whole one.
        if self._too_soon >= ANSWERS and self._most + 1 >= said.limit / 2 and self._longest <= SHORT:
            self.other = now - self._since >= 2 * self._longest + 4

    def _begin(self, now: float) -> None:
        self._since = self._last = now
        self._longest = 0.0
        self._too_soon = 0


def _too_soon(used: float, limit: float, reset: float, passed: float) -> bool:
    """Whether an even minute would take far longer to bring what was used.

    What is left is rounded down, which is less than one too much; and right after the request one was used at least.
    """
    each = 60 / limit
    return (used - 1) * each > TOO_SOON * reset or used * each > TOO_SOON * (reset + passed)
