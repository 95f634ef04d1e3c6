"""What a journal costs: the same pipeline with one and without, in turns, in one process a backend.

    python tests/benchmark/journal.py

The model answers after a time that differs by half around its mean, so that calls do not march in step, the same in
each run, and costs next to nothing itself; but each call goes through the whole stack of
policies, so what is told apart is the journal alone: CPU of all threads a call, and how long a run takes. Garbage is
collected as seldom as the command does, since the collector looks at what others have made. `--check`
fails when a goal is missed. The journal is on the disk of `--directory`, whose syncs the last line tells.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import anyio
from rounds import heading, save, table

from pipeline.calls.account import Account
from pipeline.calls.call import Reply, Request
from pipeline.calls.journalled import Journalled
from pipeline.calls.stack import Stack
from pipeline.cli.collector import seldom_collected
from pipeline.core.limits import Limits
from pipeline.core.pipeline import Pipeline
from pipeline.core.usage import Cost, Usage
from pipeline.durability.journal import Journal
from stages import agent
from stages.models.openai import OpenAIModel
from stages.models.opening import OpenChat
from stages.models.wires import wire_of
from stages.sinks import JsonlSink

GOAL = 120.0  #: microseconds of CPU a call
NOISE = 1.02  #: a run of 100 calls a second may take so much longer: what two runs without a journal differ by
ANSWER = "The answer is a paragraph of some length, as answers are. " * 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Quick(OpenAIModel):
    """A model of this process that answers after `latency` seconds, give or take half of it."""

    latency: float = 0.0

    @asynccontextmanager
    async def open_within(self, limits: Limits) -> AsyncGenerator[OpenChat]:
        wire, chance = wire_of(self), Random(1)

        async def ask(request: Request) -> Reply:
            await anyio.sleep(self.latency * chance.uniform(0.5, 1.5))
            return Reply(ANSWER, Usage(200, 100, requests=1), Cost(0.0001, "given"), finish_reason="stop")

        stack = Stack(journal=Journalled((self.base_url, self.api), wire.body), account=Account(self.name))
        yield OpenChat(self, stack.around(ask), stack.instead(ask), iter(range(sys.maxsize)))


@dataclass(frozen=True)
class Load:
    """One kind of load: `in_flight` calls that take `latency` seconds on average, and `stages` calls a record."""

    name: str
    latency: float
    in_flight: int
    records: int
    stages: int = 1


LOADS = (
    Load("all it can take", 0.1, 1_000, 10_000),
    Load("all it can take, 3 stages", 0.1, 1_000, 4_000, 3),
    Load("2,000 calls/s", 0.1, 200, 4_000),
    Load("2,000 calls/s, 3 stages", 0.1, 200, 2_000, 3),
    Load("100 calls/s", 0.5, 50, 1_000),
)


def pipeline_of(load: Load) -> Pipeline:
    model = Quick(provider="openai", model="quick", base_url="http://127.0.0.1:9/v1", latency=load.latency)
    stage = None
    for number in range(load.stages):
        step = agent(f"step{number}", model=model, prompt="Say more of this: {{ prompt }}", concurrency=load.in_flight)
        stage = step if stage is None else stage | step
    return Pipeline(stage, max_in_flight=2 * load.in_flight * load.stages)  # so that no credit is waited for


async def run(load: Load, place: Path, journal: Journal | None) -> int:
    """Both write the same file: a sink does, or the journal."""
    text = "a prompt of two hundred characters, more or less. " * 4
    prompts = (f"record {number}: {text}" for number in range(load.records))
    sink = JsonlSink(str(place / "out.jsonl")) if journal is None else None
    settled = (await pipeline_of(load).run(prompts, sink, journal=journal)).window.settled
    return settled["ok"]


def measured(load: Load, backend: str, place: Path, *, kept: bool) -> tuple[float, float]:
    """Microseconds of CPU a call, and seconds of the run."""
    place.mkdir()
    journal = Journal(place / "run", output=str(place / "out.jsonl")) if kept else None
    gc.collect()
    cpu, began = time.process_time(), time.perf_counter()
    with seldom_collected():
        done = anyio.run(run, load, place, journal, backend=backend)
    assert done == load.records
    took, used = time.perf_counter() - began, time.process_time() - cpu
    return used / (load.records * load.stages) * 1e6, took


def syncs(directory: Path, count: int = 200) -> float:
    """Milliseconds that a sync of a small write takes here."""
    path = directory / "probe"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        began = time.perf_counter()
        for _ in range(count):
            os.write(fd, b"x" * 512)
            os.fdatasync(fd)
        return (time.perf_counter() - began) / count * 1e3
    finally:
        os.close(fd)
        path.unlink()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backend", choices=("asyncio", "trio"), action="append")
    parser.add_argument("--directory", type=Path, help="where journals are made")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--check", action="store_true", help="fail when a goal is missed")
    given = parser.parse_args(arguments)
    place = Path(tempfile.mkdtemp(dir=given.directory))
    rows, missed = [], []
    try:
        for backend in given.backend or ("asyncio", "trio"):
            for load in LOADS:
                row = compared(load, backend, given.rounds, place)
                rows.append(row)
                missed += judged(row)
        print(heading("What a journal costs", "python tests/benchmark/journal.py"))
        print(f"a sync of 512 bytes takes {syncs(place):.2f} ms here\n")
    finally:
        shutil.rmtree(place)
    print(table(("load", "backend", "CPU us/call without", "with", "journal", "run s without", "with", "ratio"), rows))
    save(given.save, {"rows": rows})
    for text in missed:
        print(f"missed: {text}")
    return 1 if given.check and missed else 0


def compared(load: Load, backend: str, rounds: int, place: Path) -> tuple[object, ...]:
    """Both in turns, and the median of what each round says."""
    without, with_it = [], []
    for number in range(rounds):
        for measures in (without, with_it) if number % 2 else (with_it, without):
            measures.append(measured(load, backend, place / "one", kept=measures is with_it))
            shutil.rmtree(place / "one")
    cpu = [statistics.median(each[0] for each in kept) for kept in (without, with_it)]
    took = [statistics.median(each[1] for each in kept) for kept in (without, with_it)]
    extra = statistics.median(a[0] - b[0] for a, b in zip(with_it, without, strict=True))
    seconds = (round(took[0], 3), round(took[1], 3), round(took[1] / took[0], 3))
    return (load.name, backend, round(cpu[0], 1), round(cpu[1], 1), round(extra, 1), *seconds)


def judged(row: tuple[object, ...]) -> list[str]:
    name, backend, _, _, extra, _, _, ratio = row
    missed = []
    if float(str(extra)) > GOAL and name != LOADS[-1].name:
        missed.append(f"{name} on {backend}: {extra} us of CPU a call, the goal is {GOAL:g}")
    if name == LOADS[-1].name and float(str(ratio)) > NOISE:
        missed.append(f"{name} on {backend}: takes {ratio} times as long, the goal is {NOISE:g}")
    return missed


if __name__ == "__main__":
    sys.exit(main())
