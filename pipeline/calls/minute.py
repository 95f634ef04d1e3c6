"""What was sent in the last minute, for a server that counts any sixty seconds.

An even pace is not enough where requests differ in size: one large request more in a minute is too much for it. What
travels for different times may meet in one minute though it was sent in two, so the minute is a little longer here.
"""

from __future__ import annotations

from collections import deque

SECONDS = 60.25
_STEP = 0.02  #: what is sent within such a time is one entry


class Entry:
    """What was sent at about one time. What can change: how much that was."""

    __slots__ = ("amount", "at")

    def __init__(self, at: float) -> None:
        self.at = at
        self.amount = 0.0


class Minute:
    """What can change: what is in it."""

    __slots__ = ("_entries", "_total")

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self._total = 0.0

    def add(self, amount: float, now: float) -> Entry:
        """Count `amount`; the entry is what corrects it."""
        if not self._entries or now > self._entries[-1].at + _STEP:
            self._entries.append(Entry(now))
        entry = self._entries[-1]
        entry.amount += amount
        self._total += amount
        return entry

    def correct(self, entry: Entry, amount: float, now: float) -> None:
        """Add `amount`, which may be below 0, to what was counted."""
        self._forget(now)
        if self._entries and entry.at >= self._entries[0].at:
            entry.amount += amount
            self._total += amount

    def ready_at(self, amount: float, limit: float, now: float) -> float:
        """Return when `amount` more is no more than `limit`: not later than `now` if it is; a minute hence at most."""
        self._forget(now)
        excess = self._total + min(amount, limit) - limit
        if excess <= 1e-6:
            return now
        for entry in self._entries:
            excess -= entry.amount
            if excess <= 1e-6:
                return max(now, entry.at + _STEP + SECONDS)
        return now + SECONDS if self._entries else now

    def _forget(self, now: float) -> None:
        while self._entries and self._entries[0].at + _STEP + SECONDS <= now:
            self._total -= self._entries.popleft().amount
        if not self._entries:
            self._total = 0.0
