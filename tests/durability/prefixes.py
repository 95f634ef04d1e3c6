"""Every state that a crash can leave: a journal in memory, which can be cut after any of its entries.

A journal is a sequence, and a crash keeps a prefix of it. So a run is played once to its end, and then once more from
each prefix: the records have to be the same bytes, and nothing that a prefix knows to be finished is done again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, cast

import anyio

from pipeline.core.codec import decode, encode, encode_line
from pipeline.core.errors import ItemError, PipelineError, WriteError
from pipeline.core.pipeline import Pipeline
from pipeline.core.ports import EARLIER, Admitted, AttemptEnd
from pipeline.core.purse import Amount
from pipeline.core.record import Input, Record, Status
from pipeline.core.usage import Cost, RunAccount, Usage
from pipeline.durability.disk.packing import pack, unpack
from tests.engine.schedules import run_in

#: virtual seconds that a group takes until it is durable
COMMIT = 0.002

Kind = Literal["root", "fact", "begun", "ended", "line", "settled"]
Name = tuple[str, str, int]


class Entry(NamedTuple):
    """One entry of the sequence. `name` says which call, fact or part it is about."""

    kind: Kind
    root: int
    name: Name
    data: bytes


@dataclass
class Memory:
    """A journal in memory, from what `past` runs wrote. Satisfies `ports.Journals`; what was written is `sequence`."""

    past: Sequence[Entry] = ()
    sequence: list[Entry] = field(default_factory=list[Entry])
    output: None = None

    def open(self, pipeline: Pipeline, source: object) -> AbstractAsyncContextManager[Session]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Session]:
        self.sequence = list(self.past)
        session = Session(self)
        async with anyio.create_task_group() as tg:
            tg.start_soon(session.run)
            yield session
            session.close()

    @property
    def written(self) -> list[Entry]:
        """What this run has written."""
        return self.sequence[len(self.past) :]

    def lines(self) -> dict[str, bytes]:
        """The lines of all runs, by the id in them."""
        lines = [entry.data for entry in self.sequence if entry.kind == "line"]
        found = {str(cast("dict[str, object]", decode(line))["id"]): line for line in lines}
        assert len(found) == len(lines), "a line was written twice"
        return found

    def named(self, kind: Kind, fact: str = "") -> list[tuple[int, Name]]:
        return [
            (entry.root, entry.name) for entry in self.sequence if entry.kind == kind and fact in ("", entry.name[1])
        ]

    def settled(self) -> dict[int, bytes]:
        return {entry.root: entry.data for entry in self.sequence if entry.kind == "settled"}


class Session:
    """Satisfies `ports.RunJournal`."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.trouble: Callable[[WriteError, bool], None] | None = None
        self.in_flight = 0
        self.recalled = RunAccount()
        self.takes_more = True
        self.recovered = None
        self.spent = Amount()
        self._done: list[Callable[[], None]] = []
        self._changed = anyio.Event()
        self._closing = False
        roots = [entry for entry in memory.past if entry.kind == "root"]
        self._known = [entry.name[0] for entry in roots]
        self._seq = len(roots)
        self._open = [entry for entry in roots if entry.root not in memory.settled()]

    async def run(self) -> None:
        while self._done or not self._closing:
            await self._changed.wait()
            await anyio.sleep(COMMIT)
            self._changed = anyio.Event()
            done, self._done = self._done, []
            for each in done:
                each()
            if self._done or self._closing:
                self._changed.set()

    def close(self) -> None:
        self._closing = True
        self._changed.set()

    def when_durable(self, done: Callable[[], None]) -> None:
        self._done.append(done)
        self._changed.set()

    def add(self, kind: Kind, root: int, name: Name, data: bytes = b"") -> None:
        self.memory.sequence.append(Entry(kind, root, name, data))

    async def unfinished(self) -> AsyncGenerator[Admitted]:
        for entry in self._open:
            id, _, place = entry.name
            yield Admitted(unpack(entry.data, id), place, Page(self, entry.root))

    async def admit(self, record: Input, place: int) -> Admitted | None:
        if record.id is None:
            record = record._replace(id=f"r{place}")
        if record.id in self._known:
            self._known.remove(record.id)
            return None
        self._seq += 1
        self.add("root", self._seq, (str(record.id), "", place), pack(record))
        return Admitted(record, place, Page(self, self._seq))

    async def begin(self) -> None:
        """There are no files."""

    async def durable(self) -> bool:
        reached = anyio.Event()
        self.when_durable(reached.set)
        await reached.wait()
        return True

    def end_asked(self, *, at_once: bool) -> None:
        """Nobody is blamed."""

    async def untaken(self, after: int) -> Sequence[tuple[int, Record]]:
        return ()

    def taken(self, number: int) -> None:
        """Nobody asks for it."""

    def follow(self, records: object) -> None:
        """There is no file."""


