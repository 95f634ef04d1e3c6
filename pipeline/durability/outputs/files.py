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

from pipeline.core.errors import JournalError, OutputLocked, SinkError
from pipeline.core.exclusive import lock_names, open_alone, unlock_names
from pipeline.core.refusals import end_last_line, told
from pipeline.durability.disk.schema import Row
from pipeline.durability.disk.store import Probe, Store, sync_directory
from pipeline.durability.outputs.aside import EDITED, OLD, keep
from pipeline.durability.outputs.comparing import Changed, begins_as_before, compare, hash_of
from pipeline.durability.outputs.output import ERRORS, OUTPUT, Outlet
from pipeline.durability.outputs.projection import (
    FLAGS,
    OUTDATED,
    PACKED,
    SOME,
    STALE,
    TAKEN,
    Mark,
    Projection,
    tail_of,
)
from pipeline.durability.outputs.rebuilding import rebuild

OPEN: Final = 64  #: files that are open at once


class Files:
    """What can change: the files, which of them are open, and `halted`, when the disk takes no more of them."""

    def __init__(self, outlets: Sequence[Outlet], probe: Probe) -> None:
        self._outlets = {outlet.name: outlet for outlet in outlets}
        self._probe = probe
        self._known: dict[str, Projection] = {}
        self._open: OrderedDict[str, Projection] = OrderedDict()
        self._unopened: set[str] = set()  #: those that this run has not written to
        self._there: dict[str, int] = {}  #: the bytes of those that were there when they were compared or begun
        self._claimed: dict[str, int] = {}  #: descriptors of locked files, by path, that no projection has yet
        self._locks: list[tuple[int, str]] = []  #: of outputs that are several files
        self._wrong: dict[str, Changed] = {}  #: those that are not what was written, and are made anew
        self.created: list[str] = []  #: paths of those that this run has made
        self.said: list[str] = []  #: what was done with files that are made anew
        self._behind: dict[str, Projection] = {}  #: those of which something is not on the disk
        self._unstored: dict[str, Projection] = {}  #: those whose mark the journal does not have yet
        self.halted = False

    # -- when a journal is opened -------------------------------------------------------------------------------

    def check(self, store: Store, *, accept: bool = False) -> None:
        """Refuse files that are not what earlier runs wrote, unless that is to `accept`, or that this one could not
        write, and lock those that are there. Changes nothing. Raises `JournalError` and `SinkError`."""
        marks = dict(marks_of(store))
        for outlet in self._outlets.values():
            outlet.refuse(ours=any(name.partition("/")[0] == outlet.name for name in marks))
            self._claim(outlet)
        for name, mark in marks.items():
            outlet, target = self._place(name)
            path = outlet.file(target)
            if target:
                self._try_lock(path)
            try:
                with closing(outlet.lines(store, target, 0)) as lines:
                    compare(path, mark, lines)
            except Changed as error:
                if not accept:
                    raise
                self._wrong[name] = error
            if os.path.lexists(path):
                self._there[name] = os.path.getsize(path)

    def restore(self, store: Store) -> None:
        """Bring every file to what the journal says: cut back to its mark and made up; or, where lines were taken back
        or it is not what was written, made anew. Raises `OSError`."""
        for name, mark in marks_of(store):
            projection = self._add(name, mark)
            if name in self._wrong or mark.is_stale:
                self._make_anew(store, projection)
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
        """Add a line that is durable, which is in its file when `sync` returns. Raises `OSError`."""
        if self.halted:
            return
        output = self._outlets.get(OUTPUT)
        if output is not None:
            self._append(self._known[output.projection(target)], number, data)
        if dead is not None:
            self._append(self._known[ERRORS], number, dead)

    def sync(self, *, force: bool = False) -> None:
        """Write what was added, and put on the disk what is due, or all. Raises `OSError`."""
        for projection in list(self._behind.values()):
            if force or projection.due:
                self._sync(projection)
            elif projection.waiting:
                self._opened(projection).pour()

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
        """Close all files; others may have them now."""
        for projection in self._known.values():
            projection.close()
        self._open.clear()
        while self._claimed:
            os.close(self._claimed.popitem()[1])
        while self._locks:
            unlock_names(self._locks.pop())

    # -- one file -----------------------------------------------------------------------------------------------

    def _append(self, projection: Projection, number: int, data: bytes) -> None:
        self._behind[projection.name] = projection
        if projection.name in self._unopened:
            self._opened(projection)
        projection.append(number, data)
        if projection.waiting >= SOME:
            self._opened(projection).pour()

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
        elif name in self._there:
            projection.size = self._there[name]
            projection.cut_back()
        else:
            projection.create()
            self.created.append(projection.path)
        self._unopened.discard(name)
        self._open[name] = projection
        return projection

    def _begin(self, name: str) -> None:
        """Know a file from now on, and have it for this run alone if it is there: its last line is ended, or it is
        emptied."""
        outlet, target = self._place(name)
        path = outlet.file(target)
        if target:
            _make_directories(Path(path).parent)
        outlet.refuse_file(path)
        there = os.path.lexists(path)
        projection = self._unstored[name] = self._add(name, Mark())
        if there:
            projection.take(empty=outlet.mode != "append")
            projection.become(_before(path) if outlet.mode == "append" else Mark())
            self._there[name] = projection.size

    def _add(self, name: str, mark: Mark) -> Projection:
        outlet, target = self._place(name)
        path = outlet.file(target)
        fd = self._claimed.pop(path, None)
        projection = Projection(name, path, mark, self._probe, fd, private=outlet.private)
        self._known[name] = projection
        self._unopened.add(name)
        return projection

    def _claim(self, outlet: Outlet) -> None:
        """Have an output that is there for this run alone; several files as one."""
        if outlet.names.varies:
            try:
                held = lock_names(outlet.names)
            except OutputLocked:
                raise
            except OSError as error:
                raise SinkError(told(outlet.names.path, error)) from None
            self._locks += () if held is None else (held,)
        else:
            path = outlet.file("")
            fd = self._try_lock(path, keep=True) if os.path.isfile(path) else None
            if fd is not None:
                self._claimed[path] = fd

    def _try_lock(self, path: str, *, keep: bool = False) -> int | None:
        """Lock a file, and unless it is to be kept only to see that nobody writes to it."""
        try:
            fd = open_alone(path, FLAGS)
        except OutputLocked:
            raise
        except OSError:  # whoever reads or writes it says why
            return None
        if keep:
            return fd
        os.close(fd)
        return None

    def _make_anew(self, store: Store, projection: Projection) -> None:
        """Write a file again. What is lost by that is kept beside it before."""
        name, path, mark = projection.name, projection.path, projection.mark
        outlet, target = self._place(name)
        wrong = self._wrong.get(name)
        if os.path.lexists(path):
            if wrong is not None:
                mark = mark if begins_as_before(path, mark) else Mark()
                self.said.append(f"{wrong.what}; it is kept as {keep(path, EDITED, self._probe)} and written anew")
            elif mark.number == OUTDATED and self._would_lose(store, projection):
                kept = keep(path, OLD, self._probe)
                self.said.append(f"{path}: is kept as {kept}, because records in it are made again")
        elif wrong is not None:
            mark = Mark()
            self.said.append(f"{wrong.what}; it is written anew")
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        if wrong is not None:  # whoever dies from here on leaves a file that is to be made anew
            projection.mark = mark._replace(number=STALE)
            store.change(projection.mark.row(name))
        projection.become(rebuild(projection, outlet.lines(store, target, 0), self._probe))
        self._there[name] = projection.size
        self._unstored[name] = projection
        if target:
            projection.close()

    def _would_lose(self, store: Store, projection: Projection) -> bool:
        """Whether there is something in a file that will not be in the new one."""
        outlet, target = self._place(projection.name)
        mark = projection.mark
        try:
            with closing(outlet.lines(store, target, 0)) as lines:
                compare(projection.path, Mark(mark.base, 0, b"", mark.base, mark.before), lines)
        except Changed:
            return True
        return False

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
