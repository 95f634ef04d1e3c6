"""How many attempts may be in flight at a server that does not say: asked for more until it refuses, then just below.

From a start it doubles in the time of one answer. A refusal is a cut, one for all that were sent before it. The number
at which one was refused is remembered: after the cut the limit is soon back just below it and stays there. Now and then
it asks for one more; when a whole round is answered, for two more, and four. So a server that takes the same all the
time refuses one in some hundreds, and one that takes more or less than before is followed in seconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

START = 20
CUT = 0.8
ROUND = 4  #: answers, at least, that a round has
#: how long to stay below a refusal: so many seconds, answers and rounds; where few are let in, fewer answers will do
HOLD_SECONDS, HOLD_ANSWERS, HOLD_ANSWERS_EACH, HOLD_ROUNDS = 10.0, 250, 25, 4

#: start: doubling, never refused. back: after a cut, to below where it was refused. hold: there. probe: beyond it.
Phase: TypeAlias = Literal["start", "back", "hold", "probe"]


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One attempt that was let in."""

    number: int
    level: int  #: how many were in flight then, itself included


class Concurrency:
    """The limit. What can change: everything but how it began. Times are those of one clock."""

    def __init__(self, start: float = START, most: float = math.inf) -> None:
        self.limit = min(start, most)  #: infinite while nothing bounds it
        self.most = most  #: what the user allows
        self.in_flight = 0
        self.entered = 0
        self.refused = 0
        self.refused_at: int | None = None  #: how many were in flight when one was refused last
        self.phase: Phase = "start"
        self._cut_at = 0  #: the number of the last one let in before the last cut
        self._clean = 0.0  #: the limit that a whole round was answered at
        self._target = 0.0  #: of a probe
        self._step = 1
        self._since = 0.0
        self._answers = 0
        self._round_at = 0  #: the number of the last one let in before this round

    @property
    def free(self) -> bool:
        return self.in_flight < math.floor(self.limit) if self.limit < math.inf else True

    def enter(self) -> Entry:
        """Let one in; the caller has asked `free`."""
        self.in_flight += 1
        self.entered += 1
        return Entry(self.entered, self.in_flight)

    def leave(self) -> None:
        self.in_flight -= 1

    def resize(self, most: float) -> None:
        """Have the user's number bound it from now on, higher or lower."""
        self.limit = most if self.limit == self.most else min(self.limit, most)
        self.most = most

    def unbind(self) -> None:
        """The server's rates are known, so they are what limits; until it refuses nevertheless."""
        if self.refused_at is None:
            self.limit = self.most

    # -- learning -----------------------------------------------------------------------------------------------

    def answered(self, entry: Entry, now: float, *, saturated: bool) -> None:
        """An attempt was answered; grow if `saturated`, which is to say that others would have been let in, too."""
        if entry.number <= self._cut_at or not saturated or self.limit >= self.most:
            return
        match self.phase:
            case "start":
                self._grow(self.most)
            case "back":
                self._grow(self._target)
                if self.limit >= self._target:
                    self._hold(now)
            case "hold":
                self._answers += 1
                if self._held(now):
                    self._probe(1)
            case "probe":
                self._probed(entry)

    def refuse(self, entry: Entry, now: float) -> None:
        """An attempt was refused because there are too many; cut once for all that were sent before the cut."""
        self.refused += 1
        if entry.number <= self._cut_at:
            return
        self._cut_at = self.entered
        level = max(entry.level, self.in_flight)  # of a burst the first one may be refused because of the last one
        if level <= 1:  # what refuses even one refuses for another reason, which says nothing of how many are too many
            self.limit, self.phase, self.refused_at = 1.0, "start", None
            return
        beyond = self.phase == "probe" and level > self._clean
        self.limit = max(1.0, self._clean if beyond else math.floor(CUT * min(level, self.limit)))
        self._clean = self.limit
        self.refused_at = level
        self._target = max(self.limit, min(level - 1, self.most))
        self.phase = "back"
        if self.limit >= self._target:
            self._hold(now)

    def _grow(self, most: float) -> None:
        self.limit = min(self.limit + 1, most, self.most)

    def _hold(self, now: float) -> None:
        self.phase, self._since, self._answers = "hold", now, 0
        self._clean = self.limit

    def _held(self, now: float) -> bool:
        enough = max(min(HOLD_ANSWERS, HOLD_ANSWERS_EACH * self.limit), HOLD_ROUNDS * self.limit)
        return self._answers >= enough and now - self._since >= HOLD_SECONDS

    def _probe(self, step: int) -> None:
        self.phase, self._step = "probe", step
        self._target = min(self.limit + step, self.most)
        self._grow(self._target)
        self._begin_round()

    def _begin_round(self) -> None:
        self._answers, self._round_at = 0, self.entered

    def _probed(self, entry: Entry) -> None:
        """Reach the probe's limit one by one, then have a round of answers to what was sent since."""
        if self.limit < self._target:
            self._grow(self._target)
            self._begin_round()
        elif entry.number > self._round_at:
            self._answers += 1
            if self._answers >= max(ROUND, self.limit):
                self._clean = self.limit
                self._probe(self._step * 2)
