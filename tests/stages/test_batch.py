"""A batch with a body, as a bracket: items go in as one list, and each goes on with its own result."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Sequence

import anyio
import pytest

from pipeline import ConversationState, Cost, DefinitionError, Pipeline, Record, RunStopped, Usage, Visit
from pipeline.core.errors import PipelineError, Skip
from pipeline.core.events import BatchFlushed, Event
from pipeline.core.run import Run
from pipeline.core.stage import Stage
from pipeline.core.templates import Expression
from stages import agent, batch, filter, loop, map, parallel, partition_by, quorum, scatter
from tests.engine.schedules import in_virtual_time, run_in
from tests.engine.topologies import nothing_is_left
from tests.stages.models import ScriptedModel

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


async def arriving(*times: tuple[float, object]) -> AsyncIterator[object]:
    """A source whose records come at given times."""
    for at, value in times:
        await anyio.sleep_until(at)
        yield value


class Judge:
    """A body that notes which batches it got, and when."""

    def __init__(self, seconds: float = 0) -> None:
        self.seconds = seconds
        self.got: list[tuple[float, list[object]]] = []
        self.cancelled = 0

    async def __call__(self, values: list[object]) -> list[object]:
        self.got.append((anyio.current_time(), list(values)))
        try:
            await anyio.sleep(self.seconds)
        except BaseException:
            self.cancelled += 1
            raise
        return [f"<{value}>" for value in values]

    @property
    def batches(self) -> list[list[object]]:
        return [values for _, values in self.got]

    def stage(self, **options: object) -> Stage:
        return batch(map(self, name="judge", concurrency=9), **{"size": 3, "name": "three", **options})  # type: ignore[arg-type]


def failure(record: Record) -> tuple[str, str | None, str]:
    assert record.status == "failed"
    assert record.error is not None
    return record.error.type, record.error.stage, record.error.message


def filling(run: Run) -> int:
    """How many batches take items in."""
    return len(run._machine.composites["three"].filling)  # type: ignore[attr-defined]


class Kept:
    """A sink that keeps records; as it takes no submit, its run ends with its source."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    async def write(self, record: Record) -> None:
        self.records.append(record)


async def flushed(pipe: Pipeline, source: object) -> tuple[list[Record], list[Event]]:
    """The records of a run, and what it told of batches."""
    events, kept, runs = list[Event](), Kept(), list[Run]()
    await pipe.run(source, kept, watch=runs.append, on_event=events.append)  # type: ignore[arg-type]
    nothing_is_left(runs[0])
    return kept.records, [event for event in events if isinstance(event, BatchFlushed)]


# -- a batch and its members ----------------------------------------------------------------------------------------


@in_virtual_time
async def test_items_go_in_as_one_list_and_each_goes_on_with_its_own_result() -> None:
    judge = Judge()
    records = await Pipeline(judge.stage() | map(str.upper, name="up"), ordered=True).collect(["a", "b", "c", "d"])
    assert judge.batches == [["a", "b", "c"], ["d"]]
    assert [record.output for record in records] == ["<A>", "<B>", "<C>", "<D>"]
    assert records[1].outputs == {"three": "<b>", "up": "<B>"}
    assert [(record.id, record.parent, record.inputs, record.input) for record in records[:2]] == [
        ("0", None, (), "a"),
        ("1", None, (), "b"),
    ]


@in_virtual_time
async def test_each_member_keeps_its_conversation_and_its_outputs() -> None:
    seen: list[tuple[str, int]] = []

    async def look(prompt: str, state: ConversationState) -> str:
        seen.append((str(state.outputs["first"]), len(state.messages)))
        return prompt

    first = agent("first", model=ScriptedModel(str.upper))
    await Pipeline(first | Judge().stage() | look).collect(["a", "b", "c"])
    assert sorted(seen) == [("A", 2), ("B", 2), ("C", 2)]


@in_virtual_time
async def test_templates_of_the_body_see_the_parts_and_what_the_body_made_before() -> None:
    model = ScriptedModel(lambda text: text.upper())
    asks = agent("asks", model=model, prompt="{{ vars.lead }}: {{ parts | join(', ') }}")
    body = asks | map(Expression("{{ [asks] * (parts | length) }}"), name="each")
    records = await Pipeline(batch(body, size=2), variables={"lead": "rate"}).collect(["a", "b"])
    assert [record.output for record in records] == ["RATE: A, B"] * 2


