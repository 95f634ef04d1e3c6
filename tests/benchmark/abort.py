"""How long it takes to let go of a thousand calls in flight, and that nothing of them is left.

    python tests/benchmark/abort.py

The calls are agents that ask a real model definition over loopback sockets; the server is a process of its own that
accepts every connection and never answers. Time is measured from the cancellation to the end of the block that owns
the run. Afterwards there is no task, no socket, no slot, no open edge and no credit, or the script fails.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import stat
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import anyio
from rounds import Timings, heading, save, table, take_turns

from pipeline import Pipeline, Run, Statistics
from stages import agent
from stages.models.openai import OpenAIModel

SPARE_DESCRIPTORS = 64
SERVER = Path(__file__).with_name("silent_server.py")


class Server:
    """The silent server's process, asked over its stdin and stdout."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.port = int(self._line())
        self._before = 0

    def begin(self) -> None:
        """Count arrivals from here on."""
        self._before = self._counts()[0]

    def arrived(self) -> int:
        return self._counts()[0] - self._before

    def connections(self) -> int:
        return self._counts()[1]

    def _counts(self) -> tuple[int, int]:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        arrived, opened = self._line().split()
        return int(arrived), int(opened)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def silent_server() -> Generator[Server]:
    process = subprocess.Popen([sys.executable, str(SERVER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Server(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)


def pipeline_of(server: Server, calls: int) -> Pipeline:
    base_url = f"http://127.0.0.1:{server.port}/v1"
    model = OpenAIModel(
        provider="silent", model="silent", base_url=base_url, timeout=600.0, attempts=1, max_concurrency=calls
    )
    return Pipeline(agent("asks", model=model, prompt="{{ prompt }}", concurrency=calls), max_in_flight=calls)


async def all_in_flight(server: Server, calls: int) -> None:
    """Wait until the server has every call; asked in a thread, so that the loop is free to make them."""
    with anyio.fail_after(120):
        while await anyio.to_thread.run_sync(server.arrived) < calls:  # noqa: ASYNC110, another process is asked
            await anyio.sleep(0.05)


class Measured:
    """When the cancellation was asked for, and what the run looked like right after."""

    def __init__(self) -> None:
        self.asked = 0.0
        self.seconds = 0.0
        self.run: Run | None = None

    def ask(self) -> None:
        self.asked = time.perf_counter()

    def over(self) -> None:
        self.seconds = time.perf_counter() - self.asked


async def read(pipe: Pipeline, calls: int, measured: Measured) -> None:
    """What a host does: open a run and read its results."""
    async with pipe.open(str(number) for number in range(calls)) as run:
        measured.run = run
        async for _ in run.results:
            pass


async def by_abort(pipe: Pipeline, server: Server, calls: int, measured: Measured) -> None:
    """`run.abort()` from another task of the host."""

    async def stop() -> None:
        await all_in_flight(server, calls)
        measured.ask()
        assert measured.run is not None
        measured.run.abort()

    async with anyio.create_task_group() as tg:
        tg.start_soon(stop)
        await read(pipe, calls, measured)
        measured.over()


async def by_leaving(pipe: Pipeline, server: Server, calls: int, measured: Measured) -> None:
    """The host leaves its block."""
    async with pipe.open(str(number) for number in range(calls)) as run:
        measured.run = run
        await all_in_flight(server, calls)
        measured.ask()
    measured.over()


async def by_scope(pipe: Pipeline, server: Server, calls: int, measured: Measured) -> None:
    """A cancel scope around the host's block."""
    async with anyio.create_task_group() as tg:
        with anyio.CancelScope() as scope:

            async def stop() -> None:
                await all_in_flight(server, calls)
                measured.ask()
                scope.cancel()

            tg.start_soon(stop)
            await read(pipe, calls, measured)
        measured.over()


async def by_task_cancel(pipe: Pipeline, server: Server, calls: int, measured: Measured) -> None:
    """`task.cancel()` of plain asyncio."""
    task = asyncio.create_task(read(pipe, calls, measured))
    await all_in_flight(server, calls)
    measured.ask()
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        measured.over()
    else:
        raise SystemExit("the cancelled task ended as if nothing had happened")


async def by_asyncio_timeout(pipe: Pipeline, server: Server, calls: int, measured: Measured) -> None:
    """`asyncio.timeout` around the host's block, due when all calls are in flight."""
    try:
        async with asyncio.timeout(None) as limit:

            async def stop() -> None:
                await all_in_flight(server, calls)
                measured.ask()
                limit.reschedule(asyncio.get_running_loop().time())

            stopper = asyncio.create_task(stop())
            await read(pipe, calls, measured)
    except TimeoutError:
        measured.over()
    else:
        raise SystemExit("the timeout did not come out")
    await stopper


async def by_bare_calls(pipe: Pipeline, server: Server, calls: int, measured: Measured) -> None:
    """No pipeline: a task for each call of the SDK's own client, in a task group that is cancelled. For comparison."""
    from openai import AsyncOpenAI

    async def ask(client: AsyncOpenAI, number: int) -> None:
        await client.chat.completions.create(model="silent", messages=[{"role": "user", "content": str(number)}])

    url = f"http://127.0.0.1:{server.port}/v1"
    client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=600)
    async with client, anyio.create_task_group() as tg:
        for number in range(calls):
            tg.start_soon(ask, client, number)
        await all_in_flight(server, calls)
        measured.ask()
        tg.cancel_scope.cancel()
    measured.over()


Way = Callable[[Pipeline, Server, int, Measured], Awaitable[None]]
BARE = "bare SDK calls in a task group"
BOTH: dict[str, Way] = {
    "run.abort()": by_abort,
    "leaving the block": by_leaving,
    "anyio cancel scope": by_scope,
    BARE: by_bare_calls,
}
ASYNCIO_ONLY: dict[str, Way] = {"task.cancel()": by_task_cancel, "asyncio.timeout": by_asyncio_timeout}


def turn(backend: str, way: Way, server: Server, calls: int) -> float:
    """Run `way` once in a loop of its own and return the seconds that letting go took. Exits when something is left."""

    async def main() -> float:
        tasks, sockets = count_tasks(backend), count_sockets()
        measured = Measured()
        server.begin()
        await way(pipeline_of(server, calls), server, calls, measured)
        left = count_tasks(backend) - tasks, count_sockets() - sockets
        if measured.run is not None:
            check(measured.run.statistics(), open_ends(measured.run), left, calls)
        await no_connections(server)
        return measured.seconds

    return anyio.run(main, backend=backend)


def open_ends(run: Run) -> int:
    """Ends of edges that are open; no public snapshot shows them, because in a run that is over there are none."""
    ends = [edge.inbox.statistics() for edge in run._machine.edges]
    return sum(each.open_send_streams + each.open_receive_streams for each in ends)


def check(now: Statistics, ends: int, left: tuple[int, int], calls: int) -> None:
    tasks, sockets = left
    found = {
        "tasks": tasks,
        "sockets": sockets,
        "slots": sum(stage.slots.borrowed + stage.slots.sleeping + stage.slots.waiting for stage in now.stages),
        "open ends of edges": ends,
        "items on edges": sum(edge.used + edge.senders_waiting for edge in now.edges),
        "receivers at edges": sum(edge.receivers_waiting for edge in now.edges),
        "credits": now.window.in_flight,
        "items": now.window.alive,
        "open roots": now.window.open,
        "roots that were not cancelled": calls - now.window.settled["cancelled"],
    }
    wrong = [f"{count} {what}" for what, count in found.items() if count]
    if wrong:
        raise SystemExit("left behind: " + ", ".join(wrong))


async def no_connections(server: Server) -> None:
    """The server sees every connection closed, as soon as it gets round to it."""
    with anyio.fail_after(30):
        while server.connections():  # noqa: ASYNC110, another process is asked
            await anyio.sleep(0.02)


def count_tasks(backend: str) -> int:
    """Tasks of this loop; under trio those in the main task's nurseries and below."""
    if backend == "asyncio":
        return len(asyncio.all_tasks())
    import trio

    def below(task: trio.lowlevel.Task) -> int:
        return 1 + sum(below(child) for nursery in task.child_nurseries for child in nursery.child_tasks)

    return below(trio.lowlevel.current_task())


def count_sockets() -> int:
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            count += stat.S_ISSOCK(os.stat(f"/proc/self/fd/{name}").st_mode)
        except OSError:  # the descriptor of the listing itself
            pass
    return count


def raise_descriptor_limit(calls: int) -> int:
    """Raise the limit as far as is needed and allowed; return how many calls fit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = calls + SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return calls if soft == resource.RLIM_INFINITY else min(calls, soft - SPARE_DESCRIPTORS)


def main() -> None:
    options = arguments()
    calls = raise_descriptor_limit(options.calls)
    print(heading(f"Letting go of {calls:,} calls in flight", "python " + " ".join(sys.argv)))
    print(f"Descriptor limit {resource.getrlimit(resource.RLIMIT_NOFILE)[0]:,}.\n")
    lines: list[Sequence[object]] = []
    timings = Timings()
    for backend in ("asyncio", "trio") if options.backend == "both" else (options.backend,):
        ways = BOTH | (ASYNCIO_ONLY if backend == "asyncio" else {})
        with silent_server() as server:
            turns = [(backend, name, partial(turn, backend, way, server, calls)) for name, way in ways.items()]
            turn(backend, by_leaving, server, min(calls, 20))  # warm
            for number in range(options.rounds):
                take_turns(number, turns, timings)
        lines += [
            (
                f"{name}, {backend}",
                f"{timings.best(backend, name) * 1000:.0f} ms",
                f"{timings.median(backend, name) * 1000:.0f} ms",
                f"{timings.best(backend, name) / timings.best(backend, BARE):.2f}",
            )
            for name in ways
        ]
    print(table(("how (goal 250 ms)", "best", "median", "times the bare calls"), lines))
    print("\nNothing was left: no task, socket, slot, item, credit; the server saw every connection closed.")
    save(options.json, {"calls": calls, "seconds": {f"{n}, {b}": s for (b, n), s in timings.seconds.items()}})


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("asyncio", "trio", "both"), default="both")
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the seconds of every round here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
