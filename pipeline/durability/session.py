"""One run with a journal: what is admitted, delivered and settled goes through here. Satisfies `ports.RunJournal`."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Final, cast

from pipeline.core.codec import canonical
from pipeline.core.errors import Failure, ItemError, WriteError
from pipeline.core.ports import Admitted
from pipeline.core.purse import Amount
from pipeline.core.record import Input, Record
from pipeline.core.usage import RunAccount
from pipeline.durability import schema
from pipeline.durability.packing import digest, pack, unpack
from pipeline.durability.page import Name, Page
from pipeline.durability.schema import Row
from pipeline.durability.store import Probe, Store
from pipeline.durability.writer import Writer

READ: Final = 64  #: roots read from the journal at a time

_NOTHING: Final[dict[Name, bytes]] = {}


class Session:
    """What can change: the counters, and through the writer the file."""

    def __init__(self, store: Store, render: Callable[[Record], bytes], probe: Probe) -> None:
        self.store = store
        self.render = render
        self.probe = probe
        self.writer = Writer(self, self._broken)
        self.trouble: Callable[[WriteError, bool], None] | None = None
        self.in_flight = 0  #: attempts that may have been sent and have not ended
        self.epoch = 1
        self.recalled = RunAccount()  #: what calls cost that were answered from the journal
        self._known: Counter[str] = Counter()  #: ids of earlier runs that the input has not brought again
        self._seen: Counter[bytes] = Counter()
        self._spent = Amount()
        self._seq = 0
        self._attempts = 0
        self._lines = 0

    # -- recovering ---------------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Find out how far earlier runs came. Blocks."""
        one = self._one
        self.epoch = int(one("SELECT coalesce(max(epoch), 0) + 1 FROM attempt"))
        self._seq = int(one("SELECT coalesce(max(seq), 0) FROM root"))
        self._attempts = int(one("SELECT coalesce(max(id), 0) FROM attempt"))
        self._lines = int(one("SELECT coalesce(max(number), 0) FROM line"))
        for (id,) in self.store.read("SELECT id FROM root"):
            self._known[cast(str, id)] += 1
        self.store.change(("UPDATE attempt SET state = 'ambiguous' WHERE state = 'started'", ()))

    @property
    def spent(self) -> Amount:
        """Satisfies `RunJournal`."""
        return self._spent

    def _one(self, query: str) -> int:
        return cast(int, next(self.store.read(query))[0])

    def close(self) -> None:
        """Close the file. Blocks."""
        self.store.close(fold=self.writer.failure is None)

    # -- for the engine -----------------------------------------------------------------------------------------

    async def unfinished(self) -> AsyncGenerator[Admitted]:
        """The roots that earlier runs admitted and did not settle, in their order."""
        after, last = 0, self._seq
        while batch := await self.writer.ask(lambda after=after: self._unfinished(after, last)):
            for admitted in batch:
                yield admitted
                after = cast(Page, admitted.page).seq

    def _unfinished(self, after: int, last: int) -> list[Admitted]:
        query = (
            "SELECT seq, id, place, record FROM root WHERE seq > ? AND seq <= ?"
            " AND seq NOT IN (SELECT root FROM settled) ORDER BY seq LIMIT ?"
        )
        found: list[Admitted] = []
        for seq, id, place, record in list(self.store.read(query, (after, last, READ))):
            page = self._page(cast(int, seq))
            found.append(Admitted(unpack(cast(bytes, record), cast(str, id)), cast(int, place), page))
        return found

    def _page(self, seq: int) -> Page:
        facts = self.store.read("SELECT path, kind, ordinal, value FROM fact WHERE root = ?", (seq,))
        past = {(cast(str, path), cast(str, kind), cast(int, n)): cast(bytes, value) for path, kind, n, value in facts}
        lines = frozenset(
            cast(str, part) for (part,) in self.store.read("SELECT part FROM line WHERE root = ?", (seq,))
        )
        return Page(self, seq, past, lines)

    async def admit(self, record: Input, place: int) -> Admitted | None:
        """Write that `record`, at `place` of the input, is admitted; None if an earlier run did."""
        await self.writer.room()
        if record.id is None:
            record = record._replace(id=self._id_of(record))
        id = cast(str, record.id)
        if self._known[id]:
            self._known[id] -= 1
            return None
        self._seq += 1
        self.writer.queue(Row(schema.ROOT, (self._seq, id, place, digest(record), pack(record))))
        return Admitted(record, place, Page(self, self._seq, _NOTHING, frozenset()))

    def _id_of(self, record: Input) -> str:
        """The id of a record that brings none: of what it says, and how often that was said before."""
        said = blake2b(canonical(record.value), digest_size=8).digest()
        self._seen[said] += 1
        count = self._seen[said]
        return said.hex() if count == 1 else f"{said.hex()}#{count}"

    # -- for pages ----------------------------------------------------------------------------------------------

    def next_attempt(self) -> int:
        self._attempts += 1
        return self._attempts

    def deliver(self, seq: int, part: str, record: Record, settles: bool, done: Callable[[Record], None]) -> None:
        """Write a record's line, and call `done` when it is durable."""
        record, data = self._rendered(record)
        self._lines += 1
        row = Row(schema.LINE, (self._lines, seq, part, record.id, record.status, "", data))
        self.writer.queue(row)
        if settles:
            self.writer.queue(Row(schema.SETTLED, (seq, record.status)))
        self.writer.when_durable(lambda: done(record))

    def _rendered(self, record: Record) -> tuple[Record, bytes]:
        """The record's line; of one that has no JSON form, that of its failure, at last without its input."""
        try:
            return record, self.render(record)
        except ItemError as error:
            record = replace(record, status="failed", output=None, outputs={}, error=Failure.of(error, None))
        try:
            return record, self.render(record)
        except ItemError:
            record = replace(record, input=None)
            return record, self.render(record)

    # -- for the writer -----------------------------------------------------------------------------------------

    def commit(self, rows: Sequence[Row]) -> None:
        """Satisfies `Commits`."""
        self.store.commit(rows)

    def relieve(self) -> bool:
        """Satisfies `Commits`."""
        return False

    def _broken(self, error: WriteError) -> None:
        if self.trouble is not None:
            self.trouble(error, self.writer.failure is not None)