def test_templates_of_the_body_see_nothing_else_of_the_items() -> None:
    body = map(Expression("{{ [prompt, input, before, batch] }}"), name="m")
    with pytest.raises(DefinitionError) as caught:
        Pipeline(map(str, name="before") | batch(body, size=2))
    assert [problem.message for problem in caught.value.problems] == [
        f"uses {name!r}; available here: vars, parts" for name in ("batch", "before", "input", "prompt")
    ]


@in_virtual_time
async def test_a_batch_in_a_body_of_a_batch_gathers_batches() -> None:
    inner = batch(
        map(lambda lists: [[len(values)] * len(values) for values in lists], name="deep"), size=2, name="inner"
    )
    records = await Pipeline(batch(inner, size=2, name="outer"), ordered=True).collect(range(5))
    assert [record.output for record in records] == [2, 2, 2, 2, 1]


# -- when it goes ---------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_batch_goes_when_it_has_its_size_when_its_first_item_has_waited_and_at_the_end() -> None:
    judge = Judge()
    source = arriving((0, "a"), (0.6, "b"), (3, "c"), (3, "d"), (3, "e"), (3, "f"), (3.9, "g"))
    records, events = await flushed(Pipeline(judge.stage(within=1.0)), source)
    assert judge.got == [(1, ["a", "b"]), (3, ["c", "d", "e"]), (3.9, ["f", "g"])]
    assert events == [
        BatchFlushed("three", ("0", "1"), 2.0, "time"),
        BatchFlushed("three", ("2", "3", "4"), 3.0, "size"),
        BatchFlushed("three", ("5", "6"), 2.0, "end"),
    ]
    assert len(records) == 7


@in_virtual_time
async def test_each_batch_has_a_clock_of_its_own_that_starts_at_its_first_item() -> None:
    judge = Judge()
    # three are full at 0.9; the fourth begins a batch then, which the first clock, due at 1, must not end
    source = arriving((0, "a"), (0.5, "b"), (0.9, "c"), (0.9, "d"), (1.4, "e"), (5, "f"), (9, "g"))
    records, events = await flushed(Pipeline(judge.stage(within=1)), source)
    assert judge.got == [(0.9, ["a", "b", "c"]), (1.9, ["d", "e"]), (6, ["f"]), (9, ["g"])]
    assert [event.trigger for event in events] == ["size", "time", "time", "end"]  # type: ignore[union-attr]
    assert len(records) == 7


@in_virtual_time
async def test_a_drain_lets_a_batch_go_at_once() -> None:
    judge, events = Judge(), list[Event]()
    async with Pipeline(judge.stage(within=3600)).open(
        arriving((0, "a"), (0, "b"), (9, "c")), on_event=events.append
    ) as run:
        await anyio.sleep(2)
        run.drain("items")
        records = [record async for record in run.results]
        assert anyio.current_time() == 2
    assert [record.output for record in records] == ["<a>", "<b>"]
    assert events == [BatchFlushed("three", ("0", "1"), 2.0, "drain")]
    nothing_is_left(run)


@in_virtual_time
async def test_without_a_clock_it_waits_until_it_is_full() -> None:
    judge = Judge()
    records, events = await flushed(
        Pipeline(judge.stage(within=None)), arriving((0, "a"), (500, "b"), (9000, "c"), (9001, "d"))
    )
    assert judge.got == [(9000, ["a", "b", "c"]), (9001, ["d"])]
    assert [event.trigger for event in events] == ["size", "end"]  # type: ignore[union-attr]
    assert len(records) == 4


@in_virtual_time
async def test_a_batch_of_one_goes_at_once() -> None:
    judge = Judge()
    await Pipeline(judge.stage(size=1, within=None)).collect(["a", "b", "c"])
    assert judge.batches == [["a"], ["b"], ["c"]]


