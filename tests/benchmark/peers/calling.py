"""What every contestant of `calls.py` does: so many calls in flight, measured the same way, a line of JSON at the end.

    python CONTESTANT.py '{"base_url": ..., "in_flight": 500, "calls": 1500}'

The first calls, which import and connect, are not counted. CPU and memory are those of the contestant's process.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version

WARM = 20
PROMPT = "Say something short about the number {}."

Run = Callable[[str, int, int], Awaitable[int]]
#: `base_url`, how many at once, how many in all; returns how many were answered


def measured(seconds: float, cpu: float, answered: int, package: str) -> dict[str, object]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "answered": answered,
        "seconds": seconds,
        "cpu": cpu,
        "peak_mib": peak / 1024 if sys.platform == "linux" else peak / 2**20,
        "version": version(package) if package else "",
    }


async def timed(run: Run, base_url: str, in_flight: int, calls: int, package: str) -> dict[str, object]:
    """Run a few calls and then the measured ones."""
    await run(base_url, min(WARM, in_flight), WARM)
    start, cpu = time.perf_counter(), time.process_time()
    answered = await run(base_url, in_flight, calls)
    return measured(time.perf_counter() - start, time.process_time() - cpu, answered, package)


def raise_descriptors(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def work() -> tuple[str, int, int]:
    given = json.loads(sys.argv[-1])
    raise_descriptors(given["in_flight"] + 200)
    return given["base_url"], given["in_flight"], given["calls"]


async def workers(call: Callable[[str], Awaitable[object]], in_flight: int, calls: int) -> int:
    """`in_flight` tasks of asyncio that take prompts in turn."""
    import asyncio

    prompts = iter([PROMPT.format(number) for number in range(calls)])
    answered = 0

    async def worker() -> None:
        nonlocal answered
        for prompt in prompts:
            if await call(prompt):
                answered += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(in_flight):
            tasks.create_task(worker())
    return answered


def main(package: str, run: Run) -> None:
    """Measure under asyncio and print."""
    import asyncio

    print(json.dumps(asyncio.run(timed(run, *work(), package))))
