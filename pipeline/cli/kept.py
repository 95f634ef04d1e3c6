"""A run that is kept: its journal, and what is written into it about the run as a whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, cast

from anyio import to_thread

from pipeline.cli.ends import Nothing
from pipeline.cli.following import next_command
from pipeline.cli.store import forget
from pipeline.core.codec import encode
from pipeline.core.errors import JournalError
from pipeline.core.exclusive import remove_if_empty
from pipeline.core.pipeline import Pipeline
from pipeline.core.record import Input
from pipeline.core.visible import visible
from pipeline.durability.disk.lock import locked
from pipeline.durability.disk.schema import META, Row
from pipeline.durability.disk.store import Store
from pipeline.durability.inspection.proving import proved, read_before
from pipeline.durability.journal import DEAD, FILE, LOCK, Journal
from pipeline.durability.resume.reopening import ONLY
from pipeline.durability.session import Session

STDIN: Final = "-"

# the keys of what is kept about a run
GIVEN: Final = "given"
NAME: Final = "name"
BEGUN: Final = "begun"
DURABILITY: Final = "durability"
INPUT: Final = "input"  #: ended, once it has
ENDED: Final = "ended"  #: how it ended last, by itself: a killed process writes nothing


_EARLIER: Final = "SELECT status, count(*) FROM settled GROUP BY status"
_ASIDE: Final = f"SELECT count(*) FROM root WHERE seq NOT IN (SELECT root FROM settled) AND NOT (true{ONLY})"
_ENDED: Final = f"SELECT 1 FROM meta WHERE key = '{INPUT}' AND value = '{ENDED}'"
_READ: Final = "SELECT name FROM source WHERE NOT ended ORDER BY number"


def now() -> str:
    """The time for people, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def ending_of(code: int) -> str:
    """What is kept of the end of a run that was not killed."""
    return encode({"code": code, "at": now()}).decode()


@dataclass
class Kept:
    """The journal of one run of the command. What changes: the open journal."""

    directory: Path
    run: str  #: as one names it on a command line: its id, or its quoted directory
    journal: Journal
    piped: bool  #: its input comes from a pipe, some of it at least
    errors: Path | None = None  #: where failed records go in full, if not there
    fresh: bool = True  #: to be made for this run
    made: bool = False  #: it was, by this process
    ours: bool = True  #: the directory too
    earlier: Mapping[str, int] = field(default_factory=dict[str, int])  #: roots that earlier runs settled, by status
    aside: int = 0  #: open roots that are not run, because others were asked for
    opened: bool = False  #: the journal was, so that there is something to go on with
    input_ended: bool = False
    created: Sequence[str] = ()  #: the paths of outputs that this run has made
    tell: Callable[[str], None] = field(default=lambda text: None, repr=False)  #: what was found of an earlier run
    #: how the run ends, asked when it does, with what it raised
    ending: Callable[[BaseException | None], str] = field(default=lambda error: "", repr=False)
    _session: Session | None = field(default=None, repr=False)

    def open(self, pipeline: Pipeline, source: object) -> AbstractAsyncContextManager[Session]:
        """Satisfies `ports.Journals`."""
        return self._open(pipeline, source)

    @asynccontextmanager
    async def _open(self, pipeline: Pipeline, source: object) -> AsyncGenerator[Session]:
        async with replace(self.journal, made=self._note_made).open(pipeline, source) as session:
            self._session = session
            self.opened = True
            if session.recovered is not None:
                self._write(ENDED, "")
                unread = await session.writer.ask(lambda: self._look(session.store))
                first, *rest = session.recovered.lines
                for line in (f"run {self.run}: {first}{unread}", *rest):
                    self.tell(line)
            try:
                yield session
            except BaseException as error:
                self._write(ENDED, self.ending(error))
                raise
            else:
                self._write(ENDED, self.ending(None))
            finally:
                self.created = session.commits.created
                self._session = None

    def _look(self, store: Store) -> str:
        """See what earlier runs have left; return what is said of input that they did not read."""
        self.earlier = {str(status): cast(int, count) for status, count in store.read(_EARLIER)}
        if self.journal.reopen.only_failed:
            self.aside = cast(int, next(store.read(_ASIDE))[0])
        if any(store.read(_ENDED)):
            return ""
        names = [str(name) for (name,) in store.read(_READ)]
        rest = "the input" if not names else "stdin" if names[-1] == STDIN else names[-1]
        return f", and the unread rest of {visible(rest)}"

    async def proved(self, records: AsyncIterator[Input]) -> AsyncIterator[Input]:
        """The records, once it is known that those from stdin are the same that earlier runs have read. Raises
        `JournalError` if they are not, and changes are not accepted."""
        if self.fresh or not self.piped or self.journal.accept_changes:
            return records
        before = await to_thread.run_sync(read_before, self.directory, STDIN)
        return records if before is None else await proved(records, before, "stdin")

    def takes_all(self, source: object) -> bool:
        """Whether all that `source` has is run."""
        return not isinstance(source, Nothing) and not self.journal.reopen.only_failed

    @property
    def leaves(self) -> bool:
        """Whether something is left that this run was not to do, once it has come to its end."""
        return self.aside > 0 or not self.input_ended

    def input_has_ended(self) -> None:
        """Write that all of the input was read: what is open is all that is left."""
        self.input_ended = True
        self._write(INPUT, ENDED)

    def _write(self, key: str, value: str) -> None:
        if self._session is not None:
            self._session.writer.queue(Row(META, (key, value)))

    @property
    def output(self) -> object | None:
        """Satisfies `ports.Journals`."""
        return self.journal.output

    @property
    def dead(self) -> Path:
        """Where failed records are, with all that is known of them."""
        return self.errors or self.directory / DEAD

    def command(self, *, only_failed: bool = False) -> str:
        """How to go on with it."""
        return next_command(self.run, piped=self.piped and not self.input_ended, only_failed=only_failed)

    def _note_made(self) -> None:
        self.made = True

    def forget(self) -> bool:
        """Leave nothing of a run that has not begun; False if there is something, of another process above all."""
        try:
            with locked(self.directory / LOCK):
                if not self.fresh or not self._is_empty():
                    return False
                forget(self.directory, whole=self.ours)
                return True
        except (JournalError, OSError):
            return False

    def take_outputs_away(self) -> None:
        """Of a run that is not kept: those that it has made, if nothing is in them."""
        for path in self.created:
            remove_if_empty(path)

    def _is_empty(self) -> bool:
        """Whether there is no journal, or the one that this process made, in which there is nothing. Under its lock."""
        from pipeline.durability.inspection.overview import overview  # most runs need none

        there = (self.directory / FILE).exists()
        return not there or (self.made and not overview(self.directory).admitted)
