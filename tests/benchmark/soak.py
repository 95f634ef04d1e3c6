"""A million items with failures, timeouts and loops on each backend: memory, descriptors and threads stay flat.

    python tests/benchmark/soak.py

Of a hundred items one fails, one hangs until its time is up, one takes a way through worker threads and five go round a
loop more than once. Each backend runs in a process of its own, which is looked at every two hundredth of the way. The
slope of memory is fitted to the samples after the first fifth; the script fails if it is 1 MiB for 100,000 items or
more, if descriptors grow, if there are more threads than the main one and one a slot, or if an outcome is not the one
that the item's number says. On a busy machine the time of an item may be up that does not hang: those are told apart.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import anyio
from anyio.lowlevel import checkpoint
from rounds import heading, save, table

from pipeline import ConversationState, Pipeline
from stages import agent, loop, map, parallel, route

ITEM_TIMEOUT = 2.0
THREADS = 4  #: slots of the function that runs in threads
SAMPLES = 200
WARM_UP = 0.2  #: of the samples
MOST_SLOPE = 1.0  #: MiB for 100,000 items
MIB = 1024 * 1024


async def answer(prompt: str, state: ConversationState) -> int:
    """Fails for 1 of 100 items and never answers for another one."""
    number = int(prompt)
    if number % 100 == 13:
        raise ValueError("refused, as 1 of 100 are")
    if number % 100 == 57:
        await anyio.sleep_forever()
    await checkpoint()
    return number


def block(number: int) -> int:
    return number


async def improve(number: int) -> int:
    await checkpoint()
    return number


def good_enough(number: int, visit: object) -> bool:
    """5 of 100 items take three rounds, the others one."""
    rounds = visit.names()["round"]  # type: ignore[attr-defined]
    return number % 20 != 3 or rounds == 3


def pipeline() -> Pipeline:
    ways = {"thread": map(block, blocking=True, concurrency=THREADS), "short": map(improve, concurrency=16)}
    return Pipeline(
        agent(answer, concurrency=160)
        | route(ways, by=lambda number: "thread" if number % 100 == 99 else "short", name="way")
        | loop(map(improve, name="draft", concurrency=16), until=good_enough, max_rounds=4)
        | parallel("views", join="any", a=map(improve, name="a"), b=map(improve, name="b")),
        max_in_flight=256,
        item_timeout=ITEM_TIMEOUT,
    )


def expected(number: int) -> str:
    return "failed" if number % 100 in (13, 57) else "ok"


def sample(done: int) -> dict[str, float]:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {
        "items": done,
        "mib": pages * os.sysconf("SC_PAGE_SIZE") / MIB,
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "seconds": time.monotonic(),
    }


async def soak(items: int) -> dict[str, object]:
    """One run over `items` items."""
    pipe, wrong, late = pipeline(), 0, 0
    every = max(1, items // SAMPLES)
    samples: list[dict[str, float]] = []
    statuses: Counter[str] = Counter()
    began, done = time.monotonic(), 0
    async with pipe.open(str(number) for number in range(items)) as run:
        async for record in run.results:
            done += 1
            statuses[record.status] += 1
            if record.status != expected(record.index):
                in_time = record.error is None or record.error.type != "item_timeout"
                wrong, late = wrong + in_time, late + (not in_time)
            if done % every == 0:
                gc.collect()
                samples.append(sample(done))
        peak, bound = run.statistics().window.peak, run.statistics().window.bound
    return {
        "seconds": time.monotonic() - began,
        "samples": samples,
        "statuses": dict(statuses),
        "wrong": wrong + (done != items),
        "late": late,
        "peak": peak,
        "bound": bound,
    }


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The least squares slope of y over x."""
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    across = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / across


def growth(samples: Sequence[dict[str, float]], what: str) -> tuple[float, float]:
    """The most of `what` in the quarter after the warm-up, and in the last quarter."""
    steady = samples[int(len(samples) * WARM_UP) :]
    quarter = max(1, len(steady) // 4)
    return max(s[what] for s in steady[:quarter]), max(s[what] for s in steady[-quarter:])


def judged(backend: str, found: dict[str, object]) -> tuple[list[str], list[str]]:
    """The row of one backend, and what is wrong with it."""
    samples: list[dict[str, float]] = found["samples"]  # type: ignore[assignment]
    steady = samples[int(len(samples) * WARM_UP) :]
    climb = slope([(s["items"] / 100_000, s["mib"]) for s in steady])
    troubles = [f"{backend}: {found['wrong']} outcomes are wrong"] if found["wrong"] else []
    if climb >= MOST_SLOPE:
        troubles.append(f"{backend}: memory grows by {climb:.2f} MiB for 100,000 items")
    early, late = growth(samples, "descriptors")
    if late > early:
        troubles.append(f"{backend}: descriptors grew from {early:.0f} to {late:.0f}")
    if (most := max(s["threads"] for s in samples)) > 1 + THREADS:
        troubles.append(f"{backend}: {most:.0f} threads, the pipeline has slots for {THREADS}")
    items, seconds = samples[-1]["items"], float(str(found["seconds"]))
    row = [
        backend,
        f"{items:,.0f}",
        f"{seconds:.0f}",
        f"{items / seconds:,.0f}",
        f"{steady[0]['mib']:.1f}",
        f"{steady[-1]['mib']:.1f}",
        f"{climb:+.3f}",
        f"{growth(samples, 'descriptors')[0]:.0f} / {growth(samples, 'descriptors')[1]:.0f}",
        f"{growth(samples, 'threads')[0]:.0f} / {growth(samples, 'threads')[1]:.0f}",
        f"{found['peak']} of {found['bound']}",
        str(found["late"]),
    ]
    return row, troubles


def backends(asked: str) -> Iterator[str]:
    yield from ("asyncio", "trio") if asked == "both" else (asked,)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--backend", choices=("both", "asyncio", "trio"), default="both")
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--child", choices=("asyncio", "trio"), default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(anyio.run(soak, options.items, backend=options.child)))
        return 0
    rows: list[list[str]] = []
    troubles: list[str] = []
    raw: dict[str, object] = {}
    for backend in backends(options.backend):
        command = [sys.executable, __file__, "--child", backend, "--items", str(options.items)]
        raw[backend] = found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        row, wrong = judged(backend, found)
        rows.append(row)
        troubles += wrong
    print(heading("Soak", "python tests/benchmark/soak.py"))
    header = (
        "backend", "items", "s", "items/s", "MiB after warm-up", "MiB at the end", "MiB per 100,000",
        "descriptors early / late", "threads early / late", "peak of bound",
        "late by chance",
    )  # fmt: skip
    print(table(header, rows))
    for trouble in troubles:
        print(trouble, file=sys.stderr)
    save(options.json, raw)
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main())
