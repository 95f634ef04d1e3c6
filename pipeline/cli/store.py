"""Where runs are kept: a directory each, named by an id that is short enough to type."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.cli.exits import UsageError
from pipeline.core.errors import JournalError
from pipeline.durability.disk.reserve import NAME as RESERVE
from pipeline.durability.disk.store import HALF, files_of
from pipeline.durability.journal import DEAD, DEPARTURES, FILE, LOCK, MARKS

VARIABLE: Final = "PENSTOCK_RUNS"
REMEDY: Final = "name another place with --run-dir, or do without with --no-store"

#: Without those that look like others: 0 and o, 1 and i and l.
_LETTERS: Final = "23456789abcdefghjkmnpqrstuvwxyz"
_ID: Final = re.compile(f"[{_LETTERS}]{{4,8}}")
_LENGTH: Final = 4
_TRIES: Final = 8  #: ids that are taken, before a longer one is tried

#: what a run leaves in its directory; nothing else is ever removed from there
OURS: Final = (
    *(path.name for name in (FILE, f"{FILE}{HALF}") for path in files_of(Path(name))),
    *(DEAD, RESERVE, MARKS, DEPARTURES, LOCK),
)

#: file systems on which several machines may write, where a lock and a log beside the file are not to be relied on
_SHARED: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre"})


@dataclass(frozen=True, slots=True)
class Runs:
    """The place where runs are kept."""

    place: Path

    def ids(self) -> list[str]:
        """The ids of all runs, in no order."""
        try:
            with os.scandir(self.place) as entries:
                return [entry.name for entry in entries if _ID.fullmatch(entry.name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise JournalError(f"{self.place}: {_said(error)}; {VARIABLE} names another place") from None

    def make(self) -> Path:
        """Make the directory of a new run. Raises `JournalError`."""
        try:
            self.place.mkdir(mode=0o700, parents=True, exist_ok=True)
            for tried in range(_TRIES * 4):
                directory = self.place / _new_id(_LENGTH + tried // _TRIES)
                with suppress(FileExistsError):
                    directory.mkdir(mode=0o700)
                    return directory
        except OSError as error:
            raise JournalError(f"a run cannot be kept in {self.place}: {_said(error)}; {REMEDY}") from None
        raise JournalError(f"a run cannot be kept in {self.place}: no id is free; remove some with penstock runs prune")

    def find(self, word: str) -> Path:
        """The directory that `word` names: an id, the beginning of just one, or a directory. Raises `UsageError`."""
        if os.sep in word or word in (".", ".."):
            return _of_directory(word)
        ids = self.ids()
        if word in ids:
            return self.place / word
        begun = sorted(id for id in ids if word and id.startswith(word.lower()))
        if len(begun) == 1:
            return self.place / begun[0]
        if begun:
            raise UsageError(
                f"{word!r} is the beginning of {len(begun)} runs: {', '.join(begun[:8])}; write one more letter"
            )
        if os.path.isdir(word):
            return _of_directory(word)
        raise UsageError(f"there is no run {word!r} in {self.place}; penstock runs list --all shows which there are")

    def name_of(self, directory: Path) -> str:
        """What names the run on a command line: its id, or the directory if it is kept elsewhere."""
        directory = Path(os.path.abspath(directory))
        return directory.name if self.keeps(directory) else shlex.quote(str(directory))

    def keeps(self, directory: Path) -> bool:
        """Whether a run is kept here, and not in a directory of its own."""
        directory = Path(os.path.abspath(directory))
        return directory.parent == Path(os.path.abspath(self.place)) and _ID.fullmatch(directory.name) is not None


def usual(environment: Mapping[str, str] = os.environ) -> Runs:
    """The runs of this user: in the place that the system has for such things, unless the variable says where.

    Raises `JournalError` when there is no such place.
    """
    given = environment.get(VARIABLE)
    if given:
        return Runs(Path(os.path.abspath(given)))
    from platformdirs import user_state_dir

    place = Path(user_state_dir("penstock", appauthor=False)) / "runs"
    if not place.is_absolute():
        raise JournalError(f"this user has no home directory to keep runs in; say where with {VARIABLE}, or {REMEDY}")
    return Runs(place)


def check_place(directory: Path) -> None:
    """Raise `JournalError` if a journal cannot be kept in `directory`, which need not be there yet."""
    existing = next(each for each in (directory, *directory.parents) if each.exists())
    kind = _file_system(existing)
    if kind in _SHARED or kind.startswith("fuse.sshfs"):
        raise JournalError(f"{directory}: is on a network file system ({kind}), where a journal is not safe; {REMEDY}")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise JournalError(f"a run cannot be kept in {directory}: {_said(error)}; {REMEDY}") from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise JournalError(f"a run cannot be kept in {directory}: it cannot be written to; {REMEDY}")


def forget(directory: Path, *, whole: bool = True) -> list[str]:
    """Remove what a run left in `directory`, and if it is `whole` the directory too; return what else is in there,
    which stays."""
    for name in OURS:
        with suppress(FileNotFoundError):
            os.unlink(directory / name)
    others = sorted(os.listdir(directory))
    if whole and not others:
        os.rmdir(directory)
    return others


def _of_directory(word: str) -> Path:
    directory = Path(os.path.abspath(word))
    if not any((directory / name).exists() for name in (FILE, f"{FILE}{HALF}")):
        raise UsageError(f"there is no run in {word}: it has no {FILE}")
    return directory


def _new_id(length: int) -> str:
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in os.urandom(length))


def _file_system(path: Path) -> str:
    """The kind of the file system that `path` is on, as far as the system tells."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
            lines = [line.split(" - ") for line in mounts]
        device = os.stat(path).st_dev
    except OSError:
        return ""
    number = f"{os.major(device)}:{os.minor(device)}"
    return next((parts[1].split()[0] for parts in lines if len(parts) > 1 and parts[0].split()[2] == number), "")


def _said(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
