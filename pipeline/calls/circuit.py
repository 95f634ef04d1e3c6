"""Whether an endpoint answers, and who may ask it while it does not: the memory of a breaker, without any waiting.

    closed -> open           `IN_A_ROW` attempts have failed as those of a dead endpoint do, with no answer in between;
                             of a server that says it is overloaded, twice as many
    open -> probing          the pause is over and one call asks whether it is back
    probing -> open          it is not; the pause doubles
    probing -> recovering    it is; those who wait go two at a time, one more for each that is answered
    recovering -> closed     nobody waits any more
    recovering -> open       one fails again

Patience is counted from when it opened, and ends with a probe that fails: after a minute for an endpoint that did
answer; after a quarter of one for an endpoint that never did, so that a wrong address ends a run soon and a network
that comes up late does not; after seconds when such a one is there and refuses connections.

What an attempt says about the endpoint counts only in the phase in which it was let through: what was sent before the
endpoint went down says nothing about it now.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from anyio import Event

from pipeline.calls.errors import CallError
from pipeline.calls.trouble import Trouble, weight

if TYPE_CHECKING:
    from pipeline.core.ports import Visit

IN_A_ROW: Final = 10
AGAIN: Final = 2  #: attempts of one call
FIRST_PAUSE: Final = 1.0  #: seconds until the first probe
LONGEST_PAUSE: Final = 30.0
PATIENCE: Final = 60.0  #: seconds without an answer after which an endpoint that did answer counts as down

#: The same of one that has never answered, which is more often a wrong address than a network that is away. It outlasts
#: the attempts of one call, and a name service or a route that comes up a little later than the run.
FIRST_PATIENCE: Final = 15.0
REFUSED_PATIENCE: Final = 3.0  #: the same when its host is there and says that nobody listens
FINAL_PAUSE: Final = 60.0  #: seconds after a final no until one call may see whether the account was put in order
GROUP: Final = 2  #: calls in the first group that follows a probe which was answered

FORBIDDEN: Final = 403  #: may be said of one model only; every other final no is for the whole account
_ALL: Final = "*"
_NOT_AGAIN: Final = "so it was not asked again"

Phase: TypeAlias = Literal["closed", "open", "probing", "recovering"]


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to make one attempt, and the epoch it was given in. `past`: the circuit is open, and let it through."""

    epoch: int
    kind: Literal["plain", "probe", "paced", "past"] = "plain"


class Waiter:
    """A call that waits for its turn: those that have probed least, and may have paid least often for nothing, go
    first, then those that came first."""

    __slots__ = ("changed", "place", "ticket", "verdict", "visit")

    def __init__(self, place: tuple[int, int], visit: Visit) -> None:
        self.place = place
        self.visit = visit
        self.changed = Event()
        self.ticket: Ticket | None = None
        self.verdict: CallError | None = None

    def __lt__(self, other: Waiter) -> bool:
        return self.place < other.place


@dataclass(frozen=True, slots=True)
class CircuitStatistics:
    """A circuit at one instant."""

    endpoint: str
    phase: Phase
    opened: int  #: times
    probes: int
    waiting: int  #: calls
    trouble: str | None  #: the type of the last failure, if it is not closed

    @property
    def what(self) -> str:
        return self.endpoint

    def __str__(self) -> str:
        past = f"it went down {_times(self.opened)}, {self.probes} {'probe' if self.probes == 1 else 'probes'}"
        if self.phase == "closed":
            return f"endpoint {self.endpoint}: answers; {past}"
        wait = "1 call waits" if self.waiting == 1 else f"{self.waiting} calls wait"
        return f"endpoint {self.endpoint}: {self.phase} ({self.trouble}), {wait}; {past}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


