"""A partition: one item of a key at a time, in order of arrival, and other keys go by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator

import anyio
import pytest

from pipeline import ConversationState, DefinitionError, Pipeline, Record, RunStopped, Visit
from pipeline.core.run import Run
from pipeline.core.stage import Stage
from pipeline.core.templates import Expression
from stages import batch, filter, loop, map, parallel, partition_by, scatter
from tests.engine.schedules import in_virtual_time, run_in
from tests.engine.topologies import nothing_is_left

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])

Turn = tuple[str, int]  #: a key, and the number of the item among those of it


def key(value: Turn) -> str:
    return value[0]


class Room:
    """A body that notes who is in it, and refuses two of one key."""

    def __init__(self, seconds: float = 1) -> None:
        self.seconds = seconds
        self.inside: set[str] = set()
        self.entered: defaultdict[str, list[int]] = defaultdict(list)
        self.most = 0

    async def __call__(self, value: Turn) -> Turn:
        name, number = value
        assert name not in self.inside, f"two items of {name!r} at once"
        self.inside.add(name)
        self.entered[name].append(number)
        self.most = max(self.most, len(self.inside))
        try:
            await anyio.sleep(self.seconds)
        finally:
            self.inside.remove(name)
        return value


def keyed(room: object, **options: object) -> Stage:
    return partition_by(key, map(room, name="body", concurrency=100), **options)  # type: ignore[arg-type]


def busy(run: Run) -> dict[object, int]:
    """How many items stand in line for each key, the one in the body included."""
    lines = run._machine.composites["partition"].lines  # type: ignore[attr-defined]
    return {key: len(line) for key, line in lines._busy.items()}


# -- order and exclusion --------------------------------------------------------------------------------------------


@in_virtual_time
async def test_items_of_a_key_go_in_one_at_a_time_in_order_of_arrival_and_other_keys_go_by() -> None:
    room = Room()
    async with Pipeline(keyed(room)).open([(name, n) for n in range(4) for name in "aab"]) as run:
        ended = [(anyio.current_time(), record.output) async for record in run.results]
        assert busy(run) == {}
    assert dict(room.entered) == {"a": [0, 0, 1, 1, 2, 2, 3, 3], "b": [0, 1, 2, 3]}
    assert room.most == 2
    assert [time for time, (name, _) in ended if name == "a"] == [1, 2, 3, 4, 5, 6, 7, 8]  # type: ignore[misc]
    assert [time for time, (name, _) in ended if name == "b"] == [1, 2, 3, 4]  # type: ignore[misc]
    nothing_is_left(run)


@in_virtual_time
async def test_a_slow_key_holds_up_nobody_else() -> None:
    async def by_key(value: Turn) -> Turn:
        await anyio.sleep(100 if value[0] == "slow" else 1)
        return value

    async with Pipeline(keyed(by_key)).open([("slow", n) for n in range(3)] + [("quick", n) for n in range(3)]) as run:
        ended = [(anyio.current_time(), key(record.output)) async for record in run.results]  # type: ignore[arg-type]
    quick, slow = [(n, "quick") for n in (1, 2, 3)], [(n, "slow") for n in (100, 200, 300)]
    assert ended == [*quick, *slow]


@in_virtual_time
async def test_items_of_a_key_come_out_in_order_of_arrival_whatever_they_take() -> None:
    async def later_is_faster(value: Turn) -> Turn:
        await anyio.sleep(10 - value[1])
        return value

    pipe = Pipeline(keyed(later_is_faster) | map(str, name="after"))
    records = await pipe.collect([(name, n) for n in range(9) for name in "ab"])
    for name in "ab":
        assert [record.input[1] for record in records if record.input[0] == name] == list(range(9))  # type: ignore[index]


@in_virtual_time
async def test_the_key_may_be_an_expression_or_async() -> None:
    async def slow_key(value: object) -> object:
        await anyio.sleep(1)
        return value["user"]  # type: ignore[index]

    for by in ("{{ input.user }}", Expression("{{ input.user }}"), slow_key):
        seen: list[object] = []

        async def note(value: object, seen: list[object] = seen) -> object:
            seen.append(value["n"])  # type: ignore[index]
            await anyio.sleep(5)
            return value["n"]  # type: ignore[index]

        pipe = Pipeline(partition_by(by, map(note, concurrency=9)))
        records = await pipe.collect([{"user": "a", "n": 1}, {"user": "a", "n": 2}, {"user": "b", "n": 3}])
        assert seen == [1, 3, 2]
        assert sorted(record.output for record in records) == [1, 2, 3]  # type: ignore[type-var]


@in_virtual_time
async def test_async_keys_that_take_uneven_time_do_not_change_the_order() -> None:
    async def slow_first(value: Turn) -> str:
        await anyio.sleep(3 if value[1] == 0 else 0)
        return value[0]

    room = Room()
    await Pipeline(partition_by(slow_first, map(room, concurrency=9))).collect([("a", n) for n in range(4)])
    assert dict(room.entered) == {"a": [0, 1, 2, 3]}


@in_virtual_time
async def test_its_value_is_that_of_the_body() -> None:
    body = map(lambda value: value[1], name="number") | map(lambda n: n + 1, name="next")
    (record,) = await Pipeline(partition_by(key, body) | map(Expression("{{ partition * 2 }}"), name="twice")).collect(
        [("a", 20)]
    )
    assert record.outputs == {"partition": 21, "twice": 42}


@in_virtual_time
async def test_messages_of_the_body_go_on() -> None:
    async def says(prompt: str, state: ConversationState) -> str:
        return prompt.upper()

    seen: list[int] = []

    async def counts(prompt: str, state: ConversationState) -> str:
        seen.append(len(state.messages))
        return prompt

    await Pipeline(partition_by(lambda text: text, says) | counts).collect(["a"])
    assert seen == [2]


# -- keys -----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_what_cannot_be_a_key_fails_the_item_and_nobody_else() -> None:
    def by(value: object) -> object:
        if value == "raises":
            raise ValueError("no key")
        return {"unhashable": [1], "none": None, "nan": float("nan"), "one": 1, "true": True}[value]  # type: ignore[index]

    records = await Pipeline(partition_by(by, map(str, name="body")), ordered=True).collect(
        ["unhashable", "raises", "none", "nan", "nan", "one", "true"]
    )
    assert [record.status for record in records] == ["failed", "failed", "ok", "ok", "ok", "ok", "ok"]
    bad, raised = records[0].error, records[1].error
    assert bad is not None
    assert raised is not None
    text = "the key of 'partition' has to be text, a number or the like, got list"
    assert (bad.type, bad.stage, bad.message) == ("BadKey", "partition", text)
    assert (raised.type, raised.stage, raised.message) == ("ValueError", "partition", "no key")


@in_virtual_time
async def test_on_error_is_asked_for_bad_keys_and_for_the_body() -> None:
    def breaks(value: object) -> object:
        raise ValueError("no")

    for stage in (
        partition_by(breaks, map(str, name="body"), on_error="skip"),
        partition_by(lambda value: 1, map(breaks), on_error="skip"),
    ):
        async with Pipeline(stage).open([1, 2]) as run:
            assert [record async for record in run.results] == []
        assert run.statistics().window.settled["skipped"] == 2
    with pytest.raises(RunStopped):
        await Pipeline(partition_by(lambda value: 1, map(breaks), on_error="fail")).collect([1])


@in_virtual_time
async def test_ten_thousand_keys_leave_no_table_behind() -> None:
    counts: list[int] = []

    async def body(value: int) -> int:
        counts.append(len(busy(running[0])))
        await anyio.lowlevel.checkpoint()
        return value

    running: list[Run] = []
    pipe = Pipeline(partition_by(lambda value: value, map(body, concurrency=32)), max_in_flight=64)
    async with pipe.open(range(10_000)) as run:
        running.append(run)
        taken = [record.output async for record in run.results]
        assert busy(run) == {}
    assert sorted(taken) == list(range(10_000))  # type: ignore[type-var]
    assert max(counts) <= 64


@in_virtual_time
async def test_one_busy_key_of_two_thousand_items_goes_through_in_order() -> None:
    seen: list[int] = []

    async def body(value: int) -> int:
        seen.append(value)
        return value

    await Pipeline(partition_by(lambda value: "one", map(body, concurrency=8))).collect(range(2_000))
    assert seen == list(range(2_000))


# -- whoever ends badly frees the key -------------------------------------------------------------------------------


@in_virtual_time
async def test_an_item_that_fails_or_is_skipped_frees_its_key() -> None:
    seen: list[int] = []

    async def body(value: Turn) -> Turn | None:
        seen.append(value[1])
        await anyio.sleep(1)
        if value[1] == 0:
            raise ValueError("no")
        return None if value[1] == 1 else value

    def skips(value: Turn | None) -> bool:
        return value is not None

    async with Pipeline(partition_by(key, map(body) | filter(skips))).open([("a", n) for n in range(4)]) as run:
        records = [(anyio.current_time(), record.index, record.status) async for record in run.results]
        assert busy(run) == {}
    assert seen == [0, 1, 2, 3]
    assert records == [(1, 0, "failed"), (3, 2, "ok"), (4, 3, "ok")]


@in_virtual_time
async def test_as_many_failures_as_slots_and_more_do_not_stop_it() -> None:
    async def body(value: Turn) -> Turn:
        await anyio.sleep(value[1] % 2)
        if value[1] % 3:
            raise ValueError("no")
        return value

    values = [(name, n) for n in range(30) for name in "abc"]
    for ordered in (False, True):
        stage = partition_by(key, map(body, concurrency=2))
        pipe = Pipeline(stage, max_in_flight=5, buffer_size=0, ordered=ordered)
        records = await pipe.collect(values)
        assert sorted(record.index for record in records) == list(range(90))
        assert sum(record.status == "ok" for record in records) == 30
    assert [record.index for record in records] == list(range(90))


@in_virtual_time
async def test_parked_items_hold_no_slot() -> None:
    async def by_key(value: Turn) -> Turn:
        await anyio.sleep(100 if value[0] == "slow" else 1)
        return value

    pipe = Pipeline(partition_by(key, map(by_key, concurrency=2)), max_in_flight=30)
    async with pipe.open([("slow", n) for n in range(20)] + [(f"key {n}", n) for n in range(9)]) as run:
        for second in range(1, 10):  # all other keys have the other slot
            await anext(run.results)
            assert anyio.current_time() == second
        (meter,) = run.statistics().stages
        assert (meter.slots.borrowed, meter.slots.waiting) == (1, 0)


@in_virtual_time
async def test_a_parked_item_whose_time_is_up_retires_at_once_and_gives_its_credit_back() -> None:
    async def late() -> AsyncIterator[Turn]:
        yield ("a", 0)
        await anyio.sleep(2)
        yield ("a", 1)
        yield ("a", 2)

    async def stubborn(value: Turn) -> Turn:
        try:
            await anyio.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(50)
        return value

    async with Pipeline(keyed(stubborn), item_timeout=5).open(late()) as run:
        first = await anext(run.results)
        assert (first.index, anyio.current_time()) == (0, 5)
        assert run.statistics().window.in_flight == 3  # its visit is still leaving
        more = [await anext(run.results), await anext(run.results)]
        assert ([record.index for record in more], anyio.current_time()) == ([1, 2], 7)
        assert (run.statistics().window.in_flight, busy(run)) == (1, {"a": 1})
        assert [record async for record in run.results] == []
    error = more[0].error
    assert error is not None
    assert (error.type, error.stage) == ("item_timeout", "partition")
    nothing_is_left(run)


@in_virtual_time
async def test_parked_items_that_leave_do_not_disturb_the_order_of_the_others() -> None:
    room = Room(2)
    async with anyio.create_task_group() as tg, Pipeline(keyed(room)).open() as run:
        tg.start_soon(run.submit, ("a", 0))
        await anyio.sleep(0.5)
        with anyio.CancelScope() as impatient:
            async with anyio.create_task_group() as inner:
                inner.start_soon(run.submit, ("a", 1))
                await anyio.sleep(0.5)
                tg.start_soon(run.submit, ("a", 2))
                await anyio.sleep(0.5)
                assert busy(run) == {"a": 3}
                impatient.cancel()
        assert busy(run) == {"a": 2}
        assert (await run.submit(("a", 3))).status == "ok"
    assert dict(room.entered) == {"a": [0, 2, 3]}
    nothing_is_left(run)


# -- the key is free when nothing is left in the body ---------------------------------------------------------------


class Leaving:
    """Bodies with a visit that takes its time to leave; a key must not come in again before that."""

    def __init__(self) -> None:
        self.room: list[tuple[float, str, int]] = []
        self.inside: set[str] = set()

    async def stubborn(self, value: Turn) -> Turn:
        name, number = value
        assert name not in self.inside, f"{name!r} was let in while its last item is still leaving"
        self.inside.add(name)
        self.room.append((anyio.current_time(), name, number))
        try:
            await anyio.sleep(3)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(10)
            self.inside.remove(name)
        return value

    async def quick(self, value: Turn) -> Turn:
        await anyio.sleep(1)
        return value

    def visit(self, name: str = "stubborn") -> Stage:
        return map(self.stubborn, name=name, concurrency=100)


@in_virtual_time
async def test_a_visit_that_was_cancelled_has_ended_before_the_next_one_of_its_key_begins() -> None:
    leaving = Leaving()
    async with Pipeline(partition_by(key, leaving.visit())).open() as run:
        with anyio.move_on_after(2):
            await run.submit(("a", 0))
        async with anyio.create_task_group() as tg:
            tg.start_soon(run.submit, ("a", 1))
            tg.start_soon(run.submit, ("b", 2))
    assert leaving.room == [(0, "a", 0), (2, "b", 2), (12, "a", 1)]
    nothing_is_left(run)


@in_virtual_time
async def test_losers_of_a_race_in_the_body_keep_the_key_until_they_have_left() -> None:
    leaving = Leaving()
    race = parallel("race", join="any", quick=map(leaving.quick, concurrency=9), stubborn=leaving.visit())
    async with Pipeline(partition_by(key, race)).open([("a", 0), ("a", 1), ("b", 2)]) as run:
        ended = [(anyio.current_time(), record.index) async for record in run.results]
    assert sorted(ended) == [
        (1, 0),
        (1, 2),
        (12, 1),
    ]  # the item goes on at once, the next one of its key comes in later
    assert sorted(leaving.room) == [(0, "a", 0), (0, "b", 2), (11, "a", 1)]
    nothing_is_left(run)


@BACKENDS
@pytest.mark.parametrize("body", ["scatter", "loop", "partition", "batch"])
def test_whatever_the_body_is_made_of_what_is_left_of_a_revoked_item_keeps_the_key(backend: str, body: str) -> None:
    async def main() -> None:
        leaving = Leaving()

        async def each(values: list[Turn]) -> list[Turn]:
            return [await leaving.stubborn(value) for value in values]

        bodies: dict[str, Stage] = {
            "scatter": scatter("dig", split=lambda value: [value], each=leaving.visit()),
            "loop": loop(leaving.visit(), until=lambda value: True, max_rounds=3),
            "partition": partition_by(lambda value: 1, leaving.visit(), name="inner"),
            "batch": batch(map(each, concurrency=9), size=1),
        }
        async with Pipeline(partition_by(key, bodies[body])).open() as run:
            with anyio.move_on_after(2):
                await run.submit(("a", 0))
            await run.submit(("a", 1))
        assert leaving.room == [(0, "a", 0), (12, "a", 1)]
        nothing_is_left(run)

    run_in(backend, 0, main)


@in_virtual_time
async def test_nested_partitions_each_free_their_own_key() -> None:
    leaving = Leaving()
    race = parallel("race", join="any", quick=map(leaving.quick, concurrency=9), stubborn=leaving.visit())
    inner = partition_by(lambda value: value[1] % 2, race, name="inner")
    async with Pipeline(partition_by(key, inner)).open([("a", 0), ("b", 2), ("b", 1), ("c", 3)]) as run:
        assert len([record async for record in run.results]) == 4
    assert busy(run) == {}
    # 0 and 2 have one inner key, 1 and 3 the other; 2 and 1 have one outer key, which 2 keeps while it waits inside
    assert sorted(leaving.room) == [(0, "a", 0), (0, "c", 3), (11, "b", 2), (22, "b", 1)]
    nothing_is_left(run)


# -- where it can stand ---------------------------------------------------------------------------------------------


@in_virtual_time
async def test_parked_items_of_a_branch_that_lost_leave_at_once() -> None:
    room = Room(10)

    async def quick(value: Turn) -> str:
        await anyio.sleep(1)
        return "won"

    race = parallel("race", join="any", slow=keyed(room), quick=map(quick, concurrency=9))
    async with Pipeline(race).open([("a", n) for n in range(5)]) as run:
        assert [(anyio.current_time(), record.output) async for record in run.results] == [(1, "won")] * 5
        assert busy(run) == {}
    assert dict(room.entered) == {"a": [0]}  # the others were told to vanish before it left
    nothing_is_left(run)


@in_virtual_time
async def test_in_a_loop_each_round_stands_in_line_again() -> None:
    room = Room()
    body = keyed(room) | map(lambda value: (value[0], value[1] + 10), name="on")
    pipe = Pipeline(loop(body, until=lambda value: value[1] >= 20, max_rounds=9), ordered=True)
    records = await pipe.collect([("a", 0), ("a", 1), ("b", 2)])
    assert [record.output for record in records] == [("a", 20), ("a", 21), ("b", 22)]
    assert dict(room.entered) == {"a": [0, 1, 10, 11], "b": [2, 12]}


@in_virtual_time
async def test_children_of_a_scatter_take_turns_by_key() -> None:
    room = Room()
    dig = scatter("dig", split=lambda n: [("ab"[k % 2], k) for k in range(n)], each=keyed(room))
    (record,) = await Pipeline(dig).collect([6])
    assert record.output == [("a", 0), ("b", 1), ("a", 2), ("b", 3), ("a", 4), ("b", 5)]
    assert dict(room.entered) == {"a": [0, 2, 4], "b": [1, 3, 5]}


def test_the_bound_counts_the_item_and_its_member() -> None:
    assert Pipeline(keyed(Room()), max_in_flight=7).bounds.items == 14


# -- ends of a run --------------------------------------------------------------------------------------------------


@BACKENDS
@pytest.mark.parametrize("after", [0, 0.5, 1, 2.5])
@pytest.mark.parametrize("how", ["abort", "leave", "drain calls", "drain items"])
def test_ended_while_items_are_parked_it_leaves_nothing(backend: str, after: float, how: str) -> None:
    async def slow(prompt: str, state: ConversationState, visit: Visit) -> str:
        visit.admit_call()
        await anyio.sleep(1)
        return prompt

    async def main() -> tuple[list[Record], Run, int]:
        pipe = Pipeline(partition_by(lambda text: text, slow), max_in_flight=8)
        tasks = len(anyio.get_running_tasks())
        records: list[Record] = []
        async with pipe.open(["a", "a", "a", "b", "b", "c"] * 5) as run:
            await anyio.sleep(after)
            if how == "abort":
                run.abort()
            elif how != "leave":
                run.drain(how.removeprefix("drain "))  # type: ignore[arg-type]
            if how != "leave":
                records = [record async for record in run.results]
        nothing_is_left(run)
        assert busy(run) == {}
        assert len(anyio.get_running_tasks()) == tasks
        return records, run, run.statistics().window.admitted

    records, run, admitted = run_in(backend, 0, main)
    settled = run.statistics().window.settled
    if how == "drain items":
        assert settled["ok"] == len(records) == admitted
    else:
        assert settled["ok"] + settled["cancelled"] == admitted
        assert settled["ok"] == len(records)


@BACKENDS
@pytest.mark.parametrize("how", ["abort", "leave"])
def test_parts_of_one_item_that_are_parked_are_cancelled_once_each(backend: str, how: str) -> None:
    async def slow(value: object) -> object:
        await anyio.sleep(10)
        return value

    async def main() -> None:
        each = partition_by(lambda value: value % 2, parallel("both", a=map(slow), b=map(slow, name="other")))
        stage = scatter("dig", split=range, each=each)
        async with Pipeline(stage).open([5, 3]) as run:
            await anyio.sleep(1)
            if how == "abort":
                run.abort()
                assert [record async for record in run.results] == []
        nothing_is_left(run)
        assert run.statistics().window.settled["cancelled"] == 2

    run_in(backend, 0, main)


# -- definitions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (
            lambda: partition_by(5, map(str)),  # type: ignore[arg-type]
            "stage 'partition', key: must be a function or an expression, got 5",
        ),
        (
            lambda: partition_by("{{ nope }}", map(str)),
            "stage 'partition', key: uses 'nope'; available here: input, prompt, vars",
        ),
        (
            lambda: partition_by(key, map(str), on_error="x"),  # type: ignore[arg-type]
            "stage 'partition', on_error: must be one of dead_letter, skip, fail, or a function, got 'x'",
        ),
    ],
)
def test_options_that_cannot_work_are_refused(make: object, text: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        Pipeline(make())  # type: ignore[operator]
    assert str(caught.value) == text
