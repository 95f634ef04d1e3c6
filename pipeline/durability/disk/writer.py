"""The one writer of a journal: what is queued on the loop is committed in order by a thread, group by group.

Nobody on the loop ever waits for the disk, except those who ask for it: `durable` returns when all that was queued
before is on the disk. A group is what has come while the last one was being written; a little more is waited for when
nobody presses, or when so much came last time that it pays. The queue is bounded by `room`, which admission waits for,
so a slow disk slows the run and memory does not grow.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from math import inf
from typing import Final, Protocol, TypeVar

import anyio
import anyio.to_thread

from pipeline.core.errors import PipelineError, WriteError
from pipeline.durability.disk.reserve import is_full
from pipeline.durability.disk.schema import Row
from pipeline.durability.disk.store import Later

T = TypeVar("T")

PRESSED: Final = (
    0.008  #: seconds that a group waits for more when somebody waits for it, and the last one was not small
)
PATIENT: Final = 0.01  #: and when nobody does
GROUP: Final = 256  #: rows with which a group goes at once
FEW: Final = 8  #: rows below which a group is small
ROOM: Final = 4096  #: rows queued beyond which nothing new is admitted
IDLE: Final = 1.0  #: seconds without anything to write after which what is made of the journal is brought to the disk
LAST: Final = 2.0  #: seconds for what is queued when the run is cancelled


class Commits(Protocol):
    """What a group is done with, in the writer's thread: the journal's file, then what is made from it."""

    def commit(self, rows: Sequence[Row | Later]) -> OSError | None:
        """Make `rows` durable, then do what waited for that; without rows, leave nothing to be done. Raises `OSError`;
        returns one that leaves the journal whole, though the run has to end."""
        ...

    @property
    def behind(self) -> bool:
        """Whether something would be done if nothing more came."""
        ...

    def relieve(self) -> bool:
        """Make room on a full disk, once; False if there is nothing left to give."""
        ...


class Writer:
    """What can change: the queue, who waits, and whether the disk has failed."""

    def __init__(self, commits: Commits, broken: Callable[[WriteError], None]) -> None:
        self._commits = commits
        self._broken = broken  #: told once, on the loop, that the disk refuses
        self._rows: list[Row | Later] = []
        self._done: list[Callable[[], None]] = []  #: told when what was queued before them is durable
        self._waiting: anyio.Event | None = None  #: of those who wait for it; set also when it will never be
        self._turn = anyio.CapacityLimiter(1)
        self._wanted = anyio.Event()
        self._pressed = anyio.Event()
        self._relief = anyio.Event()
        self._closing = False
        self._few = True  #: the last group was small
        self._patience = inf  #: seconds for which the disk is waited for each time
        self._at_disk: anyio.CancelScope | None = None
        self.hangs = False  #: a thread was left with the file, which nobody may touch any more
        self.written = 0
        self.groups = 0
        self.failure: WriteError | None = None

    # -- the loop's side ----------------------------------------------------------------------------------------

    def queue(self, row: Row | Later) -> None:
        """Add to the sequence. After a failure of the disk it goes nowhere."""
        if self.failure is None:
            if not self._rows:
                self._wanted.set()
            self._rows.append(row)
            if len(self._rows) == GROUP:
                self._pressed.set()

    def look(self) -> None:
        """Say that there is something to be done, which need not be hurried."""
        self._wanted.set()

    def when_durable(self, done: Callable[[], None]) -> None:
        """Have `done` called on the loop when all that was queued before is durable; never, if the disk fails."""
        if not self._done:
            self._wanted.set()
            if self._few:
                self._pressed.set()
        self._done.append(done)

    async def durable(self) -> bool:
        """Wait until all that was queued so far is durable; False if it will never be."""
        if self.failure is not None:
            return False
        reached = self._waiting
        if reached is None:
            reached = self._waiting = anyio.Event()
            self._wanted.set()
            self._pressed.set()
        await reached.wait()
        return self.failure is None

    async def room(self) -> None:
        """Wait until the queue has room for more roots."""
        while len(self._rows) >= ROOM and self.failure is None:
            await self._relief.wait()

    async def ask(self, question: Callable[[], T]) -> T:
        """Ask the file something, in the writer's thread and in its turn."""
        return await anyio.to_thread.run_sync(question, limiter=self._turn)

    # -- the task -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Write until `close`, and what is queued then."""
        while not self._closing or self._left():
            await self._next_group()

    def _left(self) -> bool:
        return bool(self._rows or self._done or self._waiting)

    def close(self) -> None:
        """Let `run` end when the queue is empty."""
        self._closing = True
        self._wanted.set()
        self._pressed.set()

    def hurry(self) -> None:
        """From now on wait for the disk no longer than `LAST` each time."""
        self._patience = LAST
        if self._at_disk is not None:
            self._at_disk.deadline = anyio.current_time() + LAST

    async def at_disk(self, work: Callable[[], T]) -> T:
        """Have the writer's thread do `work` in its turn, whoever is cancelled meanwhile: what a thread does is not
        undone by leaving it. When it takes too long after `hurry`, the thread is left behind. Raises `OSError` then,
        and whatever `work` does."""
        with anyio.CancelScope(deadline=anyio.current_time() + self._patience, shield=True) as self._at_disk:
            return await anyio.to_thread.run_sync(work, limiter=self._turn, abandon_on_cancel=True)
        self.hangs = True
        raise OSError(errno.ETIMEDOUT, f"the disk has not answered within {LAST:g} s of the end")

    async def _next_group(self) -> None:
        if self._commits.behind:
            with anyio.move_on_after(IDLE):
                await self._wanted.wait()
        else:
            await self._wanted.wait()
        if not self._closing and len(self._rows) < GROUP:
            if not self._pressed.is_set():
                with anyio.move_on_after(PATIENT):
                    await self._pressed.wait()
            if len(self._rows) < GROUP and not self._few:
                await anyio.sleep(PRESSED)
        await self._write()

    async def _write(self) -> None:
        rows, self._rows = self._rows, []
        self._few = len(rows) < FEW
        done, self._done = self._done, []
        waiting, self._waiting = self._waiting, None
        if not self._closing:
            self._wanted = anyio.Event()
            self._pressed = anyio.Event()
        relief, self._relief = self._relief, anyio.Event()
        if self.failure is None:
            try:
                await self._commit(rows)
            except Exception as error:  # nobody may wait for ever, whatever it is
                self._fail(error)
        relief.set()
        if waiting is not None:
            waiting.set()
        for each in done if self.failure is None else ():
            each()

    async def _commit(self, rows: Sequence[Row | Later]) -> None:
        full: OSError | None = None
        try:
            full = await self.at_disk(lambda: self._commits.commit(rows))
        except OSError as error:
            if not is_full(error) or not await self.at_disk(self._commits.relieve):
                raise
            self._broken(failed(error))  # the run ends, and what is in flight can still be written
            full = await self.at_disk(lambda: self._commits.commit(rows))
        if full is not None:
            self._broken(failed(full))
        self.written += len(rows)
        self.groups += 1

    def _fail(self, error: Exception) -> None:
        self.failure = failed(error) if isinstance(error, OSError) else defective(error)
        self._broken(self.failure)


def failed(error: OSError) -> WriteError:
    """The error that the run ends with."""
    name = f"{error.filename}: " if error.filename else "the journal: "
    raised = WriteError(f"{name}{(error.strerror or str(error)).lower()}")
    raised.__cause__ = error
    return raised


def defective(error: Exception) -> WriteError:
    """The same for what no disk says: a row that cannot be made or written is a bug, or memory has run out."""
    told = str(error) if isinstance(error, PipelineError) else f"the journal: {type(error).__name__}: {error}"
    raised = WriteError(told)
    raised.__cause__ = error
    return raised
