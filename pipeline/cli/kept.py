"""A run that is kept: its journal, and what is written into it about the run as a whole."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, cast

from pipeline.cli.following import next_command
from pipeline.cli.store import forget
from pipeline.core.codec import encode
from pipeline.core.errors import JournalError
from pipeline.core.pipeline import Pipeline
from pipeline.durability.journal import DEAD, FILE, LOCK, Journal
from pipeline.durability.lock import locked
from pipeline.durability.schema import META, Row
from pipeline.durability.session import Session

# the keys of what is kept about a run
GIVEN: Final = "given"
NAME: Final = "name"
BEGUN: Final = "begun"
DURABILITY: Final = "durability"
INPUT: Final = "input"  #: ended, once it has
ENDED: Final = "ended"  #: how it ended last, by itself: a killed process writes nothing


_EARLIER: Final = "SELECT status, count(*) FROM settled GROUP BY status"


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
    opened: bool = False  #: the journal was, so that there is something to go on with
    input_ended: bool = False
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
                found = await session.writer.ask(lambda: list(session.store.read(_EARLIER)))
                self.earlier = {str(status): cast(int, count) for status, count in found}
                for number, line in enumerate(session.recovered.lines):
                    self.tell(line if number else f"run {self.run}: {line}")
            try:
                yield session
            except BaseException as error:
                self._write(ENDED, self.ending(error))
                raise
            else:
                self._write(ENDED, self.ending(None))
            finally:
                self._session = None

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

    def _is_empty(self) -> bool:
        """Whether there is no journal, or the one that this process made, in which there is nothing. Under its lock."""
        from pipeline.durability.overview import overview  # most runs need none

        there = (self.directory / FILE).exists()
        return not there or (self.made and not overview(self.directory).admitted)
