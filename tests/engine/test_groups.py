"""Fan-outs: who is waited for, who is told to vanish, what goes on, and when the clock of a group starts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import anyio

from pipeline.core.joins import first, quorum
from pipeline.core.pipeline import Pipeline
from pipeline.core.record import Record
from pipeline.core.state import ConversationState, Message
from stages import filter, flat_map, map, parallel, route, scatter
from tests.engine.schedules import in_virtual_time


def after(seconds: float, answer: object = None) -> Callable[[object], object]:
    async def answers(value: object) -> object:
        await anyio.sleep(seconds)
        return value if answer is None else answer

    return answers


def fails(value: object) -> object:
    raise ValueError("as told")


def slow(name: str, seconds: float, answer: object = None) -> object:
    return map(after(seconds, answer), name=name, concurrency=8)


async def one(stage: object, value: object = 1) -> Record:
    (record,) = await Pipeline(stage).collect([value])  # type: ignore[arg-type]
    return record


@in_virtual_time
async def test_the_value_of_a_parallel_is_in_declaration_order_whatever_the_timing() -> None:
    record = await one(parallel("p", late=slow("x", 3, "L"), early=slow("y", 1, "E")))
    assert list(record.output.items()) == [("late", "L"), ("early", "E")]  # type: ignore[attr-defined]
    assert anyio.current_time() == 3


@in_virtual_time
async def test_all_fails_at_the_first_failure_and_keeps_what_was_finished() -> None:
    record = await one(parallel("p", quick=slow("q", 1, "Q"), bad=slow("w", 2) | map(fails), slow=slow("s", 50)))  # type: ignore[operator]
    assert anyio.current_time() == 2
    assert (record.status, record.error and record.error.stage) == ("failed", "fails")
    assert dict(record.outputs) == {"p": {"quick": "Q"}}


@in_virtual_time
async def test_any_takes_the_first_that_succeeds_and_cancels_the_losers() -> None:
    left: list[str] = []

    async def loser(value: object) -> object:
        try:
            await anyio.sleep(50)
        finally:
            left.append("cancelled")
        return value

    record = await one(parallel("p", join="any", bad=map(fails), wins=slow("w", 2, "W"), loses=map(loser)))
    assert (record.status, record.output, record.missing) == ("ok", "W", ())
    assert left == ["cancelled"]
    assert anyio.current_time() == 2


@in_virtual_time
async def test_any_fails_when_all_have_failed() -> None:
    record = await one(parallel("p", join="any", a=map(fails, name="a"), b=map(fails, name="b")))
    assert record.error is not None
    assert (record.status, record.error.type) == ("failed", "JoinFailed")
    assert "planned 2, needed 1, 0 succeeded" in record.error.message
    assert "as told" in record.error.message


@in_virtual_time
async def test_a_quorum_waits_for_every_branch_and_names_what_is_missing() -> None:
    views = parallel("p", join=quorum(2), a=slow("a", 1), b=slow("b", 9), c=map(fails))
    record = await one(views, "v")
    assert anyio.current_time() == 9
    assert (record.status, record.missing) == ("partial", ("p.c",))
    assert record.output == {"a": "v", "b": "v"}


@in_virtual_time
async def test_a_quorum_fails_as_soon_as_it_cannot_be_reached() -> None:
    record = await one(parallel("p", join=quorum(2), a=slow("a", 50), b=map(fails, name="b"), c=map(fails, name="c")))
    assert record.status == "failed"
    assert anyio.current_time() == 0


@in_virtual_time
async def test_a_skipped_member_counts_as_finished_and_is_not_missing() -> None:
    sieve = filter(lambda value: False, name="sieve")
    record = await one(parallel("p", join=quorum(1), a=slow("a", 1), b=sieve), "v")
    assert (record.status, record.output, record.missing) == ("ok", {"a": "v"}, ())


@in_virtual_time
async def test_on_timeout_decides_what_a_part_is_worth() -> None:
    def views(**options: object) -> object:
        return parallel("p", a=slow("a", 1), b=slow("b", 50), timeout=3, **options)  # type: ignore[arg-type]

    failed = await one(views())
    assert (failed.status, failed.error and failed.error.type) == ("failed", "GroupTimeout")
    part = await one(views(on_timeout="partial"), "v")
    assert (part.status, part.output, part.missing) == ("partial", {"a": "v"}, ("p.b",))
    assert anyio.current_time() == 6


@in_virtual_time
async def test_the_clock_of_a_group_starts_at_its_first_visit_not_when_it_queues() -> None:
    # one slot, two seconds a visit: the last of five items waits eight seconds for its first visit
    views = parallel("p", a=map(after(2), name="a", concurrency=1), timeout=3)
    records = await Pipeline(views, buffer_size=8).collect(range(5))
    assert [record.status for record in records] == ["ok"] * 5


@in_virtual_time
async def test_a_group_that_is_told_to_vanish_takes_the_groups_below_it_along() -> None:
    left: list[str] = []

    async def deep(value: object) -> object:
        try:
            await anyio.sleep(50)
        finally:
            left.append("deep")
        return value

    inner = parallel(
        "inner", x=map(deep, name="x"), y=scatter("s", split=lambda v: [v, v], each=map(deep, concurrency=2))
    )
    async with Pipeline(parallel("outer", join=first(1), slow=inner, quick=slow("q", 1))).open([1]) as run:
        record = await anext(run.results)
        await anyio.sleep(0.5)
        now = run.statistics()
        assert (record.status, now.window.alive, now.window.in_flight) == ("ok", 0, 0)
        assert [group.open for group in now.groups] == [0, 0, 0]
    assert left == ["deep"] * 3


@in_virtual_time
async def test_branch_messages_are_appended_in_declaration_order_and_those_of_the_missing_left_out() -> None:
    def says(name: str, seconds: float, *, fail: bool = False) -> object:
        async def answers(prompt: str, state: ConversationState) -> str:
            await anyio.sleep(seconds)
            if fail:
                raise ValueError("as told")
            return name

        answers.__name__ = name
        return answers

    heard: list[tuple[Message, ...]] = []

    async def listens(prompt: str, state: ConversationState) -> str:
        heard.append(state.messages)
        return "done"

    views = parallel("p", join=quorum(1), a=says("late", 2), b=says("bad", 1, fail=True), c=says("early", 1))
    await one(views | listens, "hi")
    assert [message.content for message in heard[0]] == ["hi", "late", "hi", "early"]


@in_virtual_time
async def test_a_route_takes_one_branch_and_writes_the_label() -> None:
    kinds = route(
        {"odd": slow("o", 1, "O"), "even": slow("e", 1, "E")}, by=lambda v: "odd" if v % 2 else "even", name="kind"
    )
    records = await Pipeline(kinds, ordered=True).collect([1, 2])
    assert [(record.output, record.outputs["kind_label"]) for record in records] == [("O", "odd"), ("E", "even")]


@in_virtual_time
async def test_an_unknown_label_goes_to_the_default_or_fails_naming_the_cases() -> None:
    cases = {"a": map(after(1), name="a")}
    assert (await one(route(cases, by=lambda v: "z", default=slow("d", 1, "D")))).output == "D"
    failed = await one(route(cases, by=lambda v: "z"))
    assert failed.error is not None
    assert failed.error.message == "label 'z' has no case and there is no default; cases: 'a'"


@in_virtual_time
async def test_a_classifier_that_fails_fails_the_item_unless_the_default_is_asked_for() -> None:
    cases = {"a": map(after(1), name="a")}
    assert (await one(route(cases, by=fails))).status == "failed"
    assert (await one(route(cases, by=fails, default=slow("d", 1, "D"), on_error="default"))).output == "D"


@in_virtual_time
async def test_a_scatter_gives_its_childrens_outputs_in_order() -> None:
    dig = scatter("dig", split=lambda n: list(range(n)), each=map(after(1), name="each", concurrency=9))
    assert (await one(dig, 3)).output == [0, 1, 2]
    assert (await one(dig, 0)).output == []


@in_virtual_time
async def test_a_scatter_with_too_few_parts_for_its_join_says_planned_and_needed() -> None:
    record = await one(scatter("dig", split=lambda n: [1], each=slow("each", 1), join=quorum(2)))
    assert record.error is not None
    assert record.error.message == "planned 1, needed 2, 0 succeeded"  # told before the one child was waited for


@in_virtual_time
async def test_too_many_parts_fail_the_item_or_are_left_out() -> None:
    def dig(**options: object) -> object:
        return scatter("dig", split=lambda n: list(range(n)), each=slow("each", 1), max_children=2, **options)  # type: ignore[arg-type]

    failed = await one(dig(), 3)
    assert (failed.status, failed.error and failed.error.type) == ("failed", "TooManyChildren")
    part = await one(dig(on_excess="truncate"), 3)
    assert (part.status, part.output, part.missing) == ("partial", [0, 1], ("dig.rest",))


@in_virtual_time
async def test_max_open_pauses_the_split() -> None:
    given: list[float] = []

    async def split(value: int) -> AsyncIterator[int]:
        for number in range(value):
            given.append(anyio.current_time())
            yield number

    await one(scatter("dig", split=split, each=map(after(1), name="each", concurrency=9), max_open=2), 6)
    assert given == [0, 0, 0, 1, 1, 2]  # the next part is asked for, then waits for room


@in_virtual_time
async def test_children_of_a_flat_map_leave_a_record_each_and_the_root_settles_with_the_worst() -> None:
    def odd_ones_fail(value: int) -> int:
        if value % 2:
            raise ValueError("odd")
        return value

    async with Pipeline(flat_map(range, name="flat") | map(odd_ones_fail), ordered=True).open([3, 0, 1]) as run:
        records = [record async for record in run.results]
    assert [(record.id, record.parent, record.status) for record in records] == [
        ("0#0", "0", "ok"),
        ("0#1", "0", "failed"),
        ("0#2", "0", "ok"),
        ("2#0", "2", "ok"),
    ]
    settled = run.statistics().window.settled
    assert (settled["ok"], settled["failed"], settled["skipped"]) == (1, 1, 1)


@in_virtual_time
async def test_a_flat_map_has_no_more_children_alive_than_it_may() -> None:
    alive: list[int] = []

    async def look(value: int) -> int:
        await anyio.sleep(1)
        alive.append(run.statistics().window.alive)
        return value

    async with Pipeline(flat_map(range, max_children=3) | map(look, concurrency=9), max_in_flight=1).open([10]) as run:
        assert len([record async for record in run.results]) == 10
    assert max(alive) <= 1 + 3
