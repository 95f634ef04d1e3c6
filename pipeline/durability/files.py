"""All files that are made of one journal: opened when the first line for them comes, made up by a resume.

Everything here blocks and is called by the writer's thread. A file's mark is in the journal before its first byte is
written, so a crash never leaves a file of which nobody knows what of it is the run's.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, cast

from pipeline.core.errors import JournalError
from pipeline.core.refusals import end_last_line
from pipeline.durability.comparing import compare, hash_of
from pipeline.durability.output import ERRORS, OUTPUT, Outlet
from pipeline.durability.projection import PACKED, STALE, TAKEN, Mark, Projection, tail_of
from pipeline.durability.rebuilding import rebuild
from pipeline.durability.schema import Row
from pipeline.durability.store import Probe, Store, sync_directory

OPEN: Final = 64  #: files that are open at once


class Files:
    """What can change: the files, which of them are open, and `halted`, when the disk takes no more of them."""

    def __init__(self, outlets: Sequence[Outlet], probe: Probe) -> None:
        self._outlets = {outlet.name: outlet for outlet in outlets}
        self._probe = probe
        self._known: dict[str, Projection] = {}
        self._open: OrderedDict[str, Projection] = OrderedDict()
        self._unopened: set[str] = set()  #: those that this run has not written to
        self._behind: dict[str, Projection] = {}  #: those of which something is not on the disk
        self._unstored: dict[str, Projection] = {}  #: those whose mark the journal does not have yet
        self.halted = False

    # -- when a journal is opened -------------------------------------------------------------------------------

    def check(self, store: Store) -> None:
        """Refuse files that are not what earlier runs wrote, or that this one could not write. Changes nothing. Raises
        `JournalError` and `SinkError`."""
        marks = dict(marks_of(store))
        for outlet in self._outlets.values():
            outlet.refuse(ours=any(name.partition("/")[0] == outlet.name for name in marks))
        for name, mark in marks.items():
            outlet, target = self._place(name)
            with closing(outlet.lines(store, target, 0)) as lines:
                compare(outlet.file(target), mark, lines)

    def restore(self, store: Store, *, anew: bool = False) -> None:
        """Bring every file to what the journal says: cut back to its mark and made up; or, with `anew` or where lines
        were taken back, made anew. Raises `OSError`."""
        for name, mark in marks_of(store):
            projection = self._add(name, mark)
            if anew or mark.number == STALE:
                outlet, target = self._place(name)
                projection.become(rebuild(projection, outlet.lines(store, target, 0), self._probe))
                self._unstored[name] = projection
            elif os.path.lexists(projection.path) and os.path.getsize(projection.path) > mark.size:
                self._opened(projection)
        output = self._outlets.get(OUTPUT)
        if output is not None and not output.names.varies:
            if OUTPUT not in self._known:
                self._begin(OUTPUT)
                store.change(*self.marks())
                self.stored()
            self._opened(self._known[OUTPUT])
        for name, projection in self._known.items():
            outlet, target = self._place(name)
            for line in outlet.lines(store, target, projection.number):
                self._append(projection, line.number, line.data)
                if projection.due:
                    self._sync(projection)
        self.sync(force=True)
        if self._unstored:
            store.change(*self.marks())
            self.stored()

    # -- while a run writes -------------------------------------------------------------------------------------

    def expect(self, target: str, *, dead: bool) -> None:
        """A line for `target` is about to be committed, with a dead letter or without. Raises `OSError` for a file that
        must not be written."""
        if OUTPUT in self._outlets and not self.halted:
            name = self._outlets[OUTPUT].projection(target)
            if name not in self._known:
                self._begin(name)
        if dead and ERRORS not in self._known and not self.halted:
            self._begin(ERRORS)

    def marks(self) -> list[Row]:
        """What the journal does not have yet of how far the files are on the disk. Good until `stored` or a change."""
        return [projection.mark.row(name) for name, projection in self._unstored.items()]

    def stored(self) -> None:
        """The journal has the marks."""
        self._unstored.clear()

    def append(self, number: int, target: str, data: bytes, dead: bytes | None) -> None:
        """Write a line that is durable. Raises `OSError`."""
        if self.halted:
            return
        output = self._outlets.get(OUTPUT)
        if output is not None:
            self._append(self._known[output.projection(target)], number, data)
        if dead is not None:
            self._append(self._known[ERRORS], number, dead)

    def sync(self, *, force: bool = False) -> None:
        """Put on the disk what is due, or all. Raises `OSError`."""
        for projection in [each for each in self._behind.values() if force or each.due]:
            self._sync(projection)

    @property
    def behind(self) -> bool:
        """Whether something is to be done when nothing more comes."""
        return not self.halted and bool(self._behind or self._unstored)

    def halt(self) -> None:
        """Write nothing more to files; what is missing is made up by a resume."""
        self.halted = True
        self._behind.clear()
        self._unstored.clear()

    def close(self) -> None:
        """Close all files."""
        for projection in self._open.values():
            projection.close()
        self._open.clear()

    # -- one file -----------------------------------------------------------------------------------------------

    def _append(self, projection: Projection, number: int, data: bytes) -> None:
        self._behind[projection.name] = projection
        self._opened(projection).append(number, data)

    def _sync(self, projection: Projection) -> None:
        self._opened(projection).sync()
        self._behind.pop(projection.name, None)
        self._unstored[projection.name] = projection

    def _opened(self, projection: Projection) -> Projection:
        """The same, open; the one that was used longest ago is closed for it if there are too many."""
        name = projection.name
        if name in self._open:
            self._open.move_to_end(name)
            return projection
        if len(self._open) >= OPEN:
            self._open.popitem(last=False)[1].close()
        if name not in self._unopened:
            projection.open()
        elif os.path.lexists(projection.path):
            projection.cut_back()
        else:
            projection.create()
        self._unopened.discard(name)
        self._open[name] = projection
        return projection

    def _begin(self, name: str) -> None:
        """Know a file from now on; nothing is done to what is there, but that its last line is ended."""
        outlet, target = self._place(name)
        path = outlet.file(target)
        if target:
            _make_directories(Path(path).parent)
        outlet.refuse_file(path)
        mark = _before(path) if outlet.mode == "append" and os.path.lexists(path) else Mark()
        self._unstored[name] = self._add(name, mark)

    def _add(self, name: str, mark: Mark) -> Projection:
        outlet, target = self._place(name)
        path = outlet.file(target)
        projection = self._known[name] = Projection(name, path, mark, self._probe, private=outlet.private)
        self._unopened.add(name)
        return projection

    def _place(self, name: str) -> tuple[Outlet, str]:
        kind, _, target = name.partition("/")
        outlet = self._outlets.get(kind)
        if outlet is None:
            raise JournalError(f"the journal has an output {name!r} that this run does not know")
        return outlet, target


def marks_of(store: Store) -> Iterator[tuple[str, Mark]]:
    """The files that are made of a journal, and how far they are known to be on the disk."""
    rows = store.read(
        "SELECT name, size, number, tail, base, before FROM projection WHERE name <> ? ORDER BY name", (TAKEN,)
    )
    for name, *mark in list(rows):
        yield cast(str, name), Mark(*cast("Iterable[int]", mark))  # type: ignore[arg-type]


def _before(path: str) -> Mark:
    """A file that is appended to, as it is before its first line."""
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if not path.endswith(PACKED):
            end_last_line(fd, path)
            os.fsync(fd)
        size = os.fstat(fd).st_size
        with open(path, "rb") as file:
            return Mark(size, 0, tail_of(fd, size), size, hash_of(iter(lambda: file.read(1 << 18), b"")))
    finally:
        os.close(fd)


def _make_directories(path: Path) -> None:
    """Make a directory that a record has named, and have its name on the disk."""
    if not path.is_dir():
        _make_directories(path.parent)
        path.mkdir(exist_ok=True)
        sync_directory(path.parent)
