"""What a conversation is at the end of a run depends on the input and on recorded decisions, never on timing."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, NamedTuple

import anyio
import pytest

from pipeline.core.codec import encode
from pipeline.core.events import JoinDecided
from pipeline.core.joins import JoinLike, first
from pipeline.core.pipeline import Pipeline
from pipeline.core.stage import Stage
from pipeline.core.state import ConversationState
from pipeline.core.visit import Visit
from stages import agent, map, parallel, route, scatter
from tests.engine.schedules import run_in

PROMPTS = ("why do herons stand", "on one leg", "at all")
RUNS = 100

#: joins whose outcome depends on who comes first
JOINS = pytest.mark.parametrize(
    ("outer", "inner"), [("any", "any"), (first(2), "any"), (first(2), first(2))], ids=["any", "first", "both"]
)

#: How an agent behaves in a visit: seconds until it answers, None for never, or why it fails.
Behaviour = Callable[[Visit], float | Exception | None]


def says(name: str, behaves: Behaviour) -> Stage:
    """An agent whose answer tells everything that it was given, so that a disturbed conversation goes on disturbed."""

    async def answers(prompt: str, state: ConversationState, visit: Visit) -> str:
        wait = behaves(visit)
        if isinstance(wait, Exception):
            raise wait
        await anyio.sleep(float("inf") if wait is None else wait)
        given = encode([prompt, state.messages, dict(state.outputs)])
        return f"{name} {hashlib.sha256(given).hexdigest()[:12]}"

    answers.__name__ = name
    return agent(answers)


def words(value: object) -> list[str]:
    return str(value).split()


def kind(value: object) -> str:
    return "even" if sum(map_to_numbers(value)) % 2 == 0 else "odd"


def map_to_numbers(value: object) -> list[int]:
    return [ord(letter) for letter in str(value)]


class Played(NamedTuple):
    """The conversations at the end of a run, and the decisions on the way, by item."""

    histories: Mapping[str, bytes]
    decisions: Mapping[str, tuple[JoinDecided, ...]]


async def play(behaves: Behaviour, outer: JoinLike, inner: JoinLike) -> Played:
    """Run the prompts through a parallel in a parallel, a scatter and a route."""
    histories: dict[str, bytes] = {}
    decisions: defaultdict[str, list[JoinDecided]] = defaultdict(list)

    def keep(value: object, visit: Visit) -> object:
        state = visit.item.state
        histories[visit.item_id] = encode([state.messages, dict(state.outputs)])
        return value

    pair = parallel(
        "inner", join=inner, x=says("x", behaves), y=says("y", behaves) | says("y2", behaves), z=says("z", behaves)
    )
    each = says("worker", behaves) | route({n: says(n, behaves) for n in ("odd", "even")}, by=kind, name="kind")
    dig = scatter("dig", split=words, each=each, gather=says("sum", behaves), max_open=2)
    views = parallel("outer", join=outer, left=says("left", behaves), mid=pair, right=dig, last=says("last", behaves))
    chain = says("plan", behaves) | views | says("report", behaves) | map(keep)
    async with Pipeline(chain).open(PROMPTS, on_event=lambda e: decisions[e.item_id].append(e)) as run:
        async for _ in run.results:
            pass
    told = {item: tuple(sorted(heard, key=lambda event: event.path)) for item, heard in decisions.items()}
    return Played(histories, told)


def drawn(seed: int, *, failing: float = 0.0) -> Behaviour:
    """Latencies drawn from `seed`; whether an agent fails is a matter of the input alone."""

    def behaves(visit: Visit) -> float | Exception:
        if Random(f"{visit.item_id} {visit.path}").random() < failing:
            return ValueError(f"{visit.stage} fails")
        slow = 3 if visit.stage in ("left", "last") else 1  # so that those who take several steps can win too
        return Random(f"{seed} {visit.item_id} {visit.path}").random() * slow

    return behaves


def drawn_in_branches(seed: int) -> Behaviour:
    """The same, with failures in branches."""
    sure, unsure = drawn(seed), drawn(seed, failing=0.1)
    return lambda visit: unsure(visit) if "outer" in visit.path else sure(visit)


def test_a_hundred_timings_leave_the_same_bytes() -> None:
    seen = [
        run_in(backend, seed, play, drawn(seed), "all", "all").histories
        for backend in ("asyncio", "trio")
        for seed in range(RUNS)
    ]
    assert all(histories == seen[0] for histories in seen)
    assert seen[0].keys() == {"0", "1", "2"}
    assert len(set(seen[0].values())) == 3
    assert all(name in seen[0]["0"] for name in (b"x ", b"y2 ", b"z ", b"worker ", b"sum ", b"left ", b"last "))


def test_the_control_a_history_in_order_of_arrival_would_differ() -> None:
    """The latencies do what they should: who comes first differs from run to run."""

    async def arrivals(seed: int) -> tuple[str, ...]:
        order: list[str] = []

        def notes(visit: Visit) -> float | Exception | None:
            order.append(visit.stage)
            return drawn(seed)(visit)

        await play(notes, "all", "all")
        return tuple(order)

    assert len({run_in("asyncio", seed, arrivals, seed) for seed in range(10)}) == 10


@JOINS
def test_where_the_fastest_win_a_history_is_a_function_of_input_and_decisions(outer: Any, inner: Any) -> None:
    seen: defaultdict[tuple[str, str], set[bytes]] = defaultdict(set)
    differ: defaultdict[str, set[bytes]] = defaultdict(set)
    for backend in ("asyncio", "trio"):
        for seed in range(RUNS // 2):
            played = run_in(backend, seed, play, drawn_in_branches(seed), outer, inner)
            for item, history in played.histories.items():
                seen[item, repr(won(played.decisions[item]))].add(history)
                differ[item].add(history)
    assert all(len(histories) == 1 for histories in seen.values())
    assert all(len(histories) > 1 for histories in differ.values())
    assert len(seen) < RUNS  # the same decisions have come more than once


def won(decisions: tuple[JoinDecided, ...]) -> list[tuple[tuple[str, ...], list[str]]]:
    """Of each join that was decided well, which members it took. What was decided inside a member that was then not
    needed is no part of the history."""
    taken = {event.path: [slot for slot, state in event.slots.items() if state == "ok"] for event in decisions}
    return [
        (path, slots)
        for path, slots in sorted(taken.items())
        if all(path[at + 1] in taken.get(path[: at + 1], ()) for at in range(0, len(path) - 1, 2))
    ]


def replayed(decisions: tuple[JoinDecided, ...]) -> Behaviour:
    """Agents that do what a record of decisions says: who was open never answers, who had failed fails before the
    others answer."""
    slots = {(*event.path, slot): state for event in decisions for slot, state in event.slots.items()}

    def behaves(visit: Visit) -> float | Exception | None:
        path = visit.path
        states = [slots.get(path[: at + 2], "ok") for at in range(0, len(path) - 1, 2)]
        if "open" in states:
            return None
        if states and states[-1] == "failed":
            return ValueError("as it was")
        return 0.0 if "failed" in states else 1.0

    return behaves


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@JOINS
def test_a_run_that_repeats_the_decisions_repeats_the_history(backend: str, outer: Any, inner: Any) -> None:
    def repeats(played: Played) -> Behaviour:
        by_item = {item: replayed(decisions) for item, decisions in played.decisions.items()}
        return lambda visit: by_item[visit.item_id](visit) if visit.item_id in by_item else 0.0

    finished = 0
    for seed in range(20):
        played = run_in(backend, seed, play, drawn_in_branches(seed), outer, inner)
        again = run_in(backend, seed + 1, play, repeats(played), outer, inner)
        assert again.histories == played.histories
        for item in played.histories:
            assert won(again.decisions[item]) == won(played.decisions[item])
        finished += len(played.histories)
    assert finished >= 20