# -- weight and key -------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_batch_never_weighs_more_than_its_size_unless_one_item_does() -> None:
    judge = Judge()
    stage = judge.stage(size=10, weight=lambda value: value)
    records, events = await flushed(Pipeline(stage), [4, 4, 4, 12, 1, 9, 1, 0, 10, 0.5])
    assert judge.batches == [[4, 4], [4], [12], [1, 9], [1, 0], [10], [0.5]]
    assert [(len(event.items), event.weight, event.trigger) for event in events] == [  # type: ignore[union-attr]
        (2, 8, "size"),
        (1, 4, "size"),
        (1, 12, "size"),
        (2, 10, "size"),
        (2, 1, "size"),
        (1, 10, "size"),
        (1, 0.5, "end"),
    ]
    assert len(records) == 10


@in_virtual_time
async def test_the_weight_may_be_an_expression_or_async() -> None:
    async def length(value: object) -> int:
        await anyio.sleep(1)
        return len(value["text"])  # type: ignore[index]

    for weight in ("{{ input.text | length }}", length):
        judge = Judge()
        await Pipeline(judge.stage(size=4, weight=weight, within=60)).collect([{"text": "ab"}, {"text": "abc"}])
        assert [len(values) for values in judge.batches] == [1, 1]


@in_virtual_time
async def test_what_is_no_weight_fails_the_item_and_nobody_else() -> None:
    wrong = {"nan": math.nan, "inf": math.inf, "negative": -1, "bool": True, "text": "3", "none": None}

    def weight(value: str) -> object:
        if value == "raises":
            raise ValueError("heavy")
        return wrong.get(value, 1)

    records = await Pipeline(Judge().stage(weight=weight), ordered=True).collect(["ok", *wrong, "raises", "fine"])
    assert [record.status for record in records] == ["ok", *["failed"] * 7, "ok"]
    assert {failure(record)[:2] for record in records[1:7]} == {("BadWeight", "three")}
    assert failure(records[3])[2] == "the weight of an item in 'three' has to be a number of at least 0, got -1"
    assert failure(records[7]) == ("ValueError", "three", "heavy")


@in_virtual_time
async def test_with_a_key_a_batch_has_items_of_one_key_and_a_clock_for_each() -> None:
    judge = Judge()
    source = arriving((0, "a1"), (0.5, "b1"), (0.6, "a2"), (0.7, "a3"), (0.8, "c1"), (0.9, "a4"), (9, "z"))
    records, events = await flushed(Pipeline(judge.stage(key=lambda value: value[0], within=1)), source)
    assert judge.got == [(0.7, ["a1", "a2", "a3"]), (1.5, ["b1"]), (1.8, ["c1"]), (1.9, ["a4"]), (9, ["z"])]
    assert [event.trigger for event in events] == ["size", "time", "time", "time", "end"]  # type: ignore[union-attr]
    assert len(records) == 7


@in_virtual_time
async def test_more_keys_than_slots_or_room_do_not_stop_it() -> None:
    judge = Judge(1)
    stage = batch(map(judge, concurrency=2), size=2, key=lambda value: value % 50, within=1)
    records = await Pipeline(stage, max_in_flight=20, buffer_size=0).collect(range(200))
    assert sorted(str(record.output) for record in records) == sorted(f"<{n}>" for n in range(200))
    assert all(len({int(str(value)) % 50 for value in values}) == 1 for values in judge.batches)


@in_virtual_time
async def test_what_cannot_be_a_key_fails_the_item() -> None:
    records = await Pipeline(Judge().stage(key=lambda value: [value]), ordered=True).collect(["a"])
    text = "the key of 'three' has to be text, a number or the like, got list"
    assert failure(records[0]) == ("BadKey", "three", text)


# -- what the body does ---------------------------------------------------------------------------------------------


@in_virtual_time
async def test_other_than_one_result_for_each_item_fails_all_of_them() -> None:
    def wrong(values: list[object]) -> object:
        match values[0]:
            case "few":
                return ["one"]
            case "many":
                return ["x"] * 4
            case "text":
                return "xyz"
            case "mapping":
                return {"a": 1, "b": 2, "c": 3}
            case "none":
                return [None, None, None]
            case _:
                return tuple(values)

    pipe = Pipeline(batch(map(wrong), size=3), ordered=True)
    first = ["few", "many", "text", "mapping", "none", "tuple"]
    records = await pipe.collect([value for word in first for value in (word, 1, 2)])
    wanted = "the body has to give a list of 3 results, got"
    hint = "; a map at its end can make the list"
    assert [failure(record) for record in records[:12:3]] == [
        ("WrongResults", "batch", f"{wanted} 1{hint}"),
        ("WrongResults", "batch", f"{wanted} 4{hint}"),
        ("WrongResults", "batch", f"{wanted} one str{hint}"),
        ("WrongResults", "batch", f"{wanted} one dict{hint}"),
    ]
    assert [record.status for record in records] == ["failed"] * 12 + ["ok"] * 6
    assert [record.output for record in records[12:]] == [None, None, None, "tuple", 1, 2]


