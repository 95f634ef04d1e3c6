"""A batch without a body: several items become one, which leaves one record and holds their credits until then."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable

import anyio
import pytest

from pipeline import ConversationState, Cost, DefinitionError, Pipeline, Record, Usage, Visit
from pipeline.core.errors import PipelineError, RunStopped
from pipeline.core.run import Run
from pipeline.core.stage import Stage
from pipeline.core.templates import Expression
from stages import agent, batch, filter, flat_map, loop, map, map_reduce, parallel, partition_by, quorum, route, scatter
from tests.engine.schedules import in_virtual_time, run_in
from tests.engine.topologies import nothing_is_left
from tests.stages.models import ScriptedModel

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


async def arriving(*times: tuple[float, object]) -> AsyncIterator[object]:
    """A source whose records come at given times."""
    for at, value in times:
        await anyio.sleep_until(at)
        yield value


def gathered(size: int = 3, **options: object) -> Stage:
    return batch(size=size, **{"name": "all", **options})  # type: ignore[arg-type]


def shown(records: list[Record]) -> list[tuple[str, str, object, tuple[str, ...]]]:
    return [(record.id, record.status, record.output, record.inputs) for record in records]


async def results(pipe: Pipeline, source: object) -> tuple[list[Record], dict[str, int]]:
    """The records of a run, and how its roots settled."""
    async with pipe.open(source) as run:  # type: ignore[arg-type]
        records = [record async for record in run.results]
    nothing_is_left(run)
    return records, {status: count for status, count in run.statistics().window.settled.items() if count}


async def slow(value: object) -> object:
    await anyio.sleep(2)
    return value


# -- the record -----------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_several_items_leave_one_record_that_names_them() -> None:
    records, settled = await results(
        Pipeline(map(str.upper, name="up") | gathered(2) | map(len, name="count")), ["a", "b", "c"]
    )
    assert records[0].standard() == {
        "id": "all:0",
        "index": 0,
        "status": "ok",
        "output": 2,
        "outputs": {"all": ["A", "B"], "count": 2},
        "error": None,
        "usage": {
            "input_tokens": 0,
            "output_tokens": 0,
            "cached_input_tokens": 0,
            "reasoning_tokens": 0,
            "requests": 0,
        },
        "cost": None,
        "input": ["A", "B"],
        "inputs": ["0", "1"],
    }
    assert shown(records) == [("all:0", "ok", 2, ("0", "1")), ("all:2", "ok", 1, ("2",))]
    assert settled == {"ok": 3}


@in_virtual_time
async def test_ids_that_records_bring_are_kept() -> None:
    records = await Pipeline(gathered(2)).collect([{"id": "x"}, {"id": "y"}])
    assert shown(records) == [("all:x", "ok", [{"id": "x"}, {"id": "y"}], ("x", "y"))]


@in_virtual_time
async def test_a_failure_behind_it_is_one_failed_record_and_fails_its_members() -> None:
    def breaks(values: object) -> object:
        raise ValueError("no")

    records, settled = await results(Pipeline(gathered(2) | map(breaks)), [1, 2, 3])
    assert shown(records) == [("all:0", "failed", None, ("0", "1")), ("all:2", "failed", None, ("2",))]
    error = records[0].error
    assert error is not None
    assert (error.stage, error.message, records[0].outputs) == ("breaks", "no", {"all": [1, 2]})
    assert settled == {"failed": 3}


@in_virtual_time
async def test_policies_of_the_pipeline_and_of_stages_hold_behind_it() -> None:
    def breaks(values: object) -> object:
        raise ValueError("no")

    with pytest.raises(RunStopped, match="no"):
        await Pipeline(gathered(2) | map(breaks), on_error="fail").collect([1, 2])
    for pipe in (
        Pipeline(gathered(2) | map(breaks, on_error="skip")),
        Pipeline(gathered(2) | map(breaks), on_error="skip"),
    ):
        assert await results(pipe, [1, 2, 3]) == ([], {"skipped": 3})


@in_virtual_time
async def test_a_batch_that_is_filtered_skips_its_members() -> None:
    pipe = Pipeline(gathered(2) | filter(lambda values: sum(values) > 5, name="big"))
    records, settled = await results(pipe, [1, 2, 3, 4])
    assert (shown(records), settled) == ([("all:2", "ok", [3, 4], ("2", "3"))], {"ok": 2, "skipped": 2})


@in_virtual_time
async def test_what_members_lacked_the_record_lacks() -> None:
    def odd_fails(value: int) -> int:
        if value % 2:
            raise ValueError(f"{value} is odd")
        return value

    before = parallel("before", join=quorum(1), a=map(int), b=map(odd_fails)) | map(lambda both: both["a"], name="a_of")
    records, settled = await results(Pipeline(before | gathered(2)), [0, 2, 1, 4])
    assert [(record.status, record.output, record.missing) for record in records] == [
        ("ok", [0, 2], ()),
        ("partial", [1, 4], ("before.b",)),
    ]
    assert settled == {"ok": 2, "partial": 2}


@in_virtual_time
async def test_it_has_what_its_members_used_and_what_was_used_for_it() -> None:
    async def asks(prompt: str, state: ConversationState, visit: Visit) -> str:
        visit.charge(Usage(input_tokens=10, requests=1), Cost(0.25, "test"))
        return prompt

    async def again(prompt: str, state: ConversationState, visit: Visit) -> str:
        return await asks(prompt, state, visit)

    (record,) = await Pipeline(agent(asks) | gathered(3) | agent(again)).collect(["a", "b", "c"])
    assert (record.usage, record.cost) == (Usage(input_tokens=40, requests=4), Cost(1.0, "test"))


@in_virtual_time
async def test_one_that_leaves_has_handed_over_what_it_used() -> None:
    async def asks(prompt: str, state: ConversationState, visit: Visit) -> str:
        visit.charge(Usage(requests=1), None)
        return prompt

    pipe = Pipeline(agent(asks) | gathered(2, within=9) | map(slow), item_timeout=3, ordered=True)
    records, settled = await results(pipe, arriving((0, "a"), (2, "b")))
    assert [(record.status, record.usage.requests) for record in records] == [("failed", 0), ("ok", 2)]
    assert settled == {"failed": 1, "ok": 1}
    pipe = Pipeline(agent(asks) | gathered(2, within=9) | map(slow), item_timeout=1, ordered=True)
    records, settled = await results(pipe, ["a", "b"])
    assert [(record.status, record.usage.requests) for record in records] == [("failed", 0), ("failed", 2)]


@in_virtual_time
async def test_weight_and_key_are_those_of_a_batch() -> None:
    stage = gathered(10, weight=lambda value: value, key=lambda value: value % 2)
    records = await Pipeline(stage).collect([3, 4, 5, 8, 3, 12])
    assert sorted(listed(record) for record in records) == [[3], [3, 5], [4], [8], [12]]


def listed(record: Record) -> list[int]:
    assert isinstance(record.output, list)
    return record.output


# -- order ----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_under_ordered_it_stands_where_its_first_member_stood() -> None:
    async def late_first(values: list[int]) -> list[int]:
        await anyio.sleep(100 - values[0])
        return values

    pipe = Pipeline(gathered(2, key=lambda value: value % 3) | map(late_first, concurrency=9), ordered=True)
    records = await pipe.collect(range(10))
    assert [record.output for record in records] == [[0, 3], [1, 4], [2, 5], [6, 9], [7], [8]]
    assert [record.index for record in records] == [0, 1, 2, 6, 7, 8]


@in_virtual_time
async def test_under_ordered_failed_and_skipped_items_between_keep_their_places() -> None:
    def some(value: int) -> int:
        if value in (1, 4):
            raise ValueError("no")
        return value

    stages = filter(lambda value: value != 2, name="not_two") | map(some) | gathered(2)
    records, settled = await results(Pipeline(stages, ordered=True), range(7))
    assert [(record.index, record.status, record.output) for record in records] == [
        (0, "ok", [0, 3]),
        (1, "failed", None),
        (4, "failed", None),
        (5, "ok", [5, 6]),
    ]
    assert settled == {"ok": 4, "failed": 2, "skipped": 1}


@BACKENDS
@pytest.mark.parametrize("leave", [1, 2])
def test_under_ordered_the_record_comes_in_the_turn_of_the_first_member_that_is_left(backend: str, leave: int) -> None:
    async def main() -> tuple[list[Record], dict[str, int]]:
        first = [(0.0, number) for number in range(leave)]
        pipe = Pipeline(gathered(3, within=60) | map(slow, concurrency=9), item_timeout=4, ordered=True)
        return await results(pipe, arriving(*first, *((3.0, number) for number in range(leave, 5))))

    records, settled = run_in(backend, 0, main)
    assert settled == {"failed": leave, "ok": 5 - leave}
    assert [record.id for record in records] == [*ids(range(leave)), "all:0", "all:3"]
    assert [record.inputs for record in records[leave:]] == [ids(range(leave, 3)), ("3", "4")]


def ids(numbers: range) -> tuple[str, ...]:
    return tuple(str(number) for number in numbers)


# -- credits --------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_record_that_nobody_has_taken_holds_the_credits_of_its_members() -> None:
    given: list[int] = []

    def source() -> object:
        for number in range(9):
            given.append(number)
            yield number

    async with Pipeline(gathered(2), max_in_flight=4).open(source()) as run:  # type: ignore[arg-type]
        await anyio.sleep(100)
        assert (given, run.statistics().window.in_flight) == ([0, 1, 2, 3], 4)
        assert (await anext(run.results)).output == [0, 1]
        assert run.statistics().window.in_flight == 2
        await anyio.sleep(100)
        assert (given, run.statistics().window.in_flight) == ([0, 1, 2, 3, 4, 5], 4)
        assert [record.output async for record in run.results] == [[2, 3], [4, 5], [6, 7], [8]]
    nothing_is_left(run)


@in_virtual_time
async def test_a_slow_reader_does_not_use_up_the_time_of_members_whose_batch_is_done() -> None:
    async with Pipeline(gathered(2), item_timeout=5).open(range(6)) as run:
        async for record in run.results:
            assert record.status == "ok"
            await anyio.sleep(20)
    assert run.statistics().window.settled["ok"] == 6


@in_virtual_time
async def test_a_batch_whose_members_have_all_left_vanishes_behind_it_too() -> None:
    cancelled: list[object] = []

    async def forever(values: object) -> object:
        try:
            await anyio.sleep_forever()
        except BaseException:
            cancelled.append(values)
            raise

    records, settled = await results(Pipeline(gathered(2) | map(forever), item_timeout=5), [1, 2, 3])
    assert [(record.status, record.inputs) for record in records] == [("failed", ())] * 3
    error = records[0].error
    assert error is not None
    assert (error.type, error.stage) == ("item_timeout", "all")
    assert (cancelled, settled) == ([[1, 2]], {"failed": 3})  # the other one waited in front of it


@in_virtual_time
async def test_what_takes_its_time_to_leave_behind_it_keeps_a_credit() -> None:
    async def quick(values: object) -> object:
        await anyio.sleep(1)
        return values

    async def stubborn(values: object) -> object:
        try:
            await anyio.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(50)
        return values

    race = parallel("race", join="any", a=map(quick), b=map(stubborn, concurrency=9))
    pipe = Pipeline(gathered(1) | race | map(str, name="end"), max_in_flight=1)
    async with pipe.open([1, 2, 3]) as run:
        ended = [(anyio.current_time(), record.status) async for record in run.results]
    assert ended == [(1, "ok"), (52, "ok"), (103, "ok")]
    assert run.statistics().window.peak <= pipe.bounds.items
    nothing_is_left(run)


def test_the_bound_counts_each_item_and_what_it_became() -> None:
    assert Pipeline(gathered(3), max_in_flight=10).bounds.items == 20
    behind = parallel(a=map(str, name="a"), b=map(str, name="b"))
    assert Pipeline(gathered(3) | behind, max_in_flight=10).bounds.items == 10 * (1 + 3)
    assert Pipeline(gathered(3) | gathered(3, name="more"), max_in_flight=10).bounds.items == 30


# -- with others that change the number of records ------------------------------------------------------------------


def numbers(n: int) -> list[int]:
    return list(range(n))


@in_virtual_time
async def test_children_of_a_flat_map_are_gathered_across_their_parents() -> None:
    records, settled = await results(Pipeline(flat_map(numbers) | gathered(3), ordered=True), [2, 3, 0, 1])
    assert shown(records) == [
        ("all:0#0", "ok", [0, 1, 0], ("0#0", "0#1", "1#0")),
        ("all:1#1", "ok", [1, 2, 0], ("1#1", "1#2", "3#0")),
    ]
    assert [record.parent for record in records] == [None, None]
    assert settled == {"ok": 3, "skipped": 1}


@in_virtual_time
async def test_a_parent_ends_as_the_worst_batch_of_its_children() -> None:
    def no_three(values: list[int]) -> list[int]:
        if 3 in values:
            raise ValueError("three")
        return values

    _, settled = await results(Pipeline(flat_map(numbers) | gathered(2) | map(no_three), ordered=True), [2, 4, 2])
    assert settled == {"ok": 2, "failed": 1}


@in_virtual_time
async def test_under_ordered_batches_of_one_parent_s_children_stand_in_their_order() -> None:
    async def late_first(values: list[int]) -> list[int]:
        await anyio.sleep(100 - values[0])
        return values

    stages = flat_map(numbers) | gathered(2) | map(late_first, concurrency=9)
    records = await Pipeline(stages, ordered=True).collect([7, 2])
    assert [record.output for record in records] == [[0, 1], [2, 3], [4, 5], [6, 0], [1]]


@BACKENDS
@pytest.mark.parametrize("ordered", [False, True])
def test_any_number_of_children_of_one_root_are_gathered_within_the_bound(backend: str, ordered: bool) -> None:
    async def main() -> None:
        stages = flat_map(numbers, max_children=4) | gathered(2, within=1) | gathered(3, within=1, name="again")
        pipe = Pipeline(stages, max_in_flight=1, ordered=ordered)
        async with pipe.open([100]) as run:
            records = [record async for record in run.results]
        assert sorted(n for record in records for pair in listed(record) for n in pair) == list(range(100))  # type: ignore[attr-defined]
        assert run.statistics().window.peak <= pipe.bounds.items
        nothing_is_left(run)

    run_in(backend, 0, main)


@in_virtual_time
async def test_batches_of_batches_name_the_items_that_they_were_made_of() -> None:
    records, settled = await results(Pipeline(gathered(2) | gathered(2, name="more")), range(7))
    assert shown(records) == [
        ("more:all:0", "ok", [[0, 1], [2, 3]], ("0", "1", "2", "3")),
        ("more:all:4", "ok", [[4, 5], [6]], ("4", "5", "6")),
    ]
    assert settled == {"ok": 7}


@in_virtual_time
async def test_a_batch_can_be_expanded_again_and_its_children_name_what_it_was_made_of() -> None:
    stages = gathered(2) | flat_map(lambda values: [f"{values} {n}" for n in range(2)], name="flat")
    records, settled = await results(Pipeline(stages, ordered=True), ["a", "b", "c"])
    assert [(record.id, record.parent, record.inputs, record.output) for record in records] == [
        ("all:0#0", "all:0", ("0", "1"), "['a', 'b'] 0"),
        ("all:0#1", "all:0", ("0", "1"), "['a', 'b'] 1"),
        ("all:2#0", "all:2", ("2",), "['c'] 0"),
        ("all:2#1", "all:2", ("2",), "['c'] 1"),
    ]
    assert settled == {"ok": 3}


@in_virtual_time
async def test_members_end_as_the_worst_child_of_what_they_became() -> None:
    def no_two(value: int) -> int:
        if value == 2:
            raise ValueError("two")
        return value

    stages = gathered(2) | flat_map(list, name="flat") | map(no_two)
    records, settled = await results(Pipeline(stages, ordered=True), range(4))
    assert [record.status for record in records] == ["ok", "ok", "failed", "ok"]
    assert settled == {"ok": 2, "failed": 2}
    stages = gathered(2) | flat_map(lambda values: [], name="flat")
    assert await results(Pipeline(stages), range(4)) == ([], {"skipped": 4})


@BACKENDS
@pytest.mark.parametrize("ordered", [False, True])
def test_expanded_gathered_and_expanded_again_every_root_ends_once(backend: str, ordered: bool) -> None:
    async def main() -> None:
        stages = (
            flat_map(numbers, max_children=3)
            | gathered(2, within=1)
            | flat_map(list, name="again", max_children=2)
            | gathered(4, within=1, name="more")
        )
        pipe = Pipeline(stages, max_in_flight=2, ordered=ordered)
        async with pipe.open([5, 0, 7, 1]) as run:
            records = [record async for record in run.results]
        assert sorted(n for record in records for n in listed(record)) == sorted([*range(5), *range(7), 0])
        assert run.statistics().window.settled == {"ok": 3, "partial": 0, "failed": 0, "skipped": 1, "cancelled": 0}
        assert run.statistics().window.peak <= pipe.bounds.items
        nothing_is_left(run)

    run_in(backend, 0, main)


@BACKENDS
@pytest.mark.parametrize("ordered", [False, True])
def test_a_root_whose_time_is_up_takes_its_children_out_of_every_batch(backend: str, ordered: bool) -> None:
    async def trickle(n: int) -> AsyncIterator[int]:
        for part in range(n):
            yield part
            await anyio.sleep(1)

    async def main() -> None:
        stages = flat_map(trickle) | gathered(2, within=60) | map(slow) | gathered(9, within=60, name="more")
        async with Pipeline(stages, item_timeout=6.5, ordered=ordered).open(["x", 9, 1, 3]) as run:
            records = [record async for record in run.results]
        nothing_is_left(run)
        settled = run.statistics().window.settled
        assert settled["failed"] == 4
        assert {record.status for record in records} == {"failed"}

    run_in(backend, 0, main)


@BACKENDS
@pytest.mark.parametrize("ordered", [False, True])
def test_a_child_has_its_place_until_nothing_is_left_of_the_batch_that_it_was_alone_in(
    backend: str, ordered: bool
) -> None:
    async def quick(values: object) -> object:
        await anyio.sleep(1)
        return values

    async def stubborn(values: object) -> object:
        try:
            await anyio.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(9)
        return values

    async def main() -> None:
        race = parallel("race", join="any", a=map(quick, concurrency=9), b=map(stubborn, concurrency=9))
        pipe = Pipeline(flat_map(numbers, max_children=2) | gathered(1) | race, max_in_flight=1, ordered=ordered)
        async with pipe.open([6]) as run:
            assert len([record async for record in run.results]) == 6
            assert anyio.current_time() == 30  # two at a time, each of them for ten seconds
        assert run.statistics().window.peak <= pipe.bounds.items
        nothing_is_left(run)

    run_in(backend, 0, main)


@BACKENDS
@pytest.mark.parametrize("ordered", [False, True])
def test_a_root_that_ends_while_a_record_of_its_children_waits_gives_one_credit_back(
    backend: str, ordered: bool
) -> None:
    """The children are in a batch whose record nobody has taken, and whose loser is still leaving."""

    async def trickle(n: int) -> AsyncIterator[int]:
        for part in range(n):
            yield part
            await anyio.sleep(4 if part else 0)

    async def quick(values: object) -> object:
        await anyio.sleep(1)
        return values

    async def stubborn(values: object) -> object:
        try:
            await anyio.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(50)
        return values

    async def main() -> None:
        race = parallel("race", join="any", a=map(quick, concurrency=9), b=map(stubborn, concurrency=9))
        stages = flat_map(trickle, max_children=4) | gathered(2, within=60) | gathered(1, name="more") | race
        pipe = Pipeline(stages, max_in_flight=1, item_timeout=6, ordered=ordered)
        async with pipe.open([9]) as run:
            await anyio.sleep(10)
            window = run.statistics().window
            assert (window.in_flight, window.admitted) == (1, 1)
            records = [(record.status, record.inputs) async for record in run.results]
            assert sorted(records) == [("failed", ()), ("ok", ("0#0", "0#1"))]
            window = run.statistics().window
            assert (window.in_flight, window.alive) == (0, 0)
            assert anyio.current_time() == 51  # without a credit the source could not be asked whether it goes on
        assert run.statistics().window.peak <= pipe.bounds.items
        nothing_is_left(run)

    run_in(backend, 0, main)


# -- composites behind it -------------------------------------------------------------------------------------------


@in_virtual_time
async def test_composites_behind_it_work_on_the_batch() -> None:
    views = parallel("views", low=map(min), high=map(max))
    label = route(
        {"few": map(lambda v: "few", name="f"), "many": map(lambda v: "many", name="m")},
        by="{{ 'many' if all | length > 1 else 'few' }}",
        name="kind",
    )
    dig = scatter("dig", split="{{ all }}", each=map(Expression("{{ part * 2 }}"), name="twice"))
    total = map_reduce(
        map(Expression("{{ part }}"), name="each"),
        split="{{ dig }}",
        reduce="{{ total + value }}",
        initial=0,
        name="total",
    )
    again = loop(map(lambda value: value + 1, name="more"), until="{{ more % 10 == 0 }}", max_rounds=20, name="again")
    keyed = partition_by("{{ kind }}", map(lambda value: value, name="same"), name="keyed")
    (record, last) = await Pipeline(gathered(2) | views | label | dig | total | again | keyed, ordered=True).collect(
        [3, 5, 7]
    )
    assert record.outputs == {
        "all": [3, 5],
        "views": {"low": 3, "high": 5},
        "kind_label": "many",
        "kind": "many",
        "dig": [6, 10],
        "total": 16,
        "again_rounds": 4,
        "again_exhausted": False,
        "again": 20,
        "keyed": 20,
    }
    assert (last.outputs["kind"], last.inputs) == ("few", ("2",))


@in_virtual_time
async def test_templates_behind_it_see_variables_the_batch_and_what_comes_after() -> None:
    model = ScriptedModel(str.upper)
    asks = agent("asks", model=model, prompt="{{ vars.lead }} {{ all | join('+') }}")
    writes = agent("writes", model=ScriptedModel(), prompt="{{ asks }}!")
    (record,) = await Pipeline(gathered(2) | asks | writes, variables={"lead": "so"}).collect(["a", "b"])
    assert record.output == "SO A+B!"


@in_virtual_time
async def test_the_prompt_of_an_agent_behind_it_is_the_list() -> None:
    model = ScriptedModel()
    await Pipeline(gathered(2) | agent("asks", model=model)).collect(["a", "b"])
    assert model.asked[0][-1].content == '["a","b"]'


@pytest.mark.parametrize(
    "behind",
    [
        lambda value: map(value, name="m"),
        lambda value: parallel("p", a=map(value, name="m")),
        lambda value: scatter("s", split=value, each=map(str)),
        lambda value: route({"a": map(str)}, by=value),
        lambda value: map(str, name="between") | loop(map(value, name="m"), until=bool, max_rounds=2),
        lambda value: batch(size=2, key=value, name="again"),
        lambda value: flat_map(list, name="f") | map(value, name="m"),
    ],
)
@pytest.mark.parametrize("name", ["prompt", "input", "before"])
def test_templates_behind_it_see_nothing_of_single_items(behind: Callable[[Expression], Stage], name: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        Pipeline(map(str, name="before") | gathered() | behind(Expression(f"{{{{ {name} }}}}")))
    (problem,) = caught.value.problems
    assert problem.message.startswith(f"uses {name!r}; available here: vars, all")


# -- ends of a run --------------------------------------------------------------------------------------------------


@BACKENDS
@pytest.mark.parametrize("after", [0, 0.5, 1, 2.5, 4.5, 7])
@pytest.mark.parametrize("how", ["abort", "leave", "drain items", "drain calls"])
@pytest.mark.parametrize("ordered", [False, True])
def test_ended_with_batches_in_every_state_it_leaves_nothing(
    backend: str, after: float, how: str, ordered: bool
) -> None:
    async def asks(prompt: str, state: ConversationState, visit: Visit) -> str:
        visit.admit_call()
        await anyio.sleep(2)
        return prompt

    async def main() -> tuple[list[Record], Run]:
        stages = (
            flat_map(lambda n: [n] * (n % 3), name="flat", max_children=2)
            | gathered(2, within=1, key=lambda value: value % 2)
            | agent(asks, concurrency=1)
            | gathered(2, within=1, name="more")
            | flat_map(list, name="again", max_children=1)
        )
        pipe = Pipeline(stages, max_in_flight=5, buffer_size=0, ordered=ordered)
        tasks = len(anyio.get_running_tasks())
        records: list[Record] = []
        async with pipe.open(arriving(*((n % 4 / 2, n) for n in range(20)))) as run:
            await anyio.sleep(after / 2)
            if after >= 1:
                records.append(await anext(run.results))
            await anyio.sleep(after / 2)
            if how == "abort":
                run.abort()
            elif how != "leave":
                run.drain(how.removeprefix("drain "))  # type: ignore[arg-type]
            if how != "leave":
                records += [record async for record in run.results]
        nothing_is_left(run)
        assert len(anyio.get_running_tasks()) == tasks
        return records, run

    records, run = run_in(backend, 0, main)
    settled = run.statistics().window.settled
    assert {record.status for record in records} <= {"ok"}
    assert sum(settled.values()) == run.statistics().window.admitted
    if how == "drain items":
        assert settled["cancelled"] == 0


@in_virtual_time
async def test_a_run_with_it_takes_no_submit_and_says_why() -> None:
    async with Pipeline(gathered()).open([1]) as run:
        with pytest.raises(PipelineError) as caught:
            await run.submit("a")
        assert len([record async for record in run.results]) == 1
    text = "this pipeline takes no submit: 'all' makes one record of several; give it a source and read `results`"
    assert str(caught.value) == text


@in_virtual_time
async def test_it_goes_at_the_end_of_the_source_though_it_waits_for_ever() -> None:
    async with Pipeline(gathered(2, within=None)).open([1, 2, 3]) as run:
        assert [record.output async for record in run.results] == [[1, 2], [3]]
        assert anyio.current_time() == 0


# -- definitions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "around",
    [
        lambda stage: parallel("p", a=stage),
        lambda stage: loop(stage, until=bool, max_rounds=2),
        lambda stage: batch(stage, size=2),
        lambda stage: scatter("s", split=list, each=stage),
    ],
)
def test_inside_a_composite_it_is_refused_with_what_to_use_instead(around: Callable[[Stage], Stage]) -> None:
    with pytest.raises(DefinitionError) as caught:
        Pipeline(around(gathered()))
    text = "a batch without a body can stand on the top-level chain only"
    assert str(caught.value) == f"stage 'all': {text} (give it a body, which returns one result for each item)"


def test_a_time_that_never_comes_is_refused() -> None:
    with pytest.raises(DefinitionError):
        Pipeline(gathered(within=math.inf))
