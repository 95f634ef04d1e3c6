"""Four small pipelines that between them have every kind of wait: for laws that hold at every point of a run."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio

from pipeline.core.joins import first, quorum
from pipeline.core.pipeline import Pipeline
from pipeline.core.run import Run
from pipeline.core.visit import Visit
from stages import flat_map, map, parallel, route, scatter


async def slow(value: int) -> int:
    await anyio.sleep(1 + value % 3 / 2)
    return value


async def slower(value: int) -> int:
    await anyio.sleep(2)
    return value


async def stubborn(value: int) -> int:
    """Takes its time to leave."""
    try:
        await anyio.sleep(1.5)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.25)
    return value


async def lends(value: int, visit: Visit) -> int:
    async with visit.without_slot():
        await anyio.sleep(1)
    return value


async def numbers(value: int) -> AsyncIterator[int]:
    for number in range(value % 4):
        await anyio.sleep(0.5)
        yield value + number


def one_more(value: object) -> int:
    return value + 1 if isinstance(value, int) else 0


def plain(name: str) -> object:
    return map(one_more, name=name)


def stage(function: object, name: str, concurrency: int = 1) -> object:
    return map(function, name=name, concurrency=concurrency)  # type: ignore[arg-type]


def line() -> object:
    return stage(slow, "slow", 2) | plain("a") | plain("b") | stage(lends, "lends", 2)  # type: ignore[operator]


def nested() -> object:
    inner = parallel("inner", join=first(1), x=stage(slow, "x"), y=stage(stubborn, "y"))
    return parallel("outer", join=quorum(1), timeout=3, left=inner | plain("p"), right=stage(slower, "r")) | plain(
        "end"
    )


def fanned() -> object:
    dig = scatter("dig", split=numbers, each=stage(slow, "each", 2), gather=plain("sum"), max_open=2)
    cases = {"0": dig, "1": stage(lends, "lends")}
    return route(cases, by=lambda value: str(value % 2), name="kind") | stage(slow, "last")  # type: ignore[operator]


def flat() -> object:
    return flat_map(numbers, name="flat", max_children=2) | stage(slow, "slow", 2)


TOPOLOGIES = {"line": line, "nested": nested, "fanned": fanned, "flat": flat}


def pipeline(topology: str, **options: object) -> Pipeline:
    return Pipeline(TOPOLOGIES[topology](), **options)  # type: ignore[arg-type]


def nothing_is_left(run: Run) -> None:
    """Conservation holds, and no slot, edge, group, sleeper or waiting submit is left. Tasks are for the caller."""
    machine = run._machine
    machine.check()
    assert not machine.sleepers
    assert not machine.submitted
    assert all(not joiner.groups and not joiner.statistics().waiting for joiner in machine.joiners)
    assert not machine.window.roots
    assert machine.over.is_set()
