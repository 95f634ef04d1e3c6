"""What the journal holds of one root, and where more of it is written. Satisfies `pipeline.core.ports.Page`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from anyio import Lock

from pipeline.core.codec import decode, encode
from pipeline.core.errors import CallsClosed
from pipeline.core.ports import EARLIER, AttemptEnd
from pipeline.core.purse import Amount
from pipeline.core.record import Record, Status, usage_json
from pipeline.core.usage import Cost, Usage
from pipeline.durability.disk import schema
from pipeline.durability.disk.schema import REOPENED, Row, Value
from pipeline.durability.outputs.letters import Place

if TYPE_CHECKING:
    from pipeline.durability.session import Session

#: path as text, kind, ordinal
Name = tuple[str, str, int]

_AGAIN: Final[Name] = ("[]", REOPENED, 0)
_ENDED: Final = f"DELETE FROM fact WHERE root = ? AND path = '[]' AND kind = '{REOPENED}'"


class Page:
    """The page of root `seq`. What can change: what is written. `past` is what earlier runs wrote."""

    __slots__ = ("_past", "_prefix", "_session", "lines", "seq")

    def __init__(
        self,
        session: Session,
        seq: int,
        past: Mapping[Name, bytes],
        lines: frozenset[str],
        prefix: tuple[str, ...] = (),
    ) -> None:
        self._session = session
        self._past = past
        self._prefix = prefix
        self.seq = seq
        self.lines = lines  #: parts of the root that left their record before

    def find(self, kind: str, path: tuple[str, ...], ordinal: int = 0) -> object | None:
        if not self._past:
            return None
        found = self._past.get((self._text(path), kind, ordinal))
        return None if found is None else decode(found)

    def write(self, kind: str, path: tuple[str, ...], value: object, ordinal: int = 0) -> None:
        values = (self.seq, self._text(path), kind, ordinal, encode(value))
        self._session.writer.queue(Row(schema.FACT, values))

    def begun(self, path: tuple[str, ...]) -> bool:
        below = self._text(path)[:-1] + ","
        return bool(self.lines) or any(name.startswith(below) for name, _, _ in self._past)

    async def begin_attempt(
        self, path: tuple[str, ...], ordinal: int, number: int, model: str, reserved: Amount | None
    ) -> OpenAttempt:
        session = self._session
        id = session.next_attempt()
        put_aside = None if reserved is None else encode(list(reserved)).decode()
        begun = (id, self.seq, self._text(path), ordinal, number, session.epoch, model, put_aside)
        session.writer.queue(Row(schema.ATTEMPT, (*begun, "started", None, None, None)))
        attempt = OpenAttempt(session, begun)
        try:
            durable = await session.writer.durable()
        except BaseException:
            attempt.end("unsent", Usage(), None)
            raise
        if not durable:
            raise CallsClosed("the journal cannot be written, so no call is made")
        attempt.set_out()
        return attempt

    def recalled(self, usage: Usage, cost: Cost | None) -> None:
        self._session.recalled.charge(usage, cost)

    def under(self, *prefix: str) -> Page:
        return Page(self._session, self.seq, self._past, self.lines, (*self._prefix, *prefix))

    def deliver(
        self, slots: tuple[str, ...], record: Record, settles: bool, done: Callable[[Record, int], None]
    ) -> None:
        """Write the record's line, and call `done` with the record as it was written when that is durable. A line that
        was written by an earlier run is not written again."""
        part = self._text(slots) if slots or self._prefix else ""
        if part in self.lines:
            if settles:  # the line was there before that was known
                self.settle(record.status)
            done(record, EARLIER)
        else:
            place = Place(self.seq, part, () if self._prefix else slots)
            self._session.deliver(place, record, settles, done)
            if settles:
                self._ended()

    def settle(self, status: Status) -> None:
        """Write that the root has ended, with all its records."""
        self._session.writer.queue(Row(schema.SETTLED, (self.seq, status)))
        self._ended()

    def _ended(self) -> None:
        """Nothing is left to say of why it was opened again."""
        if _AGAIN in self._past:
            self._session.writer.queue(Row(_ENDED, (self.seq,)))

    def enter(self) -> int:
        """Note, until `leave`, that code of the user's is at work on the root."""
        marks = self._session.marks
        return 0 if marks is None else marks.enter(self.seq)

    def leave(self, mark: int) -> None:
        """What `enter` has noted is over."""
        if mark and self._session.marks is not None:
            self._session.marks.leave(mark)

    def forget(self) -> None:
        """Let go of what earlier runs wrote: nothing is left of the root."""
        self._past = dict[Name, bytes]()
        self.lines = frozenset[str]()

    @property
    def turn(self) -> Lock | None:
        """What code of the root has to hold, if it was at work at a crash."""
        suspected = self._session.suspected
        return suspected.turn if suspected.roots and self.seq in suspected.roots else None

    def _text(self, path: tuple[str, ...]) -> str:
        return self._session.text_of((*self._prefix, *path))


def text_of(path: tuple[str, ...]) -> str:
    """A path as it stands in the journal."""
    return encode(path).decode()


class OpenAttempt:
    """An attempt that was written before it was sent."""

    __slots__ = ("_begun", "_out", "_session")

    def __init__(self, session: Session, begun: tuple[int, *tuple[Value, ...]]) -> None:
        self._session = session
        self._begun = begun  #: its id, and all else that its row began with
        self._out = False

    def set_out(self) -> None:
        """It may be sent now."""
        self._out = True
        self._session.in_flight += 1

    def depart(self) -> None:
        departures = self._session.departures
        if departures is not None:
            departures.note(self._begun[0])

    def end(self, end: AttemptEnd, usage: Usage, cost: Cost | None) -> None:
        if self._out:
            self._out = False
            self._session.in_flight -= 1
        counts = encode(usage_json(usage)).decode()
        usd, source = (None, None) if cost is None else (cost.usd, cost.source)
        usd = None if usd is None else float(usd)  # the column is of floats, and the row has a sum
        self._session.writer.queue(Row(schema.ATTEMPT, (*self._begun, end, counts, usd, source)))
