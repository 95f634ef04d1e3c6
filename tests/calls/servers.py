"""Servers as a quota sees them: whether a request that arrives now is taken. Pure, for virtual time."""

from __future__ import annotations

from collections import deque
from typing import Protocol


class Server(Protocol):
    """Counts what arrives, and refuses what is too much."""

    def takes(self, cost: float, now: float) -> bool: ...


class TokenBucket:
    """Holds a minute's worth, and is filled all the time."""

    seconds = 60.0

    def __init__(self, limit: float) -> None:
        self.rate = limit / 60
        self.size = max(1.0, self.rate * self.seconds)
        self.level, self.at = self.size, 0.0

    def takes(self, cost: float, now: float) -> bool:
        self.level = min(self.size, self.level + self.rate * (now - self.at))
        self.at = now
        if self.level < cost:
            return False
        self.level -= cost
        return True

    def left(self, now: float) -> float:
        return min(self.size, self.level + self.rate * (now - self.at))


class EachSecond(TokenBucket):
    """The same limit in portions of a second: holds no more than one of them."""

    seconds = 1.0


class SlidingMinute:
    """No more than the limit in any sixty seconds."""

    def __init__(self, limit: float) -> None:
        self.limit, self.used = limit, 0.0
        self.taken: deque[tuple[float, float]] = deque()

    def takes(self, cost: float, now: float) -> bool:
        while self.taken and self.taken[0][0] <= now - 60.0:
            self.used -= self.taken.popleft()[1]
        if self.used + cost > self.limit:
            return False
        self.taken.append((now, cost))
        self.used += cost
        return True

    def left(self, now: float) -> float:
        return self.limit - self.used


class FixedWindows:
    """No more than the limit of a minute in each window, counted from the start of the clock."""

    seconds = 60.0

    def __init__(self, limit: float) -> None:
        self.limit = max(1.0, limit * self.seconds / 60)
        self.window, self.used = 0, 0.0

    def takes(self, cost: float, now: float) -> bool:
        window = int(now // self.seconds)
        if window != self.window:
            self.window, self.used = window, 0.0
        if self.used + cost > self.limit:
            return False
        self.used += cost
        return True

    def left(self, now: float) -> float:
        return self.limit if int(now // self.seconds) != self.window else self.limit - self.used


class StrictSeconds(FixedWindows):
    """Windows of one second, each with its part and nothing carried over: no client with jitter can use all of it."""

    seconds = 1.0
