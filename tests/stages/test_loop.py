"""A loop: rounds until it is good enough, one item or one outcome for each item that enters."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator

import anyio
import pytest

from pipeline import (
    ConversationState,
    Cost,
    DefinitionError,
    ItemError,
    Message,
    Pipeline,
    Record,
    RunStopped,
    Usage,
    Visit,
)
from pipeline.core.errors import Skip
from pipeline.core.run import Run
from pipeline.core.stage import Stage
from pipeline.core.templates import Expression
from stages import agent, filter, loop, map, parallel, quorum, scatter
from tests.engine.schedules import in_virtual_time, run_in
from tests.engine.topologies import nothing_is_left
from tests.stages.models import ScriptedModel

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def more(value: int) -> int:
    return value + 1


def at_least(least: int) -> object:
    return lambda value: value >= least


def never(value: object) -> bool:
    return False


def reached(record: Record) -> object:
    """What a loop leaves behind: its value, how many rounds it took, and whether they were used up."""
    return record.output, record.outputs.get("loop_rounds"), record.outputs.get("loop_exhausted")


def failure(record: Record) -> tuple[str, str | None, str]:
    assert record.status == "failed"
    assert record.error is not None
    return record.error.type, record.error.stage, record.error.message


def until(**options: object) -> Stage:
    return loop(map(more), **{"until": at_least(3), "max_rounds": 5, **options})  # type: ignore[arg-type]


# -- when it ends ---------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_it_ends_with_the_round_that_is_good_enough() -> None:
    records = await Pipeline(until(), ordered=True).collect([0, 1, 2, 7])
    assert [reached(record) for record in records] == [(3, 3, False), (3, 2, False), (3, 1, False), (8, 1, False)]


@in_virtual_time
async def test_until_may_be_an_expression_over_what_the_body_made() -> None:
    written = map(lambda text: f"{text}!", name="written")
    judged = map(lambda text: {"score": len(text)}, name="judged") | map(Expression("{{ written }}"), name="kept")
    pipe = Pipeline(loop(written | judged, until="{{ judged.score >= 4 and round > 1 }}", max_rounds=9))
    records = await pipe.collect(["a", "abcdef"])
    assert {reached(record) for record in records} == {("a!!!", 3, False), ("abcdef!!", 2, False)}


@in_virtual_time
async def test_until_may_be_async_and_may_ask_for_the_visit() -> None:
    asked: list[tuple[int, object, tuple[str, ...]]] = []

    async def enough(value: int, visit: Visit) -> bool:
        await anyio.sleep(1)
        asked.append((value, visit.names()["round"], visit.path))
        return value >= 2

    (record,) = await Pipeline(until(until=enough)).collect([0])
    assert reached(record) == (2, 2, False)
    path = ("loop", "1", "loop.until"), ("loop", "2", "loop.until")
    assert asked == [(1, 1, path[0]), (2, 2, path[1])]


@in_virtual_time
async def test_an_until_that_waits_is_asked_for_several_items_at_once() -> None:
    async def judged(value: int) -> bool:
        await anyio.sleep(1)
        return True

    await Pipeline(loop(map(int), until=judged, max_rounds=2)).collect(range(10))
    assert anyio.current_time() == 1


@in_virtual_time
async def test_the_last_round_goes_on_when_all_are_used_up() -> None:
    (record,) = await Pipeline(until(max_rounds=2)).collect([0])
    assert (record.status, reached(record)) == ("ok", (2, 2, True))


@in_virtual_time
async def test_the_last_allowed_round_may_be_the_good_one() -> None:
    (record,) = await Pipeline(until(max_rounds=3)).collect([0])
    assert reached(record) == (3, 3, False)


@in_virtual_time
async def test_rounds_that_are_used_up_can_be_a_failure_that_keeps_what_the_last_one_made() -> None:
    records = await Pipeline(until(max_rounds=2, on_exhausted="fail"), ordered=True).collect([0, 1])
    assert failure(records[0]) == ("LoopExhausted", "loop", "not good enough after 2 rounds, max_rounds is 2")
    assert records[0].outputs == {"loop": 2}
    assert (records[1].status, reached(records[1])) == ("ok", (3, 2, False))


@in_virtual_time
async def test_what_is_no_yes_or_no_fails_the_item() -> None:
    def says(value: object) -> object:
        return {0: 1, 1: "yes", 2: None, 3: True}[value]  # type: ignore[index]

    pipe = Pipeline(loop(map(int), until=says, max_rounds=5), ordered=True)
    *wrong, right = await pipe.collect([0, 1, 2, 3])
    assert [failure(record)[0] for record in wrong] == ["NotABool"] * 3
    assert failure(wrong[1])[2] == "until of 'loop' has to say true or false, got 'yes'"
    assert right.status == "ok"


@in_virtual_time
async def test_until_that_raises_fails_the_item_and_one_that_skips_skips_it() -> None:
    def says(value: int) -> bool:
        if value == 1:
            raise ValueError("no idea")
        if value == 2:
            raise Skip
        return True

    async with Pipeline(loop(map(int), until=says, max_rounds=5), ordered=True).open([1, 2, 3]) as run:
        records = [record async for record in run.results]
    assert [(record.index, record.status) for record in records] == [(0, "failed"), (2, "ok")]
    assert failure(records[0]) == ("ValueError", "loop.until", "no idea")
    assert run.statistics().window.settled["skipped"] == 1


# -- what a round sees ----------------------------------------------------------------------------------------------


@in_virtual_time
async def test_templates_see_the_round_and_what_the_body_made_in_the_one_before() -> None:
    writer, critic = ScriptedModel(lambda text: f"<{text}>"), ScriptedModel(lambda text: "bad")
    was = "{% if round > 1 %}, was {{ writer }}, found {{ critic }}{% endif %}"
    body = agent("writer", model=writer, prompt="{{ round }}" + was + ", for {{ prompt }}")
    body = body | agent("critic", model=critic, prompt="{{ round }}: {{ writer }}")
    pipe = Pipeline(loop(body, until="{{ critic == 'good' }}", max_rounds=2))
    (record,) = await pipe.collect(["herons"])
    assert [messages[-1].content for messages in writer.asked] == [
        "1, for herons",
        "2, was <1, for herons>, found bad, for herons",
    ]
    assert [messages[-1].content for messages in critic.asked] == [
        "1: <1, for herons>",
        "2: <2, was <1, for herons>, found bad, for herons>",
    ]
    assert record.outputs == {"loop_rounds": 2, "loop_exhausted": True, "loop": "bad"}


@in_virtual_time
async def test_what_the_body_has_not_put_out_yet_is_no_word_in_a_prompt_of_the_first_round() -> None:
    model = ScriptedModel(lambda text: "ok")
    body = agent("writer", model=model, prompt="Better than {{ critic }}") | agent("critic", model=model)
    (record,) = await Pipeline(loop(body, until="{{ round == 2 }}", max_rounds=2)).collect(["herons"])
    assert record.error is not None
    assert record.error.message == (
        "'critic' is not defined; available here: vars, round, input, prompt (what the body of a loop puts out is "
        "there from round 2 on: {% if round > 1 %} … {% endif %})"
    )
    assert model.asked == []


@in_virtual_time
async def test_each_round_gets_what_the_one_before_put_out() -> None:
    seen: list[int] = []

    def double(value: int) -> int:
        seen.append(value)
        return value * 2

    (record,) = await Pipeline(loop(map(double), until=at_least(8), max_rounds=9)).collect([1])
    assert (seen, record.output) == ([1, 2, 4], 8)


@in_virtual_time
async def test_messages_of_all_rounds_are_kept_and_go_on() -> None:
    seen: list[tuple[Message, ...]] = []

    async def look(prompt: str, state: ConversationState) -> str:
        seen.append(state.messages)
        return prompt

    pipe = Pipeline(
        loop(agent("w", model=ScriptedModel(lambda text: text + "+")), until="{{ round == 2 }}", max_rounds=3) | look
    )
    await pipe.collect(["a"])
    assert seen == [
        (
            Message("user", "a"),
            Message("assistant", "a+", "w"),
            Message("user", "a+"),
            Message("assistant", "a++", "w"),
        )
    ]


@in_virtual_time
async def test_what_partial_joins_lacked_in_a_round_is_told_of_the_last_one_only() -> None:
    def odd_fails(value: int) -> int:
        if value % 2:
            raise ValueError(f"{value} is odd")
        return value

    both = parallel("both", join=quorum(1), a=map(int), b=map(odd_fails)) | map(lambda both: both["a"] + 1, name="next")
    pipe = Pipeline(loop(both, until=at_least(4), max_rounds=9), ordered=True)
    partial, whole = await pipe.collect([0, 1])
    assert (partial.status, partial.missing, reached(partial)) == ("partial", ("both.b",), (4, 4, False))
    assert partial.error is not None
    assert partial.error.message == "both.b: 3 is odd"
    assert (whole.status, reached(whole)) == ("partial", (4, 3, False))
    (record,) = await Pipeline(loop(both, until=at_least(5), max_rounds=9)).collect([0])
    assert (record.status, record.missing) == ("ok", ())


@in_virtual_time
async def test_what_was_lacking_before_the_loop_is_told_once() -> None:
    def breaks(value: object) -> object:
        raise ValueError("no")

    views = parallel("views", join=quorum(1), a=map(int), b=map(breaks)) | map(lambda views: views["a"], name="a_of")
    (record,) = await Pipeline(views | until()).collect([0])
    assert (record.status, record.missing, reached(record)) == ("partial", ("views.b",), (3, 3, False))


@in_virtual_time
async def test_rounds_and_exhausted_are_seen_by_later_templates() -> None:
    said = map(Expression("{{ loop_rounds ~ ' ' ~ loop_exhausted ~ ' ' ~ loop }}"), name="said")
    (record,) = await Pipeline(until(max_rounds=2) | said).collect([0])
    assert record.output == "2 True 2"


# -- rounds that end badly ------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_round_that_fails_fails_the_item() -> None:
    def breaks_at_two(value: int) -> int:
        if value == 2:
            raise ValueError("two")
        return value + 1

    (record,) = await Pipeline(loop(map(breaks_at_two), until=at_least(5), max_rounds=9)).collect([0])
    assert failure(record) == ("ValueError", "breaks_at_two", "two")


@in_virtual_time
async def test_a_round_that_is_skipped_skips_the_item() -> None:
    body = map(more) | filter(lambda value: value != 2, name="not_two")
    async with Pipeline(loop(body, until=at_least(4), max_rounds=9), ordered=True).open([0, 2]) as run:
        records = [record async for record in run.results]
    assert [(record.index, reached(record)) for record in records] == [(1, (4, 2, False))]
    assert run.statistics().window.settled["skipped"] == 1


@in_virtual_time
async def test_on_error_of_the_loop_is_asked_for_rounds_that_fail() -> None:
    def breaks(value: int) -> int:
        raise ValueError("no")

    async with Pipeline(loop(map(breaks), until=bool, max_rounds=2, on_error="skip")).open([1]) as run:
        assert [record async for record in run.results] == []
    assert run.statistics().window.settled["skipped"] == 1
    with pytest.raises(RunStopped, match="no"):
        await Pipeline(loop(map(breaks), until=bool, max_rounds=2, on_error="fail")).collect([1])


async def through(value: str) -> str:
    await anyio.sleep(100 if value == "stuck" else 0)
    return value


async def two_seconds(value: str) -> str:
    await anyio.sleep(2)
    return value


#: while `stuck` is in it, one item waits at its door, then one round, and further rounds stand in line
BLOCKED = map(through) | map(two_seconds, concurrency=3)
VALUES = ["a", "b", "c", "stuck", "at the door"]


def in_line(run: Run) -> int:
    return len(run._machine.composites["loop"].feedback._line)


@in_virtual_time
async def test_an_item_whose_time_is_up_in_a_round_at_the_door_or_in_the_line_leaves_nothing() -> None:
    async with Pipeline(loop(BLOCKED, until=never, max_rounds=9), item_timeout=5, buffer_size=0).open(VALUES) as run:
        await anyio.sleep(4)
        assert in_line(run) == 2
        records = [record async for record in run.results]
        assert anyio.current_time() == 5
        assert in_line(run) == 0
    assert [failure(record)[:2] for record in records] == [("item_timeout", "loop")] * 5
    nothing_is_left(run)


# -- money ----------------------------------------------------------------------------------------------------------


def charging(usd: float | None, name: str = "charging") -> object:
    """An agent whose every call costs so much."""

    async def ask(prompt: str, state: ConversationState, visit: Visit) -> str:
        visit.charge(Usage(requests=1), Cost(usd, "test"))
        return prompt + "."

    ask.__name__ = name
    return ask


@in_virtual_time
async def test_no_further_round_begins_once_those_of_an_item_have_cost_the_most() -> None:
    pipe = Pipeline(loop(charging(0.25), until=never, max_rounds=9, max_cost=0.75))
    records = await pipe.collect(["a", "b"])
    assert {reached(record) for record in records} == {("a...", 3, True), ("b...", 3, True)}
    assert [record.cost for record in records] == [Cost(0.75, "test")] * 2


@in_virtual_time
async def test_rounds_that_cost_too_much_can_be_a_failure() -> None:
    pipe = Pipeline(loop(charging(0.5), until=never, max_rounds=9, max_cost=0.75, on_exhausted="fail"))
    (record,) = await pipe.collect(["a"])
    text = "not good enough after 2 rounds, which cost 1 USD, max_cost is 0.75 USD"
    assert failure(record) == ("LoopExhausted", "loop", text)
    assert (record.outputs, record.cost) == ({"loop": "a.."}, Cost(1.0, "test"))


@in_virtual_time
async def test_a_price_that_is_not_known_fails_the_item_if_there_is_to_be_another_round() -> None:
    body = charging(None)
    (record,) = await Pipeline(loop(body, until=never, max_rounds=9, max_cost=1)).collect(["a"])
    text = "max_cost 1 USD cannot be kept: the price of a model that was asked is not known"
    assert failure(record) == ("UnknownPrice", "loop", text)
    good = Pipeline(loop(body, until=lambda value: True, max_rounds=9, max_cost=1))
    used_up = Pipeline(loop(body, until=never, max_rounds=1, max_cost=1))
    assert [(await pipe.collect(["a"]))[0].status for pipe in (good, used_up)] == ["ok", "ok"]


@in_virtual_time
async def test_only_what_the_loop_s_own_rounds_cost_counts() -> None:
    inside = loop(charging(0.25), until=never, max_rounds=4, max_cost=0.6)
    beside = parallel("beside", a=inside, b=charging(100.0, "dear"))
    (record,) = await Pipeline(charging(50.0, "before") | beside).collect(["a"])
    assert record.output == {"a": "a....", "b": "a.."}
    assert record.cost == Cost(150.75, "test")


@in_virtual_time
async def test_what_an_inner_loop_costs_counts_for_the_outer_one_too() -> None:
    inner = loop(charging(0.25), until=never, max_rounds=2, name="inner")
    (record,) = await Pipeline(loop(inner, until=never, max_rounds=9, max_cost=1)).collect(["a"])
    assert (reached(record), record.cost) == (("a....", 2, True), Cost(1.0, "test"))


# -- where it can stand ---------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_loop_in_a_loop_counts_its_own_rounds() -> None:
    seen: list[tuple[object, object]] = []

    def note(value: int, visit: Visit) -> int:
        seen.append((visit.names()["round"], visit.names()["inner_rounds"]))
        return value

    inner = loop(map(more), until=lambda value: value % 3 == 0, max_rounds=9, name="inner")
    (record,) = await Pipeline(loop(inner | map(note), until=at_least(6), max_rounds=9)).collect([1])
    assert reached(record) == (6, 2, False)
    assert seen == [(1, 2), (2, 3)]
    assert "inner" not in record.outputs


@in_virtual_time
async def test_the_inner_loop_begins_each_outer_round_without_what_its_body_made() -> None:
    seen: list[tuple[object, object]] = []

    def note(value: int, visit: Visit) -> int:
        seen.append((visit.names()["round"], visit.names().get("note")))
        return value + 1

    inner = loop(map(note), until="{{ round == 2 }}", max_rounds=2, name="inner")
    await Pipeline(loop(inner, until="{{ round == 2 }}", max_rounds=2)).collect([0])
    assert seen == [(1, None), (2, 1), (1, None), (2, 3)]


@in_virtual_time
async def test_each_child_of_a_scatter_has_rounds_of_its_own() -> None:
    dig = scatter("dig", split=range, each=until())
    (record,) = await Pipeline(dig).collect([5])
    assert record.output == [3, 3, 3, 4, 5]


@in_virtual_time
async def test_a_loop_that_loses_a_race_leaves_the_line_at_once() -> None:
    async def quick(value: str) -> str:
        await anyio.sleep(9)
        return value.upper()

    race = parallel("race", join="any", a=loop(BLOCKED, until=never, max_rounds=9), b=map(quick, concurrency=5))
    async with Pipeline(race, buffer_size=0).open(VALUES) as run:
        await anyio.sleep(8)
        assert in_line(run) == 2
        records = [record async for record in run.results]
        assert anyio.current_time() == 9
        assert in_line(run) == 0
    assert sorted(str(record.output) for record in records) == sorted(value.upper() for value in VALUES)
    nothing_is_left(run)


@in_virtual_time
async def test_losers_that_are_slow_to_leave_stay_within_the_bound_over_all_rounds() -> None:
    async def stubborn(value: int) -> int:
        try:
            await anyio.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(50)
        return value

    async def quick(value: int) -> int:
        await anyio.sleep(1)
        return value + 1

    race = parallel("race", join="any", a=map(quick), b=map(stubborn, concurrency=9))
    body = race | map(lambda value: value, name="same")
    pipe = Pipeline(loop(body, until=at_least(4), max_rounds=6), max_in_flight=1)
    assert pipe.bounds.items == 1 + (1 + 2) + 5 * 2  # five rounds can leave both branches behind
    async with pipe.open([0, 0]) as run:
        assert [reached(record) async for record in run.results] == [(4, 4, False)] * 2
    assert run.statistics().window.peak == 1 + 3 + 3  # those of three rounds are still leaving


def test_the_bound_counts_the_item_and_its_one_round() -> None:
    assert Pipeline(until(max_rounds=100), max_in_flight=4).bounds.items == 8
    assert str(Pipeline(until(), max_in_flight=4)) == "loop: at most 4 roots, at most 8 items alive"


# -- the line in front of the body ----------------------------------------------------------------------------------


@BACKENDS
@pytest.mark.parametrize("buffer_size", [0, 1])
def test_rounds_go_before_items_that_have_not_come_in(backend: str, buffer_size: int) -> None:
    visits: list[int] = []

    async def work(value: tuple[int, int]) -> tuple[int, int]:
        number, round = value
        visits.append(number)
        await anyio.sleep(1)
        return number, round + 1

    async def main() -> list[Record]:
        pipe = Pipeline(loop(map(work), until=lambda value: value[1] == 3, max_rounds=9), buffer_size=buffer_size)
        return await pipe.collect([(number, 0) for number in range(20)])

    assert len(run_in(backend, 0, main)) == 20
    # whoever has begun is done before more than those have begun who stood at the door already
    for number in range(20):
        last = max(place for place, visited in enumerate(visits) if visited == number)
        assert len(set(visits[: last + 1])) <= number + 1 + 2 + buffer_size


@in_virtual_time
async def test_an_item_that_comes_in_while_rounds_stand_in_line_goes_behind_them() -> None:
    entered: list[str] = []

    async def door(value: str) -> str:
        entered.append(value)
        await anyio.sleep(10 if value == "stuck" else 0)
        return value

    async def uneven(value: str) -> str:
        await anyio.sleep({"a": 2, "b": 2.25, "c": 2.5}.get(value, 1))
        return value

    async def arriving() -> AsyncIterator[str]:
        for value in ("a", "b", "c", "stuck"):
            yield value
        await anyio.sleep(3)
        yield "late"

    body = map(door) | map(uneven, concurrency=4)
    pipe = Pipeline(loop(body, until="{{ round == 2 }}", max_rounds=2), buffer_size=0)
    async with pipe.open(arriving()) as run:
        await anyio.sleep(4)
        assert in_line(run) == 3  # two rounds behind the one that waits at the door, and the item that came
        assert len([record async for record in run.results]) == 5
    assert entered == ["a", "b", "c", "stuck", "a", "b", "c", "late", "stuck", "late"]


@BACKENDS
@pytest.mark.parametrize("buffer_size", [0, 1, None])
def test_more_items_than_the_body_has_room_for_go_round_without_blocking_each_other(
    backend: str, buffer_size: int | None
) -> None:
    async def slow(value: int) -> int:
        await anyio.sleep(value % 3)
        return value + 1

    async def main() -> list[Record]:
        body = map(slow, concurrency=2) | map(lambda value: value, name="same")
        pipe = Pipeline(loop(body, until=at_least(60), max_rounds=99), max_in_flight=40, buffer_size=buffer_size)
        return await pipe.collect(range(50))

    assert [record.output for record in run_in(backend, 0, main)] == [60] * 50


@in_virtual_time
async def test_an_endless_source_does_not_keep_rounds_from_their_end() -> None:
    async def endless() -> AsyncIterator[int]:
        while True:
            yield 0

    async def slow(value: int) -> int:
        await anyio.sleep(1)
        return value + 1

    pipe = Pipeline(loop(map(slow, concurrency=4), until=at_least(5), max_rounds=9), max_in_flight=16)
    async with pipe.open(endless()) as run:
        taken = 0
        async for record in run.results:
            assert reached(record) == (5, 5, False)
            taken += 1
            if taken == 40:
                break
    nothing_is_left(run)


# -- ends of a run --------------------------------------------------------------------------------------------------


async def slowly(prompt: str, state: ConversationState, visit: Visit) -> str:
    visit.admit_call()
    await anyio.sleep(2)
    return prompt + "."


@in_virtual_time
async def test_a_drain_of_items_finishes_every_round_and_one_of_calls_cancels() -> None:
    async def drained(mode: str) -> tuple[list[object], dict[str, int]]:
        pipe = Pipeline(loop(slowly, until=lambda text: len(text) >= 4, max_rounds=9))
        async with pipe.open(["a", "b"]) as run:
            await anyio.sleep(3)
            run.drain(mode)  # type: ignore[arg-type]
            records = [record async for record in run.results]
        nothing_is_left(run)
        return sorted(str(record.output) for record in records), dict(run.statistics().window.settled)

    outputs, settled = await drained("items")
    assert (outputs, settled["ok"], settled["cancelled"]) == (["a...", "b..."], 2, 0)
    outputs, settled = await drained("calls")
    assert (outputs, settled["ok"], settled["cancelled"]) == ([], 0, 2)


@BACKENDS
@pytest.mark.parametrize("after", [0.5, 1.5, 2.5, 4.5])
@pytest.mark.parametrize("how", ["abort", "leave"])
def test_ended_at_once_it_leaves_nothing(backend: str, after: float, how: str) -> None:
    async def slow(value: int) -> int:
        await anyio.sleep(1)
        return value + 1

    async def main() -> None:
        pipe = Pipeline(loop(map(slow) | map(more), until=at_least(99), max_rounds=99), max_in_flight=8, buffer_size=0)
        tasks = len(anyio.get_running_tasks())
        async with pipe.open(range(20)) as run:
            await anyio.sleep(after)
            if how == "abort":
                run.abort()
                assert [record async for record in run.results] == []
        nothing_is_left(run)
        assert run.statistics().window.settled["cancelled"] == run.statistics().window.admitted > 2
        assert len(anyio.get_running_tasks()) == tasks

    run_in(backend, 0, main)


@in_virtual_time
async def test_a_submitted_record_goes_round_and_a_caller_who_leaves_takes_it_along() -> None:
    async def slow(value: int) -> int:
        await anyio.sleep(1)
        return value + 1

    async with Pipeline(loop(map(slow), until=at_least(4), max_rounds=9)).open() as run:
        assert reached(await run.submit(1)) == (4, 3, False)
        with anyio.move_on_after(1.5):
            await run.submit(0)
    assert run.statistics().window.settled["cancelled"] == 1
    nothing_is_left(run)


# -- definitions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_rounds": 0}, "stage 'loop', max_rounds: must be a whole number of at least 1, got 0"),
        ({"max_rounds": "3"}, "stage 'loop', max_rounds: must be a whole number of at least 1, got '3'"),
        ({"max_rounds": True}, "stage 'loop', max_rounds: must be a whole number of at least 1, got True"),
        ({"max_cost": 0}, "stage 'loop', max_cost: must be above 0 US dollars, got 0"),
        ({"max_cost": math.nan}, "stage 'loop', max_cost: must be above 0 US dollars, got nan"),
        ({"max_cost": math.inf}, "stage 'loop', max_cost: must be above 0 US dollars, got inf"),
        ({"max_cost": "5"}, "stage 'loop', max_cost: must be above 0 US dollars, got '5'"),
        ({"on_exhausted": "stop"}, "stage 'loop', on_exhausted: must be last or fail, got 'stop'"),
        ({"on_error": "x"}, "stage 'loop', on_error: must be one of dead_letter, skip, fail, or a function, got 'x'"),
        ({"until": 5}, "stage 'loop', until: must be a function or an expression, got 5"),
    ],
)  # fmt: skip
def test_options_that_cannot_work_are_refused(options: dict[str, object], text: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        Pipeline(until(**options))
    assert str(caught.value) == text


def test_templates_are_checked_with_what_the_body_makes() -> None:
    body = map(Expression("{{ nope }}"), name="a") | map(Expression("{{ [b, a, round] }}"), name="b")
    with pytest.raises(DefinitionError) as caught:
        Pipeline(loop(body, until="{{ c }}", max_rounds=1) | map(Expression("{{ [b, round] }}"), name="after"))
    seen = [problem.message.partition("; ")[0] for problem in caught.value.problems]
    assert sorted(seen) == ["uses 'b'", "uses 'c'", "uses 'nope'", "uses 'round'"]
    assert {problem.stage: problem.option for problem in caught.value.problems}["loop"] == "until"


def test_a_loop_is_a_value() -> None:
    stage = until()
    assert stage == loop(map(more), until=stage.until, max_rounds=5)  # type: ignore[attr-defined]
    assert stage != until()
    assert "max_rounds=5" in repr(stage)


async def test_an_error_of_until_s_own_is_told_as_it_is() -> None:
    def says(value: object) -> bool:
        raise ItemError("ask again later", type="Busy", retryable=True)

    (record,) = await Pipeline(loop(map(str), until=says, max_rounds=2)).collect(["a"])
    assert failure(record) == ("Busy", "loop.until", "ask again later")
