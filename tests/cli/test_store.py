"""Where runs are kept, what is in there, and what is said when they cannot be kept."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path

import pytest

from tests.cli.command import RUNS, environment, penstock
from tests.cli.kept import FOUR, Place


def test_a_run_is_kept_by_an_id_that_is_short_and_has_no_look_alikes(place: Place) -> None:
    for _ in range(3):
        done = place.penstock("run", "-m", "sim/echo", "-r", stdin=b"x\n")
        assert (done.code, done.out) == (0, b"x\n")
    assert len(place.ids) == 3
    assert all(re.fullmatch(r"[23456789abcdefghjkmnpqrstuvwxyz]{4,5}", id) for id in place.ids)


def test_a_kept_run_is_readable_for_its_owner_only(place: Place) -> None:
    place.penstock("run", "-m", "sim/echo", stdin=b"x\n")
    directory = place.store / place.run
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert stat.S_IMODE(directory.stat().st_mode) == stat.S_IMODE(place.store.stat().st_mode) == 0o700
    assert modes["journal.db"] == 0o600
    assert all(mode & 0o077 == 0 for mode in modes.values())


def test_what_a_run_was_given_is_kept_without_any_key(place: Place) -> None:
    place.four()
    key = "sk-canary-5f2b9c"
    done = place.penstock(
        "run", "four.yaml", "--name", "nightly", "--var", "tone=dry", stdin=b"x\n", OPENAI_API_KEY=key, HTTPS_PROXY=key
    )
    assert done.code == 0
    about = {str(name): str(value) for name, value in place.ask("SELECT key, value FROM meta")}
    given = json.loads(about["given"])
    assert (about["name"], given["text"], given["directory"]) == ("nightly", FOUR, str(place.here))
    assert given["line"] == ["run", "four.yaml", "--name", "nightly", "--var", "tone=dry"]
    assert (given["path"], given["inputs"], given["output"]) == (str(place.here / "four.yaml"), ["-"], "-")
    assert all(key.encode() not in path.read_bytes() for path in (place.store / place.run).iterdir())


def test_without_the_store_nothing_is_kept_and_once_it_is_said_what_is_lost(place: Place) -> None:
    done = place.penstock("run", "-m", "sim/echo", "--no-store", stdin=b"x\ny\n")
    said = "not kept (--no-store): if it is cut short it cannot be gone on with, and its answers are paid for again"
    assert (done.code, done.words.count(said), place.ids) == (0, 1, [])
    assert place.penstock("run", "-m", "sim/echo", "--no-store", "-q", stdin=b"x\n").err == ""


def test_a_run_that_cannot_begin_leaves_nothing_in_the_store(place: Place) -> None:
    place.write("out.jsonl", "precious\n")
    refused = place.penstock("run", "-m", "sim/echo", "-o", "out.jsonl", stdin=b"x\n")
    no_key = place.penstock("run", "-m", "openai/gpt-5.5", stdin=b"x\n")
    empty = place.penstock("run", "-m", "sim/echo")
    assert [done.code for done in (refused, no_key, empty)] == [4, 4, 0]
    assert place.ids == []
    assert "out.jsonl: exists" in refused.err


def test_a_user_without_a_home_directory_can_run(tmp_path: Path) -> None:
    state = tmp_path / "state"
    kept = penstock("run", "-m", "sim/echo", "-r", stdin=b"x\n", **{RUNS: "", "XDG_STATE_HOME": str(state), "HOME": ""})
    assert (kept.code, kept.out) == (0, b"x\n")
    assert len(list((state / "penstock" / "runs").iterdir())) == 1


def test_a_place_that_cannot_be_written_to_is_refused_with_what_to_do(place: Place) -> None:
    place.store.write_text("a file\n")
    for args in ((), ("--run-dir", str(place.store / "run"))):
        done = place.penstock("run", "-m", "sim/echo", *args, stdin=b"x\n")
        assert (done.code, done.out, len(done.words)) == (4, b"", 1)
        assert "cannot be kept in" in done.err
        assert done.words[0].endswith("name another place with --run-dir, or do without with --no-store")
    assert place.penstock("run", "-m", "sim/echo", "--no-store", "-q", "-r", stdin=b"x\n").out == b"x\n"


def test_a_run_can_be_kept_in_a_directory_of_its_own(place: Place) -> None:
    done = place.penstock("run", "-m", "sim/echo", "--run-dir", "mine", stdin=b"x\n")
    assert (done.code, place.ids) == (0, [])
    assert (place.here / "mine" / "journal.db").exists()
    again = place.penstock("run", "-m", "sim/echo", "--run-dir", "mine", stdin=b"x\n")
    assert again.code == 4
    directory = place.here / "mine"
    said = (
        f"error: {directory}: keeps a run already; go on with it (penstock resume {directory}, or add --resume), "
        f"remove it (penstock runs rm {directory}), or name another directory"
    )
    assert again.words == [said]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--resume",), "--resume goes on with the run in --run-dir; those in the store: penstock resume [RUN]"),
        (("--no-store", "--name", "x"), "--no-store keeps nothing, so it excludes --run-dir and --name"),
        (("--no-store", "--run-dir", "x"), "--no-store keeps nothing, so it excludes --run-dir and --name"),
    ],
)
def test_flags_of_the_store_that_contradict_each_other_are_refused(
    flags: tuple[str, ...], said: str, place: Place
) -> None:
    done = place.penstock("run", "-m", "sim/echo", *flags, stdin=b"x\n")
    assert (done.code, done.words) == (2, [f"error: {said}", "help: penstock run --help"])
    assert place.ids == []


def test_the_environment_of_tests_never_has_runs_in_a_home() -> None:
    assert Path(environment()[RUNS]).is_relative_to(os.environ[RUNS])
