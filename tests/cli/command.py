"""The installed command as a real process: pipes, signals and a terminal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from tests.preloaded import AT_START, preloaded

#: no test waits longer for anything; what it waits for is always a condition
PATIENCE = 30.0

#: names the place where runs are kept; set for all tests in tests/conftest.py
RUNS = "PENSTOCK_RUNS"

COMMAND = [sys.executable, "-m", "pipeline.cli.main"]

SIMPLE = """\
version: 1
models:
  fake: {use: sim/echo}
stages:
  - agent: say
    prompt: "{{ prompt }}!"
"""

#: prompts with `hang` are never answered
HANGING = """\
version: 1
models:
  fake: {use: sim/echo, hang_when: hang, fail_when: fail}
stages:
  - agent: say
"""


class Ended(NamedTuple):
    """A process that has ended."""

    code: int
    out: bytes
    err: str

    @property
    def records(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def words(self) -> list[str]:
        return self.err.splitlines()


def environment(**more: str) -> dict[str, str]:
    """The environment of a test's process: nothing of ours is set in it but where runs are kept."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_") or name == RUNS}
    return {**kept, "OPENAI_API_KEY": "", "PYTHONSAFEPATH": "1", **more}


def penstock(*args: str | Path, stdin: bytes = b"", cwd: Path | None = None, **env: str) -> Ended:
    """Run the command to its end; in a process that has its modules already, unless its start matters."""
    if any(name.startswith(AT_START) for name in env):
        return started(*args, stdin=stdin, cwd=cwd, **env)
    given = (stdin, cwd or Path.cwd(), environment(**env), PATIENCE)
    code, out, err = preloaded().run(COMMAND[-1], [*map(str, args)], *given)
    return Ended(code, out, err.decode())


def started(*args: str | Path, stdin: bytes = b"", cwd: Path | None = None, **env: str) -> Ended:
    """Run the command to its end in a new process."""
    done = subprocess.run(
        [*COMMAND, *map(str, args)], input=stdin, capture_output=True, cwd=cwd, env=environment(**env), timeout=PATIENCE
    )
    return Ended(done.returncode, done.stdout, done.stderr.decode())


class Running:
    """A process that a test talks with. Its words are read by a thread, so that it never waits for us."""

    def __init__(
        self, *args: str | Path, cwd: Path | None = None, command: Sequence[str] = COMMAND, **env: str
    ) -> None:
        self.process = subprocess.Popen(
            [*command, *map(str, args)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=environment(**env),
        )
        self.words: list[str] = []
        self._news = threading.Condition()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._listener.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            _close(pipe)

    def feed(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def end_input(self) -> None:
        _close(self.process.stdin)

    def close_output(self) -> None:
        _close(self.process.stdout)

    def record(self) -> dict[str, object]:
        """The next record; waits for it."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def rest(self) -> bytes:
        """What else comes on stdout, to its end."""
        assert self.process.stdout is not None
        return self.process.stdout.read()

    def signal(self, number: int = signal.SIGINT) -> None:
        self.process.send_signal(number)

    def hear(self, *texts: str) -> str:
        """Wait for a line on stderr that holds all of `texts`, and return it."""

        def found() -> str | None:
            return next((line for line in self.words if all(text in line for text in texts)), None)

        with self._news:
            self._news.wait_for(lambda: found() is not None, PATIENCE)
            line = found()
        assert line is not None, f"{texts} was not said:\n" + "\n".join(self.words)
        return line

    def admitted(self, count: int) -> None:
        """Ask for the status until `count` roots are admitted, from when the run has begun and listens to signals."""
        self.hear("at most")
        for _ in range(1000):
            heard = len(self.words)
            self.signal(signal.SIGUSR1)
            with self._news:
                self._news.wait_for(lambda heard=heard: any(_roots(self.words[heard:])), PATIENCE)
                if f"roots   {count} admitted" in next(_roots(self.words[heard:]), ""):
                    return
            if self.process.poll() is not None:
                break
        raise AssertionError(f"{count} roots were never admitted:\n" + "\n".join(self.words[-5:]))

    def until(self, *texts: str) -> None:
        """Ask for the status until a line of it holds all of `texts`. Words that were said before count too."""
        self.hear("at most")
        for _ in range(1000):
            heard = len(self.words)
            self.signal(signal.SIGUSR1)
            with self._news:
                self._news.wait_for(lambda heard=heard: any(_roots(self.words[heard:])), PATIENCE)
                if any(all(text in line for text in texts) for line in self.words):
                    return
            if self.process.poll() is not None:
                break
        raise AssertionError(f"{texts} was never in the status:\n" + "\n".join(self.words[-5:]))

    def wait(self) -> int:
        code = self.process.wait(PATIENCE)
        self._listener.join(PATIENCE)
        return code

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.words.append(line.decode().rstrip("\n"))
                self._news.notify_all()


def _roots(words: Iterable[str]) -> Iterator[str]:
    """The first lines of what a status says. On a terminal one may stand behind what progress has shown."""
    return (line for line in words if "roots   " in line)


def _close(pipe: IO[bytes] | None) -> None:
    try:
        if pipe is not None:
            pipe.close()
    except BrokenPipeError:
        pass
