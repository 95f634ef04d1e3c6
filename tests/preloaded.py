"""A program in a process of its own that has its modules already, since most of a short run is to import them.

A process that has imported everything forks for each program, and the fork goes on as `python -m` would. So what runs
is the program itself, as the command is, with descriptors, directory, environment and exit code of its own; only its
start is not shown. What concerns the start, the terminal or signals is tested with new processes.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from runpy import run_module
from typing import Final

#: imported before the first program comes, because nearly all need them
MODULES: Final = (
    *("pipeline.cli.app", "pipeline.cli.run", "pipeline.cli.execution", "pipeline.cli.resuming"),
    *("openai", "jinja2", "stages.models.simulated", "anyio._backends._asyncio", "anyio._backends._trio"),
)

#: how variables begin that a process reads only when it starts, or a library when it is imported
AT_START: Final = ("PYTHON", "LC_", "LANG", "OPENAI_LOG", "TERM", "COLUMNS", "FORCE_COLOR", "NO_COLOR", "HTTP", "SSL")

ROOT: Final = Path(__file__).parents[1]

_NUMBER: Final = 8  #: bytes of one on the wire


@cache
def preloaded() -> Preloaded:
    """The one of this process."""
    return Preloaded()


class Preloaded:
    """The process that forks; it ends with the one that made it. Many programs may run at a time."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.preloaded", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                cwd=ROOT,
                env={name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"},
            )

    def run(
        self, module: str, words: Sequence[str], stdin: bytes, cwd: Path, env: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes, bytes]:
        """Run `python -m module words…` to its end; its exit code, negative for the signal that killed it, and what
        came on stdout and stderr, which are pipes. Raises `subprocess.TimeoutExpired`, with the program killed."""
        with ExitStack() as stack, ThreadPoolExecutor(3) as pool:
            line, theirs = socket.socketpair()
            stack.enter_context(line)
            (given, feed), (heard, out), (words_heard, err) = (os.pipe() for _ in range(3))
            socket.send_fds(self._control, [b"."], [theirs.fileno(), given, out, err])
            theirs.close()
            for number in (given, out, err):
                os.close(number)
            pool.submit(_feed, feed, stdin)
            said = [pool.submit(_drain, number) for number in (heard, words_heard)]
            line.sendall(json.dumps([module, list(words), str(cwd), dict(env)]).encode())
            line.shutdown(socket.SHUT_WR)
            line.settimeout(timeout)
            pid = _number(line)
            try:
                code = _number(line)
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise subprocess.TimeoutExpired(list(words), timeout) from None
            return code, said[0].result(), said[1].result()


def _feed(number: int, data: bytes) -> None:
    with suppress(BrokenPipeError), open(number, "wb") as pipe:
        pipe.write(data)


def _drain(number: int) -> bytes:
    with open(number, "rb") as pipe:
        return pipe.read()


def _number(line: socket.socket) -> int:
    said = line.recv(_NUMBER, socket.MSG_WAITALL)
    if len(said) < _NUMBER:
        raise EOFError("the process with the modules has ended")
    return int.from_bytes(said, "big", signed=True)


def _serve(control: socket.socket) -> tuple[str, list[str]]:
    """Fork for each program that comes. Returns in the fork, as the program, with its module and words."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait for programs
    while True:
        said, given, _, _ = socket.recv_fds(control, 1, 4)
        if not said:
            os._exit(0)
        line, *streams = given
        if os.fork():
            for number in given:
                os.close(number)
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        control.close()
        return _program(socket.socket(fileno=line), streams)


def _program(line: socket.socket, streams: Sequence[int]) -> tuple[str, list[str]]:
    """Fork once more: one says who the other is, waits for it and says how it ended."""
    with closing(line), line.makefile("rb") as asked:
        module, words, cwd, env = json.load(asked)
        pid = os.fork()
        if pid:
            for number in (0, 1, *streams):
                os.close(number)
            with suppress(BrokenPipeError):  # it took too long for whoever asked
                line.sendall(pid.to_bytes(_NUMBER, "big"))
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                line.sendall(code.to_bytes(_NUMBER, "big", signed=True))
            os._exit(0)
    for number, given in enumerate(streams):
        os.dup2(given, number)
        os.close(given)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    return module, words


def _main() -> None:
    for module in MODULES:
        import_module(module)
    gc.freeze()
    module, sys.argv[1:] = _serve(socket.socket(fileno=int(sys.argv[1])))
    run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
