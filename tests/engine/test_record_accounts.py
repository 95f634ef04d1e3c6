"""What a record says of usage and cost is a function of what was decided, never of when; the totals of the run have
everything."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from random import Random
from typing import NamedTuple

import anyio
import pytest

from pipeline.core.errors import Skip
from pipeline.core.events import Event, JoinDecided
from pipeline.core.joins import first, quorum
from pipeline.core.pipeline import Pipeline
from pipeline.core.record import Record
from pipeline.core.run import Run
from pipeline.core.stage import Stage
from pipeline.core.state import ConversationState
from pipeline.core.statistics import Statistics
from pipeline.core.usage import Account, Cost, Usage
from pipeline.core.visit import Visit
from stages import agent, batch, flat_map, loop, map, map_reduce, parallel, partition_by, route, scatter, vote
from tests.engine.schedules import in_virtual_time, run_in

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
PROMPTS = ("why do herons stand", "on one leg", "at all")
SEEDS = range(30)

#: dollars whose sum as floats depends on their order
PRICES = (0.1, 0.2, 0.3, 0.7, 1e-7)


class Charged(NamedTuple):
    """One charge of a visit."""

    item_id: str
    path: tuple[str, ...]
    usage: Usage
    cost: Cost | None
    cut: bool  #: the visit was revoked


class Books:
    """What every visit of one run was charged, and how long each takes."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.charged: list[Charged] = []

    def charge(self, visit: Visit, number: int, *, cut: bool = False) -> None:
        chance = Random(f"{visit.item_id} {visit.path} {number} {cut}")
        usage = Usage(chance.randrange(1, 50), chance.randrange(1, 50), requests=1, estimated=chance.random() < 0.05)
        priced = Cost(chance.choice(PRICES), chance.choice(("given", "simulated", visit.stage)))
        cost = chance.choice((priced, priced, priced, priced, None))
        visit.charge(usage, cost)
        self.charged.append(Charged(visit.item_id, visit.path, usage, cost, cut))

    def says(self, name: str, *, fails: float = 0.0, answer: Callable[[str], str] = str) -> Stage:
        """An agent with two requests, one after the other, and two more at once, each charged when it ends. Whether it
        fails is a matter of the input alone; when, and what is done by then, is drawn from the seed."""

        async def answers(prompt: str, state: ConversationState, visit: Visit) -> str:
            times = Random(f"{self.seed} {visit.item_id} {visit.path}")

            async def request(number: int, seconds: float) -> None:
                try:
                    await anyio.sleep(seconds)
                except BaseException:
                    self.charge(visit, number, cut=True)  # it was sent, and may be paid
                    raise
                self.charge(visit, number)

            await request(0, times.random())
            await request(1, times.random())
            async with anyio.create_task_group() as tasks:
                for number in (2, 3):
                    tasks.start_soon(request, number, times.random())
            if Random(f"{visit.item_id} {visit.path}").random() < fails:
                raise ValueError(f"{name} fails")
            return answer(prompt)

        answers.__name__ = name
        return agent(answers)


Build = Callable[[Books], Stage]


def words(value: object) -> list[str]:
    return str(value).split()


def three(books: Books, fails: float = 0.0) -> dict[str, Stage]:
    return {
        "x": books.says("x", fails=fails),
        "y": books.says("y", fails=fails) | books.says("y2"),
        "z": books.says("z", fails=fails),
    }


def any_of(books: Books) -> Stage:
    return parallel("group", join="any", **three(books, 0.2))


def first_two(books: Books) -> Stage:
    return parallel("group", join=first(2), **three(books, 0.1))


def in_time(books: Books) -> Stage:
    return parallel("group", join=quorum(1), timeout=2.0, **three(books, 0.2))


def all_or_fail(books: Books) -> Stage:
    return parallel("group", join="all", **three(books, 0.6))


def voted(books: Books) -> Stage:
    answers = {name: books.says(name, answer=answer) for name, answer in (("a", len), ("b", len), ("c", words))}  # type: ignore[arg-type]
    return vote("group", **answers, d=books.says("d", answer=lambda prompt: str(len(prompt))))


def nested(books: Books) -> Stage:
    again = loop(
        parallel("pair", join="any", p=books.says("p"), q=books.says("q")),
        until=lambda value: False,
        max_rounds=3,
        max_cost=1.0,
        name="again",
    )
    dig = scatter("dig", split=words, each=books.says("worker", fails=0.2), join=first(1), gather=books.says("sum"))
    kinds = route({"it": books.says("it")}, by=lambda value: "it", name="kind")
    parts = map_reduce(kinds, split=words, reduce=lambda total, value: [*total, value], initial=[], name="fold")
    lines = partition_by(str, parallel("inner", join=first(2), **three(books, 0.1)), name="lines")
    many = parallel("many", join=quorum(1), timeout=9.0, again=again, dig=dig)
    race = parallel("race", join="any", many=many, lines=lines)
    return books.says("before") | race | parts | books.says("after")


