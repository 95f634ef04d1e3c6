"""The durable record of one run: a frozen description of where it is and how it is kept. Opening it makes a session.

    async with pipe.open(prompts, journal=Journal("runs/nightly")) as run: ...

The first run with a journal makes it; the next one with the same pipeline goes on where that one ended, however it did.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread
from anyio import create_task_group

from pipeline.core.codec import encode_line
from pipeline.core.pipeline import Pipeline
from pipeline.core.record import Record
from pipeline.durability.lock import locked
from pipeline.durability.session import Session
from pipeline.durability.store import Durability, Probe, Store

FILE = "journal.db"
LOCK = "lock"


def standard_line(record: Record) -> bytes:
    """The record as it is written to an output."""
    return encode_line(record.standard())


def _nowhere(point: str) -> None:
    """Nobody strikes."""


class _Opening:
    """What came of opening a journal, between the task that waits for it and the one that keeps it."""

    def __init__(self) -> None:
        self.over = anyio.Event()
        self.session: Session | None = None
        self.error: Exception | None = None
        self._left = False

    def enter(self, session: Session) -> None:
        """It is open."""
        self.session = session
        self.over.set()
        if self._left:
            session.writer.close()

    def leave(self) -> None:
        """Nobody needs it any more; what is queued is written."""
        self._left = True
        if self.session is not None:
            self.session.writer.close()


@dataclass(frozen=True, slots=True)
class Journal:
    """A journal in `directory`, which is made if it is not there, readable for its owner only.

    `durability` power survives the loss of power, process only that of the process. `render` makes the bytes of a
    record's line. `about` is kept in a journal that is made. `probe` is for tests: it is called at each point where the
    process may die.
    """

    directory: Path | str
    durability: Durability = "power"
    render: Callable[[Record], bytes] = standard_line
    about: Mapping[str, str] = field(default_factory=dict[str, str], compare=False, repr=False)
    probe: Probe = field(default=_nowhere, compare=False, repr=False)

    def open(self, pipeline: Pipeline) -> AbstractAsyncContextManager[Session]:
        """Open it for one run of `pipeline`. Raises `JournalError`, and `JournalLocked` when another process has it."""
        return self._open(pipeline)

    @asynccontextmanager
    async def _open(self, pipeline: Pipeline) -> AsyncGenerator[Session]:
        opening = _Opening()
        async with create_task_group() as tg:
            tg.start_soon(self._keep, opening)
            try:
                await opening.over.wait()
                if opening.session is not None:
                    yield opening.session
            finally:
                opening.leave()
        if opening.error is not None:
            raise opening.error

    async def _keep(self, opening: _Opening) -> None:
        """Open it, write until whoever has it leaves, and close it.

        A task of its own, because a native cancellation of the host's task would leave to nobody what a thread is about
        to open; and shielded, because a run that is cancelled still has to say how its attempts have ended.
        """
        with anyio.CancelScope(shield=True):
            await self._kept(opening)

    async def _kept(self, opening: _Opening) -> None:
        try:
            directory = Path(self.directory)
            await anyio.to_thread.run_sync(lambda: directory.mkdir(mode=0o700, parents=True, exist_ok=True))
            with locked(directory / LOCK):
                store = await anyio.to_thread.run_sync(self._store, directory / FILE)
                session = Session(store, self.render, self.probe)
                try:
                    await anyio.to_thread.run_sync(session.recover)
                    opening.enter(session)
                    await session.writer.run()
                finally:
                    await anyio.to_thread.run_sync(session.close)
        except Exception as error:
            if opening.over.is_set():
                raise
            opening.error = error
            opening.over.set()

    def _store(self, path: Path) -> Store:
        if path.exists():
            return Store.open(path, self.durability, self.probe)
        return Store.create(path, self.durability, self.probe, self.about)
