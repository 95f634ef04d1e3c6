"""Every small pipeline of composites, nested up to three deep, on edges that hold nothing or one item: none deadlocks,
and each gives what it has to.

Every stage has one slot, and the window is as tight as it can be, so an item that waits for another one that cannot get
past it is found here. In virtual time such a run raises `Stalled` at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, product
from typing import Any

import anyio
import pytest

from pipeline.core.pipeline import Pipeline
from pipeline.core.record import Record
from pipeline.core.run import Run
from pipeline.core.stage import Stage
from stages import batch, first, flat_map, loop, map, map_reduce, parallel, partition_by, quorum, route, scatter, vote
from tests.engine.networks import digest
from tests.engine.schedules import run_in
from tests.engine.topologies import nothing_is_left

SHARDS = 12
BACKENDS = ("asyncio", "trio")
Compute = Callable[[object], Any]


class Names:
    """Names for the stages of one pipeline."""

    def __init__(self) -> None:
        self._numbers = count()

    def __call__(self, kind: str) -> str:
        return f"{kind}{next(self._numbers)}"


# -- leaves ---------------------------------------------------------------------------------------------------------


def worked(value: object) -> int:
    return (digest(value) * 3 + 1) % 101


async def works(value: object) -> int:
    await anyio.sleep(1)
    return worked(value)


async def fails(value: object) -> int:
    await anyio.sleep(1)
    raise ValueError("this branch fails")


async def is_late(value: object) -> int:
    """Loses every race."""
    await anyio.sleep(1000)
    return -1


def leaf(names: Names, function: Callable[[object], object] = works) -> Stage:
    return map(function, name=names("leaf"))


# -- composites: how each is built around an inner network, and what it computes given what that computes ------------


@dataclass(frozen=True)
class Around:
    """A composite with one inner network."""

    build: Callable[[Names, Stage], Stage]
    compute: Callable[[Compute, object], Any]


def even(value: object) -> bool:
    return digest(value) % 2 == 0


def some(value: object) -> list[int]:
    return [digest(value), digest(value) + 1][: digest(value) % 3]


def equal(value: object) -> list[int]:
    return [digest(value)] * (1 + digest(value) % 2)


def two(value: object) -> list[int]:
    return [digest(value), digest(value) + 1]


def looped(inner: Compute, value: object) -> Any:
    for _ in range(2):
        value = inner(value)
        if even(value):
            break
    return value


def listed(split: Callable[[object], list[int]]) -> Callable[[Compute, object], Any]:
    return lambda inner, value: [inner(part) for part in split(value)]


AROUND: dict[str, Around] = {
    "loop": Around(lambda names, inner: loop(inner, until=even, max_rounds=2, name=names("loop")), looped),
    "scatter all": Around(lambda names, inner: scatter(names("scatter"), split=some, each=inner), listed(some)),
    "scatter any": Around(
        lambda names, inner: scatter(names("scatter"), split=equal, each=inner, join="any"),
        lambda inner, value: [inner(digest(value))],
    ),
    "scatter quorum": Around(
        lambda names, inner: scatter(names("scatter"), split=two, each=inner, join=quorum(1), max_open=1), listed(two)
    ),
    "parallel all": Around(
        lambda names, inner: parallel(names("parallel"), a=inner, b=leaf(names)),
        lambda inner, value: {"a": inner(value), "b": worked(value)},
    ),
    "parallel any": Around(
        lambda names, inner: parallel(names("parallel"), a=inner, b=leaf(names, is_late), join=first(1)),
        lambda inner, value: inner(value),
    ),
    "parallel quorum": Around(
        lambda names, inner: parallel(names("parallel"), a=inner, b=leaf(names, fails), join=quorum(1)),
        lambda inner, value: {"a": inner(value)},
    ),
    "partition": Around(
        lambda names, inner: partition_by(even, inner, name=names("partition")), lambda inner, value: inner(value)
    ),
    "batch": Around(
        lambda names, inner: batch(
            scatter(names("scatter"), split=list, each=inner), size=2, within=1.5, name=names("batch")
        ),
        lambda inner, value: inner(value),
    ),
    "vote": Around(lambda names, inner: vote(names("vote"), inner, samples=3), lambda inner, value: inner(value)),
    "route": Around(
        lambda names, inner: route({"true": inner}, by=even, default=leaf(names), name=names("route")),
        lambda inner, value: inner(value) if even(value) else worked(value),
    ),
}

#: composites from the outermost inwards
Shape = tuple[str, ...]


#: a vote and a route fan out as these do; they are nested two deep only
REPEATED = tuple(kind for kind in AROUND if kind not in ("vote", "route"))


def shapes() -> Iterator[Shape]:
    """Every nesting of composites, from one to three deep."""
    for depth in (1, 2):
        yield from product(AROUND, repeat=depth)
    yield from product(REPEATED, repeat=3)


def built(shape: Shape, names: Names) -> Stage:
    inner: Stage = leaf(names) | leaf(names)
    for kind in reversed(shape):
        inner = AROUND[kind].build(names, inner)
    return inner


def computed(shape: Shape) -> Compute:
    inner: Compute = lambda value: worked(worked(value))  # noqa: E731
    for kind in reversed(shape):
        inner = partially(AROUND[kind].compute, inner)
    return inner


def partially(compute: Callable[[Compute, object], Any], inner: Compute) -> Compute:
    return lambda value: compute(inner, value)


# -- pipelines ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Small:
    """One pipeline: a shape, what stands around it on the top-level chain, and what bounds it."""

    shape: Shape
    top: str
    buffer_size: int
    max_in_flight: int
    ordered: bool

    def stage(self) -> Stage:
        names = Names()
        inner = built(self.shape, names)
        match self.top:
            case "map_reduce":
                return map_reduce(inner, split=some, reduce=added, initial=1, max_open=1)
            case "flat_map":
                return flat_map(two, name="flat", max_children=1) | inner
            case "collapse after":
                return inner | batch(size=2, within=1.5, name="collapse")
            case "collapse before":
                within = 1.5 if self.ordered or self.max_in_flight < 2 else None
                return batch(size=2, within=within, name="collapse") | inner
            case _:
                return inner

    def outputs(self, values: Sequence[int]) -> list[Any]:
        inner = computed(self.shape)
        match self.top:
            case "map_reduce":
                return [folded(inner, value) for value in values]
            case "flat_map":
                return [inner(part) for value in values for part in two(value)]
            case _:
                return [inner(value) for value in values]

    def outputs_of_batch(self, values: Sequence[int]) -> Any:
        inner = computed(self.shape)
        return inner(list(values)) if self.top == "collapse before" else [inner(value) for value in values]


def added(total: Any, value: object) -> int:
    return (total * 7 + digest(value)) % 997


def folded(inner: Compute, value: object) -> int:
    total = 1
    for part in some(value):
        total = added(total, inner(part))
    return total


def enumeration() -> Iterator[Small]:
    """All of them, in a fixed order."""
    tops = ("map_reduce", "flat_map", "collapse after", "collapse before")
    shallow = [shape for shape in shapes() if len(shape) < 3 and set(shape) <= set(REPEATED)]
    whole = [*product(shapes(), ("",)), *product(shallow, tops)]
    for number, (shape, top) in enumerate(whole):
        for buffer_size, max_in_flight in product((0, 1), (1, 2, 3)):
            yield Small(shape, top, buffer_size, max_in_flight, ordered=number % 2 == 1)


async def collected(small: Small, values: Sequence[int]) -> tuple[list[Record], Run]:
    pipe = Pipeline(
        small.stage(),
        max_in_flight=small.max_in_flight,
        buffer_size=small.buffer_size,
        ordered=small.ordered,
    )
    async with pipe.open(values) as run:
        records = [record async for record in run.results]
    return records, run


def run_and_check(backend: str, small: Small) -> None:
    values = range(7, 7 + small.max_in_flight + 2)
    records, run = run_in(backend, 0, collected, small, values)
    nothing_is_left(run)
    assert {record.status for record in records} <= {"ok", "partial"}
    assert sum(run.statistics().window.settled.values()) == len(values)
    if small.top.startswith("collapse"):
        batched = [id for record in records for id in record.inputs]
        assert sorted(batched, key=int) == [str(place) for place in range(len(values))]
        for record in records:
            assert record.output == small.outputs_of_batch([values[int(id)] for id in record.inputs])
    else:
        assert Counter(repr(record.output) for record in records) == Counter(map_repr(small.outputs(values)))


def map_repr(outputs: Sequence[object]) -> list[str]:
    return [repr(output) for output in outputs]


@pytest.mark.parametrize("shard", range(SHARDS))
def test_no_small_pipeline_deadlocks_and_each_gives_the_right_results(shard: int) -> None:
    for number, small in enumerate(enumeration()):
        if number // 6 % SHARDS == shard:  # the six bounds of a pipeline take turns on the backends
            run_and_check(BACKENDS[(number + number // 6) % 2], small)


def test_how_many_they_are() -> None:
    assert sum(1 for _ in enumeration()) >= 3_000
