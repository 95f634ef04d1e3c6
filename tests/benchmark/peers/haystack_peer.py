"""Haystack: a pipeline of components with `run_async`, one run an item, as many at a time as the row's concurrency.

A run of its pipeline is one item's way through it, so a stream of items is a stream of runs.
"""

from __future__ import annotations

import asyncio

from haystack import Pipeline, component
from workload import Stage, main


@component
class Component:
    """One stage. Haystack wants a synchronous form beside the asynchronous one."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    @component.output_types(value=int)
    def run(self, value: int) -> dict[str, int]:
        raise NotImplementedError

    @component.output_types(value=int)
    async def run_async(self, value: int) -> dict[str, int]:
        return {"value": await self.stage(value)}


async def run(stages: list[Stage], items: int, concurrency: int) -> int:
    pipeline = Pipeline()
    for number, stage in enumerate(stages):
        pipeline.add_component(f"s{number}", Component(stage))
        if number:
            pipeline.connect(f"s{number - 1}.value", f"s{number}.value")
    values = iter(range(items))
    last = f"s{len(stages) - 1}"

    async def worker() -> int:
        count = 0
        for value in values:
            result = await pipeline.run_async({"s0": {"value": value}})
            count += "value" in result[last]
        return count

    return sum(await asyncio.gather(*(worker() for _ in range(concurrency))))


if __name__ == "__main__":
    main("haystack-ai", run)
