"""One run with a journal: what is admitted, delivered and settled goes through here. Satisfies `ports.RunJournal`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Final, cast

from pipeline.core.errors import ItemError, JournalError, PipelineError, WriteError
from pipeline.core.identity import Contents
from pipeline.core.ports import Admitted
from pipeline.core.purse import Amount
from pipeline.core.record import Input, Record
from pipeline.core.recovered import Recovered
from pipeline.core.usage import RunAccount
from pipeline.durability.disk import schema
from pipeline.durability.disk.departures import Departures
from pipeline.durability.disk.marks import Marks
from pipeline.durability.disk.packing import digest, pack, unpack
from pipeline.durability.disk.schema import LineValues, Row
from pipeline.durability.disk.store import Store
from pipeline.durability.disk.writer import Writer, failed
from pipeline.durability.outputs.committing import Committing
from pipeline.durability.outputs.letters import FailedLine, Place, Tried
from pipeline.durability.outputs.rebuilt import record_of
from pipeline.durability.outputs.rendering import Rendering
from pipeline.durability.page import Name, Page, text_of
from pipeline.durability.resume.input import edited, progress
from pipeline.durability.resume.known import Known
from pipeline.durability.resume.poison import CRASHES, Suspected, poison
from pipeline.durability.resume.reading import Reading
from pipeline.durability.resume.recovery import Recovery
from pipeline.durability.resume.reopening import ONLY, Reopen
from pipeline.durability.resume.spending import spent

PATHS: Final = 1024  #: paths whose text is remembered, because each call needs it again and again
READ: Final = 64  #: roots read from the journal at a time

_NOTHING: Final[dict[Name, bytes]] = {}


class Session:
    """What can change: the counters, and through the writer the file."""

    def __init__(self, store: Store, commits: Committing, rendering: Rendering) -> None:
        self.store = store
        self.commits = commits
        self.rendering = rendering
        self.writer = Writer(commits, self._broken)
        self.trouble: Callable[[WriteError, bool], None] | None = None
        self.text_of = lru_cache(PATHS)(text_of)
        self.in_flight = 0  #: attempts that may have been sent and have not ended
        self.epoch = 1
        self.marks: Marks | None = None  #: whose code is at work
        self.departures: Departures | None = None  #: which attempts have left
        self.suspected = Suspected()
        self.recalled = RunAccount()  #: what calls cost that were answered from the journal
        self._recovered: Recovered | None = None
        self._reopen = Reopen()
        self._known = Known()
        self._contents = Contents()
        self._input = Reading(())
        self._wanted: set[str] | None = None  #: ids of the records that are taken from the source; None: all
        self._spent = Amount()
        self._seq = 0
        self._attempts = 0
        self._lines = 0
        self._tried = Tried()
        self._left = (0, 0)  #: the lines that earlier runs wrote and nobody took are behind the first, up to the second

    # -- recovering ---------------------------------------------------------------------------------------------

    def recover(self, recovery: Recovery, reopen: Reopen) -> None:
        """Take up where earlier runs ended. Blocks."""
        one = self._one
        self.epoch, self._recovered, self._reopen = recovery.epoch, recovery.recovered, reopen
        self._wanted = set(recovery.anew) if reopen.only_failed else None
        self._seq = max(
            int(one("SELECT coalesce(max(seq), 0) FROM root")),
            int(one("SELECT coalesce(max(root), 0) FROM attempt")),  # of roots that were forgotten
        )
        self._attempts = int(one("SELECT coalesce(max(id), 0) FROM attempt"))
        self._lines = max(
            int(one("SELECT coalesce(max(number), 0) FROM line")),
            int(one("SELECT coalesce(max(number), 0) FROM projection")),  # of lines that were taken back
        )
        self._left = (self.commits.taken, self._lines)
        self._known = Known(cast("Iterator[tuple[str, bytes]]", self.store.read("SELECT id, digest FROM root")))
        self._spent = spent(self.store)
        self._input = Reading(progress(self.store))

    @property
    def recovered(self) -> Recovered | None:
        """Satisfies `RunJournal`."""
        return None if self._recovered is None else replace(self._recovered, files=self.commits.said)

    @property
    def spent(self) -> Amount:
        """Satisfies `RunJournal`."""
        return self._spent

    def _one(self, query: str) -> int:
        return cast(int, next(self.store.read(query))[0])

    def close(self) -> None:
        """Close the files. Blocks. Raises `WriteError`."""
        whole = self.commits.usable and self.writer.failure is None
        try:
            try:
                if whole:
                    self.commits.finish()
            except BaseException:
                whole = False
                raise
            finally:
                self._close(whole=whole)
        except OSError as error:
            raise failed(error) from error

    def _close(self, *, whole: bool) -> None:
        try:
            self.commits.close(whole=whole)
        finally:
            self.store.close(fold=whole)

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
            "SELECT seq, id, place, record, crashes FROM root WHERE seq > ? AND seq <= ?"
            f" AND seq NOT IN (SELECT root FROM settled){ONLY if self._reopen.only_failed else ''} ORDER BY seq LIMIT ?"
        )
        found: list[Admitted] = []
        for seq, id, place, packed, crashes in list(self.store.read(query, (after, last, READ))):
            page = self._page(cast(int, seq))
            record = self._record(packed, id)
            if crashes:
                self.suspected.roots.add(cast(int, seq))
            if cast(int, crashes) >= CRASHES:
                record = record._replace(defect=poison(cast(int, crashes)))
            found.append(Admitted(record, cast(int, place), page))
        return found

    def _record(self, packed: object, id: object) -> Input:
        try:
            if not isinstance(packed, bytes) or not isinstance(id, str):
                raise TypeError("bytes and text")
            return unpack(packed, id)
        except (ItemError, LookupError, TypeError, ValueError, AttributeError) as error:
            raise JournalError(f"{self.store.path}: is damaged: record {id!r:.60} cannot be read") from error

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
        for row in self._input.news():
            self.writer.queue(row)
        if record.id is None:
            record = record._replace(id=self._contents.of_content(record.value).id)
        id = cast(str, record.id)
        if self._wanted is not None and id not in self._wanted:
            return None
        said = digest(record)
        match self._known.take(id, said):
            case "known":
                return None
            case "edited":
                raise edited(record)
            case "new":
                self._seq += 1
        self.writer.queue(Row(schema.ROOT, (self._seq, id, place, said, pack(record))))
        return Admitted(record, place, Page(self, self._seq, _NOTHING, frozenset()))

    async def begin(self) -> None:
        """Satisfies `RunJournal`."""
        try:
            await self.writer.at_disk(self.commits.open)
        except PipelineError:
            raise
        except OSError as error:
            raise failed(error) from error

    async def durable(self) -> bool:
        """Satisfies `RunJournal`."""
        return await self.writer.durable()

    def end_asked(self, *, at_once: bool) -> None:
        """Satisfies `RunJournal`."""
        if self.marks is not None:
            self.marks.pardon()
        if at_once:
            self.writer.hurry()

    @property
    def takes_more(self) -> bool:
        """Satisfies `RunJournal`."""
        return self._wanted is None or bool(self._wanted)

    def input_read(self) -> None:
        """No more records come from the source."""
        for row in self._input.news(last=True):
            self.writer.queue(row)

    def follow(self, records: object) -> None:
        """Satisfies `RunJournal`."""
        self._input.follow(records)

    # -- for pages ----------------------------------------------------------------------------------------------

    def next_attempt(self) -> int:
        self._attempts += 1
        return self._attempts

    def deliver(self, place: Place, record: Record, settles: bool, done: Callable[[Record, int], None]) -> None:
        """Write a record's line, and call `done` when it is durable."""
        record, data, standard = self.rendering.lines(record)
        target = self.rendering.target(record)
        self._lines += 1
        number = self._lines
        values = LineValues(number, place.seq, place.part, record.id, record.status, target, data, standard)
        dead = record.status == "failed"
        failed = FailedLine(record, place, values, self._tried) if dead else None
        self.writer.queue(failed or Row(schema.LINE, values))
        if settles:
            self.writer.queue(Row(schema.SETTLED, (place.seq, record.status)))
        self.writer.when_durable(lambda: done(record, number))

    # -- for the consumer ---------------------------------------------------------------------------------------

    async def untaken(self, after: int) -> list[tuple[int, Record]]:
        """Satisfies `RunJournal`."""
        taken, last = self._left
        return await self.writer.ask(lambda: self._untaken(max(after, taken), last))

    def _untaken(self, after: int, last: int) -> list[tuple[int, Record]]:
        query = (
            "SELECT number, coalesce(record, data) FROM line WHERE number > ? AND number <= ? ORDER BY number LIMIT ?"
        )
        found = self.store.read(query, (after, last, READ))
        return [(cast(int, number), record_of(cast(bytes, data))) for number, data in found]

    def taken(self, number: int) -> None:
        """Satisfies `RunJournal`."""
        self.commits.taken = number
        self.writer.look()

    def _broken(self, error: WriteError) -> None:
        if self.trouble is not None:
            self.trouble(error, self.writer.failure is not None)
