"""Whose journal it is. A resume takes from it which pipeline is run, what is read, where is written to and what may be
imported, so one that somebody else has made could do anything in the user's name.

A journal is the user's own if it lies in the store of runs, or if what it was given bears a seal: a hash with a key
that never leaves that store. Any other needs `--trust`, after it was said what it would read and write; and what it
may import is said anew even then. One whose files belong to another user, or that others can write to, is refused.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

from pipeline.cli.given import STDIN, Given
from pipeline.cli.kept import GIVEN
from pipeline.cli.store import Runs
from pipeline.core.errors import JournalError
from pipeline.durability.disk.own import open_own
from pipeline.durability.journal import FILE

SEAL: Final = "seal"  #: the key of what is kept about a run
KEY: Final = ".key"

_BYTES: Final = 32
_BY_OTHERS: Final = 0o002
_BY_GROUP: Final = 0o020


def seal(given: str, runs: Runs) -> str:
    """What shows later that this user's command was given this; empty if no key can be kept."""
    key = _key(runs.place) or _made(runs.place)
    return "" if key is None else _hash(key, given)


def is_own(directory: Path, about: Mapping[str, str], runs: Runs) -> bool:
    """Whether this user's command has begun the run in `directory`, as far as can be proved."""
    if runs.keeps(directory):
        return True
    key = _key(runs.place)
    return key is not None and hmac.compare_digest(_hash(key, about.get(GIVEN, "")), about.get(SEAL, ""))


def refuse_foreign(directory: Path) -> None:
    """Raise `JournalError` if a run belongs to another user, or others can change it."""
    for path, refused in ((directory, _BY_OTHERS), (directory / FILE, _BY_OTHERS | _BY_GROUP)):
        try:
            found = path.stat()
        except OSError:
            continue  # refused by who opens it
        if found.st_uid != os.geteuid():
            raise JournalError(
                f"{path}: belongs to user {found.st_uid}, this is user {os.geteuid()}; go on as that one"
            )
        if found.st_mode & refused:
            raise JournalError(f"{path}: others can write to it, so it may be theirs; if it is yours: chmod go-w")


def permitted(given: Given, allow_import: Sequence[str], *, own: bool) -> Given:
    """The same with what may be imported now: what is said now, and only in an own run also what was said then."""
    before = given.flags.allow_import if own else ()
    now = (os.path.abspath(each) if os.path.dirname(each) else each for each in allow_import)
    return replace(given, flags=replace(given.flags, allow_import=tuple(dict.fromkeys((*before, *now)))))


def would_do(given: Given) -> list[str]:
    """What going on with a run would do, a line each."""
    flags = given.flags
    reads = [given.path, *(path for path in given.inputs if path != STDIN)]
    writes = [path for path in (given.output, flags.errors) if path not in (None, STDIN)]
    lines = [("in", [given.directory]), ("reads", reads), ("writes", writes), ("imports", flags.allow_import)]
    return [f"  {what} {', '.join(filter(None, paths))}" for what, paths in lines if any(paths)]


def _hash(key: bytes, given: str) -> str:
    return hmac.new(key, given.encode("utf-8", "surrogatepass"), "sha256").hexdigest()


def _key(place: Path) -> bytes | None:
    """The key of a store; None if it has none that is only this user's."""
    try:
        with open(open_own(place / KEY, os.O_RDONLY), "rb") as file:
            found, key = os.fstat(file.fileno()), file.read(_BYTES + 1)
    except (OSError, JournalError):
        return None
    private = found.st_uid == os.geteuid() and not found.st_mode & 0o077
    return key if private and len(key) == _BYTES else None


def _made(place: Path) -> bytes | None:
    """The key, made; it has its name only once it is whole, and of two that are made at once the first counts."""
    half = place / f"{KEY}.{os.getpid()}"
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(open_own(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
            file.write(os.urandom(_BYTES))
        with suppress(FileExistsError):
            os.link(half, place / KEY)
    except (OSError, JournalError):
        return None
    finally:
        with suppress(OSError):
            half.unlink()
    return _key(place)
