"""Every composite, resumed from every state that a crash can leave: the same lines, and no finished call again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_
from typing import Any

import anyio
import pytest

from pipeline.core.pipeline import Pipeline
from pipeline.core.state import ConversationState
from stages import (
    agent,
    batch,
    filter,
    first,
    flat_map,
    loop,
    map,
    map_reduce,
    parallel,
    partition_by,
    quorum,
    route,
    scatter,
    vote,
)
from stages.models.simulated import SimulatedModel
from tests.durability.prefixes import check_prefixes

UNEVEN = SimulatedModel(model="echo", latency="uniform:0.02s..0.4s", seed=3)
EVEN = SimulatedModel(model="echo", latency=0.2)
FAULTY = SimulatedModel(model="echo", latency="uniform:0.02s..0.4s", fail_when="two")
PROMPTS = ("one", "two", "three")


def asks(name: str, model: SimulatedModel = UNEVEN, prompt: str = "{{ prompt }}", **options: Any) -> Any:
    return agent(name, model=model, prompt=f"{name}: {prompt}", **options)


def each_part(name: str, model: SimulatedModel = UNEVEN, **options: Any) -> Any:
    return asks(name, model, "{{ part }}", **options)


def letters(value: str) -> list[str]:
    return list(value)


async def letters_later(value: str) -> Any:
    for letter in value:
        await anyio.sleep(0.05)
        yield letter


async def letters_that_break(value: str) -> Any:
    for letter in value[:2]:
        await anyio.sleep(0.05)
        yield letter
    raise ValueError(f"no more of {value}")


async def kind(value: object) -> str:
    await anyio.sleep(0.1)
    return "short" if len(str(value)) % 2 else "long"


def long_enough(value: object) -> bool:
    return len(str(value)) > 20


def judged(parts: list[str]) -> list[str]:
    return [f"{part} of {len(parts)}" for part in parts]


def two_are_enough(members: Any) -> str | None:
    if len(members.values) == 2:
        return "partial"
    return "failed" if members.done else None


def gives_up(members: Any) -> str | None:
    return "failed" if members.values else None


async def thinks(prompt: str, state: ConversationState) -> str:
    await anyio.sleep(0.1)
    return f"thought about {prompt}"


def shouted(total: list[str], value: str) -> list[str]:
    return [*total, value.upper()]


Build = Callable[[], Any]

SURE: dict[str, Build] = {
    "all": lambda: parallel("p", x=asks("x") | asks("x2"), y=asks("y"), z=asks("z")),
    "quorum": lambda: parallel("p", x=asks("x"), y=asks("y", FAULTY), z=asks("z"), join=quorum(2)) | asks("after"),
    "scatter": lambda: scatter("s", split=letters, each=each_part("each"), gather=asks("g", prompt="{{ parts }}")),
    "scatter of an iterator": lambda: scatter("s", split=letters_later, each=each_part("each"), max_open=2),
    "truncated scatter": lambda: scatter(
        "s", split=letters_later, each=each_part("each"), max_children=3, on_excess="truncate"
    ),
    "map_reduce": lambda: map_reduce(
        each_part("each"), split=letters_later, reduce=shouted, initial=[], name="m", max_open=2
    ),
    "flat_map": lambda: flat_map(letters_later, max_children=2) | asks("each", prompt="{{ letters_later }}"),
    "flat_map that breaks": lambda: flat_map(letters_that_break) | asks("each", prompt="{{ letters_that_break }}"),
    "route": lambda: route({"short": asks("s"), "long": asks("l")}, by=kind, name="r"),
    "loop": lambda: loop(
        agent("more", model=UNEVEN, prompt="{{ prompt }}{% if round > 1 %} {{ more }}{% endif %}"),
        until=long_enough,
        max_rounds=6,
    ),
    "partition": lambda: partition_by(kind, asks("one_by_one")),
    "custom agent": lambda: agent(thinks) | asks("after", prompt="{{ thinks }}"),
    "filter": lambda: asks("f") | filter(lambda value: "t" in value, name="t", pure=False) | asks("after"),
    "nested": lambda: scatter(
        "s",
        split=letters,
        each=parallel("p", x=each_part("x"), y=loop(each_part("again"), until=long_enough, max_rounds=2, name="l")),
    ),
}


def later(name: str, seconds: float, says: str = "done", fails: bool = False) -> Any:
    """A pure function that takes as long in a replay as it did before, unlike calls."""

    async def function(value: object) -> str:
        await anyio.sleep(seconds)
        if fails:
            raise ValueError(f"{name} is broken")
        return says

    return map(function, name=name)


def in_its_time(**seconds: float) -> Any:
    """A pure function that takes its time for each part."""

    async def work(part: str) -> str:
        await anyio.sleep(seconds[part])
        return part.upper()

    return map(work, concurrency=4)


def chain(name: str, calls: int, prompt: str = "yes") -> Any:
    """Calls of 0.2 s in a row: those that were finished take no time in a replay."""
    stages = [agent(f"{name}{n}", model=EVEN, prompt=prompt) for n in range(calls)]
    return reduce(or_, stages)


#: In each of these a replay that did not know how it was decided would decide otherwise, because what was slow is fast.
TIMED: dict[str, Build] = {
    "any": lambda: parallel("p", x=chain("x", 2), y=later("y", 0.3), join="any") | asks("after"),
    "first two": lambda: parallel(
        "p", x=later("x", 0.3), y=later("y", 0.35, fails=True), z=chain("z", 3), w=later("w", 0.5), join=first(2)
    ),
    "all that fails": lambda: parallel(
        "p", w=later("w", 0.1), x=chain("x", 3), y=later("y", 0.5, fails=True), z=later("z", 0.55, fails=True)
    ),
    "last one fails": lambda: parallel(
        "p", x=chain("x", 2) | later("x", 0.2), y=chain("y", 3) | later("y", 0.1, fails=True)
    ),
    "quorum in time": lambda: parallel("p", x=asks("x"), y=chain("y", 6), z=asks("z"), join=quorum(2), timeout=1.0),
    "late and partial": lambda: (
        parallel("p", x=asks("x"), y=chain("y", 6), timeout=1.0, on_timeout="partial") | asks("after")
    ),
    "late and failed": lambda: parallel("p", x=asks("x"), y=chain("y", 6), timeout=1.0),
    "late and dropped": lambda: parallel("p", x=asks("x"), y=chain("y", 6), timeout=1.0, on_error="skip"),
    "custom": lambda: (
        parallel("p", x=later("x", 0.3), y=later("y", 0.5), z=chain("z", 3), join=two_are_enough) | asks("after")
    ),
    "custom that fails": lambda: parallel("p", x=later("x", 0.5), z=chain("z", 3), join=gives_up),
    "quorum out of reach": lambda: parallel(
        "p", x=chain("x", 4), y=later("y", 0.5, fails=True), z=later("z", 0.7, fails=True), join=quorum(2)
    ),
    "vote": lambda: vote("v", a=later("a", 0.3, "yes"), b=later("b", 0.5, "yes"), c=chain("c", 3)),
    "vote of samples": lambda: vote("v", agent("a", model=UNEVEN, prompt="yes"), samples=5) | asks("after"),
    "scatter with the first two": lambda: (
        scatter("s", split=letters_later, each=in_its_time(o=0.14, n=0.15, e=0.12), join=first(2)) | asks("after")
    ),
    "scatter that breaks": lambda: scatter("s", split=letters_that_break, each=in_its_time(o=0.04, n=0.04, e=0.04)),
    "scatter with too many": lambda: scatter(
        "s", split=letters_later, each=in_its_time(o=0.07, n=0.07, e=0.07), max_children=2
    ),
    "map_reduce that fails": lambda: map_reduce(
        route(
            {"h": later("broken", 0.3, fails=True), "more": chain("c", 2)},
            by=lambda part: "h" if part == "h" else "more",
            name="r",
        ),
        split=letters_later,
        reduce=shouted,
        initial=[],
        name="m",
        max_open=2,
    ),
    "nested races": lambda: (
        parallel(
            "p",
            x=scatter("s", split=letters_later, each=in_its_time(o=0.14, n=0.15, e=0.12), join=first(2)) | asks("x"),
            y=parallel("q", a=later("a", 0.3), b=chain("b", 2), join="any") | chain("y", 6),
            join=quorum(1),
            timeout=1.0,
        )
        | asks("after")
    ),
    "races in a loop": lambda: loop(
        parallel("p", a=later("a", 0.3), b=chain("b", 2), join="any") | map(lambda value: f"{value}!", name="on"),
        until=lambda value: False,
        max_rounds=2,
    ),
}
#: of these not every prompt has the letters that they know
OF_ONE = ("scatter with the first two", "scatter that breaks", "scatter with too many", "nested races")


def names(workloads: dict[str, Build]) -> Sequence[str]:
    return tuple(workloads)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("name", names(SURE))
def test_what_no_timing_decides_ends_alike_from_every_prefix(name: str, backend: str) -> None:
    check_prefixes(Pipeline(SURE[name](), max_in_flight=2), PROMPTS, backend)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("name", names(TIMED))
def test_what_timing_has_decided_stays_decided(name: str, backend: str) -> None:
    prompts = ("one",) if name in OF_ONE else PROMPTS
    first, *_ = check_prefixes(Pipeline(TIMED[name](), max_in_flight=2), prompts, backend, timed=("join",))
    assert first.named("fact", "join"), "nothing was decided"


BATCHED: dict[str, Build] = {
    "bracket": lambda: (
        asks("a")
        | batch(asks("b", prompt="{{ parts | length }}") | map(lambda _: ["x", "y"], name="m"), size=2)
        | asks("c")
    ),
    "bracket by weight and key": lambda: (
        asks("a") | batch(map(judged), size=6, weight=lambda value: len(value) - 2, key=kind) | asks("c")
    ),
    "collapsed": lambda: asks("a") | batch(size=2) | asks("c", prompt="{{ batch }}"),
    "children in a bracket": lambda: (
        flat_map(letters)
        | batch(map(judged) | asks("b", prompt="{{ parts | length }}") | map(lambda _: ["x", "y"], name="m"), size=2)
        | asks("c")
    ),
    "collapsed children": lambda: flat_map(letters) | asks("a") | batch(size=3) | asks("c", prompt="{{ batch }}"),
}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("name", names(BATCHED))
def test_batches_stay_together(name: str, backend: str) -> None:
    prompts = ("one", "two", "four", "five")
    check_prefixes(Pipeline(BATCHED[name]()), prompts, backend, timed=("batch",))
