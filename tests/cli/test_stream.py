"""`penstock run --stream`: the answer as it comes."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.cli.command import Ended, Running, penstock
from tests.cli.test_signals import on_terminal

DEFAULT = ("-m", "sim/default")

#: whose first attempt at the prompt `why` breaks off in the middle of its answer, and whose second one does not
BREAKING = """\
version: 1
models: {fake: {use: sim/default, seed: 4, errors: {disconnect_mid: "50%"}}}
stages: [{agent: say}]
"""

#: which stops in the middle of every answer
STALLING = 'version: 1\nmodels: {fake: {use: sim/default, errors: {stall: "100%"}}}\nstages: [{agent: say}]\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "p.yaml"


def answer_of(done: Ended) -> str:
    (record,) = done.records
    return str(record["output"])


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_with_raw_the_answer_as_it_comes_is_the_output_and_comes_once(backend: str) -> None:
    whole = penstock("run", *DEFAULT, "-r", stdin=b"why\n")
    done = penstock("run", *DEFAULT, "-r", "--stream", "--backend", backend, stdin=b"why\n")
    assert (done.code, done.out) == (0, whole.out)
    assert len(done.words) == 2


def test_without_raw_it_is_shown_on_stderr_and_stdout_has_the_record() -> None:
    whole = penstock("run", *DEFAULT, stdin=b"why\n")
    done = penstock("run", *DEFAULT, "--stream", stdin=b"why\n")
    assert (done.code, done.out) == (0, whole.out)
    assert done.words[1] == answer_of(whole)
    assert len(done.words) == 3


def test_a_file_gets_the_text_and_stderr_shows_it_as_it_comes(tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    done = penstock("run", "-q", *DEFAULT, "-r", "--stream", "-o", out, stdin=b"why\n")
    assert (done.code, done.out) == (0, b"")
    assert done.err == out.read_text() != ""


def test_it_comes_while_the_model_still_writes(file: Path) -> None:
    file.write_text(STALLING)
    with Running("run", file, "-r", "--stream") as running:
        running.feed("why\n")
        running.end_input()
        assert running.process.stdout is not None
        assert running.process.stdout.read(10) == b"[simulated"
        assert running.process.poll() is None
        running.signal(signal.SIGINT)
        running.hear("once more")
        running.signal(signal.SIGINT)
        assert running.wait() == 130


def test_a_reader_who_leaves_ends_it(file: Path) -> None:
    file.write_text(STALLING)
    with Running("run", file, "-r", "--stream") as running:
        running.feed("why\n")
        running.end_input()
        assert running.process.stdout is not None
        assert running.process.stdout.read(1) == b"["
        running.close_output()
        assert running.wait() == 141


def test_an_attempt_that_begins_anew_is_told(file: Path) -> None:
    file.write_text(BREAKING)
    note = "note: what came so far is not the answer; attempt 2 follows"
    done = penstock("run", file, "-r", "--stream", stdin=b"why\n")
    broken, answer = done.out.decode().splitlines()
    assert done.code == 0
    assert broken.startswith("[simulated")
    assert done.words[1] == note
    shown = penstock("run", file, "--stream", stdin=b"why\n")
    assert shown.words[1:4] == [broken, note, answer]
    assert answer_of(shown) == answer


def test_an_item_that_fails_leaves_what_came_of_its_answer_and_says_why(file: Path) -> None:
    file.write_text(STALLING)
    done = penstock("run", file, "-r", "--stream", "--item-timeout", "500ms", stdin=b"why\n")
    assert done.code == 4
    assert done.out.startswith(b"[simulated")
    assert done.out.endswith(b"\n")
    (failed,) = (line for line in done.words if line.startswith("failed: "))
    assert failed.startswith("failed: 1 item_timeout (say) → ")


def test_a_structured_answer_is_one_line_of_json() -> None:
    done = penstock("run", *DEFAULT, "--schema", "age int", "-r", "--stream", stdin=b"why\n")
    (line,) = done.out.splitlines()
    assert list(json.loads(line)) == ["age"]


def test_a_server_that_does_not_stream_still_gives_its_answer(file: Path) -> None:
    file.write_text(STALLING.replace("stall", "plain_stream"))
    whole = penstock("run", file, "-r", stdin=b"why\n")
    assert penstock("run", file, "-r", "--stream", stdin=b"why\n").out == whole.out


def test_of_several_agents_the_last_is_shown(file: Path) -> None:
    file.write_text(
        "version: 1\nmodels: {fake: {use: sim/echo}}\n"
        'stages: [{agent: draft, prompt: "draft {{ prompt }}"}, {agent: final, prompt: "final {{ draft }}"}]\n'
    )
    done = penstock("run", file, "--stream", stdin=b"why\n")
    assert done.words[1:-1] == ["final draft why"]
    assert penstock("run", file, "-r", "--stream", stdin=b"why\n").out == b"final draft why\n"


def test_the_first_of_several_records_can_be_taken() -> None:
    done = penstock("run", "-m", "sim/echo", "-r", "--stream", "-n", "1", stdin=b"one\ntwo\n")
    assert (done.code, done.out) == (0, b"one\n")


def test_no_record_is_no_answer() -> None:
    done = penstock("run", "-m", "sim/echo", "-r", "--stream")
    assert (done.code, done.out) == (0, b"")
    assert "warning: no records in stdin" in done.words


MAP_LAST = (
    "version: 1\nmodels: {fake: {use: sim/echo}}\nstages: [{agent: say}, {map: loud, value: '{{ say | upper }}'}]\n"
)
SILENT = "version: 1\nmodels: {fake: {use: sim/echo}}\nstages: [{agent: say, stream: false}]\n"


@pytest.mark.parametrize(
    ("text", "flags", "stdin", "said"),
    [
        (
            SILENT,
            ("--stream",),
            b"one\ntwo\n",
            "--stream shows the answer of an agent as it comes, and no agent here streams; leave it out",
        ),
        (
            SILENT.replace(", stream: false", ""),
            ("--stream",),
            b"one\ntwo\n",
            "--stream is for one prompt, and the input has more; give one, or take the first: -n 1",
        ),
        (
            MAP_LAST,
            ("--stream", "-r"),
            b"one\n",
            (
                "--stream with -r writes the answer of the last stage as it comes, and 'loud' is no agent that "
                "streams; without -r the answer of 'say' is shown on stderr"
            ),
        ),
        (
            MAP_LAST,
            ("--stream", "--raw-field", "say"),
            b"one\n",
            "--raw-field is taken from the record when it is whole; with --stream give -r, or neither",
        ),
    ],
)
def test_what_cannot_be_streamed_is_refused_before_any_call(
    file: Path, text: str, flags: tuple[str, ...], stdin: bytes, said: str
) -> None:
    file.write_text(text)
    done = penstock("run", file, *flags, stdin=stdin)
    assert (done.code, done.out) == (2, b"")
    assert done.words[0] == f"error: {said}"


def test_an_answer_before_the_last_stage_is_shown_without_raw(file: Path) -> None:
    file.write_text(MAP_LAST)
    done = penstock("run", file, "--stream", stdin=b"one\n")
    assert (done.words[1], answer_of(done)) == ("one", "ONE")


def test_what_a_terminal_would_obey_is_shown_to_it() -> None:
    evil = b'{"prompt": "\\u001b]0;owned\\u0007\\u009b2J \\u202eabc"}\n'
    shown = b"\\u001b]0;owned\\u0007\\u009b2J \\u202eabc"
    echo = ("run", "-q", "-m", "sim/echo", "--stream")
    assert shown + b"\r\n" == on_terminal(*echo, stdin=evil, stream="stderr")
    assert shown + b"\r\n" == on_terminal(*echo, "-r", stdin=evil, stream="stdout")
    assert penstock(*echo, "-r", stdin=evil).out == "\x1b]0;owned\x07\x9b2J \u202eabc\n".encode()


def test_the_answer_after_the_tools_of_a_file_is_shown(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text('def add(a: int, b: int) -> str:\n    "The sum."\n    return f"sum {a + b}"\n')
    file = tmp_path / "p.yaml"
    file.write_text('version: 1\nstages: [{agent: lead, model: sim/default, tools: ["mine:add"], max_hops: 2}]\n')
    refused = penstock("run", file, "--stream", stdin=b"why\n", cwd=tmp_path)
    assert (refused.code, refused.out) == (78, b"")
    assert "allow it with --allow-import ./mine" in refused.err
    done = penstock("run", file, "--stream", "--allow-import", "./mine", stdin=b"why\n", cwd=tmp_path)
    assert "The tools said: sum " in answer_of(done)
    assert done.words[1] == answer_of(done)
