"""How a group was decided, as the journal has it: which members had ended by then, how, and what became of it.

A replay of the group starts no member that was open, and does not ask one again that failed. Those that were ok are run
again, because what they put out is made of answers that are in the journal; when the last of them has ended the group
ends as it did. So it does not matter how long anything takes in the replay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, TypeAlias, cast

from pipeline.core.errors import Failure
from pipeline.core.item import Frame, Outcome
from pipeline.core.members import Verdict
from pipeline.core.ports import Page
from pipeline.core.record import Status
from pipeline.core.replay import charge_again, read_failure, written_failure

KIND: Final = "join"

#: rejected: the fan-out failed, whatever the join says
How: TypeAlias = Literal["joined", "rejected"]


class End(NamedTuple):
    """How a member had ended; `status` is None for one that had not."""

    status: Status | None
    failure: Failure | None = None
    used: object = None  #: of one that is not run again

    @property
    def runs(self) -> bool:
        """Whether the member is run again."""
        return self.status in ("ok", "partial")


OPEN: Final = End(None)
_OK: Final = End("ok")


@dataclass(frozen=True, slots=True)
class Decision:
    """How a group was decided."""

    how: How
    verdict: Verdict
    late: bool
    complete: bool  #: every member had been added
    failure: Failure | None
    ends: Mapping[str, End]  #: by slot, in their order
    past: int = 0  #: members that had ended well before these and were forgotten

    def end_of(self, slot: str) -> End:
        """How the member at `slot` had ended; one that there was not yet had not."""
        return self.ends.get(slot, _OK if slot.isdecimal() and int(slot) < self.past else OPEN)

    def slots(self) -> set[str]:
        """Every member that there was."""
        return {*self.ends, *map(str, range(self.past))}

    def as_json(self) -> dict[str, object]:
        """What `of_json` reads."""
        return {
            "how": self.how,
            "verdict": self.verdict,
            "late": self.late,
            "complete": self.complete,
            "failure": written_failure(self.failure),
            "past": self.past,
            "slots": {slot: _written(end) for slot, end in self.ends.items()},
        }

    @classmethod
    def of_json(cls, written: object) -> Decision:
        """Read what `as_json` gave."""
        found = cast("Mapping[str, object]", written)
        ends = cast("Mapping[str, object]", found["slots"])
        return cls(
            cast(How, found["how"]),
            cast(Verdict, found["verdict"]),
            bool(found["late"]),
            bool(found["complete"]),
            read_failure(found["failure"]),
            {slot: _read(end) for slot, end in ends.items()},
            cast(int, found["past"]),
        )


def _written(end: End) -> object:
    if end.status is None:
        return "open"
    return end.status if end.runs else [end.status, written_failure(end.failure), end.used]


def _read(written: object) -> End:
    if isinstance(written, str):
        return OPEN if written == "open" else End(cast(Status, written))
    status, failure, used = cast("list[object]", written)
    return End(cast(Status, status), read_failure(failure), used)


class Replay:
    """A group that is decided as it was in an earlier run. What can change: `due`, `unstarted`, `broken`."""

    __slots__ = ("broken", "decision", "due", "page", "unstarted")

    def __init__(self, page: Page, decision: Decision) -> None:
        self.page = page
        self.decision = decision
        self.due = decision.slots()  #: of members that had ended and have not yet, or are not there yet
        self.unstarted = 0  #: members that were open, and are therefore never started
        self.broken: Outcome | None = None  #: of a member that was ok and is not: it cannot be decided as it was

    def added(self, frame: Frame) -> Outcome | None:
        """A member is there. One that is not run again is marked as revoked, so that it is dropped where it is to be
        sent; the outcome is how it had ended."""
        end = self.decision.end_of(frame.slot)
        if end.runs:
            return None
        frame.revoked = True
        self.due.discard(frame.slot)
        if end.status is None:
            self.unstarted += 1
            return None
        charge_again(frame, self.page, end.used)
        return Outcome(end.status, None, end.failure)

    def ended(self, slot: str, outcome: Outcome) -> None:
        """A member that was run again has ended."""
        self.due.discard(slot)
        if outcome.status in ("failed", "cancelled") and self.broken is None:
            self.broken = outcome

    def is_due(self, members: Mapping[str, Frame], *, complete: bool) -> bool:
        """Whether everything has happened that had happened when the group was decided."""
        if complete:  # a member that is no more in the definition is not waited for
            self.due &= members.keys()
        return not self.due and (complete or not self.decision.complete)

    def covers(self, members: Mapping[str, Frame], *, complete: bool) -> bool:
        """Whether the decision can still be waited for, though the fan-out has failed."""
        may = complete or not self.decision.complete or self.decision.how == "rejected"
        return may and self.has_all(members)

    def has_all(self, members: Mapping[str, Frame]) -> bool:
        """Whether every member has been added that there was."""
        return not self.due - members.keys()


def replay_of(page: Page | None, path: tuple[str, ...]) -> Replay | None:
    """How the group at `path` is to be decided; None if an earlier run did not come so far."""
    written = None if page is None else page.find(KIND, path)
    return None if page is None or written is None else Replay(page, Decision.of_json(written))
