"""The stages that a random network stands for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from pipeline.core.leaf import Process
from pipeline.core.members import Members
from pipeline.core.scope import Scope
from pipeline.core.stage import Chain, Stage
from pipeline.core.visit import Visit
from stages.batch import batch
from stages.flat_map import flat_map
from stages.function import MapStage, filter, map
from stages.loop import loop
from stages.map_reduce import map_reduce
from stages.parallel import parallel
from stages.partition import Keyed, partition_by
from stages.route import route
from stages.scatter import scatter
from stages.tap import tap
from stages.vote import vote
from tests.engine import networks as net
from tests.engine.gauges import Gauge, Line
from tests.engine.networks import TICK, Net, digest

ATTEMPT = TICK / 2


@dataclass(frozen=True)
class Tool:
    """A resource that writes down when it is opened and closed."""

    number: int
    log: list[tuple[str, int]] = field(compare=False, repr=False)

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Tool]:
        await checkpoint()
        self.log.append(("open", self.number))
        try:
            yield self
        finally:
            self.log.append(("close", self.number))


@dataclass(frozen=True)
class Caller(MapStage):
    """A map whose visits are calls, as those of an agent are."""

    tool: Tool | None = None

    @property
    def calls(self) -> bool:
        return True

    def resources(self) -> tuple[Any, ...]:
        return (self.tool,)

    def bind(self, scope: Scope) -> Process:
        assert self.tool is not None
        assert scope.resource(self.tool) == self.tool
        return super().bind(scope)


def decided(members: Members) -> Any:
    """A join of its own."""
    failed = sum(end.status not in ("ok", "partial", "skipped") for end in members.ended.values())
    return net.judged(members.values, failed) if members.done else None


class Builder:
    """Makes the stages of one network; names are given in the order in which `networks.nodes` has the nodes."""

    def __init__(self, gauge: Gauge) -> None:
        self.gauge = gauge
        self.opened: list[tuple[str, int]] = []  #: what tools wrote down
        self.count = 0  #: nodes built so far

    def name(self, kind: str) -> str:
        self.count += 1
        return f"{kind}{self.count}"

    def chain(self, nodes: Net) -> Stage:
        return Chain.of(*(self.stage(node) for node in nodes))

    def stage(self, node: object) -> Stage:
        match node:
            case net.Work():
                return self.work(node, self.name("work"))
            case net.Sieve():
                return self.sieve(node, self.name("sieve"))
            case net.Spy():
                return self.spy(node, self.name("spy"))
            case net.Par():
                return self.par(node, self.name("par"))
            case net.Poll():
                return self.poll(node, self.name("poll"))
            case net.Choice():
                return self.choice(node, self.name("choice"))
            case net.Fan():
                return self.fan(node, self.name("fan"))
            case net.Again():
                return self.again(node, self.name("again"))
            case net.Lines():
                return self.lines(node, self.name("lines"))
            case net.Bracket():
                return self.bracket(node, self.name("bracket"))
            case net.Collapsed():
                return batch(name=self.name("collapsed"), **gathering(node))
            case net.Expand():
                return self.expand(node, self.name("expand"))
            case net.Fold():
                return self.fold(node, self.name("fold"))
        raise TypeError(node)

    # -- leaves -------------------------------------------------------------------------------------------------

    def work(self, node: net.Work, name: str) -> Stage:
        concurrency = 1 if node.kind == "plain" else node.concurrency
        self.gauge.add(name, concurrency, movable=True)
        options: dict[str, Any] = {
            "name": name,
            "concurrency": concurrency,
            "on_error": "skip" if node.skip_failures else None,
        }
        function = self.function(node, name)
        if node.kind == "call":
            self.gauge.callers.add(name)
            return Caller(function=function, tool=Tool(node.pace, self.opened), **options)
        if node.kind == "timed":
            options["timeout"] = net.VISIT_TIMEOUT
        return map(function, blocking=node.kind == "thread", **options)

    def function(self, node: net.Work, name: str) -> Any:
        gauge = self.gauge

        def plain(value: object) -> int:
            return net.worked(node, value)

        async def waits(value: object) -> int:
            with gauge.at_work(name):
                await anyio.sleep(net.pause(node, value))
            return net.worked(node, value)

        async def sees(value: object, visit: Visit) -> int:
            with gauge.at_work(name, visit):
                await anyio.sleep(net.pause(node, value))
            return net.worked(node, value)

        async def lends(value: object, visit: Visit) -> int:
            with gauge.at_work(name, visit) as here:
                for _ in range(1 + digest(value) % 2):
                    await anyio.sleep(ATTEMPT)
                    async with here.lending():
                        await anyio.sleep(net.pause(node, value))
            return net.worked(node, value)

        async def leaves_late(value: object, visit: Visit) -> int:
            with gauge.at_work(name, visit):
                try:
                    await anyio.sleep(net.pause(node, value))
                except BaseException:
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(TICK / 4)
                    raise
            return net.worked(node, value)

        waiting = {"async": waits, "lend": lends, "late": leaves_late, "timed": waits, "visit": sees, "call": sees}
        return waiting.get(node.kind, plain)

    def sieve(self, node: net.Sieve, name: str) -> Stage:
        return filter(asked(node.waits, lambda value: net.passes(node, value)), name=name)

    def spy(self, node: net.Spy, name: str) -> Stage:
        async def sees(value: object) -> None:
            with self.gauge.at_work(name):
                await anyio.sleep(node.pace * TICK)
            if not digest(value):
                raise ValueError("nothing to see")

        self.gauge.add(name, 1, movable=False)
        return tap(sees, name=name, buffer=1, on_full=node.on_full)

    # -- composites ---------------------------------------------------------------------------------------------

    def par(self, node: net.Par, name: str) -> Stage:
        return parallel(
            name,
            branches={f"b{place}": self.chain(body) for place, body in enumerate(node.branches)},
            join=decided if node.join is None else node.join,
            timeout=node.timeout,
            on_timeout=node.on_timeout,
            on_error="skip" if node.skip_failures else None,
        )

    def poll(self, node: net.Poll, name: str) -> Stage:
        options: dict[str, Any] = {
            "key": net.answer,
            "needed": node.needed,
            "on_tie": "first" if node.first_of_tied else None,
            "timeout": node.timeout,
        }
        if node.samples is not None:
            return vote(name, self.chain(node.branches[0]), samples=node.samples, **options)
        branches = {f"b{place}": self.chain(body) for place, body in enumerate(node.branches)}
        return vote(name, branches=branches, **options)

    def choice(self, node: net.Choice, name: str) -> Stage:
        cases = {f"c{place}": self.chain(body) for place, body in enumerate(node.cases)}
        default = None if node.default is None else self.chain(node.default)
        by = asked(node.waits, lambda value: net.label_of(node, value))
        return route(cases, by=by, default=default, name=name)

    def fan(self, node: net.Fan, name: str) -> Stage:
        return scatter(
            name,
            split=given(node.slow_split, lambda value: net.parts_of(node, value)),
            each=self.chain(node.each),
            gather=None if node.gather is None else self.chain(node.gather),
            join=node.join,
            timeout=node.timeout,
            max_children=node.max_children,
            max_open=node.max_open,
            on_excess="truncate" if node.truncate else "fail",
        )

    def again(self, node: net.Again, name: str) -> Stage:
        return loop(
            self.chain(node.body),
            until=asked(node.waits, lambda value: net.enough(node, value)),
            max_rounds=node.max_rounds,
            name=name,
            on_exhausted="fail" if node.must else "last",
            on_error="skip" if node.skip_failures else None,
        )

    def lines(self, node: net.Lines, name: str) -> Stage:
        """A partition that watches its lines from all sides."""
        lines = self.gauge.lines

        def key(value: object) -> object:
            found = net.key_of(node.keys, node.bad, value)
            if isinstance(found, int):
                lines[name, found].arrived.append(digest(value))
            return found

        keys: dict[object, Line] = {}

        def enters(value: object, visit: Visit) -> object:
            frame = visit.item.frame
            assert isinstance(frame.group, Keyed)
            line = keys[frame.parent] = lines[name, frame.group.key]
            with self.gauge.noting():
                line.enter(frame, digest(value))
            return value

        def leaves(value: object, visit: Visit) -> object:
            with self.gauge.noting():
                keys[visit.item.frame].leave(visit.item.frame)
            return value

        body = Chain.of(map(enters, name=f"{name}.enters"), self.chain(node.body))
        partition = partition_by(asked(node.waits, key), body, name=name)
        return Chain.of(partition, map(leaves, name=f"{name}.leaves"))

    def bracket(self, node: net.Bracket, name: str) -> Stage:
        if node.each is None:
            body: Stage = map(asked(True, lambda values: net.together(node, values)), name=f"{name}.together")
        else:
            body = scatter(f"{name}.each", split=list, each=self.chain(node.each), max_children=node.size)
        return batch(body, name=name, **gathering(node))

    # -- on the top-level chain ---------------------------------------------------------------------------------

    def expand(self, node: net.Expand, name: str) -> Stage:
        async def slowly(value: object) -> AsyncIterator[int]:
            for part in net.expanded(node, value):
                await anyio.sleep(TICK / 2)
                yield part

        function: Any = slowly if node.slow else lambda value: net.expanded(node, value)
        return flat_map(function, name=name, max_children=node.max_children)

    def fold(self, node: net.Fold, name: str) -> Stage:
        return map_reduce(
            self.chain(node.each),
            split=given(node.slow, lambda value: net.parts_of(node, value)),
            reduce=lambda total, value: net.added(node, total, value),
            initial=1,
            name=name,
            max_open=node.max_open,
            max_children=node.max_children,
        )


def gathering(node: net.Bracket | net.Collapsed) -> dict[str, Any]:
    """The options of a batch."""
    keys = node.keys
    return {
        "size": node.size,
        "within": node.within,
        "key": None if keys is None else lambda value: net.key_of(keys, None, value),
        "weight": net.weight_of if node.weighed else None,
    }


def asked(waits: bool, function: Any) -> Any:
    """A decision, which takes a while if it `waits`."""

    async def later(value: object) -> object:
        await anyio.sleep(TICK)
        return function(value)

    return later if waits else function


def given(slow: bool, function: Any) -> Any:
    """What gives the parts of an item, one at a time if it is `slow`."""

    async def slowly(value: object) -> AsyncIterator[object]:
        parts: Iterable[object] = function(value)
        for part in parts:
            await anyio.sleep(TICK / 2)
            yield part

    return slowly if slow else function