class Played(NamedTuple):
    """One run: its records by id, how its joins were decided, and what was charged."""

    records: Mapping[str, Record]
    decisions: Mapping[str, Mapping[tuple[str, ...], Mapping[str, str]]]
    charged: tuple[Charged, ...]
    total: Statistics

    def taken(self, one: Charged) -> bool:
        """Whether every group around a visit was decided with that member ended. What has no decision, or is none of
        its slots any more (an earlier round, a part that is folded in), has ended well."""
        decided = self.decisions[one.item_id]
        folds = [(one.path[: at + 1], one.path[at + 1]) for at in range(0, len(one.path) - 1, 2)]
        return all(
            decided[group].get(slot, "ok") not in ("open", "cancelled") if group in decided else False
            for group, slot in folds
        )

    def relevant(self, item: str) -> str:
        """What was decided for an item, except inside members that were then not needed."""
        decided = self.decisions[item]
        return repr(
            [
                (group, slots)
                for group, slots in sorted(decided.items())
                if all(
                    group[: at + 1] in decided and decided[group[: at + 1]].get(group[at + 1], "ok") != "open"
                    for at in range(0, len(group) - 1, 2)
                )
            ]
        )


async def play(build: Build, seed: int) -> Played:
    books = Books(seed)
    decisions: defaultdict[str, dict[tuple[str, ...], Mapping[str, str]]] = defaultdict(dict)

    def hear(event: Event) -> None:
        if isinstance(event, JoinDecided):
            decisions[event.item_id][event.path] = dict(event.slots)

    async with Pipeline(build(books)).open(PROMPTS, on_event=hear) as run:
        records = {record.id: record async for record in run.results}
    return Played(records, decisions, tuple(books.charged), run.statistics())


def summed(charges: list[Charged]) -> tuple[Usage, Cost | None]:
    account = Account()
    for one in charges:
        account.charge(one.usage, one.cost)
    return account.usage, account.cost


@BACKENDS
@pytest.mark.parametrize("build", [any_of, first_two, in_time, all_or_fail, voted, nested])
def test_a_record_has_what_those_used_that_were_part_of_the_decision(backend: str, build: Build) -> None:
    seen: defaultdict[tuple[str, str], set[object]] = defaultdict(set)
    differ: defaultdict[str, set[object]] = defaultdict(set)
    revoked = 0
    for seed in SEEDS:
        played = run_in(backend, seed, play, build, seed)
        assert played.records.keys() == {"0", "1", "2"}
        for item, record in played.records.items():
            said = (record.usage, record.cost)
            assert said == summed([one for one in played.charged if one.item_id == item and played.taken(one)])
            seen[item, played.relevant(item)].add(said)
            differ[item].add(said)
        lost = [one for one in played.charged if not played.taken(one)]
        revoked += len(lost)
        whole = Account()
        for usage, cost in [*((record.usage, record.cost) for record in played.records.values()), summed(lost)]:
            whole.charge(usage, cost)
        assert (whole.usage, whole.cost) == (played.total.usage, played.total.cost) == summed(list(played.charged))
    assert all(len(said) == 1 for said in seen.values())
    assert any(len(said) > 1 for said in differ.values())  # different decisions, different records
    assert len(seen) < len(SEEDS) * len(PROMPTS)  # the same decision has come more than once
    assert revoked > len(SEEDS)


@BACKENDS
def test_a_split_that_skips_its_item_leaves_nothing_of_the_parts_that_are_out(backend: str) -> None:
    async def parts(value: object) -> AsyncIterator[str]:
        for part in words(value):
            yield part
        await anyio.sleep(2)
        raise Skip

    def skipping(books: Books) -> Stage:
        cut = scatter("cut", split=parts, each=books.says("worker"))
        return parallel("group", cut=cut, x=books.says("x"))

    ended: set[int] = set()
    said: set[object] = set()
    for seed in SEEDS:
        played = run_in(backend, seed, play, skipping, seed)
        cut = {(one.item_id, one.path) for one in played.charged if one.cut}
        ended.add(len({(one.item_id, one.path) for one in played.charged if one.path[-1] == "worker"} - cut))
        for item, record in played.records.items():
            assert (record.usage, record.cost) == summed(
                [one for one in played.charged if one.item_id == item and "cut" not in one.path]
            )
        said.add(tuple((item, record.usage, record.cost) for item, record in sorted(played.records.items())))
    assert len(ended) > 1
    assert max(ended) > 0
    assert len(said) == 1


@BACKENDS
def test_a_split_that_fails_its_item_leaves_what_the_parts_used_that_had_ended(backend: str) -> None:
    async def parts(value: object) -> AsyncIterator[str]:
        yield "1"
        yield "3"
        await anyio.sleep(2)
        raise ValueError("no more")

    async def ask(seconds: str, state: ConversationState, visit: Visit) -> str:
        visit.charge(Usage(requests=int(seconds)), Cost(int(seconds) / 4, "test"))
        await anyio.sleep(int(seconds))
        return seconds

    async def main() -> tuple[str, Mapping[str, object], Cost | None, int, int]:
        async with Pipeline(scatter("cut", split=parts, each=agent(ask))).open(["x"]) as run:
            (record,) = await all_of(run)
        total = run.statistics().usage.requests
        return record.status, dict(record.outputs), record.cost, record.usage.requests, total

    assert run_in(backend, 0, main) == ("failed", {"cut": ["1"]}, Cost(0.25, "test"), 1, 4)


