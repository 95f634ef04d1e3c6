"""Runs are killed, changed and gone on with; what is asked again is counted in the journal's table of attempts."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from pathlib import Path

import pytest

from tests.cli.command import RUNS, penstock
from tests.cli.kept import FOUR, Place, killed, killed_at_its_pipe, lines

CALLS = "SELECT path, count(*) FROM attempt WHERE epoch = {} GROUP BY path ORDER BY path"


@pytest.fixture
def four(place: Place) -> Place:
    place.four()
    return place


def whole(place: Place, name: str = "out.jsonl") -> list[dict[str, object]]:
    """The records of the output, each of which is there once, by their place in the input."""
    records = [json.loads(line) for line in (place.here / name).read_bytes().splitlines()]
    assert len({record["id"] for record in records}) == len(records)
    return sorted(records, key=lambda record: record["index"])


def prompts(place: Place) -> list[object]:
    return [record["input"]["prompt"] for record in whole(place)]  # type: ignore[index,call-overload]


def calls(place: Place, epoch: int) -> dict[str, int]:
    """The attempts of one run by stage."""
    return {json.loads(str(path))[0]: int(str(count)) for path, count in place.ask(CALLS.format(epoch))}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_killed_run_is_gone_on_with_and_no_answer_is_paid_for_twice(backend: str, four: Place) -> None:
    four.write("in.txt", lines(5) + "hang\n" + lines(5, 6))
    killed(four, "four.yaml", "in.txt", "-o", "out.jsonl", "--backend", backend, admitted=11)
    (listed,) = four.listed()
    assert (listed["state"], listed["admitted"], listed["settled"]) == ("unfinished", 11, {"ok": 10})
    done = four.penstock("resume")
    assert (done.code, done.out) == (0, b"")
    assert done.words[0] == f"run {four.run}: 10 done, 1 partly done (2 answers reused)"
    assert prompts(four) == [*(f"line {n}" for n in range(1, 6)), "hang", *(f"line {n}" for n in range(6, 11))]
    assert calls(four, 1) == {"one": 11, "two": 11, "three": 10, "four": 10}
    assert calls(four, 2) == {"three": 1, "four": 1}


def test_a_finished_run_has_nothing_to_do(four: Place) -> None:
    four.write("in.txt", lines(2))
    assert four.penstock("run", "four.yaml", "in.txt", "-o", "out.jsonl").code == 0
    before = (four.here / "out.jsonl").read_bytes()
    named = four.penstock("resume", four.run)
    here = four.penstock("resume")
    assert [named.code, here.code] == [0, 0]
    assert named.words == [f"nothing to do: run {four.run} is finished, 2 records"]
    assert here.words == ["nothing to do: all runs of this directory are finished (penstock runs list)"]
    assert (four.here / "out.jsonl").read_bytes() == before
    elsewhere = penstock("resume", cwd=four.store, **{RUNS: str(four.store)})
    assert (elsewhere.code, elsewhere.words[0]) == (
        2,
        "error: no run of this directory is kept; name one: penstock runs list --all",
    )


def test_failed_records_are_tried_once_more_with_the_answers_they_had(four: Place) -> None:
    four.write("in.txt", lines(2) + "fail\n")
    four.write("failing", "")
    first = four.penstock("run", "four.yaml", "in.txt", "-o", "out.jsonl")
    assert (first.code, [record["status"] for record in whole(four)]) == (1, ["ok", "ok", "failed"])
    (said,) = [line for line in first.words if line.startswith("failed: ")]
    where = four.store / four.run / "errors.jsonl"
    assert said == f"failed: 1 ValueError (gate) → {where}; once more: penstock resume {four.run} --only failed"
    assert json.loads(where.read_text())["id"] == whole(four)[2]["id"]
    once_more = f"penstock resume {four.run} --only failed"
    assert four.penstock("resume", four.run).words == [
        f"nothing to do: run {four.run} is finished, 3 records; 1 failed earlier: {once_more}"
    ]
    (four.here / "failing").unlink()
    done = four.penstock("resume", four.run, "--only", "failed")
    assert (done.code, "1 record is opened again" in done.words) == (0, True)
    assert [record["status"] for record in whole(four)] == ["ok", "ok", "ok"]
    assert calls(four, 2) == {"three": 1, "four": 1}


def test_what_failed_is_tried_beside_what_is_unfinished_or_alone(four: Place) -> None:
    four.write("in.txt", lines(1) + "fail\nhang\n")
    four.write("failing", "")
    killed(four, "four.yaml", "in.txt", "-o", "out.jsonl", admitted=3)
    (four.here / "failing").unlink()
    alone = four.penstock("resume", "--only", "failed")
    assert ([record["status"] for record in whole(four)], alone.code) == (["ok", "ok"], 3)
    assert alone.words[-1] == f"go on with: penstock resume {four.run}"
    assert (four.penstock("resume", "--failed").code, prompts(four)) == (0, ["line 1", "fail", "hang"])


def test_from_a_stage_on_everything_is_asked_again_and_what_is_before_it_is_kept(four: Place) -> None:
    four.write("in.txt", lines(3))
    assert four.penstock("run", "four.yaml", "in.txt", "-o", "out.jsonl").code == 0
    before = whole(four)
    done = four.penstock("resume", four.run, "--from", "three")
    assert done.code == 0
    assert calls(four, 2) == {"three": 3, "four": 3}
    assert whole(four) == before
    wrong = four.penstock("resume", four.run, "--from", "thre")
    assert (
        wrong.code,
        wrong.words[0].endswith("there is no stage 'thre' in this pipeline; did you mean 'three'?"),
    ) == (
        4,
        True,
    )


def test_a_changed_prompt_is_refused_key_by_key_and_accepted_if_that_is_said(four: Place) -> None:
    four.write("in.txt", lines(3) + "hang\n")
    killed(four, "four.yaml", "in.txt", "-o", "out.jsonl", admitted=4)
    changed = FOUR.replace('"3 {{ two }}"', '"Third: {{ two }}"')
    four.write("four.yaml", changed)
    before = (four.here / "out.jsonl").read_bytes()
    refused = four.penstock("resume")
    assert (refused.code, four.attempts(), (four.here / "out.jsonl").read_bytes()) == (4, 14, before)
    assert 'stage \'three\', prompt: "3 {{ two }}" is now "Third: {{ two }}"' in refused.err
    assert "--accept-changes" in refused.err
    done = four.penstock("resume", "--accept-changes")
    assert done.code == 0
    assert calls(four, 2) == {"three": 4, "four": 4}
    assert all(str(record["output"]).startswith("4 Third: ") for record in whole(four))


def test_operational_flags_may_be_others(four: Place) -> None:
    four.write("in.txt", lines(2) + "hang\n" + lines(2, 3))
    killed(four, "four.yaml", "in.txt", "-o", "out.jsonl", admitted=5)
    four.write("hold", "")
    flags = ("-j", "1", "--max-in-flight", "2", "--item-timeout", "300ms", "--deadline", "1h", "-q")
    done = four.penstock("resume", four.run[:3], *flags)
    assert (done.code, done.err) == (1, "")
    assert [record["status"] for record in whole(four)] == ["ok", "ok", "failed", "ok", "ok"]


def test_lines_appended_to_the_input_are_done_and_other_changes_are_refused(four: Place) -> None:
    four.write("in.txt", lines(3) + "hang\n")
    killed(four, "four.yaml", "in.txt", "-o", "out.jsonl", admitted=4)
    before, attempts = (four.here / "out.jsonl").read_bytes(), four.attempts()
    for changed in ("new\n" + lines(3) + "hang\n", lines(2) + "hang\n", lines(2, 2) + lines(1) + "hang\n"):
        four.write("in.txt", changed)
        refused = four.penstock("resume")
        assert (refused.code, "the input has changed" in refused.err) == (4, True)
        assert ((four.here / "out.jsonl").read_bytes(), four.attempts()) == (before, attempts)
    four.write("in.txt", lines(3) + "hang\n" + "more\n")
    done = four.penstock("resume")
    assert (done.code, prompts(four)) == (0, ["line 1", "line 2", "line 3", "hang", "more"])
    assert calls(four, 2) == {"one": 1, "two": 1, "three": 2, "four": 2}


def test_a_changed_input_that_is_accepted_is_matched_by_what_it_says(four: Place) -> None:
    four.write("in.txt", lines(3) + "hang\n")
    killed(four, "four.yaml", "in.txt", "-o", "out.jsonl", admitted=4)
    four.write("in.txt", "new\n" + "line 3\nline 1\n")
    done = four.penstock("resume", "--accept-changes")
    assert done.code == 0
    assert calls(four, 2) == {"one": 1, "two": 1, "three": 1, "four": 1}
    assert {"new", "line 1", "line 3"} <= {str(prompt) for prompt in prompts(four)}


def test_an_output_that_was_edited_is_refused_with_the_byte(four: Place) -> None:
    four.write("in.txt", lines(2) + "fail\n")
    four.write("failing", "")
    assert four.penstock("run", "four.yaml", "in.txt", "-o", "out.jsonl").code == 1
    out, attempts = four.here / "out.jsonl", four.attempts()
    data = bytearray(out.read_bytes())
    data[7] ^= 1
    out.write_bytes(data)
    refused = four.penstock("resume", four.run, "--failed")
    assert (refused.code, four.attempts(), out.read_bytes()) == (4, attempts, bytes(data))
    (said,) = refused.words
    assert said.startswith(f"error: {out}: was changed: byte 7 is not what was written; nothing was called")
    assert said.endswith(f"--accept-changes keeps it as {out}.edited and writes it anew")
    proof = four.penstock("verify", four.run)
    assert (proof.code, f"WRONG: {out}: was changed: byte 7 is not what was written" in proof.out.decode()) == (4, True)


def test_the_stored_text_is_used_if_the_pipeline_file_is_gone(four: Place) -> None:
    four.write("in.txt", lines(2) + "hang\n")
    killed(four, "four.yaml", "in.txt", "-o", "out.jsonl", admitted=3)
    (four.here / "four.yaml").unlink()
    done = four.penstock("resume", four.run)
    path = four.here / "four.yaml"
    assert done.words[0] == (
        f"{path}: no such file or directory; the pipeline is taken from the journal of run {four.run}"
    )
    assert (done.code, len(whole(four))) == (0, 3)


def test_a_run_goes_on_from_another_directory(four: Place) -> None:
    four.write("in.txt", lines(2) + "hang\n")
    killed(four, "four.yaml", "in.txt", "-o", "out.jsonl", admitted=3)
    done = penstock("resume", four.run, cwd=four.store, **{RUNS: str(four.store)})
    assert (done.code, len(whole(four))) == (0, 3)


def test_a_piped_input_is_finished_as_far_as_it_was_read_and_can_be_piped_again(four: Place) -> None:
    killed_at_its_pipe(four, "four.yaml", "-o", "out.jsonl")
    done = four.penstock("resume")
    assert (done.code, prompts(four)) == (3, ["line 1", "line 2", "hang"])
    assert done.words[-1] == f"go on with: … | penstock resume {four.run} -"
    piped = four.penstock("resume", four.run, "-", stdin=(lines(2) + "hang\nmore\n").encode())
    assert (piped.code, prompts(four)) == (0, ["line 1", "line 2", "hang", "more"])
    assert four.listed()[0]["state"] == "finished"
    again = four.penstock("resume", "-", stdin=b"")
    assert (again.code, again.words[0].startswith("nothing to do")) == (0, True)


def test_the_same_command_begins_a_run_or_goes_on_with_it(four: Place) -> None:
    four.write("in.txt", lines(2) + "hang\n")
    command = ("run", "four.yaml", "in.txt", "-o", "out.jsonl", "--run-dir", "mine", "--resume")
    four.write("hold", "")
    with four.running(*command) as running:
        running.until(" 3 admitted, 1 open")
        running.process.kill()
        running.wait()
    (four.here / "hold").unlink()
    for text, count in (("", 3), ("", 3), ("more\n", 4)):
        four.write("in.txt", lines(2) + "hang\n" + text)
        assert (four.penstock(*command).code, len(whole(four))) == (0, count)


def test_a_second_runner_ends_with_75_at_once_and_touches_nothing(four: Place) -> None:
    four.write("hold", "")
    with four.running("run", "four.yaml", "--run-dir", "mine", "-o", "out.jsonl") as running:
        running.feed("hang\n")
        running.until(" 1 admitted, 1 open")
        running.until("stage   gate: 1 in")
        before = at_rest(four.here)
        for command in (
            ("verify", "./mine"),
            ("resume", "./mine"),
            ("run", "four.yaml", "--run-dir", "mine", "--resume", "-o", "out.jsonl"),
            ("run", "four.yaml", "--run-dir", "mine", "-o", "out.jsonl"),
            ("runs", "rm", "./mine"),
        ):
            began = time.monotonic()
            second = four.penstock(*command, stdin=b"x\n")
            assert (second.code, second.out, len(second.words)) == (75, b"", 1)
            assert "runs with" in second.err
            assert time.monotonic() - began < 10  # 1 s of its own; the rest is the start of an interpreter elsewhere
        assert hashes(four.here) == before


def at_rest(directory: Path) -> dict[str, str]:
    """What is in a directory, once nobody has written there for a while."""
    before: dict[str, str] = {}
    while (found := hashes(directory)) != before:
        before = found
        time.sleep(1.5)  # what is appended is synced, and that noted, a second later at most
    return before


def hashes(directory: Path) -> dict[str, str]:
    return {
        str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_a_deadline_ends_the_run_with_3_and_it_can_be_gone_on_with(four: Place) -> None:
    four.write("in.txt", "hang\n" + lines(2))
    four.write("hold", "")
    done = four.penstock("run", "four.yaml", "in.txt", "-o", "out.jsonl", "--deadline", "1s", "--grace", "0s")
    assert (done.code, done.words[-1]) == (3, f"go on with: penstock resume {four.run}")
    assert any("the deadline of 1 s is over (--deadline)" in line for line in done.words)
    assert four.listed()[0]["state"] == "stopped"


def test_the_status_for_programs_is_the_last_line(four: Place) -> None:
    four.write("in.txt", lines(2))
    done = four.penstock("run", "four.yaml", "in.txt", "-o", "out.jsonl", "--json-status", "-q")
    assert done.words == [
        f'{{"run":"{four.run}","state":"finished","code":0,"counts":{{"ok":2}},"cost":{{"usd":0.0}},"resume":null}}'
    ]
    stopped = four.penstock(
        "run", "four.yaml", "--json-status", "-q", "--max-failures", "0", "--max-in-flight", "4", stdin=b"refuse\n" * 99
    )
    status = json.loads(stopped.words[-1])
    assert (status["state"], status["code"]) == ("unfinished", 3)
    assert status["resume"] == f"… | penstock resume {status['run']} -"
    assert stopped.words[-2] == f"go on with: {status['resume']}"


def test_an_interrupted_run_says_last_how_one_goes_on(four: Place) -> None:
    four.write("in.txt", lines(2) + "hang\n")
    four.write("hold", "")
    with four.running("run", "four.yaml", "in.txt", "-o", "out.jsonl", "--grace", "0s") as running:
        running.until(" 3 admitted, 1 open")
        running.signal(signal.SIGINT)
        assert running.wait() == 130
        assert running.words[-1] == f"go on with: penstock resume {four.run}"
    (four.here / "hold").unlink()
    assert (four.penstock("resume").code, len(whole(four))) == (0, 3)


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("zzzz",), 2, "there is no run 'zzzz' in"),
        (("./nowhere",), 2, "there is no run in ./nowhere: it has no journal.db"),
        (("x", "y"), 2, "after the run only - can come, which is stdin; got 'y'"),
        (("--only", "failed", "--from", "one"), 2, "--only failed and --from exclude each other"),
    ],
)
def test_what_cannot_be_gone_on_with_is_refused(args: tuple[str, ...], code: int, said: str, place: Place) -> None:
    done = place.penstock("resume", *args)
    assert (done.code, said in done.err) == (code, True)