@in_virtual_time
async def test_a_body_that_fails_or_skips_ends_its_members_so_and_no_others() -> None:
    def body(values: list[object]) -> list[object]:
        if "fail" in values:
            raise ValueError("as told")
        if "skip" in values:
            raise Skip
        return values

    async with Pipeline(batch(map(body), size=2), ordered=True).open(["fail", 1, "skip", 3, 4, 5]) as run:
        records = [record async for record in run.results]
    assert [(record.index, record.status) for record in records] == [(0, "failed"), (1, "failed"), (4, "ok"), (5, "ok")]
    assert failure(records[1]) == ("ValueError", "body", "as told")
    assert run.statistics().window.settled["skipped"] == 2
    nothing_is_left(run)


@in_virtual_time
async def test_on_error_is_asked_for_each_member() -> None:
    def body(values: list[object]) -> list[object]:
        raise ValueError("as told")

    async with Pipeline(batch(map(body), size=2, on_error="skip")).open([1, 2, 3]) as run:
        assert [record async for record in run.results] == []
    assert run.statistics().window.settled["skipped"] == 3
    with pytest.raises(RunStopped, match="as told"):
        await Pipeline(batch(map(body), size=2, on_error="fail")).collect([1, 2])
    heard: list[object] = []

    def hear(error: object) -> str:
        heard.append(error)
        return "dead_letter"

    await Pipeline(batch(map(body), size=2), on_error=hear).collect([1, 2, 3])  # type: ignore[arg-type]
    assert len(heard) == 3


@in_virtual_time
async def test_what_a_member_lacked_before_is_not_lacking_in_the_others() -> None:
    def odd_fails(value: int) -> int:
        if value % 2:
            raise ValueError("odd")
        return value

    before = parallel("before", join=quorum(1), a=map(int), b=map(odd_fails)) | map(lambda both: both["a"], name="a_of")
    records = await Pipeline(before | Judge().stage(), ordered=True).collect([0, 1, 2])
    assert [(record.status, record.missing) for record in records] == [
        ("ok", ()),
        ("partial", ("before.b",)),
        ("ok", ()),
    ]


@in_virtual_time
async def test_what_the_body_lacked_is_lacking_in_each_member() -> None:
    def breaks(values: object) -> object:
        raise ValueError("no")

    views = parallel("views", join=quorum(1), a=map(list), b=map(breaks)) | map(lambda views: views["a"], name="a_of")
    records = await Pipeline(batch(views, size=2), ordered=True).collect([1, 2])
    assert [(record.status, record.output, record.missing) for record in records] == [
        ("partial", 1, ("views.b",)),
        ("partial", 2, ("views.b",)),
    ]


# -- members that leave ---------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_member_whose_time_is_up_leaves_and_the_others_get_their_results() -> None:
    judge = Judge(4)
    pipe = Pipeline(judge.stage(within=3), item_timeout=5, ordered=True)
    records = await pipe.collect(arriving((0, "a"), (2, "b"), (2, "c")))
    assert judge.got == [(2, ["a", "b", "c"])]
    assert failure(records[0])[:2] == ("item_timeout", "three")
    assert [record.output for record in records[1:]] == ["<b>", "<c>"]
    assert judge.cancelled == 0


@in_virtual_time
async def test_a_call_for_a_batch_has_time_for_as_long_as_its_last_member() -> None:
    seen: list[float | None] = []

    async def asks(prompt: str, state: ConversationState, visit: Visit) -> str:
        seen.append(visit.deadline)
        return prompt

    body = agent(asks) | map(lambda text: [text, text], name="both")
    await Pipeline(batch(body, size=2, within=3), item_timeout=5).collect(arriving((0, "a"), (2, "b")))
    await Pipeline(batch(body, size=2)).collect(["a", "b"])
    assert seen == [7, None]


