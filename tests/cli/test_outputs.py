"""The installed command and its outputs: what others write, what is gone, what nobody took, what was never used."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from pipeline.durability.disk.store import Store, silent
from pipeline.durability.outputs.projection import TAKEN, Mark
from tests.cli.command import COMMAND, PATIENCE, SIMPLE, environment
from tests.cli.kept import Place, killed, lines


@pytest.fixture
def four(place: Place) -> Place:
    place.four()
    place.write("simple.yaml", SIMPLE)
    place.write("in.txt", lines(3))
    return place


def prompts(data: bytes) -> list[str]:
    return [json.loads(line)["input"]["prompt"] for line in data.splitlines()]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_resume_leaves_alone_what_another_run_appended(backend: str, four: Place) -> None:
    four.write("in.txt", lines(3) + "hang\n" + lines(2, 4))
    killed(four, "four.yaml", "in.txt", "-o", "p.jsonl", "--backend", backend, admitted=6)
    run, path = four.run, four.here / "p.jsonl"
    four.write("more.txt", lines(2, 10))
    assert four.penstock("run", "simple.yaml", "more.txt", "-o", "p.jsonl", "--append").code == 0
    both, attempts = path.read_bytes(), four.attempts(run)
    refused = four.penstock("resume", run)
    assert (refused.code, path.read_bytes(), four.attempts(run)) == (4, both, attempts)
    assert "was changed: byte " in refused.err
    assert f"--accept-changes keeps it as {path}.edited and writes it anew" in refused.err
    done = four.penstock("resume", run, "--accept-changes")
    assert done.code == 0
    assert f"it is kept as {path}.edited and written anew" in done.err
    assert (four.here / "p.jsonl.edited").read_bytes() == both
    assert sorted(prompts(path.read_bytes())) == sorted(["hang", *lines(5).splitlines()])


@pytest.mark.parametrize("first", [(), ("--no-store",)], ids=["kept", "not kept"])
@pytest.mark.parametrize("second", [(), ("--no-store",)], ids=["kept", "not kept"])
@pytest.mark.parametrize("how", ["--append", "--overwrite"])
def test_a_second_run_on_an_output_is_refused_at_its_start(
    first: tuple[str, ...], second: tuple[str, ...], how: str, four: Place
) -> None:
    four.write("hold", "")
    four.write("in.txt", lines(2) + "hang\n")
    path = four.here / "out.jsonl"
    with four.running("run", "four.yaml", "in.txt", "-o", "out.jsonl", *first) as running:
        running.hear("at most")
        running.until(" 3 admitted, 1 open")
        before, ids = path.read_bytes(), four.ids
        refused = four.penstock("run", "simple.yaml", "in.txt", "-o", "out.jsonl", how, *second)
        said = [line for line in refused.words if line.startswith("error")]
        assert (refused.code, refused.out) == (75, b"")
        assert [line.rpartition("/")[2].removeprefix("error: ") for line in said] == [
            "out.jsonl: another run is writing to it"
        ]
        assert path.read_bytes()[: len(before)] == before
        assert four.ids == ids, "nothing is kept of it"
        (four.here / "hold").unlink()
        assert running.wait() == 0
    assert sorted(prompts(path.read_bytes())) == ["hang", "line 1", "line 2"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no device that is always full")
def test_records_that_stdout_did_not_take_are_delivered_by_a_resume(four: Place) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, "run", "simple.yaml", "in.txt"],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            cwd=four.here,
            env=environment(**four.environment),
            timeout=PATIENCE,
        )
    assert done.returncode == 74
    assert done.stderr.decode().splitlines()[-1] == f"go on with: penstock resume {four.run}"
    (listed,) = four.listed()
    assert listed["state"] in ("stopped", "unfinished")
    attempts = four.attempts()
    again = four.penstock("resume", four.run)
    assert (again.code, sorted(prompts(again.out))) == (0, lines(3).splitlines())
    assert four.attempts() in (attempts, 3), "what has ended is not asked for again"
    (listed,) = four.listed()
    assert (listed["state"], listed["untaken"]) == ("finished", 0)
    assert four.penstock("resume", four.run).out == b""


def test_settled_records_that_were_not_taken_make_a_run_unfinished(four: Place) -> None:
    done = four.penstock("run", "simple.yaml", "in.txt")
    assert done.code == 0
    assert four.listed()[0]["state"] == "finished"
    store = Store.open(four.store / four.run / "journal.db", "power", silent)
    store.change(Mark(0, 1).row(TAKEN))  # as if writing had failed at the second record
    store.close(fold=True)
    (listed,) = four.listed()
    assert (listed["state"], listed["open"], listed["untaken"]) == ("stopped", 0, 2)
    assert "2 not written yet" in four.penstock("runs", "show", four.run).out.decode()
    again = four.penstock("resume")
    assert (again.code, again.out) == (0, b"".join(done.out.splitlines(keepends=True)[1:]))
    assert (four.listed()[0]["state"], four.attempts()) == ("finished", 3)


@pytest.mark.parametrize("edit", [None, b"edited\n"], ids=["gone", "edited"])
def test_the_output_of_a_finished_run_is_written_anew_without_a_call(edit: bytes | None, four: Place) -> None:
    assert four.penstock("run", "simple.yaml", "in.txt", "-o", "out.jsonl").code == 0
    path = four.here / "out.jsonl"
    whole = path.read_bytes()
    path.unlink() if edit is None else path.write_bytes(edit)
    refused = four.penstock("resume", four.run)
    assert refused.code == 4
    assert str(path) in refused.err
    assert "--accept-changes" in refused.err
    done = four.penstock("resume", four.run, "--accept-changes")
    assert (done.code, path.read_bytes(), four.attempts()) == (0, whole, 3)
    assert (four.here / "out.jsonl.edited").exists() is (edit is not None)
    assert "written anew" in done.err
    assert four.penstock("resume", four.run).words == [f"nothing to do: run {four.run} is finished, 3 records"]


def test_what_was_appended_to_the_output_of_a_finished_run_is_nobodys_concern(four: Place) -> None:
    assert four.penstock("run", "simple.yaml", "in.txt", "-o", "out.jsonl").code == 0
    with (four.here / "out.jsonl").open("ab") as file:
        file.write(b"mine\n")
    done = four.penstock("resume", four.run)
    assert done.words == [f"nothing to do: run {four.run} is finished, 3 records"]


def test_from_a_stage_on_the_old_output_is_kept_until_there_are_new_answers(four: Place) -> None:
    assert four.penstock("run", "simple.yaml", "in.txt", "-o", "out.jsonl").code == 0
    path = four.here / "out.jsonl"
    before = path.read_bytes()
    done = four.penstock("resume", four.run, "--from", "say")
    assert done.code == 0
    assert f"{path}: is kept as {path}.old, because records in it are made again" in done.err
    assert (four.here / "out.jsonl.old").read_bytes() == before


@pytest.mark.parametrize("kept", [(), ("--no-store",)], ids=["kept", "not kept"])
def test_a_run_that_ends_before_its_first_record_leaves_no_file_it_made(kept: tuple[str, ...], four: Place) -> None:
    with four.running("run", "simple.yaml", "-o", "out.jsonl", *kept) as running:
        running.hear("at most")
        running.signal()
        assert running.wait() == 130
    assert not (four.here / "out.jsonl").exists()
    assert four.ids == []
    with four.running("run", "simple.yaml", "-o", "out.jsonl", *kept) as running:
        running.hear("at most")
        running.end_input()
        assert running.wait() == 0
    assert (four.here / "out.jsonl").read_bytes() == b"", "it was asked for, and there is nothing to say"


def test_a_file_that_was_there_stays_though_nothing_was_written(four: Place) -> None:
    path: Path = four.write("out.jsonl", "")
    with four.running("run", "simple.yaml", "-o", "out.jsonl", "--append") as running:
        running.hear("at most")
        running.signal()
        assert running.wait() == 130
    assert path.read_bytes() == b""
