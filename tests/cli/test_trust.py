"""Runs that may be somebody else's: what a resume takes from their journals, and what is left alone when two begin."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest

from pipeline.cli.kept import GIVEN, Kept
from pipeline.cli.store import Runs
from pipeline.cli.trust import KEY, SEAL, is_own, refuse_foreign, seal
from pipeline.core.errors import JournalError
from pipeline.core.pipeline import Pipeline
from pipeline.durability.disk.lock import locked
from pipeline.durability.disk.store import Store, silent
from pipeline.durability.journal import FILE, LOCK, Journal
from stages import map
from tests.cli.command import RUNS
from tests.cli.kept import Place


def begun(place: Place) -> Path:
    """A run in a directory of its own, one record of which failed and would not fail again."""
    place.four()
    place.write("in.txt", "one\nfail\n")
    place.write("failing", "")
    done = place.penstock("run", "four.yaml", "in.txt", "-o", "out.jsonl", "--run-dir", "mine", "--errors", "dead")
    assert done.code == 1
    (place.here / "failing").unlink()
    return place.here / "mine"


def test_a_run_in_a_directory_of_its_own_is_gone_on_with_by_who_began_it(place: Place) -> None:
    begun(place).rename(place.here / "moved")
    done = place.penstock("resume", "./moved", "--only", "failed", PENSTOCK_ALLOW_IMPORT="")
    assert done.code == 0, done.err
    assert len((place.here / "out.jsonl").read_bytes().splitlines()) == 2


def test_a_run_of_somebody_else_is_refused_with_what_it_would_do(place: Place, tmp_path: Path) -> None:
    directory = begun(place)
    mine, before = {RUNS: str(tmp_path / "other store"), "PENSTOCK_ALLOW_IMPORT": ""}, files(place.here)
    refused = place.penstock("resume", "./mine", "--only", "failed", stdin=b"", **mine)
    assert (refused.code, files(place.here)) == (4, before)
    here = place.here
    assert refused.words == [
        f"error: {directory}: was not begun by you here, so it may be somebody else's; to go on with it",
        f"  in {here}",
        f"  reads {here / 'four.yaml'}, {here / 'in.txt'}",
        f"  writes {here / 'out.jsonl'}, dead",
        "  imports ./gate",
        "if that is right, add --trust, and --allow-import for what it may import",
    ]
    trusted = place.penstock("resume", "./mine", "--only", "failed", "--trust", stdin=b"", **mine)
    assert (trusted.code, "--allow-import" in trusted.err, files(here)) == (78, True, before)
    assert trusted.words[:2] == [f"run {directory} is trusted (--trust):", f"  in {here}"]
    done = place.penstock(
        "resume", "./mine", "--only", "failed", "--trust", "--allow-import", "./gate", stdin=b"", **mine
    )
    assert done.code == 0, done.err


def files(directory: Path) -> dict[str, bytes]:
    found = (path for path in directory.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path): path.read_bytes() for path in found}


@pytest.mark.parametrize(("name", "mode"), [("", 0o777), (FILE, 0o660), (FILE, 0o602)])
def test_a_run_that_others_can_write_to_is_refused(name: str, mode: int, place: Place) -> None:
    path = begun(place) / name
    path.chmod(mode)
    refused = place.penstock("resume", "./mine", "--only", "failed", "--trust")
    said = f"error: {path}: others can write to it, so it may be theirs; if it is yours: chmod go-w"
    assert (refused.code, refused.words) == (4, [said])


def test_a_run_that_belongs_to_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_foreign(tmp_path)
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.raises(JournalError, match=f"belongs to user {user}, this is user {user + 1}; go on as that one"):
        refuse_foreign(tmp_path)


def test_only_who_has_the_key_can_seal_what_a_run_was_given(tmp_path: Path) -> None:
    mine, theirs = Runs(tmp_path / "mine"), Runs(tmp_path / "theirs")
    sealed, forged = seal("this", mine), seal("this", theirs)
    elsewhere = tmp_path / "elsewhere"
    assert is_own(elsewhere, {GIVEN: "this", SEAL: sealed}, mine)
    assert seal("this", mine) == sealed
    for about in ({GIVEN: "that", SEAL: sealed}, {GIVEN: "this", SEAL: forged}, {GIVEN: "this"}, {}):
        assert not is_own(elsewhere, about, mine)
    assert is_own(mine.place / "7k3p", {}, mine)
    assert [path.name for path in mine.place.iterdir()] == [KEY]
    (mine.place / KEY).chmod(0o644)  # who has read it can seal anything
    assert not is_own(elsewhere, {GIVEN: "this", SEAL: sealed}, mine)


def test_where_no_key_can_be_kept_nothing_is_sealed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert seal("this", Runs(tmp_path / "file")) == ""
    assert not is_own(tmp_path / "x", {GIVEN: "this", SEAL: ""}, Runs(tmp_path / "file"))


# -- two that begin ---------------------------------------------------------------------------------------------


def kept(directory: Path, *, made: bool) -> Kept:
    return Kept(directory, "run", Journal(directory), piped=False, made=made)


def journal(directory: Path) -> None:
    directory.mkdir()
    store = Store.create(directory / FILE, "process", silent)
    store.close(fold=True)


def test_who_is_refused_leaves_the_journal_of_the_one_that_runs(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    journal(directory)
    with locked(directory / LOCK):
        before = files(directory)
        assert not kept(directory, made=False).forget()
        assert not kept(directory, made=True).forget()
        assert files(directory) == before


def test_a_journal_that_another_process_has_made_stays_when_that_one_is_gone(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    journal(directory)
    assert not kept(directory, made=False).forget()
    assert (directory / FILE).exists()


def test_an_own_journal_goes_if_nothing_was_admitted(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    journal(directory)
    assert kept(directory, made=True).forget()
    assert not directory.exists()
    assert not kept(directory, made=True).forget()


def test_an_own_journal_with_records_stays_since_another_process_may_have_gone_on(place: Place) -> None:
    place.penstock("run", "-m", "sim/echo", "--run-dir", "mine", stdin=b"x\n")
    path = place.here / "mine" / FILE
    before = path.read_bytes()
    assert not kept(path.parent, made=True).forget()
    assert path.read_bytes() == before


def test_the_journal_that_is_made_is_told_of_and_one_that_was_there_is_not(tmp_path: Path) -> None:
    made: list[str] = []

    async def both() -> None:
        pipe = Pipeline(map(str.upper, name="up"))
        for number in range(2):
            kept = Journal(tmp_path / "run", made=lambda number=number: made.append(str(number)))
            await pipe.collect(["x"], journal=kept)

    anyio.run(both)
    assert made == ["0"]
