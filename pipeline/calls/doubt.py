"""How far the guesses of what is under way may be wrong together, learned from how far guesses were wrong."""

from __future__ import annotations

from math import sqrt

DEVIATIONS = 2.0
_KEPT = 0.998  #: of what was learned, after each answer


class Doubt:
    """Of one dimension. What can change: all of it. Squares are summed, since errors of many requests even out."""

    __slots__ = ("_errors", "_flying", "_guesses")

    def __init__(self) -> None:
        self._errors = self._guesses = 0.0
        self._flying = 0.0

    def send(self, guess: float) -> None:
        self._flying += guess * guess

    def end(self, guess: float) -> None:
        self._flying = max(0.0, self._flying - guess * guess)

    def learn(self, guess: float, used: float) -> None:
        """Learn from a request that was answered."""
        self._errors = _KEPT * self._errors + (used - guess) ** 2
        self._guesses = _KEPT * self._guesses + guess * guess

    def of_flying(self) -> float:
        """Return how much more than guessed what is in flight may need."""
        return DEVIATIONS * sqrt(self._flying * self._errors / self._guesses) if self._guesses else 0.0
