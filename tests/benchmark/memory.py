"""A million prompts through one process: what is alive, how far ahead the source is read, how much memory it takes.

    python tests/benchmark/memory.py

A generator process writes into the stdin of the run; this process reads the run's stdout in bursts and sleeps in
between, so that everything upstream stands still again and again. The run is `penstock run memory.yaml`, or with
`--library` (and where the command is not installed) the same by the library alone. SIGUSR1 asks it for its statistics.
"""

from __future__ import annotations

import argparse
import fcntl
import mmap
import os
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from memory_source import LINE
from rounds import heading, save, table

HERE = Path(__file__).parent
BLOCK = 64 * 1024  #: bytes that the source may have read and not used
PEAK = re.compile(r"peak ([\d,]+), bound ([\d,]+)")
WINDOW = re.compile(r"window\s+[\d,]+/([\d,]+) credits")


@dataclass
class Found:
    """What one run showed."""

    backend: str
    mode: str
    items: int
    seconds: float = 0.0
    peak: int = 0
    bound: int = 0
    window: int = 0
    ahead: int = 0  #: most prompts that were written and not yet read from the run's output, at the end of a pause
    allowed: int = 0  #: most that there may be
    resident_early: float = 0.0  #: MiB
    resident_half: float = 0.0
    resident_late: float = 0.0
    resident_peak: float = 0.0

    @property
    def growth(self) -> float:
        return self.resident_peak - self.resident_early


