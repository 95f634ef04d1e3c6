"""How long attempts take, learned as they end: a histogram of the last one or two minutes for each stage."""

from __future__ import annotations

import math
from collections import Counter
from typing import Final

PERIOD: Final = 60.0  #: seconds of one of the two periods; the older one is forgotten as a whole
ENOUGH: Final = 20  #: attempts, before anything is said
STEP: Final = math.log(1.05)  #: each bucket is 5 % wider than the one before
TAIL: Final = 0.05
LEAP: Final = 2.0  #: how much longer the slowest `TAIL` below a percentile may take and still belong to the rest


class Histogram:
    """Durations of two periods, in buckets that grow with them."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._older: Counter[int] = Counter()
        self._newer: Counter[int] = Counter()

    def add(self, seconds: float, now: float) -> None:
        """Count one duration."""
        self._rotate(now)
        self._newer[math.floor(math.log(max(seconds, 1e-6)) / STEP) + 1] += 1

    def percentile(self, share: float, now: float) -> float | None:
        """Return the seconds within which `share` of the attempts ended; None before there are enough of them.

        When a few are far slower than all others, their share of the last minute is now above and now below what was
        asked for. A percentile that falls among them would wait for the very attempts that it is to find, so it is
        never more than `LEAP` times the one `TAIL` below it.
        """
        self._rotate(now)
        counts = self._older + self._newer
        total = counts.total()
        if total < ENOUGH:
            return None
        return min(_at(counts, share * total), LEAP * _at(counts, (share - TAIL) * total))

    def _rotate(self, now: float) -> None:
        periods = (now - self._since) // PERIOD
        if periods >= 1:
            self._older = self._newer if periods < 2 else Counter()
            self._newer = Counter()
            self._since += periods * PERIOD


def _at(counts: Counter[int], rank: float) -> float:
    """The upper end of the bucket in which the attempt of this rank is: more than it took."""
    seen = 0
    for bucket in sorted(counts):
        seen += counts[bucket]
        if seen >= rank:
            break
    else:
        raise ValueError("nothing was counted")
    return math.exp(bucket * STEP)


class Latencies:
    """A histogram for each stage that asks one model: their prompts differ, and so do their answers' lengths."""

    def __init__(self) -> None:
        self._stages: dict[str, Histogram] = {}

    def of(self, stage: str, now: float) -> Histogram:
        """The histogram of a stage, made when it is first asked for."""
        if stage not in self._stages:
            self._stages[stage] = Histogram(now)
        return self._stages[stage]
