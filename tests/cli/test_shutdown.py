"""Signals to a run that is kept, in every phase of it: what is in flight, what is asked afterwards, how it ends, and
that a resume finishes it with one line for each record.

A table of signals, phases, numbers of signals, and a pipe or a terminal. CI runs a quarter of it; all of it:

    PENSTOCK_SIGNALS=all pytest tests/cli/test_shutdown.py

What is pinned by time is what is promised in time: 100 ms for the last call, 2 s for the end after a second signal.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.cli.command import COMMAND, PATIENCE, Running, penstock
from tests.cli.terminal import InTerminal
from tests.servers.held import HeldServer, held_server

PIPELINE = """\
version: 1
models:
  held: {{use: vllm/any, base_url: "{url}", attempts: 3}}
stages:
  - agent: first
    prompt: "{{{{ prompt }}}}"
    concurrency: 2
  - agent: second
    prompt: "again {{{{ first }}}}"
    concurrency: 2
"""

RECORDS = 5
SOON, LATEST = 0.1, 2.0  #: seconds: for the last call after the first signal, for the end after the second
PHASES = ["start-up", "reading", "calling", "retry sleep", "committing", "draining"]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
ENDS = ["pipe", "terminal"]

#: the command as it is, and on a slow disk
SLOW = (sys.executable, "-m", "tests.cli.slow_disk")


class Case(NamedTuple):
    """One row of the table."""

    signal: signal.Signals
    phase: str
    count: int  #: signals in that phase
    ends: str

    def __str__(self) -> str:
        return f"{self.count} {self.signal.name} {self.phase} {self.ends}"

    @property
    def total(self) -> int:
        """Signals in all: what drains was told to."""
        return self.count + (self.phase == "draining")

    @property
    def code(self) -> int:
        """What the first signal asks for."""
        return 130 if self.signal == signal.SIGINT and self.phase != "draining" else 143

    @property
    def codes(self) -> set[int]:
        """Those that it may end with. Once the interpreter is on its way out, a signal ends the process by itself."""
        late = self.total > 2 or (self.phase == "start-up" and self.total > 1)
        return {self.code, -self.signal} if late else {self.code}


def chosen() -> Iterator[Case]:
    """All cases, or of each phase and number every third combination of the others, so that each comes up."""
    for s, number in enumerate(SIGNALS):
        for p, phase in enumerate(PHASES):
            for count in (1, 2, 3):
                for e, ends in enumerate(ENDS):
                    if os.environ.get("PENSTOCK_SIGNALS") == "all" or (s + p + count + e) % 4 == 0:
                        yield Case(number, phase, count, ends)


@pytest.fixture(scope="module")
def server() -> Iterator[HeldServer]:
    with held_server() as held:
        yield held


@pytest.mark.parametrize("case", list(chosen()), ids=str)
def test_a_signal_ends_a_run_in_good_order(
    case: Case, server: HeldServer, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    server.reset()
    scene = Scene(case, server, tmp_path)
    with ExitStack() as stack:
        running = stack.enter_context(scene.running())
        stack.callback(scene.close)
        scene.come_to_the_phase(running)
        told = scene.tell(running)
        code = running.wait()
        ended = time.monotonic()
        assert code in case.codes, "\n".join(running.words)
        scene.check_words(running)
    late = server.latest() - told[0]
    assert late < SOON, f"the server was asked {late * 1000:.0f} ms after the first signal"
    record_property("last call, seconds after the first signal", round(late, 4))
    if case.total > 1:
        assert ended - told[1] < LATEST
        record_property("end, seconds after the second signal", round(ended - told[1], 3))
    scene.check_journal()
    scene.finish()


class Scene:
    """Everything around one case."""

    def __init__(self, case: Case, server: HeldServer, here: Path) -> None:
        self.case = case
        self.server = server
        self.here = here
        self.fifo: int | None = None
        self.begun = case.phase != "start-up"  #: there is a run to go on with
        self.text = "".join(f"record {number}\n" for number in range(RECORDS))
        (here / "records.txt").write_text(self.text)
        (here / "p.yaml").write_text(PIPELINE.format(url=server.base_url))

    @property
    def piped(self) -> bool:
        return self.case.phase == "reading"

    def running(self) -> Running:
        make = InTerminal if self.case.ends == "terminal" else Running
        pipeline = "p.yaml"
        if self.case.phase == "start-up":
            pipeline = "pipeline.fifo"
            os.mkfifo(self.here / pipeline)
        words = ("run", pipeline, *([] if self.piped else ["records.txt"]), "-o", "out.jsonl", "--run-dir", "kept")
        committing = self.case.phase == "committing"
        self.server.refusing = self.case.phase == "retry sleep"
        self.server.holding = self.case.phase in ("calling", "draining")
        more = {"SLOW_DISK": str(self.here / "begun"), "PYTHONPATH": os.getcwd()} if committing else {}
        return make(*words, cwd=self.here, command=SLOW if committing else COMMAND, **more)

    def close(self) -> None:
        if self.fifo is not None:
            os.close(self.fifo)

    # -- to the phase, and on ----------------------------------------------------------------------------------

    def come_to_the_phase(self, running: Running) -> None:
        match self.case.phase:
            case "start-up":
                until(lambda: self._write_to(self.here / "pipeline.fifo"), running)
                until(lambda: _state(running.process.pid).startswith("S"), running)
            case "reading":
                running.feed("record 0\nrecord 1\n")
                until(lambda: len(self.server.answered) == 4, running)
                running.until("2 admitted, 0 open")
            case "retry sleep":
                until(lambda: len(self.server.asked) == RECORDS, running)  # each gives its slot to the next one
                running.until("its next attempt")
            case "committing":
                until((self.here / "begun").exists, running)
            case _:
                until(lambda: len(self.server.asked) == 2, running)
                if self.case.phase == "draining":
                    running.signal(signal.SIGTERM)
                    running.hear("stopping: no new calls")

    def _write_to(self, fifo: Path) -> bool:
        """Begin to write, as soon as somebody reads; he waits for what never comes."""
        try:
            self.fifo = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return False
        return True

    def tell(self, running: Running) -> list[float]:
        """Send the signals, and return when each was sent. The answers in flight come after the first, if it is the
        only one."""
        told = [time.monotonic()] if self.case.phase == "draining" else []
        for _ in range(self.case.count):
            if running.process.poll() is not None:  # it has ended before
                break
            told.append(time.monotonic())
            running.signal(self.case.signal)
            until(lambda: running.process.poll() is not None or not _pending(running.process.pid), running)
        told += [time.monotonic()] * (self.case.total - len(told))
        if self.case.total == 1 and self.case.phase == "calling":
            assert "2 calls in flight finish" in running.hear("stopping: no new calls")
            self.server.holding = False
        return told

    def check_words(self, running: Running) -> None:
        """Each signal says what the next one does, as far as there is time; the last line says how one goes on."""
        if not self.begun:
            return
        words = running.words
        if self.case.total < 3:
            said = running.hear("stopping: no new calls")
            if self.case.phase != "retry sleep":  # where the last refusal may still be on its way
                holds = self.case.phase in ("calling", "draining")
                assert ("(once more: cancel them)" if holds else "none is in flight") in said
        if self.case.total == 2 and self.case.phase in ("calling", "draining"):
            running.hear("cancelling what is in flight (once more: exit at once)")
        assert not any("Traceback" in line for line in words)
        command = "penstock resume"
        assert command in words[-1], words
        assert words[-1].startswith("go on with: ")

    # -- afterwards --------------------------------------------------------------------------------------------

    @property
    def journal(self) -> Path:
        return self.here / "kept" / "journal.db"

    def check_journal(self) -> None:
        """It is whole, whatever has ended the process."""
        assert self.begun or not self.journal.exists()
        if self.begun:
            with closing(sqlite3.connect(self.journal)) as file:
                assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    def finish(self) -> None:
        """Go on until the end: one line for each record, no finished call made again."""
        self.server.holding = self.server.refusing = False
        done = Counter(self.server.answered)
        before = len(self.server.asked)
        if self.begun:
            words = ("resume", "kept", *(["-"] if self.piped else []))
            ended = penstock(*words, cwd=self.here, stdin=self.text.encode() if self.piped else b"")
        else:
            ended = penstock("run", "p.yaml", "records.txt", "-o", "out.jsonl", "--run-dir", "kept", cwd=self.here)
        assert ended.code == 0, ended.err
        lines = [json.loads(line) for line in (self.here / "out.jsonl").read_bytes().splitlines()]
        prompts = [line["input"]["prompt"] for line in lines]
        assert sorted(prompts) == [f"record {number}" for number in range(RECORDS)]
        assert {line["status"] for line in lines} == {"ok"}
        if self.case.total == 1:  # it has finished what was in flight, so that nothing of it is paid for twice
            assert not done.keys() & {prompt for _, prompt in self.server.asked[before:]}


# -- what ends a run beside signals -------------------------------------------------------------------------------


def kept_run(server: HeldServer, here: Path, *more: str) -> list[str]:
    (here / "records.txt").write_text("".join(f"record {number}\n" for number in range(RECORDS)))
    (here / "p.yaml").write_text(PIPELINE.format(url=server.base_url))
    return ["run", "p.yaml", "records.txt", "--run-dir", "kept", *more]


def test_a_reader_that_leaves_lets_the_calls_in_flight_end_and_loses_nothing(
    server: HeldServer, tmp_path: Path
) -> None:
    server.reset()
    server.holding = True
    with Running(*kept_run(server, tmp_path), cwd=tmp_path) as running:
        until(lambda: len(server.asked) == 2, running)
        left = time.monotonic()
        running.close_output()
        said = running.hear("the reader of the output has left")
        server.holding = False
        code = running.wait()
    assert said.endswith("2 calls in flight finish within 25 s (Ctrl-C: cancel them)")
    assert (code, len(server.asked), len(server.answered)) == (141, 2, 2)
    assert server.latest() - left < SOON
    assert running.words[-1].startswith("go on with: penstock resume")
    done = set(server.answered)
    ended = penstock("resume", "kept", cwd=tmp_path)
    assert ended.code == 0
    records = [json.loads(line)["input"]["prompt"] for line in ended.out.splitlines()]
    assert sorted(records) == [f"record {number}" for number in range(RECORDS)]
    assert not done & {prompt for _, prompt in server.asked[2:]}


def test_a_terminal_that_goes_away_terminates_a_run_which_can_be_gone_on_with(
    server: HeldServer, tmp_path: Path
) -> None:
    server.reset()
    server.holding = True
    with InTerminal(*kept_run(server, tmp_path, "-o", "out.jsonl"), cwd=tmp_path) as running:
        until(lambda: len(server.asked) == 2, running)
        running.hear("at most")
        running.hang_up()
        time.sleep(SOON)  # what is promised is that nothing comes after this
        asked = len(server.asked)
        server.holding = False
        assert (running.process.wait(PATIENCE), len(server.asked)) == (143, asked)
    assert penstock("resume", "kept", cwd=tmp_path).code == 0
    assert len((tmp_path / "out.jsonl").read_bytes().splitlines()) == RECORDS


def test_a_second_runner_ends_with_75_and_touches_nothing(server: HeldServer, tmp_path: Path) -> None:
    server.reset()
    server.holding = True
    first = kept_run(server, tmp_path, "-o", "out.jsonl")
    with Running(*first, cwd=tmp_path) as running:
        until(lambda: len(server.asked) == 2, running)
        before = quiet(tmp_path)
        for words in (("resume", "kept"), (*first, "--resume")):
            second = penstock(*words, cwd=tmp_path)
            assert (second.code, second.out) == (75, b""), second.err
            assert contents(tmp_path) == before
        server.holding = False
        assert running.wait() == 0
    assert len(server.asked) == 2 * RECORDS


def quiet(place: Path) -> dict[str, bytes]:
    """What is there once nothing more is written: the group that is being gathered is on the disk by then."""
    before: dict[str, bytes] = {}
    while (now := contents(place)) != before:
        before = now
        time.sleep(0.2)
    return now


def contents(place: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()}


def test_code_that_keeps_the_loop_ends_a_while_after_the_second_signal_and_is_shown(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text(
        "import time\n"
        "from pathlib import Path\n"
        "async def keeps(text):\n"
        "    Path('begun').touch()\n"
        "    time.sleep(3600)\n"
    )
    (tmp_path / "p.yaml").write_text('version: 1\nstages: [{map: stay, call: "tools:keeps"}]\n')
    (tmp_path / "records.txt").write_text("x\n")
    flags = ("--run-dir", "kept", "--allow-import", "./tools")
    with Running("run", "p.yaml", "records.txt", *flags, cwd=tmp_path) as running:
        until((tmp_path / "begun").exists, running)
        running.signal(signal.SIGTERM)
        until(lambda: not _pending(running.process.pid), running)
        running.signal(signal.SIGTERM)
        assert running.wait() == 143
    assert any("in keeps" in line for line in running.words)
    running.hear("not ended 5 s after it was told to; above is what each thread was doing")
    assert running.words[-1].startswith("go on with: penstock resume")


def test_a_busy_server_gets_no_call_later_than_promised(tmp_path: Path, record_property: pytest.RecordProperty) -> None:
    """The simulator is a process of its own; what it counts after 100 ms is what it has counted at the end."""
    (tmp_path / "records.txt").write_text("".join(f"record {number}\n" for number in range(3000)))
    with Running("sim", "--port", "0", "--quiet", "--latency", "50ms") as sim:
        assert sim.process.stdout is not None
        url = sim.process.stdout.readline().decode().strip()
        (tmp_path / "p.yaml").write_text(PIPELINE.format(url=url))
        with Running("run", "p.yaml", "records.txt", "-j", "32", "--run-dir", "kept", "-o", "o", cwd=tmp_path) as run:
            until(lambda: counted(url)["started"] > 100, run)
            run.signal(signal.SIGINT)
            sent = time.monotonic()
            time.sleep(SOON)
            then = counted(url)["started"]
            late = time.monotonic() - sent
            assert run.wait() == 130
        record_property("seconds after which it was counted", round(late, 4))
        assert counted(url)["started"] == then


def counted(url: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/ledger") as answer:
        return json.load(answer)


# -- conditions ---------------------------------------------------------------------------------------------------


def until(condition: Callable[[], bool], running: Running) -> None:
    """Wait until something holds that nobody tells of."""
    end = time.monotonic() + PATIENCE
    while not condition():
        over = running.process.poll() is not None or time.monotonic() > end
        assert not over, "\n".join(running.words)
        time.sleep(0.002)


def _pending(process: int) -> bool:
    """Whether a signal was sent and nobody has taken it yet: a second one of its kind would be the same one."""
    return any(int(_status(process, name) or "0", 16) for name in ("SigPnd", "ShdPnd"))


def _state(process: int) -> str:
    return _status(process, "State")


def _status(process: int, name: str) -> str:
    """What the system says of a process; nothing when it is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:")), "")
