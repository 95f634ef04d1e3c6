"""What is in the files of a run at each point of it, and what of that is known to be on the disk.

A file is on the disk up to what it had when it was last synced. Python's own syncs are seen as they happen; SQLite's
follow from its contract: with `synchronous = FULL` the log is synced when a transaction has been committed, and the
database before the log is cut.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.durability.crash.kept import DATABASE, size_on_disk
from tests.durability.crash.life import OUTPUT, RUN, Probe

Files = Mapping[str, bytes]

DB, LOG, NEW = f"{RUN}/{DATABASE}", f"{RUN}/{DATABASE}-wal", f"{RUN}/{DATABASE}.new"


@dataclass(frozen=True)
class Moment:
    """`files` is what a reader would find, `synced` what surely is on the disk. `requests` are bytes of the ledger."""

    point: str
    files: Files
    synced: Files
    requests: int


@dataclass
class Recorder:
    """Stands where a probe stands."""

    place: Path
    probe: Probe
    moments: list[Moment] = field(default_factory=list[Moment])
    synced: dict[str, bytes] = field(default_factory=dict[str, bytes])
    named: set[str] = field(default_factory=lambda: {DB, LOG})  #: files whose directory is on the disk

    def __post_init__(self) -> None:
        self.synced.update(self._files())
        self.named.update(self.synced)  # what a life finds has been there for long, but for the end of the output
        if OUTPUT in self.synced:
            self.synced[OUTPUT] = self.synced[OUTPUT][: size_on_disk(self.place / RUN)]
        self._watch("fsync", os.fsync)
        self._watch("fdatasync", os.fdatasync)

    def _watch(self, name: str, real: Callable[[int], None]) -> None:
        def watched(fd: int) -> None:
            real(fd)
            path = Path(os.readlink(f"/proc/self/fd/{fd}"))
            if path.is_dir():
                self.named.update(each.relative_to(self.place).as_posix() for each in path.iterdir())
            else:
                self._sync(path.relative_to(self.place).as_posix())

        setattr(os, name, watched)

    def __call__(self, point: str) -> None:
        self.probe(point)
        if point in ("commit:after", "change:after"):
            self._sync(LOG)
        elif point in ("create:renamed", "fold:after", "over"):
            self._sync(DB, LOG)
        synced = {name: data for name, data in self.synced.items() if name in self.named}
        self.moments.append(Moment(point, self._files(), synced, (self.place / "ledger").stat().st_size))

    def _sync(self, *names: str) -> None:
        """What these have now is on the disk; one that is gone is gone for good."""
        files = self._files()
        for name in names:
            if name in files:
                self.synced[name] = files[name]
            else:
                self.synced.pop(name, None)

    def _files(self) -> dict[str, bytes]:
        """Contents that have not changed since the last moment are the same object, so that little is kept."""
        before: Files = self.moments[-1].files if self.moments else {}
        found: dict[str, bytes] = {}
        for directory, base in ((self.place, ""), (self.place / RUN, f"{RUN}/")):
            for path in sorted(directory.iterdir()) if directory.is_dir() else ():
                name = base + path.name
                if path.is_file() and (base or path.name.startswith(OUTPUT.partition(".")[0])) and _kept(name):
                    data = path.read_bytes()
                    found[name] = before[name] if before.get(name) == data else data
        return found

    def save(self, path: Path) -> None:
        path.write_bytes(pickle.dumps(self.moments))


def _kept(name: str) -> bool:
    """Not the index of the log, which is memory, nor the lock, nor what a process leaves only to the next one; and what
    is not finished yet does not matter."""
    return not name.endswith(("-shm", "/lock", "reserve", "/marks")) and not name.startswith(NEW)


def moments(path: Path) -> list[Moment]:
    found: list[Moment] = pickle.loads(path.read_bytes())
    return found
