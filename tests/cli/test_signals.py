"""Signals, closed pipes and terminals. Every signal is sent when a condition holds, never after some time."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import COMMAND, PATIENCE, Running, environment, penstock


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_first_interrupt_lets_what_is_in_flight_finish(hanging: Path, backend: str) -> None:
    with Running("run", hanging, "--set", "models.fake.latency=1s", "--backend", backend, "--no-store") as running:
        running.feed("one\n")
        running.admitted(1)
        running.signal()
        said = running.hear("stopping: no new records")
        assert said == "stopping: no new records; 1 in flight finish within 30 s (once more: cancel them)"
        running.feed("two\n")
        assert running.record()["output"] == "one"
        assert (running.rest(), running.wait()) == (b"", 130)
        assert running.words[-1].startswith("stopped: 1 ok · ")


def test_the_first_interrupt_says_how_many_calls_wait_and_for_what(simple: Path) -> None:
    with Running("run", simple, "--rpm", "1", "--no-store") as running:
        running.feed("one\ntwo\nthree\n")
        running.record()
        running.until("limit   quota of sim/echo", "; 2 wait; ")
        running.signal()
        assert running.hear("stopping: no new records") == (
            "stopping: no new records; 2 in flight finish within 30 s, 2 calls still wait for 1 requests/min "
            "(once more: cancel them)"
        )


def test_the_second_interrupt_cancels(hanging: Path) -> None:
    with Running("run", hanging, "--no-store") as running:
        running.feed("hang\n")
        running.admitted(1)
        running.signal()
        running.hear("stopping: no new records")
        running.signal()
        assert running.wait() == 130
        running.hear("cancelling what is in flight (once more: exit at once)")
        assert running.words[-1].startswith("stopped: 1 cancelled · ")


def test_the_third_interrupt_exits_whatever_is_going_on(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text(
        "import anyio\n"
        "async def stubborn(text):\n"
        "    with anyio.CancelScope(shield=True):\n"
        "        await anyio.sleep(3600)\n"
    )
    (tmp_path / "p.yaml").write_text('version: 1\nstages: [{map: stay, call: "tools:stubborn"}]\n')
    with Running("run", "p.yaml", "--allow-import", "./tools", "--no-store", cwd=tmp_path) as running:
        running.feed("x\n")
        running.admitted(1)
        running.signal(signal.SIGTERM)
        running.hear("stopping: no new records")
        running.signal(signal.SIGTERM)
        running.hear("cancelling what is in flight")
        running.signal(signal.SIGTERM)
        assert running.wait() == 143


def test_a_call_that_blocks_does_not_keep_the_command_alive(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text("import time\ndef block(text):\n    time.sleep(3600)\n")
    (tmp_path / "p.yaml").write_text('version: 1\nstages: [{map: stay, call: "tools:block", blocking: true}]\n')
    with Running("run", "p.yaml", "--allow-import", "./tools", "--grace", "0s", cwd=tmp_path) as running:
        running.feed("x\n")
        running.until("1 blocking calls of 'stay' have not returned")
        running.signal(signal.SIGTERM)
        assert running.wait() == 143
        running.hear("not finished within 0 s")
        running.hear("abandoned: 1 blocking call of 'stay'")


def test_an_interrupt_with_nothing_left_to_do_changes_no_code(hanging: Path) -> None:
    with Running("run", hanging, "--set", "models.fake.latency=1s", "--no-store") as running:
        running.feed("one\n")
        running.end_input()
        running.admitted(1)
        running.signal()
        running.hear("stopping: no new records")
        assert running.record()["output"] == "one"
        assert running.wait() == 0


def test_a_status_can_be_asked_for(hanging: Path) -> None:
    with Running("run", hanging) as running:
        running.feed("hang\n")
        running.admitted(1)
        running.hear("window  1/256 credits")
        running.hear("stage   say: ", "slots ")


@pytest.mark.parametrize("second", ["more", "hang"])
def test_a_reader_that_leaves_ends_the_run_and_its_calls(hanging: Path, second: str) -> None:
    with Running("run", hanging, "--set", "models.fake.latency=20ms", "-j", "1", "--no-store") as running:
        running.feed("one\n" + f"{second}\n" * 2000)
        running.record()
        running.close_output()
        assert running.wait() == 141
        assert len(running.words) == 3  # the first one says that nothing is kept
        requests = re.search(r"(\d+) requests?", running.words[-1])
        assert requests is not None
        assert int(requests[1]) < 200


def test_head_ends_a_pipe_quietly(simple: Path) -> None:
    command = " ".join(COMMAND)
    script = f"yes | {command} run {simple} -q | head -1; echo ${{PIPESTATUS[1]}}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, env=environment(), timeout=PATIENCE, stdin=subprocess.DEVNULL
    )
    first, code = done.stdout.decode().splitlines()
    assert '"y!"' in first
    assert (code, done.stderr) == ("141", b"")


def test_a_terminal_as_stdin_is_not_waited_for(simple: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            [*COMMAND, "run", str(simple)], stdin=theirs, capture_output=True, env=environment(), timeout=PATIENCE
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert (done.returncode, done.stdout) == (2, b"")
    said = done.stderr.decode()
    assert said.count("  penstock run ") + said.count("| penstock run ") == 2
    assert said.startswith("error: no input: stdin is a terminal.")


def test_progress_is_one_live_line_on_a_terminal_and_never_a_return_elsewhere(simple: Path) -> None:
    flags = ("run", simple, "--set", "models.fake.latency=1s")
    shown = on_terminal(*flags, stdin=b"one\n", stream="stderr")
    assert b"1 in flight" in shown
    assert b"\x1b[2K" in shown
    plain = on_terminal(*flags, stdin=b"one\n", stream="stderr", NO_COLOR="1")
    assert re.search(rb"\x1b\[[0-9;]*m", plain) is None
    assert "\r" not in penstock(*flags, stdin=b"one\n").err
    assert b"in flight" not in on_terminal(*flags, "--progress", "none", stdin=b"one\n", stream="stderr")


def test_what_a_terminal_would_obey_is_shown_to_it(simple: Path) -> None:
    evil = b'{"prompt": "\\u001b]0;owned\\u0007\\u009b2J \\u202eabc"}\n'
    for flags in (("-r",), ()):
        shown = on_terminal("run", "-q", simple, *flags, stdin=evil, stream="stdout")
        assert b"\\u001b]0;owned\\u0007\\u009b2J \\u202eabc!" in shown
        assert re.search(rb"[\x1b\x07]|\xc2\x9b|\xe2\x80\xae", shown) is None
    assert penstock("run", "-q", "-r", simple, stdin=evil).out == "\x1b]0;owned\x07\x9b2J \u202eabc!\n".encode()


def on_terminal(*args: str | Path, stdin: bytes, stream: str, **env: str) -> bytes:
    """Run the command with a terminal as `stream`, and return what the terminal was sent."""
    ours, theirs = pty.openpty()
    others = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: theirs}
    process = subprocess.Popen(
        [*COMMAND, *map(str, args)], stdin=subprocess.PIPE, env=environment(TERM="xterm", **env), **others
    )
    os.close(theirs)
    assert process.stdin is not None
    process.stdin.write(stdin)
    process.stdin.close()
    shown = b""
    try:
        while select.select([ours], [], [], PATIENCE)[0]:
            try:
                block = os.read(ours, 65536)
            except OSError:  # the last writer has closed it
                break
            if not block:
                break
            shown += block
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return shown


def test_an_interrupt_during_the_first_import_of_ours_ends_quietly(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nwhile True: pass\n")
    done = penstock("run", "-m", "sim/echo", PYTHONPATH=str(tmp_path))
    assert (done.code, done.out, done.err) == (130, b"", "")


def test_the_package_of_the_entry_imports_nothing_before_the_entry_listens() -> None:
    ask = "import sys; before = set(sys.modules); import pipeline; print(sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", ask], capture_output=True, env=environment(), check=True, timeout=PATIENCE
    )
    assert done.stdout == b"['pipeline']\n"