class Page:
    """Satisfies `ports.Page`."""

    def __init__(self, session: Session, root: int, prefix: tuple[str, ...] = ()) -> None:
        self._session = session
        self._root = root
        self._prefix = prefix
        own = [entry for entry in session.memory.past if entry.root == root]
        self._facts = {entry.name: entry.data for entry in own if entry.kind == "fact"}
        self._lines = {entry.name[0] for entry in own if entry.kind == "line"}

    def _text(self, path: tuple[str, ...]) -> str:
        return encode([*self._prefix, *path]).decode()

    def find(self, kind: str, path: tuple[str, ...], ordinal: int = 0) -> object | None:
        found = self._facts.get((self._text(path), kind, ordinal))
        return None if found is None else decode(found)

    def write(self, kind: str, path: tuple[str, ...], value: object, ordinal: int = 0) -> None:
        self._session.add("fact", self._root, (self._text(path), kind, ordinal), encode(value))

    def begun(self, path: tuple[str, ...]) -> bool:
        below = self._text(path)[:-1] + ","
        return bool(self._lines) or any(name.startswith(below) for name, _, _ in self._facts)

    async def begin_attempt(
        self, path: tuple[str, ...], ordinal: int, number: int, model: str, reserved: Amount | None
    ) -> Attempt:
        name = (self._text(path), "call", ordinal)
        self._session.add("begun", self._root, name)
        await anyio.sleep(COMMIT)
        self._session.in_flight += 1
        return Attempt(self._session, self._root, name)

    def recalled(self, usage: Usage, cost: Cost | None) -> None:
        self._session.recalled.charge(usage, cost)

    def under(self, *prefix: str) -> Page:
        return Page(self._session, self._root, (*self._prefix, *prefix))

    def deliver(
        self, slots: tuple[str, ...], record: Record, settles: bool, done: Callable[[Record, int], None]
    ) -> None:
        part = self._text(slots)
        if part in self._lines:
            if settles:
                self.settle(record.status)
            done(record, EARLIER)
            return
        record, line = _rendered(record)
        self._session.add("line", self._root, (part, "", 0), line)
        if settles:
            self.settle(record.status)
        number = len(self._session.memory.sequence)
        self._session.when_durable(lambda: done(record, number))

    def settle(self, status: Status) -> None:
        self._session.add("settled", self._root, ("", "", 0), status.encode())

    def enter(self) -> int:
        return 0

    def leave(self, mark: int) -> None:
        """Nobody asks for it."""

    def forget(self) -> None:
        """Nothing large is kept."""

    @property
    def turn(self) -> None:
        """Nobody is suspected."""


class Attempt:
    """Satisfies `ports.OpenAttempt`."""

    def __init__(self, session: Session, root: int, name: Name) -> None:
        self._session, self._root, self._name = session, root, name

    def depart(self) -> None:
        """It is in the sequence, which is all that is kept."""

    def end(self, end: AttemptEnd, usage: Usage, cost: Cost | None) -> None:
        self._session.in_flight -= 1
        self._session.add("ended", self._root, self._name, end.encode())