@in_virtual_time
async def test_when_all_members_have_left_the_visit_is_cancelled_and_the_batch_is_gone() -> None:
    judge = Judge(100)
    async with Pipeline(judge.stage(within=3), item_timeout=5).open(["a", "b"]) as run:
        records = [record async for record in run.results]
        assert anyio.current_time() == 5
    assert [failure(record)[0] for record in records] == ["item_timeout"] * 2
    assert judge.cancelled == 1
    nothing_is_left(run)


@in_virtual_time
async def test_a_member_that_leaves_while_the_batch_fills_makes_room_for_another() -> None:
    judge = Judge()
    async with Pipeline(judge.stage(within=60)).open() as run, anyio.create_task_group() as tg:
        tg.start_soon(run.submit, "a")
        with anyio.move_on_after(2):
            await run.submit("impatient")
        assert run.statistics().window.in_flight == 1
        tg.start_soon(run.submit, "b")
        await anyio.sleep(1)
        tg.start_soon(run.submit, "c")
    assert judge.got == [(3, ["a", "b", "c"])]
    nothing_is_left(run)


@in_virtual_time
async def test_a_batch_whose_members_all_leave_while_it_fills_vanishes_with_its_clock() -> None:
    judge = Judge()
    async with Pipeline(judge.stage(within=10, key=lambda value: value)).open() as run:
        with anyio.move_on_after(2):
            await run.submit("a")
        assert (filling(run), run.statistics().window.in_flight) == (0, 0)
        await anyio.sleep(3)
        assert (await run.submit("a")).output == "<a>"
    assert judge.got == [(15, ["a"])]
    nothing_is_left(run)


@in_virtual_time
async def test_heavy_members_that_leave_take_their_weight_along() -> None:
    judge = Judge()
    stage = judge.stage(size=10, within=60, weight=lambda value: value)
    async with Pipeline(stage).open() as run, anyio.create_task_group() as tg:
        tg.start_soon(run.submit, 2)
        with anyio.move_on_after(1):
            await run.submit(7)
        tg.start_soon(run.submit, 3)
        await anyio.sleep(1)
        tg.start_soon(run.submit, 5)
    assert judge.got == [(2, [2, 3, 5])]


@in_virtual_time
async def test_a_batch_that_vanishes_at_the_door_of_its_body_lets_the_next_one_in() -> None:
    judge = Judge(10)
    stage = batch(map(judge), size=1, name="three")
    async with Pipeline(stage, buffer_size=0).open() as run, anyio.create_task_group() as tg:
        tg.start_soon(run.submit, "in the body")
        await anyio.sleep(1)
        with anyio.move_on_after(2):
            await run.submit("at the door")
        await anyio.sleep(1)
        window = run.statistics().window
        assert (window.in_flight, window.alive) == (1, 2)
        tg.start_soon(run.submit, "next")
    assert judge.got == [(0, ["in the body"]), (10, ["next"])]
    nothing_is_left(run)


@in_virtual_time
async def test_a_batch_that_vanishes_in_the_line_leaves_it_at_once() -> None:
    judge = Judge(10)
    stage = batch(map(judge), size=2, within=1, key=lambda value: value, name="three")
    async with Pipeline(stage, buffer_size=0, item_timeout=5).open(range(5)) as run:
        await anyio.sleep(4)
        assert len(run._machine.composites["three"].feedback._line) == 3  # one is in the body, one at its door
        assert len([record async for record in run.results]) == 5
        assert anyio.current_time() == 5
        assert len(run._machine.composites["three"].feedback._line) == 0
    assert judge.got == [(1, [0])]
    nothing_is_left(run)


@in_virtual_time
async def test_results_of_members_that_have_left_are_discarded_wherever_they_left() -> None:
    judge = Judge(2)
    after: list[object] = []

    async def note(value: object) -> object:
        after.append(value)
        return value

    async with Pipeline(judge.stage(within=1) | map(note)).open() as run, anyio.create_task_group() as tg:
        tg.start_soon(run.submit, "a")
        await anyio.sleep(0.5)
        with anyio.move_on_after(1.5):  # between the flush and the result
            await run.submit("b")
    assert judge.got == [(1, ["a", "b"])]
    assert after == ["<a>"]
    nothing_is_left(run)


