"""What every contestant of `quota.py` is given, and what it prints at its end.

python CONTESTANT.py '{"base_url": ..., "calls": 1500, "requests_per_minute": 1200, "tokens_per_minute": 600000}'
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib.metadata import version

PATIENCE = 300.0  #: seconds for all calls, which at the rate that is allowed take 75

#: about 70 tokens of four characters
FRAME = (
    "You are given the record with the number {:>5}. Read what is known of it, compare it with the records beside it,"
    " say in a few plain sentences how it differs from them, which of the differences matter to a reader who has to"
    " choose one, and how sure you are of what you say. "
)


@dataclass(frozen=True)
class Work:
    base_url: str
    calls: int
    requests_per_minute: int
    tokens_per_minute: int

    def prompts(self) -> list[str]:
        return [FRAME.format(number) for number in range(self.calls)]


def work() -> Work:
    return Work(**json.loads(sys.argv[-1]))


def report(calls: int, answered: int, seconds: float, package: str | None, late: int = 0) -> None:
    """Print the result; `late` calls were neither answered nor given up in time."""
    done = {"answered": answered, "lost": calls - answered - late, "late": late, "seconds": seconds}
    print(json.dumps({**done, "version": version(package) if package else ""}))


def main(package: str | None, run: Callable[[Work], Awaitable[tuple[int, int]]]) -> None:
    """Run under asyncio: `run` returns how many calls were answered, and how many were late."""
    import asyncio

    given = work()
    start = time.perf_counter()
    answered, late = asyncio.run(run(given))
    report(given.calls, answered, time.perf_counter() - start, package, late)


async def each(prompts: list[str], ask: Callable[[str], Awaitable[bool]]) -> tuple[int, int]:
    """Ask for all at once; returns how many were answered, and how many not within `PATIENCE`. Who raises is lost."""
    import asyncio

    async def one(prompt: str) -> bool:
        try:
            return await ask(prompt)
        except Exception as error:
            print(f"{type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
            return False

    done, late = await asyncio.wait([asyncio.create_task(one(prompt)) for prompt in prompts], timeout=PATIENCE)
    for task in late:
        task.cancel()
    return sum(task.result() for task in done), len(late)
