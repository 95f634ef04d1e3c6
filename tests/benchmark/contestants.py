"""The contestants that share one process with us: the same stages over our engine, bare streams, queues, and aiostream.

Each is a coroutine function `(stages, items, concurrency) -> count of results`; the stage that sleeps, if there is one,
has `concurrency` visits at once, all others one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

import stages as ours
from pipeline import Pipeline
from pipeline.core.stage import Chain
from pipeline.core.streams import BURST

SLEEP = 0.001

Stage = Callable[[int], Awaitable[int]]
Contestant = Callable[[list[Stage], int, int], Awaitable[int]]


async def same(value: int) -> int:
    return value


async def slow(value: int) -> int:
    await anyio.sleep(SLEEP)
    return value


def plain(value: int) -> int:
    return value


def stages_of(count: int, sleeping: bool) -> list[Stage]:
    """`count` stages that do nothing; the middle one sleeps a millisecond if the row says so."""
    made: list[Stage] = [same] * count
    if sleeping:
        made[count // 2] = slow
    return made


def visits(stage: Stage, concurrency: int) -> int:
    return concurrency if stage is slow else 1


async def penstock(made: list[Stage], items: int, concurrency: int, buffer_size: int | None = None) -> int:
    """A pipeline as it is written: maps, opened, results iterated."""
    chain = Chain.of(
        *(ours.map(stage, name=f"s{n}", concurrency=visits(stage, concurrency)) for n, stage in enumerate(made))
    )
    return await _results(Pipeline(chain, buffer_size=buffer_size), items)


async def penstock_one(made: list[Stage], items: int, concurrency: int) -> int:
    """The same with room for one item on every edge, as the baseline has it."""
    return await penstock(made, items, concurrency, buffer_size=1)


async def penstock_plain(functions: int, items: int) -> int:
    """Plain functions in a row, which the engine joins into one stage."""
    return await _results(Pipeline(Chain.of(*(ours.map(plain, name=f"f{n}") for n in range(functions)))), items)


async def _results(pipe: Pipeline, items: int) -> int:
    count = 0
    async with pipe.open(range(items)) as run:
        async for _ in run.results:
            count += 1
    return count


async def streams(made: list[Stage], items: int, concurrency: int, buffer: int = 1) -> int:
    """The baseline: `async for` and `await send` over memory object streams of one item, a task for each visit."""
    count = 0
    async with anyio.create_task_group() as tg:
        send, receive = anyio.create_memory_object_stream[int](buffer)
        tg.start_soon(_feed_stream, send, items)
        for stage in made:
            send, following = anyio.create_memory_object_stream[int](buffer)
            for _ in range(visits(stage, concurrency)):
                tg.start_soon(_stream_worker, stage, receive.clone(), send.clone())
            receive.close()
            send.close()
            receive = following
        async with receive:
            async for _ in receive:
                count += 1
    return count


async def _feed_stream(send: MemoryObjectSendStream[int], items: int) -> None:
    async with send:
        for value in range(items):
            await send.send(value)


async def _stream_worker(
    stage: Stage, receive: MemoryObjectReceiveStream[int], send: MemoryObjectSendStream[int]
) -> None:
    async with receive, send:
        async for value in receive:
            await send.send(await stage(value))


async def queues(made: list[Stage], items: int, concurrency: int, buffer: int = 1) -> int:
    """Workers over `asyncio.Queue`, with nothing around them: no end of input, no cancellation that cleans up."""
    entrance = inbox = asyncio.Queue[int](buffer)
    workers: list[asyncio.Task[None]] = []
    for stage in made:
        outbox = asyncio.Queue[int](buffer)
        workers += [asyncio.create_task(_queue_worker(stage, inbox, outbox)) for _ in range(visits(stage, concurrency))]
        inbox = outbox
    workers.append(asyncio.create_task(_feed_queue(entrance, items)))
    count = 0
    for _ in range(items):
        await inbox.get()
        count += 1
    for worker in workers:
        worker.cancel()
    await asyncio.gather(*workers, return_exceptions=True)
    return count


async def _feed_queue(queue: asyncio.Queue[int], items: int) -> None:
    for value in range(items):
        await queue.put(value)


async def _queue_worker(stage: Stage, inbox: asyncio.Queue[int], outbox: asyncio.Queue[int]) -> None:
    while True:
        await outbox.put(await stage(await inbox.get()))


async def aiostream(made: list[Stage], items: int, concurrency: int) -> int:
    """A pull chain of `stream.map`, unordered, with `task_limit` at the stage that sleeps; the others run inline."""
    from aiostream import stream

    chain = stream.iterate(range(items))
    for stage in made:
        limit = visits(stage, concurrency)
        chain = stream.map(chain, stage, ordered=limit == 1, task_limit=limit)
    count = 0
    async with chain.stream() as streamer:
        async for _ in streamer:
            count += 1
    return count


BASELINE = "anyio streams of 1"
BOTH: dict[str, Contestant] = {
    "penstock": penstock,
    "penstock, buffer_size=1": penstock_one,
    BASELINE: streams,
    f"anyio streams of {BURST}": partial(streams, buffer=BURST),
}
ASYNCIO_ONLY: dict[str, Contestant] = {
    "asyncio.Queue(1)": queues,
    f"asyncio.Queue({BURST})": partial(queues, buffer=BURST),
    "aiostream": aiostream,
}
