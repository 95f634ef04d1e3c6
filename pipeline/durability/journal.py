"""The durable record of one run: a frozen description of where it is and how it is kept. Opening it makes a session.

    async with pipe.open(prompts, journal=Journal("runs/nightly")) as run: ...

The first run with a journal makes it; the next one with the same pipeline goes on where that one ended, however it did.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread
from anyio import create_task_group

from pipeline.core.errors import PipelineError
from pipeline.core.pipeline import Pipeline
from pipeline.core.record import Record
from pipeline.core.refusals import Mode
from pipeline.core.targets import label_key
from pipeline.durability.disk.departures import open_departures
from pipeline.durability.disk.lock import locked
from pipeline.durability.disk.marks import open_marks
from pipeline.durability.disk.own import refuse_others
from pipeline.durability.disk.reserve import Reserve
from pipeline.durability.disk.store import Durability, Probe, Store, silent
from pipeline.durability.disk.writer import failed
from pipeline.durability.fingerprint.values import JSON
from pipeline.durability.outputs.committing import Committing
from pipeline.durability.outputs.files import Files
from pipeline.durability.outputs.output import ERRORS, OUTPUT, Outlet, Output, outlet
from pipeline.durability.outputs.rendering import Rendering, standard_line
from pipeline.durability.resume.recovery import Opening, recover
from pipeline.durability.resume.reopening import AS_IT_IS, Reopen
from pipeline.durability.session import Session

FILE = "journal.db"
DEAD = "errors.jsonl"
LOCK = "lock"
MARKS = "marks"
DEPARTURES = "departures"


def _unheard() -> None:
    """Nobody asked."""


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

    def leave(self, *, at_once: bool) -> None:
        """Nobody needs it any more; what is queued is written. `at_once`: so long as that does not take long."""
        self._left = True
        if self.session is not None:
            if at_once:
                self.session.end_asked(at_once=True)
            self.session.writer.close()


@dataclass(frozen=True, slots=True)
class Journal:
    """A journal in `directory`, which is made if it is not there, readable for its owner only.

    `durability` power survives the loss of power, process only that of the process. `render` makes the bytes of a
    record's line, and `output` is where they go, a path or an `Output`; without one they are only delivered. Records
    that failed go in full to `errors`, which is `errors.jsonl` in the directory if nothing else is said. `settings`
    decide the results beside the pipeline, such as what the input is; a change of either is refused unless
    `accept_changes`, which goes on with what is still valid. `reopen` does again what was done. `about` is kept in a
    journal that is made, and `made` is called once it is. `probe` is for tests: it is called at each point where the
    process may die.
    """

    directory: Path | str
    durability: Durability = "power"
    render: Callable[[Record], bytes] = standard_line
    output: Output | str | os.PathLike[str] | None = None
    errors: Output | str | os.PathLike[str] | None = None
    settings: Mapping[str, JSON] = field(default_factory=dict[str, JSON], compare=False, repr=False)
    accept_changes: bool = False
    reopen: Reopen = AS_IT_IS
    about: Mapping[str, str] = field(default_factory=dict[str, str], compare=False, repr=False)
    made: Callable[[], object] = field(default=_unheard, compare=False, repr=False)
    probe: Probe = field(default=silent, compare=False, repr=False)

    def open(self, pipeline: Pipeline, source: object = None) -> AbstractAsyncContextManager[Session]:
        """Open it for one run of `pipeline` over `source`. Raises `JournalError`, and `JournalLocked` when another
        process has it."""
        return self._open(Opening(pipeline, source, self.settings, self.accept_changes, self.reopen))

    @asynccontextmanager
    async def _open(self, asked: Opening) -> AsyncGenerator[Session]:
        opening = _Opening()
        async with create_task_group() as tg:
            tg.start_soon(self._keep, opening, asked)
            cut = True
            try:
                await opening.over.wait()
                if opening.session is not None:
                    yield opening.session
                    opening.session.input_read()
                cut = False
            finally:
                opening.leave(at_once=cut)
        if opening.error is not None:
            raise opening.error

    async def _keep(self, opening: _Opening, asked: Opening) -> None:
        """Open it, write until whoever has it leaves, and close it.

        A task of its own, because a native cancellation of the host's task would leave to nobody what a thread is about
        to open; and shielded, because a run that is cancelled still has to say how its attempts have ended.
        """
        with anyio.CancelScope(shield=True):
            await self._kept(opening, asked)

    async def _kept(self, opening: _Opening, asked: Opening) -> None:
        try:
            directory = Path(self.directory)
            output, errors = self._outlets(asked.pipeline)
            await anyio.to_thread.run_sync(lambda: directory.mkdir(mode=0o700, parents=True, exist_ok=True))
            with ExitStack() as held:
                held.enter_context(locked(directory / LOCK))
                refuse_others(*(() if self.errors is not None else (directory / DEAD,)))
                store = await anyio.to_thread.run_sync(self._store, directory / FILE)
                files = Files([each for each in (output, errors) if each is not None], self.probe)
                elsewhere = None if self.errors is None else errors.names.path
                commits = Committing(store, files, Reserve(directory, self.probe))
                session = Session(store, commits, Rendering(self.render, None if output is None else output.names))
                try:
                    await anyio.to_thread.run_sync(commits.check, output, elsewhere, asked.accept_changes)
                    recovery = await recover(store, asked, directory / MARKS, directory / DEPARTURES)
                    session.marks = await anyio.to_thread.run_sync(open_marks, directory / MARKS, recovery.epoch)
                    session.departures = await anyio.to_thread.run_sync(
                        open_departures, directory / DEPARTURES, recovery.epoch
                    )
                    await anyio.to_thread.run_sync(commits.look)
                    await anyio.to_thread.run_sync(session.recover, recovery, asked.reopen)
                    opening.enter(session)
                    await session.writer.run()
                finally:
                    if session.marks is not None:
                        session.marks.close()
                        session.marks = None
                    if session.departures is not None:
                        session.departures.close()
                        session.departures = None
                    await self._close(session, held)
        except Exception as error:
            if opening.over.is_set():
                raise
            opening.error = (
                failed(error) if isinstance(error, OSError) and not isinstance(error, PipelineError) else error
            )
            opening.over.set()

    async def _close(self, session: Session, held: ExitStack) -> None:
        """Close the files; those that a thread hangs with are its own, and so is the lock: it may still write."""
        try:
            if not session.writer.hangs:
                await session.writer.at_disk(session.close)
        except OSError as error:
            raise failed(error) from error
        finally:
            if session.writer.hangs:
                session.commits.held = held.pop_all()

    def _outlets(self, pipeline: Pipeline) -> tuple[Outlet | None, Outlet]:
        """What is made of the lines, and of those of failures."""
        label = label_key(pipeline.stage)
        output = None if self.output is None else outlet(_as_output(self.output, "create"), OUTPUT, label)
        errors = Path(self.directory) / DEAD if self.errors is None else self.errors
        mode = "overwrite" if self.errors is None else "create"
        dead = outlet(_as_output(errors, mode), ERRORS, label)
        return output, dead._replace(private=self.errors is None)

    def _store(self, path: Path) -> Store:
        if path.exists():
            return Store.open(path, self.durability, self.probe)
        store = Store.create(path, self.durability, self.probe, self.about)
        self.made()
        return store


def _as_output(said: Output | str | os.PathLike[str], mode: Mode) -> Output:
    return said if isinstance(said, Output) else Output(said, mode)