@in_virtual_time
async def test_members_whose_group_closes_leave_in_every_state_of_a_batch() -> None:
    for seconds in (0.5, 1.5, 2.5):
        judge, began = Judge(2), anyio.current_time()

        async def quick(value: int, seconds: float = seconds) -> str:
            await anyio.sleep(seconds)
            return "won"

        first = parallel("race", join="any", slow=judge.stage(size=9, within=1), quick=map(quick, concurrency=9))
        async with Pipeline(first, max_in_flight=3).open([1, 2, 3]) as run:
            assert [record.output async for record in run.results] == ["won"] * 3
            assert anyio.current_time() - began == seconds
        assert judge.cancelled == (1 if seconds > 1 else 0)
        nothing_is_left(run)


@in_virtual_time
async def test_a_visit_that_takes_its_time_to_leave_keeps_the_credit_of_the_last_member() -> None:
    async def stubborn(values: list[object]) -> list[object]:
        try:
            await anyio.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(50)
        return values

    pipe = Pipeline(batch(map(stubborn), size=2, within=1), max_in_flight=2, item_timeout=5)
    async with pipe.open([1, 2, 3]) as run:
        assert [(await anext(run.results)).status for _ in range(2)] == ["failed"] * 2
        assert anyio.current_time() == 5
        await anyio.sleep(1)
        assert (run.statistics().window.in_flight, run.statistics().window.admitted) == (2, 3)
        assert [record.status async for record in run.results] == ["failed"]
    assert anyio.current_time() == 55
    assert run.statistics().window.peak <= pipe.bounds.items
    nothing_is_left(run)


@in_virtual_time
async def test_losers_in_the_body_keep_a_credit_until_they_have_left() -> None:
    async def quick(values: list[object]) -> list[object]:
        await anyio.sleep(1)
        return values

    async def stubborn(values: list[object]) -> list[object]:
        try:
            await anyio.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(50)
        return values

    race = parallel("race", join="any", a=map(quick), b=map(stubborn, concurrency=9))
    pipe = Pipeline(batch(race, size=1), max_in_flight=1)
    async with pipe.open([1, 2, 3]) as run:
        ended = [(anyio.current_time(), record.status) async for record in run.results]
    assert ended == [(1, "ok"), (52, "ok"), (103, "ok")]
    nothing_is_left(run)


# -- money ----------------------------------------------------------------------------------------------------------


async def charged(prompt: str, state: ConversationState, visit: Visit) -> str:
    visit.charge(Usage(input_tokens=10, output_tokens=4, requests=1), Cost(0.75, "test"))
    await anyio.sleep(2)
    return prompt


def total(records: Sequence[Record]) -> tuple[int, int, int, float]:
    costs = [record.cost.usd for record in records if record.cost is not None]
    used = [record.usage for record in records]
    return (
        sum(usage.input_tokens for usage in used),
        sum(usage.output_tokens for usage in used),
        sum(usage.requests for usage in used),
        sum(usd for usd in costs if usd is not None),
    )


@in_virtual_time
async def test_what_a_batch_used_is_shared_out_in_parts_whose_sum_is_the_whole() -> None:
    body = agent(charged) | map(lambda _: ["x", "y", "z"], name="three_results")
    records = await Pipeline(batch(body, size=3), ordered=True).collect(["a", "b", "c"])
    assert [record.usage.input_tokens for record in records] == [4, 3, 3]
    assert [record.usage.output_tokens for record in records] == [2, 1, 1]
    assert [record.usage.requests for record in records] == [1, 0, 0]
    assert [record.cost for record in records] == [Cost(0.25, "test")] * 3
    assert total(records) == (10, 4, 1, 0.75)


@in_virtual_time
async def test_the_part_of_one_that_has_left_is_in_no_record_whenever_it_left() -> None:
    body = agent(charged) | map(lambda _: ["x", "y"], name="two_results")
    pipe = Pipeline(agent("free", model=ScriptedModel()) | batch(body, size=2, within=9), item_timeout=3, ordered=True)
    records = await pipe.collect(arriving((0, "a"), (2, "b")))
    assert [(record.status, record.usage.input_tokens) for record in records] == [("failed", 0), ("ok", 5)]
    async with Pipeline(batch(body, size=2), item_timeout=1, ordered=True).open(["a", "b"]) as run:
        records = [record async for record in run.results]
    assert [(record.status, record.usage, record.cost) for record in records] == [("failed", Usage(), None)] * 2
    assert (run.statistics().usage.requests, run.statistics().cost) == (1, Cost(0.75, "test"))


