"""The attempts that are in flight at one account and model, and the line of those that wait to be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import anyio

from pipeline.calls.adaptive import START, Concurrency, Entry
from pipeline.calls.call import Request
from pipeline.calls.line import Line
from pipeline.core.ports import Visit

#: what a limit that is being learned does
_WORDS: Final = {"start": "growing", "back": "growing back", "hold": "held", "probe": "trying more"}


@dataclass(frozen=True, slots=True)
class GateStatistics:
    """A gate at one instant."""

    name: str
    in_flight: int
    limit: float  #: infinite when nothing bounds it
    most: float  #: what the user allows
    phase: str  #: fixed, open, start, back, hold or probe
    waiting: int
    entered: int
    refused: int
    refused_at: int | None  #: how many were in flight when one was refused last

    @property
    def what(self) -> str:
        return f"one of the {self.limit:.0f} places at {self.name}"

    def __str__(self) -> str:
        limit = "no limit" if self.limit == math.inf else f"limit {self.limit:g}"
        most = "" if self.most in (math.inf, self.limit) else f" of {self.most:g}"
        phase = f", {_WORDS[self.phase]}" if self.phase in _WORDS else ""
        parts = [f"{self.in_flight} in flight", f"{limit}{most}{phase}", f"{self.waiting} wait"]
        refused = f"{self.refused} of {self.entered} refused"
        at = "" if self.refused_at is None else f", the last with {self.refused_at} in flight"
        return f"concurrency of {self.name}: {'; '.join(parts)}; {refused}{at}"


class Gate:
    """Lets so many attempts in at a time, who came first first. Kept in `Limits`; satisfies `ports.Hold`.

    `most` is the user's number, `start` where it begins without one, `adapts` whether it learns from refusals.
    What can change: the limit, who is in, and who waits.
    """

    def __init__(self, name: str, *, most: float = math.inf, start: float = START, adapts: bool = True) -> None:
        self.name = name
        self.adapts = adapts
        self.concurrency = Concurrency(start if most == math.inf else most, most)
        self.line = Line()
        self._inside: dict[Entry, Visit] = {}

    async def enter(self, request: Request) -> Entry:
        """Wait for room, and take it; `leave` gives it back, however the attempt ends."""
        if self.line or not self.concurrency.free:
            with request.visit.waiting_to_send(self):
                await self.line.stand(request.arrival, self._due)
        entry = self.concurrency.enter()
        self._inside[entry] = request.visit
        return entry

    def _due(self, now: float) -> float:
        return now if self.concurrency.free else math.inf

    def leave(self, entry: Entry) -> None:
        del self._inside[entry]
        self.concurrency.leave()
        if self.concurrency.free:
            self.line.call_front()

    def answered(self, entry: Entry) -> None:
        """An attempt was answered; said before it leaves."""
        if self.adapts and self.concurrency.limit < math.inf:
            full = not self.concurrency.free
            self.concurrency.answered(entry, anyio.current_time(), saturated=full or len(self.line) > 0)

    def refused(self, entry: Entry) -> None:
        """The server has too many, or is overloaded; said before it leaves."""
        if self.adapts:
            self.concurrency.refuse(entry, anyio.current_time())

    def resize(self, most: float) -> None:
        """Bound it by the user's number from now on; those inside stay."""
        self.concurrency.resize(most)
        self.line.call_front()

    def unbind(self) -> None:
        """See `Concurrency.unbind`."""
        self.concurrency.unbind()
        self.line.call_front()

    def __str__(self) -> str:
        now = self.concurrency
        inside = f"{now.in_flight}/{math.floor(now.limit)} attempts in flight" if now.limit < math.inf else "no limit"
        return f"the model's {'max_concurrency' if now.limit == now.most else 'concurrency'} ({inside})"

    def holders(self) -> Sequence[Visit]:
        return list(self._inside.values())

    def statistics(self) -> GateStatistics:
        now = self.concurrency
        phase = "fixed" if not self.adapts else "open" if now.limit == now.most else now.phase
        return GateStatistics(
            self.name,
            now.in_flight,
            now.limit,
            now.most,
            phase,
            len(self.line),
            now.entered,
            now.refused,
            now.refused_at,
        )
