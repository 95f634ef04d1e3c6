"""Runs that are gone on with: what they end with, whether their input is still the same one, and what is said of it."""

from __future__ import annotations

import json
import resource
import signal
import subprocess

import pytest

from tests.cli.command import COMMAND, environment
from tests.cli.kept import Place, killed, killed_at_its_pipe, lines
from tests.cli.test_resume import calls, prompts, whole

OTHER = "stdin: is another input: of what came first, 19 bytes were read, and {}"


@pytest.fixture
def four(place: Place) -> Place:
    place.four()
    return place


@pytest.fixture
def piped(four: Place) -> Place:
    """A run that was killed while it waited for more of its piped input, with one record in the gate."""
    killed_at_its_pipe(four, "four.yaml", "-o", "out.jsonl")
    return four


def test_a_resume_without_the_pipe_ends_with_3_because_the_rest_was_not_read(piped: Place) -> None:
    done = piped.penstock("resume", "--json-status")
    status = json.loads(done.words[-1])
    assert (done.code, status["code"], status["state"]) == (3, 3, "unfinished")
    assert done.words[0] == f"run {piped.run}: 2 done, 1 partly done (2 answers reused), and the unread rest of stdin"
    assert done.words[-2] == f"go on with: … | penstock resume {piped.run} -"
    assert done.words[-3].startswith("stopped: 1 ok")
    assert done.words[-3].endswith("whole run: 3 ok")
    (listed,) = piped.listed()
    assert (listed["state"], listed["code"]) == ("stopped", 3)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("other\n" + lines(2) + "hang\n", "its record 1 was not among them"),
        ("line 1\nlime 2\nhang\nmore\n", "its record 2 was not among them"),
        (lines(1), "its end comes after 7"),
        (lines(2) + "hang", "its end comes after 18"),
        (lines(2) + "hang on\n", "its record 3 was not among them"),
        (lines(2) + "\nhang\n", "they are others now"),
    ],
)
def test_another_text_that_is_piped_in_is_refused_before_any_call(text: str, why: str, piped: Place) -> None:
    before, attempts = (piped.here / "out.jsonl").read_bytes(), piped.attempts()
    refused = piped.penstock("resume", piped.run, "-", stdin=text.encode())
    assert (refused.code, f"error: {OTHER.format(why)}" in refused.words) == (4, True)
    assert "--accept-changes goes on" in refused.err
    assert "accept_changes=True" not in refused.err
    assert ((piped.here / "out.jsonl").read_bytes(), piped.attempts()) == (before, attempts)


def test_another_text_is_taken_by_what_its_records_say_if_that_is_accepted(piped: Place) -> None:
    done = piped.penstock("resume", piped.run, "-", "--accept-changes", stdin=b"new\nline 2\n")
    assert (done.code, calls(piped, 2)) == (0, {"one": 1, "two": 1, "three": 2, "four": 2})
    again = piped.penstock("resume", piped.run, "-", stdin=b"new\nline 2\nlast\n")
    assert (again.code, calls(piped, 3)) == (0, {"one": 1, "two": 1, "three": 1, "four": 1})
    assert piped.penstock("resume", piped.run, "-", stdin=b"now\nline 2\nlast\n").code == 4


def test_the_same_text_goes_on_where_it_was_left_also_with_the_same_command(four: Place) -> None:
    command = ("run", "four.yaml", "-o", "out.jsonl", "--run-dir", "mine", "--resume")
    assert four.penstock(*command, stdin=lines(3).encode()).code == 0
    assert four.penstock(*command, stdin=lines(5).encode()).code == 0
    assert [record["index"] for record in whole(four)] == [0, 1, 2, 3, 4]
    refused = four.penstock(*command, stdin=lines(6, 2).encode())
    assert (refused.code, "stdin: is another input" in refused.err) == (4, True)


def test_a_file_that_has_grown_is_gone_on_with_by_the_id_of_the_run_too(four: Place) -> None:
    four.write("in.txt", lines(2))
    assert four.penstock("run", "four.yaml", "in.txt", "-o", "out.jsonl").code == 0
    assert four.penstock("resume", four.run).words == [f"nothing to do: run {four.run} is finished, 2 records"]
    four.write("in.txt", lines(4))
    grown = four.penstock("resume", four.run)
    assert (grown.code, prompts(four), calls(four, 2)["one"]) == (0, [f"line {n}" for n in range(1, 5)], 2)
    four.write("in.txt", lines(3) + "lime 4\n")
    changed = four.penstock("resume", four.run)
    assert (changed.code, "the input has changed" in changed.err) == (4, True)
    (four.here / "in.txt").unlink()
    assert four.penstock("resume", four.run).words[0].startswith("nothing to do")


