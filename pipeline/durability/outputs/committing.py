"""What a group of rows is done with, in the writer's thread: the journal first, then the files that are made of it.

A full disk stops the files, not the journal: it has room put aside, so what is in flight can still be written there,
and a resume makes the files up. Anything else that a disk refuses, and a failed sync above all, is final.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import cast

from pipeline.durability.disk import schema
from pipeline.durability.disk.reserve import Reserve, is_full
from pipeline.durability.disk.schema import LineValues, Row
from pipeline.durability.disk.store import Later, Store
from pipeline.durability.outputs.files import Files
from pipeline.durability.outputs.letters import FailedLine
from pipeline.durability.outputs.output import ERRORS, OUTPUT, Outlet, agreed
from pipeline.durability.outputs.projection import TAKEN, Mark


class Committing:
    """Satisfies `Commits`. What can change: the files, and how far records were taken."""

    def __init__(self, store: Store, files: Files, reserve: Reserve) -> None:
        self._store = store
        self._files = files
        self._reserve = reserve
        self.usable = False
        self.held: object = None  #: what has to stay open as long as a thread hangs here
        self.taken = 0  #: the number of the last line of which all before were taken; set on the loop
        self._stored = 0
        self._notes: dict[str, str] = {}  #: what the journal has to say of its files

    def check(self, output: Outlet | None, errors: str | None, accept: bool = False) -> None:
        """Refuse an output that is another one, or unless that is to `accept` not what earlier runs wrote. Changes
        nothing. Raises `JournalError` and `SinkError`."""
        path = agreed(self._store, output)
        self._notes = {} if path is None else {OUTPUT: path}
        self._notes[ERRORS] = "" if errors is None else os.path.abspath(errors)
        self._files.check(self._store, accept=accept)

    def look(self) -> None:
        """Find out how far the consumer of earlier runs came."""
        for (number,) in list(self._store.read("SELECT number FROM projection WHERE name = ?", (TAKEN,))):
            self.taken = self._stored = cast(int, number)

    def open(self) -> None:
        """Put room aside, and bring the files up to date. Raises `WriteError` and `OSError`."""
        self._reserve.take()
        self._store.change(*((schema.META, note) for note in self._notes.items()))
        self._files.restore(self._store)
        self.usable = True

    def commit(self, rows: Sequence[Row | Later]) -> OSError | None:
        """Make `rows` durable, then the files; without rows, bring everything to the disk. Raises `OSError`; returns
        one that leaves the journal whole, so that what is in flight can be written."""
        for row in rows:
            self._expect(row)
        taken = self.taken
        more = self._files.marks()
        if taken != self._stored:
            more.append(Mark(0, taken).row(TAKEN))
        if rows or more:
            written = self._store.commit([*more, *rows])
            self._files.stored()
            self._stored = taken
            return self._pass_on(written, force=not rows)
        return self._pass_on((), force=True)

    def _expect(self, row: Row | Later) -> None:
        if isinstance(row, FailedLine):
            self._files.expect(row.values.target, dead=True)
        elif isinstance(row, Row) and row.statement is schema.LINE:
            self._files.expect(_line(row).target, dead=False)

    def _pass_on(self, rows: Sequence[Row], *, force: bool) -> OSError | None:
        """Append to the files what the journal has."""
        files = self._files
        if files.halted:
            return None
        try:
            for row in rows:
                if row.statement is schema.LINE:
                    line = _line(row)
                    files.append(line.number, line.target, line.data, line.dead)
            files.sync(force=force)
        except OSError as error:
            files.halt()
            if not is_full(error):
                raise
            return error
        return None

    @property
    def behind(self) -> bool:
        """Satisfies `Commits`."""
        return self._files.behind or self.taken != self._stored

    def relieve(self) -> bool:
        """Satisfies `Commits`: give the room up that was put aside."""
        return self._reserve.give()

    @property
    def said(self) -> tuple[str, ...]:
        """What was done with files that are made anew, for people."""
        return tuple(self._files.said)

    @property
    def created(self) -> tuple[str, ...]:
        """The paths of files that this run has made."""
        return tuple(self._files.created)

    def finish(self) -> None:
        """Have everything on the disk, and known to be there. Raises `OSError`."""
        while self.usable and self.behind:
            error = self.commit(())
            if error is not None:
                raise error

    def close(self, *, whole: bool) -> None:
        """Close the files; `whole` if the disk has taken everything."""
        self._files.close()
        if whole and not self._files.halted:
            self._reserve.give()


def _line(row: Row) -> LineValues:
    return cast(LineValues, row.values)