@in_virtual_time
async def test_the_sum_over_records_is_what_the_run_used() -> None:
    async def asks(prompt: str, state: ConversationState, visit: Visit) -> str:
        visit.charge(Usage(input_tokens=len(prompt), requests=1), Cost(0.5, "test"))
        return prompt

    body = agent(charged) | map(Expression("{{ parts }}"), name="same")
    stages = agent(asks) | batch(body, size=3, within=1) | batch(size=2, within=1, name="pairs")
    async with Pipeline(stages, ordered=True).open(arriving(*((n % 4, str(n) * n) for n in range(1, 20)))) as run:
        records = [record async for record in run.results]
    usage, cost = run.statistics().usage, run.statistics().cost
    assert cost is not None
    assert total(records) == (usage.input_tokens, usage.output_tokens, usage.requests, cost.usd)


@in_virtual_time
async def test_an_unknown_price_is_unknown_for_each() -> None:
    async def unpriced(prompt: str, state: ConversationState, visit: Visit) -> str:
        visit.charge(Usage(requests=2), Cost(None, "unknown"))
        return prompt

    body = agent(unpriced) | map(lambda _: [1, 2], name="results")
    records = await Pipeline(batch(body, size=2), ordered=True).collect(["a", "b"])
    assert [record.cost for record in records] == [Cost(None, "unknown")] * 2


# -- where it can stand ---------------------------------------------------------------------------------------------


@in_virtual_time
async def test_in_a_loop_each_round_gathers_again() -> None:
    judge: list[list[int]] = []

    def more(values: list[int]) -> list[int]:
        judge.append(values)
        return [value + 1 for value in values]

    stage = loop(batch(map(more), size=3, within=1), until=lambda value: value >= 3, max_rounds=9)
    records = await Pipeline(stage, ordered=True).collect([0, 1, 2])
    assert [record.output for record in records] == [3, 3, 3]
    assert judge == [[0, 1, 2], [1, 2], [2]]


@in_virtual_time
async def test_children_of_a_scatter_of_several_items_are_gathered() -> None:
    judge = Judge()
    records = await Pipeline(scatter("dig", split=range, each=judge.stage(size=5)), ordered=True).collect([2, 3, 1])
    assert [record.output for record in records] == [["<0>", "<1>"], ["<0>", "<1>", "<2>"], ["<0>"]]
    assert [len(values) for values in judge.batches] == [5, 1]


@in_virtual_time
async def test_behind_a_partition_and_in_one() -> None:
    judge = Judge(1)
    keyed = partition_by(lambda value: value % 2, judge.stage(size=2, within=9))
    records = await Pipeline(keyed, ordered=True).collect(range(6))
    assert [record.output for record in records] == [f"<{n}>" for n in range(6)]
    assert judge.batches == [[0, 1], [2, 3], [4, 5]]


@in_virtual_time
async def test_a_submitted_record_waits_no_longer_than_within_and_shares_a_batch_with_the_source() -> None:
    judge = Judge()
    async with Pipeline(judge.stage(within=1)).open(["a"]) as run:
        await anyio.lowlevel.checkpoint()
        assert (await run.submit("x")).output == "<x>"
        assert anyio.current_time() == 1
        assert [record.output async for record in run.results] == ["<a>"]
    assert [sorted(map_) for map_ in judge.batches] == [["a", "x"]]  # type: ignore[type-var]


@in_virtual_time
async def test_without_a_clock_a_run_takes_no_submit() -> None:
    async with Pipeline(Judge().stage(within=None)).open() as run:
        with pytest.raises(PipelineError) as caught:
            await run.submit("a")
    text = "this pipeline takes no submit: 'three' has no `within`, so it may wait for ever for more"
    assert str(caught.value) == f"{text}; give it a source and read `results`"


def test_the_bound_counts_each_item_and_at_worst_a_batch_for_each() -> None:
    assert Pipeline(Judge().stage(), max_in_flight=10).bounds.items == 20
    nested = batch(parallel("p", a=map(list, name="a"), b=map(list, name="b")) | map(list, name="c"), size=3)
    assert Pipeline(nested, max_in_flight=10).bounds.items == 10 * (1 + 3)