class Running:
    """The generator, the run, and the pipes between them and us."""

    def __init__(self, command: Sequence[str], items: int, counter: Path) -> None:
        counter.write_bytes(bytes(8))
        self._file = counter.open("r+b")
        self._count = mmap.mmap(self._file.fileno(), 8)
        self.source = subprocess.Popen(
            [sys.executable, str(HERE / "memory_source.py"), str(items), str(counter)], stdout=subprocess.PIPE
        )
        assert self.source.stdout is not None
        path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))
        self.run = subprocess.Popen(
            command,
            stdin=self.source.stdout,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self.run.stdout is not None
        assert self.run.stderr is not None
        self.output = self.run.stdout.fileno()
        self.pipe_in = fcntl.fcntl(self.source.stdout.fileno(), fcntl.F_GETPIPE_SZ)
        self.pipe_out = fcntl.fcntl(self.output, fcntl.F_GETPIPE_SZ)
        self.source.stdout.close()
        self.said: list[str] = []
        self._changed = threading.Condition()
        self._listener = threading.Thread(target=self._listen, args=(self.run.stderr,), daemon=True)
        self._listener.start()

    def _listen(self, stream: object) -> None:
        for line in stream:  # type: ignore[attr-defined]
            with self._changed:
                self.said.append(line.decode(errors="replace").rstrip())
                self._changed.notify_all()

    def written(self) -> int:
        (count,) = struct.unpack_from("q", self._count, 0)
        return count

    def ask(self) -> tuple[int, int, int]:
        """Peak, bound and window, as the run prints them when it gets SIGUSR1."""
        seen = len(self.said)
        self.run.send_signal(signal.SIGUSR1)

        def told() -> str | None:
            return next((line for line in self.said[seen:] if PEAK.search(line)), None)

        with self._changed:
            if not self._changed.wait_for(lambda: told() is not None, 30):
                raise SystemExit("the run said nothing on SIGUSR1:\n" + "\n".join(self.said[-20:]))
            line = told() or ""
        peak, window = PEAK.search(line), WINDOW.search(line)
        if peak is None or window is None:
            raise SystemExit(f"no window in {line!r}")
        return _number(peak[1]), _number(peak[2]), _number(window[1])

    def memory(self, field: str) -> float:
        """`VmRSS` or `VmHWM` of the run, in MiB."""
        with open(f"/proc/{self.run.pid}/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(field)) / 1024

    def close(self) -> None:
        for process in (self.run, self.source):
            if process.poll() is None:
                process.kill()
            process.wait()
        self._listener.join(5)
        self._count.close()
        self._file.close()


def _number(text: str) -> int:
    return int(text.replace(",", ""))


def measure(found: Found, running: Running, options: argparse.Namespace) -> None:
    """Read the run's output in bursts to its end and note what is to be seen on the way."""
    start, read, shortest = time.monotonic(), 0, sys.maxsize
    early, late = min(10_000, options.items // 2), max(options.items - 2_000, options.items // 2)
    pause_at, tail = options.burst, b""
    while True:
        left = start + options.seconds - time.monotonic()
        if not select.select([running.output], [], [], max(0.0, left))[0]:
            raise SystemExit(f"{found.backend}: only {read:,} records in {options.seconds:.0f} s")
        data = os.read(running.output, 1 << 16)
        if not data:
            break
        lines = (tail + data).split(b"\n")
        tail = lines.pop()
        read += len(lines)
        shortest = min(shortest, *(len(line) + 1 for line in lines)) if lines else shortest
        if read >= pause_at:
            pause_at = read + options.burst
            time.sleep(options.pause)
            found.ahead = max(found.ahead, running.written() - read)
        if not found.resident_early and read >= early:
            found.resident_early = running.memory("VmRSS")
        if not found.resident_half and read >= options.items // 2:
            found.resident_half = running.memory("VmRSS")
        if not found.resident_late and read >= late:
            found.peak, found.bound, found.window = running.ask()
            found.resident_late, found.resident_peak = running.memory("VmRSS"), running.memory("VmHWM")
    found.seconds = time.monotonic() - start
    code = running.run.wait()
    if code or read != options.items:
        raise SystemExit(f"exit code {code}, {read:,} of {options.items:,} records\n" + "\n".join(running.said[-20:]))
    # the window, what the pipe to the run and one block hold, what the pipe to us holds; and the one being written
    found.allowed = found.window + running.pipe_in // LINE + BLOCK // LINE + running.pipe_out // shortest + 1
    if found.ahead > found.allowed:
        raise SystemExit(f"{found.backend}: {found.ahead:,} prompts ahead of the reader, {found.allowed:,} are allowed")
    before, behind = running.pipe_in // LINE, running.pipe_out // shortest
    print(
        f"{found.backend}: at most {found.allowed:,} prompts between generator and reader = {found.window} credits"
        f" + {before:,} lines of {LINE} bytes in the pipe before + {BLOCK // LINE:,} in one block of 64 KiB"
        f" + {behind:,} records of at least {shortest} bytes in the pipe behind + 1; most seen: {found.ahead:,}\n"
    )


def command_for(backend: str, library: bool) -> tuple[str, list[str]]:
    """The run's command, and what to call it in the table."""
    penstock = shutil.which("penstock", path=str(Path(sys.executable).parent)) or shutil.which("penstock")
    if not library and penstock is not None:
        file = str(HERE / "memory.yaml")
        return "command", [penstock, "run", file, "--allow-import", "memory_stages", "--backend", backend]
    return "library", [sys.executable, str(HERE / "memory_run.py"), backend]


def main() -> None:
    options = arguments()
    print(heading(f"{options.items:,} prompts through one process", "python " + " ".join(sys.argv)))
    results: list[Found] = []
    with tempfile.TemporaryDirectory() as directory:
        for backend in ("asyncio", "trio") if options.backend == "both" else (options.backend,):
            mode, command = command_for(backend, options.library)
            found = Found(backend, mode, options.items)
            running = Running(command, options.items, Path(directory) / "count")
            try:
                measure(found, running, options)
            finally:
                running.close()
            results.append(found)
    print(
        table(
            (
                "run",
                "seconds",
                "peak alive",
                "bound",
                "MiB at 10,000",
                "half way",
                "at the end",
                "peak",
                "growth (goal < 20)",
            ),
            [
                (
                    f"{each.mode}, {each.backend}",
                    f"{each.seconds:.0f}",
                    each.peak,
                    each.bound,
                    f"{each.resident_early:.1f}",
                    f"{each.resident_half:.1f}",
                    f"{each.resident_late:.1f}",
                    f"{each.resident_peak:.1f}",
                    f"{each.growth:.1f} MiB",
                )
                for each in results
            ],
        )
    )
    save(options.json, {each.backend: asdict(each) for each in results})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("asyncio", "trio", "both"), default="both")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--burst", type=int, default=10_000, help="records read before each pause")
    parser.add_argument("--pause", type=float, default=0.1, help="seconds of each pause")
    parser.add_argument("--seconds", type=float, default=900, help="give up on a run after this")
    parser.add_argument("--library", action="store_true", help="without the command, though it is installed")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
