"""Every public stage keeps the law of stages, on both backends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import pytest

from pipeline.core.agent import stage_of_agent
from pipeline.core.item import Outcome
from pipeline.core.leaf import LeafStage
from pipeline.core.members import Members, Verdict
from pipeline.core.stage import Stage, as_stage
from pipeline.core.state import ConversationState
from pipeline.core.visit import Visit
from stages import batch, filter, loop, map, map_reduce, parallel, partition_by, route, scatter
from stages.tap import tap
from stages.vote import vote
from tests.contract.bench import Bench, Script
from tests.engine.schedules import run_in

Make = Callable[[Script], Stage]


def mapping(script: Script, name: str = "map") -> Stage:
    return map(script, name=name, concurrency=2)


def with_visit(script: Script) -> Stage:
    async def visited(value: object, visit: Visit) -> object:
        return await script(value)

    return map(visited)


def lending(script: Script) -> Stage:
    async def lends(value: object, visit: Visit) -> object:
        async with visit.without_slot():
            return await script(value)

    return map(lends)


def timed(script: Script) -> Stage:
    return map(script, name="timed", timeout=1000)


def tapped(script: Script) -> Stage:
    async def looks(value: object) -> None:
        await anyio.sleep(0.1)
        raise ValueError("nobody hears of it")

    return tap(looks) | mapping(script)


def filtering(script: Script) -> Stage:
    return filter(script, name="filter")


def agent(script: Script) -> Stage:
    async def answers(prompt: str, state: ConversationState) -> object:
        return await script(prompt)

    return stage_of_agent(answers)


def own(script: Script) -> Stage:
    class Own(LeafStage):
        async def process(self, item: object) -> object:
            return await script(item.value)  # type: ignore[attr-defined]

    return Own("own")


def chain(script: Script) -> Stage:
    return mapping(script, "one") | mapping(script, "two")


def branches(script: Script) -> Stage:
    return parallel("views", a=mapping(script, "a"), b=mapping(script, "b") | mapping(script, "c"))


def race(script: Script) -> Stage:
    return parallel("race", join="any", a=mapping(script, "a"), b=mapping(script, "b"))


def decided(script: Script) -> Stage:
    return parallel("decided", join=enough, a=mapping(script, "a"), b=mapping(script, "b"))


def enough(members: Members) -> Verdict | None:
    return "ok" if members.values else "failed" if members.done else None


def voting(script: Script) -> Stage:
    return vote("vote", a=mapping(script, "a"), b=mapping(script, "b"), c=mapping(script, "c"))


def sampled(script: Script) -> Stage:
    return vote("vote", mapping(script, "a") | mapping(script, "b"), samples=3, needed="plurality")


def cases(script: Script) -> Stage:
    async def by(value: object) -> str:
        return "a"

    return route({"a": mapping(script, "a"), "b": mapping(script, "b")}, by=by)


def asked(script: Script) -> Stage:
    async def by(value: object) -> str:
        await script(value)
        return "a"

    async def same(value: object) -> object:
        return value

    return route({"a": map(same)}, by=by)


def children(script: Script) -> Stage:
    return scatter("dig", split=lambda value: [value, value], each=mapping(script, "each"), max_open=1)


def splitting(script: Script) -> Stage:
    async def split(value: object) -> list[object]:
        return [await script(value)]

    async def same(value: object) -> object:
        return value

    return scatter("dig", split=split, each=map(same))


def gathered(script: Script) -> Stage:
    async def last(values: list[object]) -> object:
        return await script(values[0])

    return scatter("dig", split=lambda value: [value], each=map(lambda v: v, name="each"), gather=map(last))


def nested(script: Script) -> Stage:
    return parallel("outer", x=children(script), y=cases(script))


async def same(value: object) -> object:
    return value


def good_at_once(script: Script) -> Stage:
    return loop(mapping(script, "again"), until=lambda value: True, max_rounds=3)


def good_at_last(script: Script) -> Stage:
    return loop(mapping(script, "again"), until="{{ round == 3 }}", max_rounds=3)


def judged(script: Script) -> Stage:
    async def enough(value: object) -> bool:
        await script(value)
        return True

    return loop(map(same), until=enough, max_rounds=3)


def one_key(script: Script) -> Stage:
    return partition_by(lambda value: 1, mapping(script))


def many_keys(script: Script) -> Stage:
    return partition_by(str, mapping(script))


def key_asked(script: Script) -> Stage:
    return partition_by(script, map(same))


def each_alone(script: Script) -> Stage:
    async def each(values: list[object]) -> list[object]:
        return [await script(value) for value in values]

    return batch(map(each, concurrency=2), size=1)


def by_kind(script: Script) -> Stage:
    async def first(values: list[object]) -> list[object]:
        return [await script(values[0])] * len(values)

    return batch(map(first), size=3, within=0.25, key=str)


def weighed(script: Script) -> Stage:
    async def weight(value: object) -> int:
        await script(value)
        return 1

    return batch(map(list), size=2, within=0.25, weight=weight)


def collapsed(script: Script) -> Stage:
    return batch(size=1, key=script)


def folded(script: Script) -> Stage:
    return map_reduce(
        mapping(script, "each"),
        split=lambda value: [value] * 3,
        reduce=lambda total, value: value,
        initial=None,
        max_open=2,
    )


STAGES: dict[str, Make] = {
    make.__name__: make
    for make in (
        mapping, with_visit, lending, filtering, agent, own, chain, branches, race, cases, asked, children, splitting,
        gathered, nested, timed, tapped, decided, voting, sampled, good_at_once, good_at_last, judged, one_key,
        many_keys, key_asked, each_alone, by_kind, weighed, collapsed, folded
    )
}  # fmt: skip

#: stages whose join counts a member that was skipped as finished, so that the item goes on
JOINED = {"branches", "children", "nested", "folded"}

#: stages whose join needs an output of some member, so that the item fails when each was skipped
NEEDY = {"race", "decided", "voting", "sampled"}


@pytest.fixture(params=STAGES)
def make(request: pytest.FixtureRequest) -> Make:
    return STAGES[request.param]


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def check(backend: str, body: Callable[[], Awaitable[None]]) -> None:
    for seed in range(4):
        run_in(backend, seed, body)


def takes_several_steps(stage: Stage) -> bool:
    """The first of several stages in a row hears that downstream has left when it next sends, or its input ends."""
    return any(len(each.parts()) > 1 for each in (stage, *(body.stage for body in stage.bodies().values())))


def test_an_item_that_is_worked_on_is_sent_on_once(backend: str, make: Make) -> None:
    async def body() -> None:
        bench = Bench(make(Script()))
        bench.put("x", "y", "z")
        items = await bench.run()
        assert sorted(item.frame.root.index for item in items) == [0, 1, 2]
        assert bench.outcomes == {}
        bench.settle(items)
        bench.assert_clean()

    check(backend, body)


def test_an_item_whose_visit_raises_fails_and_the_others_go_on(backend: str, make: Make) -> None:
    async def body() -> None:
        bench = Bench(make(Script()))
        bench.put("x", "raise", "y")
        items = await bench.run()
        assert sorted(item.frame.root.index for item in items) == [0, 2]
        assert bench.outcomes == {1: ["failed"]}
        bench.settle(items)
        bench.assert_clean()

    check(backend, body)


def test_a_skipped_item_ends_as_skipped_unless_a_join_counts_it_as_finished(
    backend: str, make: Make, request: pytest.FixtureRequest
) -> None:
    name = next(name for name, known in STAGES.items() if known is make)

    async def body() -> None:
        bench = Bench(make(Script()))
        bench.put("skip")
        items = await bench.run()
        if name in JOINED:
            assert len(items) == 1
        else:
            assert bench.outcomes == {0: ["failed" if name in NEEDY else "skipped"]}
        bench.settle(items)
        bench.assert_clean()

    check(backend, body)


def test_an_item_that_was_revoked_before_is_dropped_without_a_visit(backend: str, make: Make) -> None:
    async def body() -> None:
        script = Script()
        bench = Bench(make(script))
        root, _ = bench.put("x", "y")
        bench.machine.window.end_early(root, Outcome("cancelled"))
        items = await bench.run()
        assert "x" not in script.visits
        assert [item.frame.root.index for item in items] == [1]
        assert root.live == 0
        bench.settle(items)
        bench.assert_clean()

    check(backend, body)


def test_an_item_that_is_revoked_while_it_is_visited_leaves_nothing(backend: str, make: Make) -> None:
    async def body() -> None:
        bench = Bench(make(Script()))
        root, _ = bench.put("wait", "y")
        items = await bench.run(lambda: bench.machine.window.end_early(root, Outcome("cancelled")))
        assert [item.frame.root.index for item in items] == [1]
        assert bench.outcomes == {0: ["cancelled"]}
        bench.settle(items)
        bench.assert_clean()

    check(backend, body)


def test_cancelled_while_it_visits_and_while_items_wait_it_cancels_them_all(backend: str, make: Make) -> None:
    async def body() -> None:
        bench = Bench(make(Script()))
        bench.put("wait", "wait", "wait", "wait")
        items = await bench.run(bench.scope.cancel, end_input=False)
        assert items == []
        assert bench.outcomes == {key: ["cancelled"] for key in range(4)}
        bench.assert_clean()

    check(backend, body)


def test_cancelled_while_it_waits_for_room_it_cancels_what_it_holds(backend: str, make: Make) -> None:
    async def body() -> None:
        bench = Bench(make(Script()), room=0)
        bench.put("x", "y", "z")
        items = await bench.run(bench.scope.cancel)
        assert items == []
        assert bench.outcomes == {key: ["cancelled"] for key in range(3)}
        bench.assert_clean()

    check(backend, body)


def test_when_downstream_has_left_it_stops_quietly(backend: str, make: Make) -> None:
    async def body() -> None:
        bench = Bench(make(Script()))
        bench.put("x", "y", "z")
        bench.behind.inbox.close()
        await bench.run(end_input=takes_several_steps(bench.stage))
        assert bench.outcomes == {key: ["cancelled"] for key in range(3)}
        bench.assert_clean()

    check(backend, body)


def test_when_downstream_leaves_while_it_waits_for_room_it_stops_quietly(backend: str, make: Make) -> None:
    async def body() -> None:
        bench = Bench(make(Script()), room=0)
        bench.put("x", "y", "z")
        await bench.run(bench.behind.inbox.close, end_input=takes_several_steps(bench.stage))
        assert bench.outcomes == {key: ["cancelled"] for key in range(3)}
        bench.assert_clean()

    check(backend, body)


def test_it_ends_when_its_empty_inbox_ends(backend: str, make: Make) -> None:
    async def body() -> None:
        bench = Bench(make(Script()))
        assert await bench.run() == []
        assert bench.outcomes == {}
        bench.assert_clean()

    check(backend, body)


def test_a_definition_prints_compares_and_runs_twice(backend: str, make: Make) -> None:
    script = Script()
    stage = as_stage(make(script))
    assert stage == stage
    assert repr(stage)

    async def body() -> None:
        bench = Bench(stage)
        bench.put("x")
        items = await bench.run()
        assert len(items) == 1
        bench.settle(items)
        bench.assert_clean()

    check(backend, body)
    check(backend, body)
