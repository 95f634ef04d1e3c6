"""One fan-out that is joined again: a `Group` for each item that enters a composite.

A group decides synchronously, at the moment its last relevant member resolves, so no two decisions can interleave. What
becomes of the decision is its joiner's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import anyio
from anyio import CancelScope

from pipeline.core.decided import KIND, OPEN, Decision, End, How, Replay, replay_of
from pipeline.core.errors import Failure, ItemError
from pipeline.core.item import Frame, Item, Missing, Outcome
from pipeline.core.joins import Tally, ask, decide, decide_late
from pipeline.core.members import Ended, Members, Verdict
from pipeline.core.usage import Account

if TYPE_CHECKING:
    from pipeline.core.joiner import Joiner


class Joined(NamedTuple):
    """How a group ended."""

    verdict: Verdict
    late: bool  #: its time was up
    failure: Failure | None = None  #: why it failed, if its join says so itself


class Group:
    """The members of one fan-out, open until it is decided.

    What can change: `members` and `complete` while the fan-out is being made, `outcomes`, `used`, `closed`, `scope`
    (whoever is still sending members out). Slots are in declaration order, whatever the timing.

    With a journal, a decision that could be another one the next time is written, and taken from there in a replay.
    """

    __slots__ = (
        "closed", "complete", "cut", "failed", "item", "joined", "joiner", "members",
        "ok", "outcomes", "page", "pulling", "replay", "room", "scope", "shortened", "skipped", "spent", "started",
        "used",
    )  # fmt: skip

    def __init__(self, joiner: Joiner, item: Item) -> None:
        self.joiner = joiner
        self.item = item  #: as it entered; held here until the group is decided
        self.members: dict[str, Frame] = {}
        self.outcomes: dict[str, Outcome] = {}
        self.ok = self.failed = self.skipped = 0
        self.used = Account()  #: by members that have ended; charged to the item that entered when the group is decided
        self.complete = False
        self.cut = False  #: a member was cut short by a drain, in a run with a journal: a resume will do it
        self.shortened = False  #: so was the fan-out
        self.closed = False
        self.joined: Joined | None = None  #: how it was decided
        self.started = False
        self.scope: CancelScope | None = None
        self.pulling: CancelScope | None = None  #: the wait for the next member, of a fan-out that iterates
        self.room: anyio.Event | None = None  #: set when a member resolves, for a fan-out that waits for room
        self.page = item.frame.root.page
        self.replay: Replay | None = None  #: how it was decided in an earlier run
        self.spent: dict[str, object] = {}  #: with a journal, what those used that did not end well
        if self.page is not None:
            self.replay = replay_of(self.page, self.path)
        item.frame.inner = self
        joiner.opened(self)

    judges = True

    @property
    def label(self) -> str:
        return self.joiner.label

    @property
    def untaken(self) -> bool:
        """A joined group leaves no records of its own."""
        return False

    @property
    def path(self) -> tuple[str, ...]:
        """Where its decision stands in the journal."""
        return (*self.item.frame.path(), self.label)

    @property
    def open_members(self) -> int:
        return len(self.members) - len(self.outcomes)

    @property
    def at_work(self) -> int:
        """Members that have not ended, and may."""
        return self.open_members - (0 if self.replay is None else self.replay.unstarted)

    @property
    def alone(self) -> bool:
        """Whether there is no other member, whose timing could matter."""
        return len(self.members) <= 1

    @property
    def cut_short(self) -> bool:
        """Whether a member was not tried to its end, so that nothing is known of it."""
        return any(outcome.status == "cancelled" for outcome in self.outcomes.values())

    @property
    def past(self) -> int:
        """How many members have ended well and been forgotten; their slots are the first numbers."""
        return 0

    def add(self, slot: str, names: Mapping[str, object] | None = None) -> Frame:
        """Add a member. Its frame is to be sent out on an item, or retired; added too late, it is revoked already."""
        frame = Frame(self, slot, self.item.frame, names)
        frame.revoked = self.closed
        self.members[slot] = frame
        if self.replay is not None and not self.closed:
            outcome = self.replay.added(frame)
            if outcome is not None:
                self._note(frame, outcome)
        return frame

    def finish_adding(self) -> None:
        """No member will be added: from now on the group can be decided by what is missing."""
        self.complete = True
        self._judge()

    def touched(self) -> None:
        """The first visit of a member starts the group's clock."""
        if not self.started:
            self.started = True
            if not self.closed and self.replay is None:
                self.joiner.start_clock(self)

    def resolved(self, frame: Frame, outcome: Outcome) -> None:
        if self.closed:
            return
        if self.replay is not None:
            self.replay.ended(frame.slot, outcome)
        self._note(frame, outcome)
        self._judge()

    def _note(self, frame: Frame, outcome: Outcome) -> None:
        self.outcomes[frame.slot] = outcome
        if self.page is not None and outcome.status not in ("ok", "partial"):
            self.spent[frame.slot] = None if outcome.status == "cancelled" else frame.account.stored()
        self.count(frame, outcome)
        match outcome.status:
            case "ok" | "partial":
                self.ok += 1
            case "skipped":
                self.skipped += 1
            case "failed" | "cancelled":
                self.failed += 1
                self.cut = self.cut or (outcome.status == "cancelled" and frame.root.page is not None)
        self.noted(outcome)
        if self.room is not None:
            self.room.set()

    def count(self, frame: Frame, outcome: Outcome) -> None:
        """Count what a member has used that ended. One that was cut short is no part of what the group decides."""
        if outcome.status != "cancelled":
            frame.account.hand_over(self.used)

    def noted(self, outcome: Outcome) -> None:
        """A member has ended, and the group is about to be judged. For groups that make something of it."""

    def expire(self) -> None:
        """The group's time is up."""
        if self.closed:
            return
        rules = self.joiner.rules
        if rules.join.function is not None:
            self._ask(late=True)
        if not self.closed:
            self._close(Joined(decide_late(rules.join, self.tally(), rules.on_timeout), late=True))

    def fail(self, failure: Failure) -> None:
        """End the group because its fan-out failed."""
        if self.closed:
            return
        if self.replay is not None and self.replay.covers(self.members, complete=self.complete):
            self._judge()  # that is known; what has been decided is waited for
            return
        self._keep("rejected", Joined("failed", late=False, failure=failure))
        self._reject(failure)

    def _reject(self, failure: Failure) -> None:
        self._shut()
        self.used.hand_over(self.item.frame.account)
        self.joiner.reject(self, failure)

    async def wait_as_before(self) -> None:
        """Wait until it is closed, when an earlier run added no further member before it was; else return at once."""
        replay = self.replay
        if replay is None or replay.decision.complete or not replay.has_all(self.members):
            return
        self._judge()
        await anyio.sleep_forever()  # whoever closes it cancels that

    def revoke(self) -> None:
        """Close without a result. The frame of the item that entered is retired by who revoked it."""
        if not self.closed:
            self._shut()

    def abandon(self) -> None:
        """Cancel what is held and every member: the composite is being torn down."""
        self.revoke()
        self.item.frame.resolve(Outcome("cancelled", self.item))

    def lack(self, what: str, reason: str) -> None:
        """Name something that the group does without, whatever its members say."""
        item = self.item
        lacks = (*item.missing, Missing(f"{self.label}.{what}", reason))
        self.item = Item(item.value, item.state, item.frame, lacks)

    def tally(self) -> Tally:
        """How the members stand; `ok` includes partial ones."""
        return Tally(self.ok, self.failed, self.skipped, self.open_members, self.complete)

    def view(self, *, late: bool = False) -> Members:
        """The members as a join that is a function sees them."""
        ended: dict[str, Ended] = {}
        for slot in self.members:
            if slot in self.outcomes:
                status, item, failure = self.outcomes[slot]
                if status == "cancelled" and self.page is not None:
                    continue  # it was not tried, so nothing is known of it yet
                value = item.value if item is not None and status in ("ok", "partial") else None
                reason = "" if status in ("ok", "partial", "skipped") else failure.message if failure else status
                ended[slot] = Ended(status, value, reason)
        return Members(tuple(self.members), MappingProxyType(ended), self.complete, late)

    def finished(self) -> dict[str, Item]:
        """The items of the members that are ok or partial, by slot, in declaration order."""
        done: dict[str, Item] = {}
        for slot in self.members:
            outcome = self.outcomes.get(slot)
            if outcome is not None and outcome.item is not None and outcome.status in ("ok", "partial"):
                done[slot] = outcome.item
        return done

    def missing(self, among: Iterable[str]) -> tuple[Missing, ...]:
        """What the join did without among these slots, and what finished members did without."""
        lacks: list[Missing] = []
        for slot in among:
            outcome = self.outcomes.get(slot)
            if outcome is None:
                lacks.append(Missing(f"{self.label}.{slot}", self._not_done()))
            elif outcome.status in ("failed", "cancelled"):
                reason = outcome.failure.message if outcome.failure is not None else outcome.status
                lacks.append(Missing(f"{self.label}.{slot}", reason))
            elif outcome.item is not None and outcome.status != "skipped":
                lacks += [lack for lack in outcome.item.missing if lack not in self.item.missing]
        return tuple(lacks)

    def _not_done(self) -> str:
        late = self.joined is None or self.joined.late
        timeout = self.joiner.rules.timeout if late else None
        return "not done" if timeout is None else f"not done within {timeout:g} s"

    def _judge(self) -> None:
        if self.closed:
            return
        if self.replay is not None:
            self._judge_as_before(self.replay)
            return
        join = self.joiner.rules.join
        if join.function is not None:
            if self.outcomes or (self.complete and not self.members):  # it judges what has ended
                self._ask(late=False)
            return
        verdict = decide(join, self.tally())
        if verdict is not None:
            self._close(Joined(verdict, late=False))

    def _judge_as_before(self, replay: Replay) -> None:
        """Close as it was closed before, when everything has happened that had happened by then."""
        if replay.broken is not None:
            self._close(Joined("failed", late=False, failure=replay.broken.failure))
            return
        if not replay.is_due(self.members, complete=self.complete):
            return
        decision = replay.decision
        if decision.how == "rejected" and decision.failure is not None:
            self._reject(decision.failure)
        else:
            self._close(Joined(decision.verdict, decision.late, decision.failure))

    def _keep(self, how: How, joined: Joined) -> Joined:
        """Write how the group is decided, if a replay could decide otherwise."""
        page = self.page
        known = self.replay is not None and self.replay.broken is None
        if page is None or known or not self._depends(how, joined):
            return joined
        if joined.verdict == "failed" and joined.failure is None:
            joined = joined._replace(failure=self.joiner.why(self, joined))
        ends = {slot: self._end_of(slot) for slot in self.members}
        decision = Decision(how, joined.verdict, joined.late, self.complete, joined.failure, ends, self.past)
        page.write(KIND, self.path, decision.as_json())
        return joined

    def _depends(self, how: How, joined: Joined) -> bool:
        """Whether anything of the decision is a matter of timing, or of what a function says."""
        rules = self.joiner.rules
        if self.joiner.leaves_open(self, joined.verdict):
            return False
        if rules.timeout is not None or rules.join.function is not None or self.open_members or not self.complete:
            return True
        timed = how == "rejected" or joined.verdict == "failed" or rules.join.rule == "first"
        return timed and not self.alone

    def _end_of(self, slot: str) -> End:
        outcome = self.outcomes.get(slot)
        return OPEN if outcome is None else End(outcome.status, outcome.failure, self.spent.get(slot))

    def _ask(self, *, late: bool) -> None:
        """Close if the join's own function decides, or fails to."""
        try:
            verdict = ask(self.joiner.rules.join, self.label, self.view(late=late))
        except ItemError as error:
            self._close(Joined("failed", late, Failure.of(error, self.label)))
            return
        if verdict is not None:
            self._close(Joined(verdict, late))
        elif self.cut and self.complete and not self.open_members:  # those that were cut short would have decided
            self._close(Joined("failed", late))

    def _close(self, joined: Joined) -> None:
        if self.cut and self.at_work and not joined.late and joined.verdict != "ok":
            return  # nothing comes of it in this run, so let the calls of the others come to their end
        joined = self._keep("joined", joined)
        self.joined = joined
        if joined.verdict == "partial":
            self._name_the_rest()
        self._shut()
        self.used.hand_over(self.item.frame.account)
        self.joiner.decided(self, joined)

    def _name_the_rest(self) -> None:
        """Say what a partial group lacks where no member stands for it: those that were never added, or nothing but
        that its join says so."""
        item, name, reason = self.item, f"{self.label}.rest", self._not_done()
        if self.complete:
            if self.missing(self.members):
                return
            name, reason = self.label, f"join {self.joiner.rules.join} says partial"
        self.item = Item(item.value, item.state, item.frame, (*item.missing, Missing(name, reason)))

    def _shut(self) -> None:
        """Let go of the item that entered, revoke who has not ended, and stop whoever still sends members out."""
        self.closed = True
        self.item.frame.inner = None
        self.joiner.closed(self)
        for slot, frame in self.members.items():
            if slot not in self.outcomes:
                frame.revoke()
        if self.scope is not None:
            self.scope.cancel()
