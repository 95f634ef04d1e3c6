"""genai-processors: a chain of part processors, its concurrent form.

It starts each part as soon as it arrives and has no limit of its own on how many are in flight; for a stage that sleeps
the limit is a semaphore in the stage, as its users write it. Parts carry text.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable

from genai_processors import content_api, processor, streams
from workload import Stage, main, same


def part_processor(stage: Stage, concurrency: int) -> processor.PartProcessor:
    limit = asyncio.Semaphore(concurrency)

    @processor.part_processor_function
    async def plain(part: content_api.ProcessorPart) -> AsyncIterable[content_api.ProcessorPart]:
        await stage(0)
        yield part

    @processor.part_processor_function
    async def limited(part: content_api.ProcessorPart) -> AsyncIterable[content_api.ProcessorPart]:
        async with limit:
            await stage(0)
        yield part

    return plain if stage is same else limited


async def run(stages: list[Stage], items: int, concurrency: int) -> int:
    chain = processor.chain([part_processor(stage, concurrency) for stage in stages])
    parts = [content_api.ProcessorPart(str(value)) for value in range(items)]
    count = 0
    async for _ in chain(streams.stream_content(parts)):
        count += 1
    return count


if __name__ == "__main__":
    main("genai-processors", run)