@BACKENDS
def test_one_that_was_cut_short_by_a_drain_is_no_part_of_the_record(backend: str) -> None:
    async def last(prompt: str, state: ConversationState, visit: Visit) -> str:
        visit.charge(Usage(requests=1), None)
        await anyio.sleep(5)
        return prompt

    async def more(prompt: str, state: ConversationState, visit: Visit) -> str:
        visit.charge(Usage(requests=10), None)
        await anyio.sleep(3)
        visit.admit_call()
        raise AssertionError("another call was admitted")

    async def main() -> tuple[str, int, int]:
        async with Pipeline(parallel("group", join="any", a=agent(last), b=agent(more))).open(["x"]) as run:
            await anyio.sleep(1)
            run.drain("calls")
            (record,) = [record async for record in run.results]
        return record.status, record.usage.requests, run.statistics().usage.requests

    assert run_in(backend, 0, main) == ("ok", 1, 11)


def charging(name: str, usd: float, seconds: float) -> Stage:
    """An agent that is charged at once, and takes so long to answer."""

    async def ask(prompt: str, state: ConversationState, visit: Visit) -> str:
        visit.charge(Usage(input_tokens=10, requests=1), Cost(usd, "test"))
        await anyio.sleep(seconds)
        return prompt

    ask.__name__ = name
    return agent(ask)


async def all_of(run: Run) -> list[Record]:
    return sorted([record async for record in run.results], key=lambda record: record.id)


@in_virtual_time
async def test_what_the_losers_of_a_round_cost_does_not_count_for_max_cost() -> None:
    race = parallel("race", join="any", quick=charging("quick", 0.25, 1), dear=charging("dear", 100.0, 2))
    async with Pipeline(loop(race, until=lambda value: False, max_rounds=9, max_cost=0.75)).open(["a"]) as run:
        (record,) = await all_of(run)
    assert (record.outputs["loop_rounds"], record.cost) == (3, Cost(0.75, "test"))
    assert run.statistics().cost == Cost(300.75, "test")


@BACKENDS
@pytest.mark.parametrize("leaves_at", [1, 3, 5])
def test_what_a_batch_used_is_shared_among_those_that_were_in_it_whenever_one_leaves(
    backend: str, leaves_at: float
) -> None:
    """It leaves while the batch is at work, or when it is done, or before it has begun to go on."""

    async def hurry(value: str) -> str:
        await anyio.sleep(leaves_at if value == "a" else 99)
        return value

    async def main() -> list[tuple[str, int, Cost | None]]:
        together = batch(charging("two", 0.5, 2) | map(lambda value: ["x", "y"], name="results"), size=2)
        slow = together | charging("slow", 0.25, 9)
        async with Pipeline(parallel("race", join="any", x=slow, y=map(hurry, concurrency=2))).open(["a", "b"]) as run:
            records = await all_of(run)
        assert run.statistics().usage.input_tokens == (20 if leaves_at < 2 else 30)
        return [(record.id, record.usage.input_tokens, record.cost) for record in records]

    assert run_in(backend, 0, main) == [("0", 0, None), ("1", 15, Cost(0.5, "test"))]


@BACKENDS
@pytest.mark.parametrize("seconds", [0.5, 2.5])
def test_an_item_whose_time_is_up_in_a_group_has_what_it_used_before_that(backend: str, seconds: float) -> None:
    async def main() -> tuple[str, Cost | None, Cost | None]:
        group = parallel("group", a=charging("a", 0.25, seconds), b=charging("b", 0.5, 99))
        async with Pipeline(charging("before", 1.0, 0) | group, item_timeout=3).open(["x"]) as run:
            (record,) = await all_of(run)
        return record.status, record.cost, run.statistics().cost

    assert run_in(backend, 0, main) == ("failed", Cost(1.0, "test"), Cost(1.75, "test"))


@in_virtual_time
async def test_what_an_item_used_before_it_became_several_is_in_one_record_also_when_its_time_is_up() -> None:
    after = map(lambda value: value, name="first") | charging("after", 0.25, 0)
    slow = flat_map(lambda value: parted(), name="several") | after
    async with Pipeline(charging("before", 1.0, 0) | slow, item_timeout=3).open(["x"]) as run:
        records = await all_of(run)
    assert [(record.id, record.status, record.cost) for record in records] == [
        ("0", "failed", None),
        ("0#0", "ok", Cost(1.25, "test")),
    ]
    assert run.statistics().cost == Cost(1.25, "test")


async def parted() -> AsyncIterator[str]:
    yield "one"
    await anyio.sleep(99)
