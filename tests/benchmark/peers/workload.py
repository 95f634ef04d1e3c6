"""What every peer runs: each row once, timed from the first call into the peer to its last result.

A peer's script makes `run(stages, items, concurrency)`, a coroutine that returns how many results came out.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable

Stage = Callable[[int], Awaitable[int]]
Run = Callable[[list[Stage], int, int], Awaitable[int]]

SLEEP = 0.001


async def same(value: int) -> int:
    return value


async def slow(value: int) -> int:
    await asyncio.sleep(SLEEP)
    return value


def stages_of(count: int, sleeping: bool) -> list[Stage]:
    """`count` stages that do nothing; the middle one sleeps a millisecond if the row says so."""
    stages: list[Stage] = [same] * count
    if sleeping:
        stages[count // 2] = slow
    return stages


def main(package: str, run: Run) -> None:
    """Measure the rows that stand on the command line as JSON, and print seconds by row."""
    from importlib.metadata import version

    seconds: dict[str, float] = {}
    for row in json.loads(sys.argv[1]):
        stages, items, concurrency = stages_of(row["stages"], row["sleeping"]), row["items"], row["concurrency"]
        asyncio.run(asyncio.wait_for(_checked(run, stages, min(items, 50), concurrency), 60))  # warm
        gc.collect()
        seconds[row["name"]] = asyncio.run(_checked(run, stages, items, concurrency))
    print(json.dumps({"version": version(package), "seconds": seconds}))


async def _checked(run: Run, stages: list[Stage], items: int, concurrency: int) -> float:
    start = time.perf_counter()
    count = await run(stages, items, concurrency)
    seconds = time.perf_counter() - start
    if count != items:
        raise SystemExit(f"{count} of {items} results came out")
    return seconds
