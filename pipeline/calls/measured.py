"""How much goes out a second, lately: a mean that forgets."""

from __future__ import annotations

import math

MEMORY = 10.0  #: seconds after which a third is left of what was counted


class Measured:
    """A rate. What can change: what was counted, and when."""

    __slots__ = ("_at", "_counted", "_since")

    def __init__(self) -> None:
        self._counted = 0.0
        self._since: float | None = None
        self._at = 0.0

    def add(self, amount: float, now: float) -> None:
        self._since = now if self._since is None else self._since
        self._counted = self._left(now) + amount
        self._at = now

    def rate(self, now: float) -> float:
        """Return how much a second; of a short time, what was counted in it, as if that were a second at least."""
        if self._since is None:
            return 0.0
        seen = MEMORY * -math.expm1(-max(now - self._since, 1.0) / MEMORY)
        return self._left(now) / seen

    def _left(self, now: float) -> float:
        return self._counted * math.exp(-max(now - self._at, 0.0) / MEMORY)
