"""A run in a process of its own whose function kills the process.

    python -m tests.durability.poisonous DIRECTORY BACKEND KIND [first]

Prints how the records ended, if it lives so long.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import anyio

from pipeline import Pipeline
from pipeline.core.stage import Stage, as_stage
from pipeline.core.state import ConversationState
from pipeline.durability.journal import Journal
from stages import agent, flat_map, map, scatter
from stages.models.simulated import SimulatedModel

PROMPTS = [f"prompt {number}" for number in range(12)]
POISON = "prompt 7"


def kill(value: object) -> object:
    """Kill the process for one value."""
    if str(value) == POISON:
        os.kill(os.getpid(), signal.SIGKILL)
        signal.pause()
    return value


async def kill_later(value: object) -> object:
    await anyio.sleep(0.05)
    return kill(value)


class Killer:
    """An agent of the user's."""

    name = "own"
    version = "1"

    async def process(self, prompt: str, state: ConversationState) -> str:
        await anyio.sleep(0.01)
        kill(prompt)
        return prompt


def split(value: object) -> list[object]:
    kill(value)
    return [value, value]


KINDS: dict[str, Callable[[], Stage]] = {
    "plain": lambda: map(kill, name="own"),
    "async": lambda: map(kill_later, name="own", concurrency=4),
    "thread": lambda: map(kill, name="own", blocking=True, concurrency=3),
    "agent": lambda: as_stage(Killer()),
    "split": lambda: scatter("own", split=split, each=map(str, name="each")),
    "flat_map": lambda: flat_map(split, name="own"),
}


async def main(directory: str, kind: str, where: str = "later") -> None:
    asked = agent("asked", model=SimulatedModel(model="echo", latency=0.01), prompt="{{ prompt }}", concurrency=4)
    pipeline = Pipeline(asked | KINDS[kind]() if where == "later" else KINDS[kind]())
    journal = Journal(Path(directory))
    async with pipeline.open(PROMPTS, journal=journal) as run:
        async for record in run.results:
            print(record.id, record.status, record.error.type if record.error else "", record.input, flush=True)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], *sys.argv[3:], backend=sys.argv[2])
