"""The files of a run are its own: what a link in its directory leads to is never written, nor can others read them."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from pipeline.core.errors import JournalError
from pipeline.core.pipeline import Pipeline
from pipeline.durability.disk.lock import is_locked, locked
from pipeline.durability.disk.marks import left, open_marks
from pipeline.durability.disk.own import open_own
from pipeline.durability.disk.reserve import NAME as RESERVE
from pipeline.durability.disk.store import Store, silent
from pipeline.durability.journal import DEAD, FILE, LOCK, MARKS, Journal
from stages import map

BACKENDS = ("asyncio", "trio")
NAMES = (FILE, f"{FILE}-wal", f"{FILE}-shm", f"{FILE}-journal", LOCK, MARKS, RESERVE, DEAD)


def strict(text: str) -> str:
    if text == "bad":
        raise ValueError("bad")
    return text


PIPE = Pipeline(map(strict, name="check"))


def run(backend: str, directory: Path, **more: Path) -> None:
    async def body() -> None:
        await PIPE.collect(["good", "bad"], journal=Journal(directory, **more))  # type: ignore[arg-type]

    anyio.run(body, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("leads_somewhere", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_link_among_the_files_of_a_run_is_refused_and_not_followed(
    name: str, leads_somewhere: bool, backend: str, tmp_path: Path
) -> None:
    victim, directory = tmp_path / "victim", tmp_path / "run"
    directory.mkdir()
    if leads_somewhere:
        victim.write_text("precious\n")
    (directory / name).symlink_to(victim)
    with pytest.raises(JournalError) as raised:
        run(backend, directory)
    said = "is a link; the files of a run are its own: remove it, if the directory is yours"
    assert str(raised.value) == f"{directory / name}: {said}"
    assert (victim.read_text() if leads_somewhere else victim.exists()) == ("precious\n" if leads_somewhere else False)


@pytest.mark.parametrize("name", [FILE, LOCK, MARKS, RESERVE, DEAD])
def test_what_is_no_file_is_refused_and_nobody_waits_for_it(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(JournalError, match="is no regular file"):
        run("asyncio", tmp_path)


def test_who_only_looks_follows_no_link_either(tmp_path: Path) -> None:
    run("asyncio", tmp_path / "run")
    directory = tmp_path / "looked at"
    directory.mkdir()
    for name in (FILE, LOCK, MARKS):
        (directory / name).symlink_to(tmp_path / "run" / FILE)
    looks: tuple[Callable[[Path], object], ...] = (is_locked, left, lambda path: open_marks(path, 1))
    for look in looks:
        with pytest.raises(JournalError, match="is a link"):
            look(directory / LOCK)
    with pytest.raises(JournalError, match="is a link"), Store.looking(directory / FILE):
        pass
    with pytest.raises(JournalError, match="is a link"):
        Store.open(directory / FILE, "process", silent)
    with pytest.raises(JournalError, match="is a link"):
        open_own(directory / LOCK, os.O_RDWR)


@pytest.mark.parametrize("backend", BACKENDS)
def test_links_in_place_of_a_journal_that_was_not_finished_are_taken_away(backend: str, tmp_path: Path) -> None:
    victim, directory = tmp_path / "victim", tmp_path / "run"
    victim.write_text("precious\n")
    directory.mkdir()
    for name in (f"{FILE}.new", f"{FILE}.new-wal", f"{FILE}.new-shm", f"{FILE}.new-journal"):
        (directory / name).symlink_to(victim)
    run(backend, directory)
    assert victim.read_text() == "precious\n"
    assert {path.name for path in directory.iterdir()} == {FILE, LOCK, DEAD}


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_the_owner_can_read_what_a_run_keeps(backend: str, tmp_path: Path) -> None:
    there, fresh = tmp_path / "there", tmp_path / "fresh"
    there.mkdir(mode=0o755)
    for directory in (there, fresh):
        run(backend, directory)
        assert {path.name: mode(path) for path in directory.iterdir()} == {FILE: 0o600, LOCK: 0o600, DEAD: 0o600}
    assert (mode(there), mode(fresh)) == (0o755, 0o700)
    before = os.umask(0o022)
    try:
        run(backend, tmp_path / "other", errors=tmp_path / "dead.jsonl")
    finally:
        os.umask(before)
    assert mode(tmp_path / "dead.jsonl") == 0o644  # where the user wants it, as any output


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_lock_on_a_file_that_was_removed_meanwhile_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, taken = tmp_path / LOCK, 0
    flock = fcntl.flock

    def removed_just_before(fd: int, how: int) -> None:
        nonlocal taken
        taken += 1
        if taken == 1:
            path.unlink()
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", removed_just_before)
    with locked(path):
        assert (taken, path.read_text()) == (2, f"{os.getpid()}\n")
