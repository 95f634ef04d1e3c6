"""One rate of a quota: an even pace, and for what differs from request to request also what any minute may hold."""

from __future__ import annotations

from math import sqrt

from pipeline.calls.bucket import USE, Bucket
from pipeline.calls.doubt import DEVIATIONS, Doubt
from pipeline.calls.minute import Entry, Minute
from pipeline.calls.pace import Pace


class Rate:
    """What can change: its parts.

    Requests are all alike, so an even pace keeps any minute below the limit, if it is a little slower. Tokens come in
    lumps: their pace may be the limit itself, because the minute holds back what is too much for it.
    """

    __slots__ = ("born", "bucket", "doubt", "minute")

    def __init__(self, limit: float, *, alike: bool, born: int) -> None:
        self.bucket = Bucket(limit, USE if alike else 1.0)
        self.minute = None if alike else Minute()
        self.doubt = Doubt()
        self.born = born  #: how many requests had been sent before it was known; they took nothing from it

    def ready_at(self, charge: float, start: float, now: float, pace: Pace) -> float:
        """Return when `charge` may go: not before `start`, from which on there is a pace."""
        wait = self.bucket.wait(charge)
        ready = start + pace.after(wait) if wait else start
        if self.minute is None:
            return ready
        room = self.minute.ready_at(charge + self.doubt.of_flying(), self.bucket.limit, now)
        self.bucket.held = room > ready
        return max(ready, room)

    def send(self, charge: float, now: float, *, waited: bool) -> Entry | None:
        """Take `charge`; return where it is counted. Without anybody who `waited` nothing is made up for."""
        if not waited:
            self.bucket.settle_down()
        self.bucket.take(charge, now)
        if self.minute is None:
            return None
        self.doubt.send(charge)
        return self.minute.add(charge, now)

    def settle(self, entry: Entry | None, charged: float, used: float, now: float, *, known: float | None) -> None:
        """Put right what was `charged`.

        `known` is what would be charged for the same request after what was learned since, when it was answered. The
        difference is no chance: many requests are wrong in the same way, and all of it at once would be a burst.
        """
        if self.minute is None or entry is None:
            return
        self.doubt.end(charged)
        self.minute.correct(entry, used - charged, now)
        saved = 0.0
        if known is not None:
            self.doubt.learn(charged, used)
            saved = max(0.0, charged - known)
        self.bucket.save(saved)
        self.bucket.give(charged - used - saved)

    def mirror(self, remaining: float, sent_since: float, squares: float, passed: float) -> None:
        """Take over what was left when the server counted, less what was sent since, and what has come since.

        What was sent since is known by guesses alone, so the level is lowered only by what is beyond doubt.
        """
        alone = sent_since == 0
        doubt = 0.0 if alone else DEVIATIONS * sqrt(max(squares, 0.0))
        self.bucket.mirror(remaining - sent_since + self.bucket.rate * passed + doubt, alone=alone)