class Circuit:
    """What is known of one endpoint. Every method is synchronous; `now` is `anyio.current_time()`."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.phase: Phase = "closed"
        self.answered = False  #: ever
        self.down = False  #: `PATIENCE` has ended
        self.probe_at = 0.0
        self._epoch = 0
        self._plain = Ticket(0)
        self._row = 0.0  #: failures since the last answer
        self._since = 0.0  #: when it was found open
        self._pause = FIRST_PAUSE
        self._room = 0  #: paced attempts that may be in flight
        self._paced = 0  #: those that are
        self._opened = 0
        self._probes = 0
        self._trouble: Trouble | None = None
        self._noes: dict[str, tuple[Trouble, float]] = {}  #: final ones, by model or for `_ALL`; and until when
        self._given_up = ""
        self._waiters: list[Waiter] = []
        self._told_down = False

    # -- when nothing is wrong, without a look at the clock ------------------------------------------------------

    def enter_at_once(self) -> Ticket | None:
        """As `enter`, or None when that has to be asked."""
        return self._plain if self.phase == "closed" and not self._noes else None

    def succeeded_as_ever(self, ticket: Ticket) -> bool:
        """As `succeeded`; or return False, having done nothing, when that has to be told."""
        if ticket is not self._plain or self.phase != "closed" or self._noes:
            return False
        self.answered, self._row = True, 0.0
        return True

    # -- who may ask --------------------------------------------------------------------------------------------

    def enter(self, now: float, *, patient: bool, model: str = "") -> Ticket | None:
        """Return the right to an attempt at `model`, or None if there is none now. Raises `CallError` after a final no.

        Patient calls have no other model to go to. An endpoint that answers, but never well, is no reason for them to
        wait: their own attempts end soon enough, and nothing was there that could come back.
        """
        if self._noes:
            self._refuse_again(model, now)
        if self.phase == "closed":
            return self._plain
        if not self._waiters and (ticket := self._free(now)):
            return ticket
        return Ticket(self._epoch, "past") if patient and not self._may_come_back() else None

    def _refuse_again(self, model: str, now: float) -> None:
        for whom in (_ALL, model):
            trouble, until = self._noes.get(whom, (None, 0.0))
            if trouble is not None and now < until:
                raise trouble.again("stop", _NOT_AGAIN)
            if trouble is not None:
                self._noes[whom] = trouble, now + FINAL_PAUSE

    def queue(self, place: tuple[int, int], visit: Visit) -> Waiter:
        """Add a call to those who wait. It must `leave`, or use its ticket."""
        waiter = Waiter(place, visit)
        insort(self._waiters, waiter)
        return waiter

    def is_next(self, waiter: Waiter) -> bool:
        """Whether this is the call that must wake up when `probe_at` comes."""
        return self.phase == "open" and bool(self._waiters) and self._waiters[0] is waiter

    def call_next(self, now: float) -> None:
        """Give tickets to those who wait, as far as there are any; then let the first one set its alarm."""
        while self._waiters and (ticket := self._free(now)):
            waiter = self._waiters.pop(0)
            waiter.ticket = ticket
            waiter.changed.set()
        if self._waiters:
            self._waiters[0].changed.set()

    def leave(self, waiter: Waiter, now: float) -> None:
        """A call waits no more, and makes no attempt: its place, or its ticket, goes to the next."""
        if waiter.ticket is not None:
            self.dropped(waiter.ticket, now)
        elif waiter in self._waiters:
            self._waiters.remove(waiter)
            self.call_next(now)

    def unreachable(self) -> CallError:
        """The error of a call that does not wait for this endpoint, because it has another model to ask."""
        return self._last().again("park", "the endpoint is down, so it was not asked", "endpoint_down")

    def given_up(self) -> CallError:
        """The error of a call that has waited for an endpoint which is down: its run stops, and can be resumed, when
        the endpoint cannot be reached, for that is the same for all."""
        trouble = self._last()
        return trouble.again("stop" if trouble.type == "connection" else "park", self._given_up)

    def _last(self) -> Trouble:
        return self._trouble or Trouble(f"{self.endpoint} does not answer", "connection", None, None)

    def _may_come_back(self) -> bool:
        """Whether there was ever something there, or nothing can be reached at all."""
        return self.answered or self._trouble is None or self._trouble.type == "connection"

    def _free(self, now: float) -> Ticket | None:
        if self.phase == "closed":
            return self._plain
        if self.phase == "open" and now >= self.probe_at:
            self.phase = "probing"
            self._probes += 1
            return Ticket(self._epoch, "probe")
        if self.phase == "recovering" and self._paced < self._room:
            self._paced += 1
            return Ticket(self._epoch, "paced")
        return None

    # -- how it went --------------------------------------------------------------------------------------------

    def succeeded(self, ticket: Ticket, now: float, model: str = "") -> None:
        """The endpoint gave an answer."""
        self.answered = True
        if ticket.epoch != self._epoch:
            return
        if self._noes:
            self._noes.pop(_ALL, None)
            self._noes.pop(model, None)
        self._row = 0.0
        if self.phase == "recovering":
            self._paced -= ticket.kind == "paced"
            self._room += 1
        elif self.phase != "closed":
            self.phase, self.down, self._room, self._paced = "recovering", False, GROUP, 0
            self._pause = FIRST_PAUSE
        self.call_next(now)
        if not self._waiters:
            self.phase = "closed"

    def failed(self, ticket: Ticket, error: CallError, now: float, attempt: int = 1, model: str = "") -> bool:
        """The attempt of this number failed; return whether the endpoint is down for all, and may come back."""
        if error.fault == "stop" and error.http_status == FORBIDDEN:
            self._alive(ticket, error, now)
            self._noes[model] = Trouble.of(error), now + FINAL_PAUSE
            return False
        if error.fault == "stop":
            self._refused(Trouble.of(error), now)
        elif counts := weight(error):
            self._trouble = Trouble.of(error)
            self._dead(ticket, counts, now, attempt)
        else:
            self._alive(ticket, error, now)
            return False
        return self.phase != "closed" and self._may_come_back()

    def dropped(self, ticket: Ticket, now: float) -> None:
        """An attempt was cancelled, or not made: it says nothing, and the next one may have its turn."""
        if ticket.epoch != self._epoch:
            return
        if ticket.kind == "probe" and self.phase == "probing":
            self.phase = "open"
        elif ticket.kind == "paced":
            self._paced -= 1
        self.call_next(now)

    def _alive(self, ticket: Ticket, error: CallError, now: float) -> None:
        """A server that has enough of us, or refuses this request, is there."""
        if error.http_status is None:
            self.dropped(ticket, now)
        elif ticket.kind == "plain" and error.type in ("rate_limited", "slow_down"):
            self.answered = True
        else:
            self.succeeded(ticket, now)

    def _dead(self, ticket: Ticket, counts: float, now: float, attempt: int) -> None:
        if ticket.epoch != self._epoch or ticket.kind == "past":
            return
        if self.phase == "closed":
            self._row += counts
            if self._row >= IN_A_ROW or self._gone(attempt):
                self._since, self._pause = now, FIRST_PAUSE
                self._open(now)
        elif ticket.kind == "probe":
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            self.phase, self.probe_at = "open", now + self._pause
            self._lose_patience(now)
        elif self.phase == "recovering":
            self._since = now
            self._open(now)
        self.call_next(now)

    def _gone(self, attempt: int) -> bool:
        """Whether few calls at once have found as much as many do in a row: one has failed again, after a wait in which
        no other was answered and another one failed too. One that cannot even connect is believed by itself."""
        if not self.answered:
            return False
        return self._row > attempt >= AGAIN or (self._last().type == "connection" and self._row >= attempt > AGAIN)

    def _open(self, now: float) -> None:
        self.phase, self.probe_at = "open", now + self._pause
        self._next_epoch()
        self._opened += 1
        self._row = 0.0

    def _refused(self, trouble: Trouble, now: float) -> None:
        """A final no, such as a key that is refused: nobody who waits need try the same."""
        self._noes[_ALL] = trouble, now + FINAL_PAUSE
        self._tell_all(lambda: trouble.again("stop", _NOT_AGAIN))
        self.phase = "closed"
        self._next_epoch()

    def _next_epoch(self) -> None:
        self._epoch += 1
        self._plain = Ticket(self._epoch)

    def _lose_patience(self, now: float) -> None:
        """After a probe failed: tell those who wait that there is no use, once the endpoint was away for too long."""
        away = now - self._since
        if self._trouble is None or away < self._patience(self._trouble):
            return
        self.down = True
        self._given_up = f"no answer for {away:.0f} s" if self.answered else "it has never answered"
        self._tell_all(self.given_up)

    def _patience(self, trouble: Trouble) -> float:
        if self.answered:
            return PATIENCE
        return REFUSED_PATIENCE if trouble.refused else FIRST_PATIENCE

    def _tell_all(self, verdict: Callable[[], CallError]) -> None:
        waiting, self._waiters = self._waiters, []
        for waiter in waiting:
            waiter.verdict = verdict()
            waiter.changed.set()

    def news(self) -> Literal["down", "up"] | None:
        """Whether it went down, or is back for all, since this was asked last. One that answers, but never well, is
        neither."""
        down = self.phase != "closed" and self._may_come_back()
        if down == self._told_down or (self._told_down and self.phase != "closed"):
            return None
        self._told_down = down
        return "down" if down else "up"

    # -- shown --------------------------------------------------------------------------------------------------

    def statistics(self) -> CircuitStatistics | None:
        """None while it has never gone down."""
        if not self._opened:
            return None
        trouble = self._trouble.type if self._trouble is not None else None
        return CircuitStatistics(self.endpoint, self.phase, self._opened, self._probes, len(self._waiters), trouble)

    @property
    def waiting(self) -> int:
        """Calls."""
        return len(self._waiters)

    def __str__(self) -> str:
        return f"the endpoint {self.endpoint}, which is down, to answer again"

    def holders(self) -> Sequence[Visit]:
        return ()