def test_a_finished_run_with_failed_records_ends_as_the_whole_of_it_in_both_forms(four: Place) -> None:
    four.write("in.txt", lines(2) + "refuse\n")
    command = ("run", "four.yaml", "in.txt", "-o", "out.jsonl", "--run-dir", "mine", "--resume")
    assert four.penstock(*command).code == 1
    by_command, by_id = four.penstock(*command), four.penstock("resume", "./mine")
    once_more = f"1 failed earlier: penstock resume {four.here / 'mine'} --only failed"
    assert (by_command.code, once_more in by_command.words) == (1, True)
    assert (by_id.code, by_id.words[0].endswith(once_more)) == (1, True)


def test_a_failed_record_that_was_repaired_is_tried_with_what_it_says_now(four: Place) -> None:
    four.write("in.jsonl", '{"id":"a","prompt":"x"}\n{"id":"b","prompt":"refuse"}\n{"id":"c","prompt":"y"}\n')
    assert four.penstock("run", "four.yaml", "in.jsonl", "-o", "out.jsonl").code == 1
    four.write("in.jsonl", '{"id":"a","prompt":"z"}\n{"id":"b","prompt":"good"}\n{"id":"c","prompt":"y"}\n')
    done = four.penstock("resume", four.run, "--only", "failed", "--accept-changes")
    assert (done.code, calls(four, 2)) == (0, {"one": 1, "two": 1, "three": 1, "four": 1})
    assert [
        (record["id"], record["status"], prompt) for record, prompt in zip(whole(four), prompts(four), strict=True)
    ] == [
        ("a", "ok", "x"),
        ("b", "ok", "good"),
        ("c", "ok", "y"),
    ]


def test_what_is_open_is_left_by_only_failed_and_that_is_told_by_the_code(four: Place) -> None:
    four.write("in.txt", lines(1) + "refuse\nhang\n")
    killed(four, "four.yaml", "in.txt", "-o", "out.jsonl", admitted=3)
    assert four.penstock("resume", four.run, "--only", "failed").code == 3
    assert four.penstock("resume", four.run).code == 1


@pytest.mark.parametrize(("grace", "code"), [("10s", 0), ("0s", 3)])
def test_a_deadline_changes_no_code_if_nothing_was_left_to_do(grace: str, code: int, four: Place) -> None:
    four.write("in.txt", "hang\n")
    four.write("gate.yaml", "version: 1\nstages:\n  - map: gate\n    call: gate:gate\n")
    four.write("hold", "")
    with four.running("run", "gate.yaml", "in.txt", "-o", "o.jsonl", "--deadline", "1s", "--grace", grace) as running:
        running.until(" 1 admitted, 1 open")
        if code == 0:
            running.until("it drains")
            (four.here / "hold").unlink()
        assert running.wait() == code


def test_records_that_are_gone_from_the_input_are_not_counted_as_opened_again(four: Place) -> None:
    four.write("in.txt", lines(2) + "hang\n")
    killed(four, "four.yaml", "in.txt", "-o", "out.jsonl", admitted=3)
    four.write("in.txt", lines(2))
    done = four.penstock("resume", "--accept-changes")
    assert (done.code, [line for line in done.words if "opened again" in line]) == (0, [])
    shown = four.penstock("runs", "show", four.run).out.decode()
    assert "begun     2 times, counting those that went on with it" in shown


def test_an_output_of_a_run_with_work_left_is_refused_with_how_one_goes_on(four: Place) -> None:
    four.write("in.txt", lines(1) + "hang\n")
    killed(four, "four.yaml", "in.txt", "-o", "out.jsonl", admitted=2)
    refused = four.penstock("run", "four.yaml", "in.txt", "-o", "out.jsonl")
    said = f"out.jsonl: is the output of run {four.run}, which has work left; go on with it: penstock resume {four.run}"
    assert (refused.code, refused.words[-1]) == (4, said)
    assert four.penstock("resume").code == 0
    assert said not in four.penstock("run", "four.yaml", "in.txt", "-o", "out.jsonl").words


def test_a_directory_that_takes_no_file_is_not_said_to_be_missing(place: Place) -> None:
    refused = place.penstock("run", "-m", "sim/echo", "-o", "/proc/x.jsonl", stdin=b"x\n")
    assert (refused.code, "does not exist" in refused.err) == (4, False)
    assert "/proc/x.jsonl: no such file or directory" in refused.err


def test_a_journal_for_which_there_is_no_room_leaves_nothing_in_the_store(place: Place) -> None:
    def little_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))

    done = subprocess.run(
        [*COMMAND, "run", "-m", "sim/echo"],
        input=b"x\n",
        capture_output=True,
        cwd=place.here,
        env=environment(**place.environment),
        preexec_fn=little_room,
    )
    assert (done.returncode, done.stdout, place.ids) == (74, b"", [])
    assert b"Traceback" not in done.stderr


def test_one_prompt_says_no_more_than_without_a_journal(place: Place) -> None:
    def said(*flags: str) -> list[str]:
        done = place.penstock("run", "-m", "sim/echo", "-p", "{{ prompt }}", "-r", *flags, stdin=b"x\n")
        assert (done.code, done.out) == (0, b"x\n")
        return [line.split(" · ")[0] for line in done.words if "not kept" not in line]

    assert said() == said("--no-store")
