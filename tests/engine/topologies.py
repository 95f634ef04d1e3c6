"""Small pipelines that between them have every kind of wait, for laws that hold at every point of a run.

A new one is a function of `Code`, which stands for the user's, and a line in `TOPOLOGIES`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import anyio

from pipeline.core.errors import RunClosed
from pipeline.core.joins import first, quorum
from pipeline.core.machine import Machine
from pipeline.core.pipeline import Pipeline
from pipeline.core.record import Record
from pipeline.core.run import Run
from pipeline.core.stage import Stage
from stages import agent, batch, flat_map, loop, map, map_reduce, parallel, partition_by, resolve, route, scatter, vote
from stages.tap import tap
from tests.engine.usercode import Code, Fuse


def line(code: Code) -> Stage:
    return code.stage(code.slow, "slow", 2) | code.plain("a") | code.plain("b") | code.stage(code.lends, "lends", 2)


def busy(code: Code) -> Stage:
    """One slot, so that visits wait to have theirs again, and the source and others wait to come in."""
    return code.stage(code.lends, "lends") | code.plain("end")


def nested(code: Code) -> Stage:
    inner = parallel("inner", join=first(1), x=code.stage(code.slow, "x"), y=code.stage(code.stubborn, "y"))
    outer = parallel("outer", join=quorum(1), timeout=3, left=inner | code.plain("p"), right=code.stage(code.slow, "r"))
    return outer | code.plain("end")


def fanned(code: Code) -> Stage:
    each = code.stage(code.slow, "each", 2) | map(code.even, name="even")
    dig = scatter("dig", split=code.numbers, each=each, gather=code.plain("sum"), max_open=2)
    return route({"0": code.stage(code.lends, "lends"), "1": dig}, by=code.parity, name="kind") | code.plain("end")


def raced(code: Code) -> Stage:
    """Members that are revoked while they wait for a slot, for room and for a buffer."""
    racers = {label: code.stage(code.slow, label) | code.stage(code.lends, f"{label}2") for label in ("a", "b")}
    quick = {"quick": code.stage(code.late_first, "quick", 3)}
    return parallel("race", join="any", branches={**racers, **quick}) | code.stage(code.slow, "after")


def flat(code: Code) -> Stage:
    return flat_map(code.numbers, name="flat", max_children=2) | code.stage(code.slow, "slow", 2)


def flat_twice(code: Code) -> Stage:
    return flat_map(code.numbers, name="flat") | flat_map(code.numbers, name="again") | code.plain("end")


def blocking(code: Code) -> Stage:
    return map(code.blocks, name="blocks", blocking=True, concurrency=2) | code.stage(code.slow, "slow")


def ordered(code: Code) -> Stage:
    return code.stage(code.late_first, "late_first", 3) | map(code.even, name="even") | code.plain("end")


def rounds(code: Code) -> Stage:
    """Both rounds that are enough and rounds that are used up, with a race inside."""
    race = parallel("race", join="any", a=code.stage(code.slow, "slow"), b=code.stage(code.late_first, "late", 2))
    body = race | code.plain("more")
    return loop(body, until=code.big, max_rounds=2) | code.plain("end")


def partitioned(code: Code) -> Stage:
    body = code.stage(code.late_first, "late_first", 3) | map(code.even, name="even")
    return partition_by(code.parity_later, body, name="keys") | code.plain("end")


def bracketed(code: Code) -> Stage:
    both = batch(code.stage(code.together, "together"), size=3, within=1.5, weight=code.weight)
    return code.stage(code.late_first, "late_first", 2) | both | code.plain("end")


def collapsed(code: Code) -> Stage:
    return code.stage(code.slow, "slow", 3) | batch(size=2, key=code.parity) | code.stage(code.together, "together")


def reduced(code: Code) -> Stage:
    each = code.stage(code.slow, "each", 2) | map(code.even, name="even")
    total = map_reduce(each, split=code.numbers, reduce=code.add, initial=0, max_open=2)
    return total | code.plain("end")


def voted(code: Code) -> Stage:
    voters = {"a": code.stage(code.slow, "a", 2), "b": code.stage(code.late_first, "b", 2), "c": code.plain("c")}
    return (
        vote("best", branches=voters, needed="plurality", on_tie="first")
        | tap(code.looks_on, buffer=1)
        | code.stage(code.slow, "after")
    )


def deep(code: Code) -> Stage:
    """Composites of every kind in each other."""
    pairs = batch(code.stage(code.together, "together"), size=2, within=0.5)
    turns = partition_by(code.parity_later, pairs | code.stage(code.lends, "lends"), name="keys")
    again = loop(turns | code.plain("more"), until=code.big, max_rounds=2)
    return scatter("dig", split=code.numbers, each=again, join=quorum(1), timeout=6) | code.plain("end")


def ill_mannered(code: Code) -> Stage:
    """Members that do not leave as they should when their group is closed."""
    racers = {name: code.stage(function, name) for name, function in (("rude", code.rude), ("deaf", code.deaf))}
    race = parallel("race", join="any", branches={**racers, "slow": code.stage(code.slow, "slow")})
    return race | code.stage(code.deaf, "deaf2") | code.stage(code.rude, "rude2")


def asking(code: Code) -> Stage:
    """Calls through the openai client, answered by a simulated server that refuses some of them."""
    model = resolve("sim/echo", latency=1, errors={"429": 0.4, "disconnect": 0.1}, max_concurrency=2)
    both = parallel("both", join=quorum(1), timeout=60, x=agent("x", model=model), y=agent("y", model=model))
    return both | code.plain("end")


@dataclass(frozen=True)
class Topology:
    """A pipeline, what comes in, and who takes what comes out."""

    build: Callable[[Code], Stage]
    values: tuple[object, ...] = (0, 1, 2)
    max_in_flight: int = 2
    buffer_size: int | None = 1
    ordered: bool = False
    item_timeout: float | None = None
    asks: tuple[object, ...] = ()  #: submitted beside the source
    arriving: bool = False  #: the source waits for its records
    pace: float = 0.25  #: seconds that the reader takes for a record
    to_sink: bool = False
    harmed: int = 1  #: most roots that one error in an item's way can keep from being ok
    joined: bool = True  #: one record a root


TOPOLOGIES: dict[str, Topology] = {
    "line": Topology(line, arriving=True),
    "busy entrance": Topology(busy, values=(0, 1, 2, 3), max_in_flight=3, buffer_size=0, asks=(7, 8)),
    "nested": Topology(nested, values=(0, 1), buffer_size=0, ordered=True),
    "fanned": Topology(fanned, values=(0, 3), buffer_size=0),
    "raced": Topology(raced, values=(0, 1)),
    "flat": Topology(flat, ordered=True, joined=False),
    "flat twice": Topology(flat_twice, buffer_size=0, values=(3, 1), joined=False),
    "submit beside a source": Topology(line, values=(0, 1), buffer_size=0, asks=(5, 6), arriving=True),
    "blocking threads": Topology(blocking, asks=(5,), max_in_flight=3),
    "ordered, slow reader": Topology(ordered, values=(0, 1, 2, 3), max_in_flight=3, ordered=True, pace=2),
    "short item timeout": Topology(line, item_timeout=2.75, max_in_flight=3, harmed=4),
    "loop": Topology(rounds, values=(0, 2), buffer_size=0),
    "partition_by": Topology(partitioned, values=(0, 2, 1), max_in_flight=3, arriving=True),
    "batch": Topology(bracketed, max_in_flight=3, harmed=3),
    "collapsing batch": Topology(collapsed, max_in_flight=3, harmed=3, joined=False),
    "map_reduce": Topology(reduced, values=(2, 3), buffer_size=0),
    "vote and tap": Topology(voted, values=(0, 1), buffer_size=0),
    "deep": Topology(deep, values=(1, 2), buffer_size=0),
    "ill-mannered code": Topology(ill_mannered, values=(0, 1), buffer_size=0),
    "model calls": Topology(asking, values=("p",), asks=("q",)),
    "into a sink": Topology(line, arriving=True, to_sink=True),
}


class Host:
    """Runs a topology as an application would, and keeps what it got."""

    def __init__(self, topology: Topology, fuse: Fuse | None = None) -> None:
        self.topology = topology
        self.code = Code(fuse)
        self.pipe = Pipeline(
            topology.build(self.code),
            max_in_flight=topology.max_in_flight,
            buffer_size=topology.buffer_size,
            ordered=topology.ordered,
            item_timeout=topology.item_timeout,
        )
        self.run: Run | None = None
        self.records: list[Record] = []
        self.replies: list[Record] = []
        self.on_start: Callable[[Run], None] = lambda run: None
        self.reading: Callable[[Run], Awaitable[None]] = self.read
        self.asking: Callable[[Run, object], Awaitable[None]] = self.ask
        self._stay: anyio.CancelScope | None = None
        self._error: Exception | None = None

    async def __call__(self) -> None:
        """Take every record, unless the fuse, a cancellation or whoever has this object ends it before."""
        if self.topology.to_sink:
            await self.pipe.run(self.source(), self.code, watch=self._start)
            return
        async with self.pipe.open(self.source()) as run:
            self._start(run)
            with anyio.CancelScope() as self._stay:
                await self.use(run)
            if self._error is not None:
                raise self._error

    async def use(self, run: Run) -> None:
        async with anyio.create_task_group() as tg:
            for value in self.topology.asks:
                tg.start_soon(self.asking, run, value)
            await self.reading(run)

    async def read(self, run: Run) -> None:
        """Take records until the results end. Can be done again when it was cancelled."""
        while (record := await anext(run.results, None)) is not None:
            self.records.append(record)
            await self.code.pause("reader", self.topology.pace)

    async def ask(self, run: Run, value: object) -> None:
        await anyio.sleep(0.25 * (1 + self.topology.asks.index(value)))  # the source comes first
        with suppress(RunClosed):
            self.replies.append(await run.submit(value))

    def source(self) -> Any:
        values = self.topology.values
        return self.code.arriving(values) if self.topology.arriving else self.code.records(values)

    def _start(self, run: Run) -> None:
        self.run = run
        self.on_start(run)

    def leave(self, error: Exception | None = None) -> None:
        """Let the block be left now, by `error` if there is one."""
        assert self._stay is not None
        self._error = error
        self._stay.cancel()

    def holding_threads(self, act: Callable[[], object]) -> Callable[[], object]:
        """`act`, from when on no blocking function returns."""

        def hold() -> None:
            self.code.gate.clear()
            act()

        return hold

    @property
    def machine(self) -> Machine:
        assert self.run is not None
        return self.run._machine

    def nothing_is_lost(self) -> None:
        """Every record that was taken is counted as it was taken, and what was not has ended as cancelled or skipped.
        A reply may have arrived in the moment in which nobody waited for it any more."""
        settled = self.machine.statistics().window.settled
        handed = [record.status for record in (*self.records, *self.replies, *self.code.written)]
        unheard = len(self.topology.asks) - len(self.replies)
        if self.topology.joined:
            for status in ("ok", "partial", "failed"):
                assert handed.count(status) <= settled[status] <= handed.count(status) + unheard
        assert self.code.given - self.machine.window.taken <= (1 if self.topology.arriving else 0)


def nothing_is_left(run: Run) -> None:
    """Conservation holds, and no slot, edge, group, sleeper or waiting submit is left. Tasks are for the caller."""
    machine = run._machine
    machine.check()
    assert not machine.sleepers
    assert not machine.submitted
    for group in run.statistics().groups:
        assert (group.open, group.waiting, group.parked) == (0, 0, 0), group
    assert not machine.window.roots
    assert not machine.window._promised
    assert machine.over.is_set()