def _rendered(record: Record) -> tuple[Record, bytes]:
    try:
        return record, encode_line(record.standard())
    except ItemError as error:
        failed = replace(record, status="failed", output=None, outputs={}, error=None, input=str(error))
        return failed, encode_line(failed.standard())


async def played(pipeline: Pipeline, inputs: Sequence[Any], memory: Memory) -> Memory:
    """Run `pipeline` to its end with `memory`. What ends the run by a rule is no failure of the test."""
    try:
        async with pipeline.open(list(inputs), journal=memory) as run:
            async for _ in run.results:
                pass
    except PipelineError as error:
        if type(error).__name__ != "RunStopped":
            raise
    return memory


def _without(roots: set[str], lines: dict[str, bytes]) -> dict[str, bytes]:
    return {id: line for id, line in lines.items() if not {each.partition("#")[0] for each in _made_of(line)} & roots}


def _made_of(line: bytes) -> list[str]:
    """The ids of what a record was made of."""
    record = cast("dict[str, Any]", decode(line))
    return record.get("inputs") or [record["id"]]


def _covered(free: set[str], lines: dict[str, bytes]) -> list[str]:
    """What the records were made of, each as often as it is in one; roots that are `free` may leave none."""
    covered = [each for line in lines.values() for each in _made_of(line)]
    assert len(set(covered)) == len(covered), "a record was made of what is in another one too"
    return sorted(each for each in covered if each.partition("#")[0] not in free)


def prefixes(sequence: Sequence[Entry], stride: int = 1) -> Iterator[int]:
    """How long a prefix can be: what one step of the loop writes together is committed together."""
    lengths = [n for n in range(len(sequence) + 1) if n in (0, len(sequence)) or not together(*sequence[n - 1 : n + 1])]
    yield from lengths[::stride]
    if (len(lengths) - 1) % stride:
        yield lengths[-1]


def together(before: Entry, after: Entry) -> bool:
    """Whether two entries are of one step: a line and the end of its root, what the members of a batch are told."""
    if before.kind == "line" and after.kind == "settled":
        return True
    return (
        before.kind == after.kind == "fact"
        and before.name[1] == after.name[1]
        and before.name[1] in ("batch", "batched")
    )


def check_prefixes(
    pipeline: Pipeline,
    inputs: Sequence[Any],
    backend: str,
    *,
    stride: int = 1,
    seed: int = 0,
    timed: Sequence[str] = (),
    settles: bool = True,
) -> list[Memory]:
    """Play `pipeline` to its end, then from every prefix of what that wrote; return the first run and the resumed ones.

    The lines are those of the first run; no call that was finished is begun again; all roots settle. `timed` are the
    kinds of decisions that are a matter of timing: a root that has such a decision to come may end in another way.
    """
    first = run_in(backend, seed, played, pipeline, inputs, Memory())
    lines = first.lines()
    resumed: list[Memory] = []
    for length in prefixes(first.sequence, stride):
        memory = run_in(backend, seed, played, pipeline, inputs, Memory(tuple(first.sequence[:length])))
        where = f"after {length} of {len(first.sequence)} entries, the last one {first.sequence[length - 1 : length]}"
        open_to = {e.root for e in first.sequence[length:] if e.kind == "fact" and e.name[1] in timed}
        free = {e.name[0] for e in first.sequence if e.kind == "root" and e.root in open_to}
        assert _without(free, memory.lines()) == _without(free, lines), where
        assert _covered(free, memory.lines()) == _covered(free, lines), where
        known = {(entry.root, entry.name) for entry in memory.past if entry.kind == "fact" and entry.name[1] == "call"}
        again = [entry for entry in memory.written if entry.kind == "begun" and (entry.root, entry.name) in known]
        assert not again, (where, again)
        if settles:
            assert set(memory.settled()) == {entry.root for entry in memory.sequence if entry.kind == "root"}, where
        resumed.append(memory)
    return [first, *resumed]
