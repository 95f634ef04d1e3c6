"""Random networks: a description that hypothesis can draw and print, the stages it stands for, and what they compute.

Payloads are digested to a number before every use, so any stage can follow any other. `Oracle` computes what a root
ends as when timing cannot matter, from the description alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import anyio
from anyio.lowlevel import checkpoint
from hypothesis import strategies as st

from pipeline.core.joins import Join
from pipeline.core.stage import Chain, Stage
from pipeline.core.visit import Visit
from stages.function import FilterStage, MapStage
from stages.parallel import ParallelStage
from stages.route import route
from stages.scatter import scatter

TICK = 1.0


def digest(value: object) -> int:
    """A number for any payload."""
    if isinstance(value, int):
        return value
    members: Sequence[object] = ()
    if isinstance(value, Mapping):
        members = list(value.values())
    elif isinstance(value, list | tuple):
        members = value
    return sum((place + 1) * digest(member) for place, member in enumerate(members)) % 997


class Gauge:
    """Counts the visits of each stage that are at work, and calls `observe` at each one."""

    def __init__(self) -> None:
        self.running: Counter[str] = Counter()
        self.most: dict[str, int] = {}  #: the highest concurrency that each stage was ever given
        self.observe: Callable[[], None] = lambda: None

    def enter(self, name: str) -> None:
        self.running[name] += 1
        assert self.running[name] <= self.most[name], f"{name}: {self.running[name]} visits at once"
        self.observe()

    def leave(self, name: str) -> None:
        self.running[name] -= 1


# -- descriptions ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """A map. `kind` says how it waits: not at all, in an async function, or with its slot given back."""

    kind: str
    pace: int
    fail_at: int | None
    concurrency: int
    skip_failures: bool


@dataclass(frozen=True)
class Sieve:
    """A filter that drops what leaves the rest `drop_at`."""

    waits: bool
    drop_at: int


@dataclass(frozen=True)
class Par:
    branches: tuple[Net, ...]
    join: Join
    timeout: float | None
    on_timeout: Any


@dataclass(frozen=True)
class Choice:
    cases: tuple[Net, ...]
    default: Net | None
    waits: bool


@dataclass(frozen=True)
class Fan:
    each: Net
    gather: Net | None
    join: Join
    modulus: int  #: children an item has, at most, plus one
    slow_split: bool
    max_children: int
    max_open: int | None
    truncate: bool
    timeout: float | None


Net = tuple[Any, ...]

FAILED_AT = 7


def works(fails: bool) -> st.SearchStrategy[Work]:
    return st.builds(
        Work,
        st.sampled_from(["plain", "async", "visit", "lend"]),
        st.integers(0, 3),
        st.one_of(st.none(), st.integers(0, FAILED_AT - 1)) if fails else st.none(),
        st.integers(1, 3),
        st.booleans() if fails else st.just(False),
    )


def joins(most: int) -> st.SearchStrategy[Join]:
    counts = st.integers(1, most)
    return st.one_of(st.just(Join()), st.builds(Join, st.sampled_from(["first", "quorum"]), counts))


timeouts = st.one_of(st.none(), st.none(), st.sampled_from([0.5, 1.5, 3.5]))


@st.composite
def pars(draw: st.DrawFn, depth: int) -> Par:
    branches = draw(st.lists(nets(depth - 1), min_size=1, max_size=3))
    timeout = draw(timeouts)
    on_timeout = draw(st.sampled_from([None, "fail", "partial"])) if timeout is not None else None
    return Par(tuple(branches), draw(joins(len(branches))), timeout, on_timeout)


@st.composite
def choices(draw: st.DrawFn, depth: int) -> Choice:
    cases = draw(st.lists(nets(depth - 1), min_size=1, max_size=2))
    return Choice(tuple(cases), draw(st.one_of(st.none(), nets(depth - 1))), draw(st.booleans()))


@st.composite
def fans(draw: st.DrawFn, depth: int) -> Fan:
    most = draw(st.integers(1, 4))
    return Fan(
        draw(nets(depth - 1)),
        draw(st.one_of(st.none(), nets(depth - 1))),
        draw(joins(most)),
        draw(st.integers(1, 5)),
        draw(st.booleans()),
        most,
        draw(st.one_of(st.none(), st.integers(1, 3))),
        draw(st.booleans()),
        draw(timeouts),
    )


def nets(depth: int) -> st.SearchStrategy[Net]:
    """Stages in a row, with composites nested up to `depth` deep."""
    simple = st.one_of(works(True), works(True), st.builds(Sieve, st.booleans(), st.integers(0, 4)))
    node = simple if depth <= 0 else st.one_of(simple, pars(depth), choices(depth), fans(depth))
    return st.lists(node, min_size=1, max_size=3 if depth >= 2 else 2).map(tuple)


def nodes(net: Net) -> list[Any]:
    """Every node of a network, bodies included."""
    found: list[Any] = []
    for node in net:
        found.append(node)
        for body in bodies_of(node):
            found += nodes(body)
    return found


def bodies_of(node: object) -> tuple[Net, ...]:
    match node:
        case Par():
            return node.branches
        case Choice():
            return (*node.cases, *((node.default,) if node.default is not None else ()))
        case Fan():
            return (node.each, *((node.gather,) if node.gather is not None else ()))
        case _:
            return ()


def timing_matters(net: Net) -> bool:
    """Whether what a root ends as can depend on who comes first."""
    return any(
        getattr(node, "timeout", None) is not None or getattr(getattr(node, "join", None), "rule", "") == "first"
        for node in nodes(net)
    )


# -- stages ---------------------------------------------------------------------------------------------------------


class Builder:
    """Makes the stages of a network; names are given in order, so they are the same for the oracle."""

    def __init__(self, gauge: Gauge) -> None:
        self.gauge = gauge
        self._count = 0

    def name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}{self._count}"

    def chain(self, net: Net) -> Stage:
        return Chain.of(*(self.stage(node) for node in net))

    def stage(self, node: object) -> Stage:
        match node:
            case Work():
                return self.work(node, self.name("work"))
            case Sieve():
                return self.sieve(node, self.name("sieve"))
            case Par():
                name = self.name("par")
                branches = tuple((f"b{place}", self.chain(net)) for place, net in enumerate(node.branches))
                return ParallelStage(name, branches, node.join, node.timeout, node.on_timeout)
            case Choice():
                return self.choice(node, self.name("choice"))
            case Fan():
                return self.fan(node, self.name("fan"))
        raise TypeError(node)

    def work(self, node: Work, name: str) -> Stage:
        gauge = self.gauge
        gauge.most[name] = node.concurrency

        def plain(value: object) -> int:
            return worked(node, value)

        async def waits(value: object) -> int:
            gauge.enter(name)
            try:
                await anyio.sleep(digest(value) * node.pace % 4 * TICK)
            finally:
                gauge.leave(name)
            return worked(node, value)

        async def lends(value: object, visit: Visit) -> int:
            gauge.enter(name)
            try:
                if node.kind == "lend":
                    gauge.leave(name)
                    try:
                        async with visit.without_slot():
                            await anyio.sleep(digest(value) * node.pace % 4 * TICK)
                    finally:
                        gauge.running[name] += 1
                    gauge.leave(name)
                    gauge.enter(name)
                await checkpoint()
            finally:
                gauge.leave(name)
            return worked(node, value)

        function: Any = {"plain": plain, "async": waits, "visit": lends, "lend": lends}[node.kind]
        return MapStage(name, node.concurrency, "skip" if node.skip_failures else None, function)

    def sieve(self, node: Sieve, name: str) -> Stage:
        async def waits(value: object) -> bool:
            await anyio.sleep(TICK)
            return passes(node, value)

        def plain(value: object) -> bool:
            return passes(node, value)

        return FilterStage(name, 1, None, waits if node.waits else plain)

    def choice(self, node: Choice, name: str) -> Stage:
        async def waits(value: object) -> str:
            await anyio.sleep(TICK)
            return label_of(node, value)

        cases = {f"c{place}": self.chain(net) for place, net in enumerate(node.cases)}
        default = None if node.default is None else self.chain(node.default)
        by = waits if node.waits else lambda value: label_of(node, value)
        return route(cases, by=by, default=default, name=name)

    def fan(self, node: Fan, name: str) -> Stage:
        async def slowly(value: object) -> Any:
            for part in parts_of(node, value):
                await anyio.sleep(TICK / 2)
                yield part

        return scatter(
            name,
            split=slowly if node.slow_split else lambda value: parts_of(node, value),
            each=self.chain(node.each),
            gather=None if node.gather is None else self.chain(node.gather),
            join=node.join,
            timeout=node.timeout,
            max_children=node.max_children,
            max_open=node.max_open,
            on_excess="truncate" if node.truncate else "fail",
        )


def worked(node: Work, value: object) -> int:
    number = digest(value)
    if node.fail_at is not None and number % FAILED_AT == node.fail_at:
        raise ValueError(f"{number} is refused")
    return (number * 3 + node.pace + 1) % 101


def passes(node: Sieve, value: object) -> bool:
    return digest(value) % 5 != node.drop_at


def label_of(node: Choice, value: object) -> str:
    return f"c{digest(value) % (len(node.cases) + 1)}"


def parts_of(node: Fan, value: object) -> list[int]:
    number = digest(value)
    return [number + place for place in range(number % node.modulus)]


# -- what they compute ----------------------------------------------------------------------------------------------


class End(NamedTuple):
    """How an item ends: `ok`, with what it lacks, `failed` or `skipped`."""

    status: str
    value: Any = None
    missing: tuple[str, ...] = ()


class Oracle:
    """Computes ends without an engine. Names are counted as `Builder` counts them: node first, then its bodies."""

    def __init__(self, net: Net) -> None:
        self.net = net

    def root(self, value: object) -> End:
        return self._body(self.net, value, (), 0)

    def _body(self, net: Net, value: object, missing: tuple[str, ...], before: int) -> End:
        end = End("ok", value, missing)
        for node in net:
            if end.status == "ok":
                end = self._node(node, end, before + 1)
            before += size((node,))
        return end

    def _node(self, node: object, end: End, here: int) -> End:
        value, missing = end.value, end.missing
        match node:
            case Work():
                try:
                    return End("ok", worked(node, value), missing)
                except ValueError:
                    return End("skipped" if node.skip_failures else "failed")
            case Sieve():
                return end if passes(node, value) else End("skipped")
            case Par():
                ends: dict[str, End] = {}
                before = here
                for place, net in enumerate(node.branches):
                    ends[f"b{place}"] = self._body(net, value, missing, before)
                    before += size(net)
                joined = join(f"par{here}", ends, node.join, missing)
                if joined.status != "ok":
                    return joined
                return joined._replace(value={label: one.value for label, one in ends.items() if one.status == "ok"})
            case Choice():
                place = digest(value) % (len(node.cases) + 1)
                before = here + sum(size(net) for net in node.cases[:place])
                if place < len(node.cases):
                    return self._body(node.cases[place], value, missing, before)
                return End("failed") if node.default is None else self._body(node.default, value, missing, before)
            case Fan():
                return self._fan(node, end, here)
        raise TypeError(node)

    def _fan(self, node: Fan, end: End, here: int) -> End:
        parts, missing = parts_of(node, end.value), end.missing
        if len(parts) > node.max_children:
            if not node.truncate:
                return End("failed")
            parts, missing = parts[: node.max_children], (*missing, f"fan{here}.rest")
        ends = {str(place): self._body(node.each, part, end.missing, here) for place, part in enumerate(parts)}
        joined = join(f"fan{here}", ends, node.join, missing)
        if joined.status != "ok":
            return joined
        values = [one.value for one in ends.values() if one.status == "ok"]
        if node.gather is None:
            return joined._replace(value=values)
        return self._body(node.gather, values, joined.missing, here + size(node.each))


def size(net: Net) -> int:
    return len(nodes(net))


def join(name: str, ends: Mapping[str, End], rule: Join, missing: tuple[str, ...]) -> End:
    """Join ends where timing cannot matter: all and quorum without a timeout."""
    ok = [one for one in ends.values() if one.status == "ok"]
    failed = [one for one in ends.values() if one.status == "failed"]
    if (rule.rule == "all" and failed) or (rule.rule == "quorum" and len(ok) < rule.k):
        return End("failed")
    lacks: list[str] = []
    for slot, one in ends.items():
        if one.status == "failed":
            lacks.append(f"{name}.{slot}")
        lacks += [what for what in one.missing if what not in missing]
    return End("ok", None, (*missing, *lacks))