@in_virtual_time
async def test_batches_of_one_are_within_the_bound() -> None:
    pipe = Pipeline(batch(map(Judge(5), concurrency=99), size=1), max_in_flight=10)
    async with pipe.open(range(30)) as run:
        assert len([record async for record in run.results]) == 30
    assert run.statistics().window.peak == pipe.bounds.items == 20


# -- ends of a run --------------------------------------------------------------------------------------------------


@BACKENDS
@pytest.mark.parametrize("after", [0, 0.5, 1, 1.5, 3.5, 6])
@pytest.mark.parametrize("how", ["abort", "leave", "drain items", "drain calls"])
def test_ended_with_batches_in_every_state_it_leaves_nothing(backend: str, after: float, how: str) -> None:
    async def asks(prompt: str, state: ConversationState, visit: Visit) -> str:
        visit.admit_call()
        await anyio.sleep(2)
        return prompt

    async def main() -> tuple[int, dict[str, int], int]:
        body = agent(asks, concurrency=1) | map(Expression("{{ parts }}"), name="same")
        pipe = Pipeline(batch(body, size=2, within=1, key=lambda value: value % 3), max_in_flight=9, buffer_size=0)
        tasks = len(anyio.get_running_tasks())
        records: list[Record] = []
        async with pipe.open(arriving(*((n % 4 / 2, n) for n in range(20)))) as run:
            await anyio.sleep(after)
            if how == "abort":
                run.abort()
            elif how != "leave":
                run.drain(how.removeprefix("drain "))  # type: ignore[arg-type]
            if how != "leave":
                records = [record async for record in run.results]
        nothing_is_left(run)
        assert len(anyio.get_running_tasks()) == tasks
        return len(records), dict(run.statistics().window.settled), run.statistics().window.admitted

    records, settled, admitted = run_in(backend, 0, main)
    assert settled["ok"] == records
    assert settled["ok"] + settled["cancelled"] == admitted
    if how == "drain items":
        assert settled["cancelled"] == 0


@in_virtual_time
async def test_an_item_that_is_filtered_or_fails_before_it_does_not_hold_the_others() -> None:
    def odd_fails(value: int) -> int:
        if value % 2:
            raise ValueError("odd")
        return value

    judge = Judge()
    stages = filter(lambda value: value % 4 != 2, name="some") | map(odd_fails) | judge.stage(within=1)
    async with Pipeline(stages).open(range(20)) as run:
        records = [record async for record in run.results]
    assert judge.batches == [[0, 4, 8], [12, 16]]
    assert sum(record.status == "ok" for record in records) == 5


# -- definitions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"size": 0}, "stage 'three', size: must be a whole number of at least 1, got 0"),
        ({"size": 2.0}, "stage 'three', size: must be a whole number of at least 1, got 2.0"),
        ({"within": 0}, "stage 'three', within: must be a number of seconds above 0, got 0"),
        ({"within": "1s"}, "stage 'three', within: must be a number of seconds above 0, got '1s'"),
        ({"within": math.inf}, "stage 'three', within: must be a number of seconds above 0, got inf"),
        ({"within": math.nan}, "stage 'three', within: must be a number of seconds above 0, got nan"),
        ({"weight": 5}, "stage 'three', weight: must be a function or an expression, got 5"),
        ({"key": 5}, "stage 'three', key: must be a function or an expression, got 5"),
        ({"key": "{{ nope }}"}, "stage 'three', key: uses 'nope'; available here: input, prompt, vars"),
        ({"weight": "{{ nope }}"}, "stage 'three', weight: uses 'nope'; available here: input, prompt, vars"),
        ({"on_error": "x"}, "stage 'three', on_error: must be one of dead_letter, skip, fail, or a function, got 'x'"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, object], text: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        Pipeline(Judge().stage(**options))
    assert str(caught.value) == text


def test_a_batch_is_a_value() -> None:
    stage: Callable[[], Stage] = lambda: batch(map(list, name="m"), size=3, key="{{ prompt }}")  # noqa: E731
    assert stage() == stage()
    assert stage() != batch(map(list, name="m"), size=4, key="{{ prompt }}")
    assert "within=1.0" in repr(stage())
