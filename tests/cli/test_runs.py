"""Runs of the past: listed, shown, found by a prefix, removed, proved; and files that only look like journals."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from pipeline.cli.past import Past
from pipeline.cli.runtable import as_json, page, page_json, table
from pipeline.core.visible import visible
from pipeline.durability.inspection.overview import Details, Overview, Spending
from tests.cli.command import RUNS, penstock
from tests.cli.kept import Place, lines


def test_runs_of_this_directory_are_listed_the_last_one_first(place: Place) -> None:
    place.penstock("run", "-m", "sim/echo", "--name", "first", stdin=b"x\n")
    place.penstock("run", "-m", "sim/echo", "-o", "out.jsonl", stdin=b"x\ny\n")
    named = [(run["what"], run["state"], run["settled"]) for run in place.listed()]
    assert named == [
        (f"sim/echo → {place.here / 'out.jsonl'}", "finished", {"ok": 2}),
        ("first", "finished", {"ok": 1}),
    ]
    table = place.penstock("runs", "list").out.decode().splitlines()
    assert (table[0].split(), len(table)) == (["run", "begun", "state", "done", "failed", "cost", "what"], 3)
    elsewhere = penstock("runs", "list", cwd=place.store, **{RUNS: str(place.store)})
    assert (elsewhere.out, elsewhere.words) == (b"", ["no runs of this directory; --all: of all"])
    assert len(place.listed("--all")) == 2


def test_a_run_is_shown_with_all_that_is_known_of_it(place: Place) -> None:
    place.penstock("run", "-m", "sim/echo", "--set", "models.default.fail_when=no", stdin=b"yes\nno\n")
    shown = place.penstock("runs", "show", place.run[:3]).out.decode()
    assert "records   2 admitted, 0 open; 1 failed, 1 ok" in shown
    assert f"go on     penstock resume {place.run} --only failed" in shown
    found = json.loads(place.penstock("runs", "show", place.run, "--json").out)
    assert (found["run"], found["code"], list(found["models"])) == (place.run, 1, ["sim/echo"])
    assert sum(found["reasons"].values()) == 1
    where = place.penstock("runs", "path", place.run)
    assert where.out.decode() == f"{place.store / place.run}\n"


def test_finished_runs_can_be_pruned_and_outputs_stay(place: Place) -> None:
    for number in range(3):
        place.penstock("run", "-m", "sim/echo", "-o", f"{number}.jsonl", stdin=b"x\n")
    assert place.penstock("runs", "prune").code == 2
    last = place.listed()[0]["run"]
    dry = place.penstock("runs", "prune", "--keep", "1", "--dry-run")
    assert (len(dry.words), len(place.ids)) == (2, 3)
    assert place.penstock("runs", "prune", "--older-than", "30d").words == ["nothing to remove"]
    assert place.penstock("runs", "prune", "--keep", "1").code == 0
    assert place.ids == [last]
    assert place.penstock("runs", "rm", str(last)).words == [
        f"removed {last} (finished): sim/echo → {place.here / '2.jsonl'}"
    ]
    assert (place.ids, len(list(place.here.glob("*.jsonl")))) == ([], 3)


def test_what_is_not_of_a_run_stays_when_it_is_removed(place: Place) -> None:
    place.penstock("run", "-m", "sim/echo", "--run-dir", "mine", "-o", "mine/out.jsonl", stdin=b"x\n")
    done = place.penstock("runs", "rm", "./mine")
    assert (done.code, done.words[0].endswith("; the directory stays, with out.jsonl")) == (0, True)
    assert [path.name for path in (place.here / "mine").iterdir()] == ["out.jsonl"]


def test_a_run_is_proved_to_have_lost_nothing(place: Place) -> None:
    place.write("in.txt", lines(5))
    place.penstock("run", "-m", "sim/echo", "in.txt", "-o", "out.jsonl")
    proof = place.penstock("verify", place.run)
    assert (proof.code, proof.err) == (0, "")
    said = proof.out.decode().splitlines()
    assert said[0] == "roots: 5 = 5 settled (5 ok) + 0 open"
    assert said[-1] == "every law holds"


def foreign(path: Path) -> None:
    path.write_bytes(b"not a journal, and no database either\n" * 50)


def other_database(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE root (x)")
    connection.commit()
    connection.close()


def with_a_trigger(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TRIGGER t AFTER INSERT ON meta BEGIN DELETE FROM root; END")
    connection.commit()
    connection.close()


def with_flipped_bits(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(100, len(data), 7):
        data[at] ^= 0x5A
    path.write_bytes(data)


def test_what_a_journal_says_moves_no_cursor_and_forges_no_line(tmp_path: Path) -> None:
    evil = "\x1b]0;title\x07\x9b2J\nevery law holds\u202e"
    about = {"given": json.dumps({"path": evil, "directory": evil, "line": [evil]})}
    seen = Overview(tmp_path, False, about, 2, {evil: 1}, 1, 1, {evil: 1}, 0.0, 0)
    found = Past("7k3p", tmp_path / evil, "stopped", seen)
    more = Details((Spending(evil, 1, 1, 1, 0.0, 0),), {evil: 1}, 1, ((evil, evil, evil),))
    lines = [*table([found]), *page(found, more)]
    assert len(lines) == 2 + len(page(found, Details((), {}, 1, ()))) + 3
    assert all(line == visible(line) and "\n" not in line for line in lines)
    assert sum(line.count("\\u001b]0;title\\u0007\\u009b2J\\nevery law holds\\u202e") for line in lines) > 8
    for text in (as_json([found]), page_json(found, more)):
        assert text == visible(text)
        assert json.dumps(evil)[1:-1] in json.dumps(json.loads(text))


def test_what_was_left_of_a_journal_that_was_being_made_can_be_removed(place: Place) -> None:
    for directory, word in ((place.store / "7k3p", "7k3p"), (place.here / "mine", "./mine")):
        directory.mkdir(parents=True)
        for name in ("journal.db.new", "journal.db.new-wal", "journal.db.new-shm", "lock"):
            (directory / name).write_text("")
        assert place.penstock("resume", word).code == 4
        done = place.penstock("runs", "rm", word)
        assert (done.code, directory.exists()) == (0, False), done.err


@pytest.mark.parametrize("spoil", [foreign, other_database, with_a_trigger, with_flipped_bits])
def test_what_is_no_journal_is_refused_with_4_and_no_traceback(spoil: object, place: Place) -> None:
    place.penstock("run", "-m", "sim/echo", stdin=b"x\n")
    path = place.store / place.run / "journal.db"
    assert callable(spoil)
    spoil(path)
    before = path.read_bytes()
    for command in ("resume", "verify"):
        done = place.penstock(command, place.run)
        assert (done.code, done.out, len(done.words), done.words[0].startswith("error: ")) == (4, b"", 1, True)
    listed = place.penstock("runs", "list")
    assert (listed.code, " damaged " in listed.out.decode()) == (0, True)
    assert path.read_bytes() == before
