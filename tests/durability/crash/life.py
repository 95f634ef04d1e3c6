"""One life of a run, in a process of its own: it goes on until it is killed, or to its end."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from anyio.lowlevel import checkpoint

from pipeline.core.errors import JournalError, RunStopped, SinkError
from pipeline.durability import journal as journals
from pipeline.durability.disk.reserve import Reserve
from pipeline.durability.journal import Journal
from pipeline.durability.outputs import projection
from tests.durability.crash import ledger
from tests.durability.crash.workloads import Workload
from tests.engine.schedules import run_in

LONGEST = 30  #: seconds of the processor's after which a life hangs
OUTPUT = "output.jsonl"
RUN = "run"

#: Whoever writes has a part of the run's own: "inline" on the loop, so that every run is the same one; "threads", as
#: it is for users.
Mode = str


@dataclass
class Probe:
    """Counts the points that are passed, and kills at the one that is wanted."""

    report: Report
    kill_at: int | None
    passed: int = 0
    recovered: int | None = None  #: points that were passed when the first new row was written
    names: list[str] | None = None

    def __call__(self, point: str) -> None:
        self.passed += 1
        if self.recovered is None and point.startswith("commit"):
            self.recovered = self.passed - 1
        if self.names is not None:
            self.names.append(point)
        if self.passed == self.kill_at:
            self.report.write(struck=point, passed=self.passed, recovering=self.recovered is None)
            os.kill(os.getpid(), signal.SIGKILL)
            signal.pause()  # a thread is not hit before it returns from its system call


class Report:
    """What a life tells of itself, in a file that outlives it."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.printed: int | None = None

    def write(self, **told: Any) -> None:
        os.pwrite(self._fd, json.dumps({"printed": self.printed, **told}).encode(), 0)


def live(
    workload: Workload,
    phase: int,
    place: Path,
    life: int,
    backend: str,
    mode: Mode,
    kill_at: int | None,
    *,
    tell: bool = False,
    watch: Callable[[Probe], Callable[[str], None]] = lambda probe: probe,
) -> None:
    """Run `workload` with the journal in `place`, and report. With `tell`, also which points were passed; `watch` is
    told of them too."""
    signal.setitimer(signal.ITIMER_PROF, LONGEST)  # its signal ends the process
    report = Report(place / f"life-{life}.json")
    probe = Probe(report, kill_at, names=[] if tell else None)
    if workload.eager:
        projection.EVERY = 0.0
    journals.Reserve = partial(Reserve, size=4096)  # so that it costs less time than all the rest
    book = ledger.keep(place / "ledger", life, probe)
    if mode == "inline":
        anyio.to_thread.run_sync = inline  # type: ignore[assignment]
    try:
        run_in(backend, 0, run, workload, phase, place / RUN, watch(probe), book, report)
    except BaseException as error:
        report.write(
            failed=traceback.format_exc(), passed=probe.passed, refused=isinstance(error, JournalError | SinkError)
        )
        return
    modules = [name for name in sys.modules if not name.startswith("_")] if tell else []
    report.write(passed=probe.passed, recovered=probe.recovered, points=probe.names, modules=modules)


async def run(
    workload: Workload, phase: int, place: Path, probe: Callable[[str], None], book: ledger.Ledger, report: Report
) -> None:
    pipeline = workload.phases[phase]
    try:
        async with pipeline.open(workload.input(phase), journal=journal(workload, place, probe)) as running:
            if running.recovered is not None:
                report.printed = running.recovered.attempts_in_flight
            async for record in running.results:
                book.write("delivered", record.id)
                probe("delivered")
    except RunStopped:
        if phase == len(workload.phases) - 1:
            raise
    probe("over")


def journal(workload: Workload, place: Path, probe: Callable[[str], object]) -> Journal:
    """The journal of a workload; it writes the output by itself."""
    return Journal(place, durability=workload.durability, output=place.parent / OUTPUT, probe=probe)


async def inline(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    await checkpoint()
    result = function(*args)
    await checkpoint()
    return result


def fork(body: Callable[..., object], *args: Any, **options: Any) -> int:
    """Run `body` in a child, and return how that ended: 0, or minus the signal. Nothing else may run here."""
    sys.stdout.flush()
    sys.stderr.flush()
    gc.freeze()  # what is there now is shared with the child, and nobody need look at it
    child = os.fork()
    if child == 0:
        try:
            gc.disable()
            body(*args, **options)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
