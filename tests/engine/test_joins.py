"""Joins in a run: functions that decide, and what a listener hears of each decision."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from random import Random
from typing import Any

import anyio
import pytest

from pipeline.core.errors import ItemError
from pipeline.core.events import Event, JoinDecided
from pipeline.core.joins import first, majority, quorum
from pipeline.core.members import Ended, Members
from pipeline.core.pipeline import Pipeline
from pipeline.core.record import Record
from pipeline.core.visit import Visit
from stages import filter, map, parallel, route, scatter, vote
from tests.engine.schedules import in_virtual_time, run_in
from tests.engine.topologies import nothing_is_left


def after(name: str, seconds: float, answer: object = None) -> Any:
    """Answers `answer` after some time, or as it was asked; the answer `fails` is a failure."""

    async def answers(value: object) -> object:
        await anyio.sleep(seconds)
        if answer == "fails":
            raise ValueError(f"{name} failed")
        return value if answer is None else answer

    return map(answers, name=name, concurrency=8)


async def one(stage: object, value: object = 1, **options: Any) -> Record:
    (record,) = await Pipeline(stage, **options).collect([value])  # type: ignore[arg-type]
    return record


async def heard(stage: object, *values: object) -> tuple[list[Record], list[JoinDecided]]:
    """The records and the decisions of a run, records in input order."""
    events: list[Event] = []
    async with Pipeline(stage, ordered=True).open(values, on_event=events.append) as run:  # type: ignore[arg-type]
        records = [record async for record in run.results]
    assert run.statistics().listener_errors == 0
    return records, [event for event in events if isinstance(event, JoinDecided)]


def both_of_three(members: Members) -> Any:
    """Ok with a and b; partial with c and one of them, for which nobody waits longer than for c."""
    if {"a", "b"} <= members.values.keys():
        return "ok"
    if len(members.values) == 2:
        return "partial"
    return "failed" if members.done else None


@in_virtual_time
async def test_a_function_decides_as_soon_as_it_says_so_and_the_others_are_cancelled() -> None:
    views = parallel("p", join=both_of_three, a=after("a", 1), b=after("b", 2), c=after("c", 50))
    record = await one(views, "v")
    assert (record.status, record.output, record.missing) == ("ok", {"a": "v", "b": "v"}, ())
    assert anyio.current_time() == 2


@in_virtual_time
async def test_a_function_is_not_asked_before_a_member_has_ended() -> None:
    asked: list[int] = []

    def any_value(members: Members) -> Any:
        asked.append(len(members.ended))
        return "ok" if members.values else "failed"

    record = await one(parallel("p", join=any_value, a=after("a", 1), b=after("b", 2)), "v")
    assert (record.status, record.output, asked) == ("ok", {"a": "v"}, [1])
    empty = await one(scatter("s", split=lambda value: [], each=after("e", 1), join=any_value), "v")
    assert (empty.status, asked) == ("failed", [1, 0])


@in_virtual_time
async def test_a_function_that_says_partial_leaves_a_partial_record_that_names_who_was_not_waited_for() -> None:
    views = parallel(
        "p",
        join=both_of_three,
        timeout=90,
        a=after("a", 1),
        b=after("b", 50),
        c=after("c", 2),
        d=after("d", 1, "fails"),
    )
    record = await one(views, "v")
    assert record.error is not None
    assert (record.status, record.output, record.missing) == ("partial", {"a": "v", "c": "v"}, ("p.b", "p.d"))
    assert record.error.message == "p.b: not done; p.d: d failed"
    assert anyio.current_time() == 2


@in_virtual_time
async def test_what_is_partial_though_nothing_is_missing_names_the_composite() -> None:
    def modest(members: Members) -> Any:
        return "partial" if members.done else None

    record = await one(parallel("p", join=modest, a=after("a", 1)), "v")
    assert record.error is not None
    assert (record.status, record.output, record.missing) == ("partial", {"a": "v"}, ("p",))
    assert record.error.message == "p: join custom(modest) says partial"


@in_virtual_time
async def test_a_function_that_says_failed_fails_the_item_with_the_reasons_of_its_members() -> None:
    views = parallel("p", join=both_of_three, a=after("a", 1), b=after("b", 2, "fails"), c=after("c", 3, "fails"))
    record = await one(views, "v")
    assert record.error is not None
    assert (record.status, record.error.type, record.error.stage) == ("failed", "JoinFailed", "p")
    assert record.error.message == (
        "planned 3, join custom(both_of_three) says failed, 1 succeeded; b: b failed; c: c failed"
    )
    assert record.outputs == {"p": {"a": "v"}}


def raises(members: Members) -> Any:
    raise KeyError("c")


def shrugs(members: Members) -> Any:
    return None


def mumbles(members: Members) -> Any:
    return "perhaps"


def explains(members: Members) -> Any:
    raise ItemError("the two differ", type="Differ")


@pytest.mark.parametrize(
    ("function", "type", "message"),
    [
        (raises, "JoinError", "join custom(raises) of 'p' raised KeyError: 'c'"),
        (
            shrugs,
            "JoinError",
            "join custom(shrugs) of 'p': the join function did not decide, though all 2 members have ended",
        ),
        (
            mumbles,
            "JoinError",
            (
                "join custom(mumbles) of 'p' returned 'perhaps'; "
                "it has to return 'ok', 'partial', 'failed', or None for not yet"
            ),
        ),
        (explains, "Differ", "the two differ"),
    ],
)
@pytest.mark.parametrize("wide", [False, True], ids=["parallel", "scatter"])
async def test_a_function_that_does_not_decide_fails_the_item_and_the_run_goes_on(
    function: Any, type: str, message: str, wide: bool
) -> None:
    def stage() -> Any:
        if wide:
            return scatter("p", split=lambda value: [value, value], each=map(str), join=function)
        return parallel("p", join=function, a=map(str, name="a"), b=map(repr, name="b"))

    records = await Pipeline(stage(), ordered=True).collect([1, 2])
    assert [record.status for record in records] == ["failed", "failed"]
    for record in records:
        assert record.error is not None
        assert (record.error.type, record.error.stage, record.error.message) == (type, "p", message)


@in_virtual_time
async def test_a_function_sees_members_in_declaration_order_and_is_asked_after_each() -> None:
    seen: list[Members] = []

    def looks(members: Members) -> Any:
        seen.append(members)
        return "ok" if members.done else None

    sieve = filter(lambda value: False, name="sieve")
    await one(parallel("p", join=looks, a=after("a", 3), b=after("b", 2, "fails"), c=sieve, d=after("d", 1)), "v")
    assert [dict(members.ended) for members in seen] == [
        {"c": Ended("skipped")},
        {"c": Ended("skipped"), "d": Ended("ok", "v")},
        {"b": Ended("failed", None, "b failed"), "c": Ended("skipped"), "d": Ended("ok", "v")},
        {"a": Ended("ok", "v"), "b": Ended("failed", None, "b failed"), "c": Ended("skipped"), "d": Ended("ok", "v")},
    ]
    assert [list(members.ended) for members in seen[-2:]] == [["b", "c", "d"], ["a", "b", "c", "d"]]
    assert {members.slots for members in seen} == {("a", "b", "c", "d")}
    assert all(members.complete and not members.late for members in seen)
    with pytest.raises(TypeError):
        seen[0].ended["a"] = Ended("ok")  # type: ignore[index]


@in_virtual_time
async def test_a_function_can_decide_over_the_children_of_a_scatter_before_all_are_known() -> None:
    async def endless(value: int) -> AsyncIterator[int]:
        number = 0
        while True:
            yield number
            number += 1
            await anyio.sleep(1)

    def enough(members: Members) -> Any:
        assert not members.complete
        return "ok" if sum(members.values.values()) >= 3 else None  # type: ignore[arg-type]

    record = await one(scatter("dig", split=endless, each=map(abs, name="each"), join=enough))
    assert (record.status, record.output) == ("ok", [0, 1, 2])

    def modest(members: Members) -> Any:
        return "partial" if enough(members) else None

    record = await one(scatter("dig", split=endless, each=map(abs, name="each"), join=modest))
    assert (record.status, record.output, record.missing) == ("partial", [0, 1, 2], ("dig.rest",))


@in_virtual_time
async def test_when_the_time_is_up_the_function_is_asked_once_more_and_then_on_timeout_decides() -> None:
    def patient(members: Members) -> Any:
        return "ok" if members.done else None

    def content(members: Members) -> Any:
        return "partial" if members.late and members.values else patient(members)

    def lost(members: Members) -> Any:
        raise ItemError("too late" if members.late else "too early")

    def views(join: Callable[[Members], Any], **options: Any) -> Any:
        return parallel("p", join=join, timeout=3, a=after("a", 1), b=after("b", 50), **options)

    failed = await one(views(patient))
    assert failed.error is not None
    assert (failed.status, failed.error.type) == ("failed", "GroupTimeout")
    assert failed.error.message == "1 of 2 not done within 3 s, join is custom(patient)"
    part = await one(views(patient, on_timeout="partial"), "v")
    assert (part.status, part.output, part.missing) == ("partial", {"a": "v"}, ("p.b",))
    own = await one(views(content), "v")
    assert own.error is not None
    assert (own.status, own.output, own.error.message) == ("partial", {"a": "v"}, "p.b: not done within 3 s")
    assert (await one(views(content, on_timeout="fail"), "v")).status == "partial"
    early = await one(views(lost))
    assert (early.status, early.error and early.error.message) == ("failed", "too early")
    assert anyio.current_time() == 13


@in_virtual_time
async def test_a_function_that_raises_when_the_time_is_up_fails_the_item() -> None:
    def lost(members: Members) -> Any:
        return members.slots[9] if members.late else None

    record = await one(parallel("p", join=lost, timeout=3, a=after("a", 50), on_timeout="partial"))
    assert record.error is not None
    assert (record.status, record.error.message) == (
        "failed",
        "join custom(lost) of 'p' raised IndexError: tuple index out of range",
    )
    assert anyio.current_time() == 3


@in_virtual_time
async def test_children_that_a_late_scatter_was_never_given_are_missing() -> None:
    async def slowly(value: int) -> AsyncIterator[int]:
        for number in range(value):
            yield number
            await anyio.sleep(2)

    dig = scatter("dig", split=slowly, each=map(abs, name="each"), join=quorum(2), timeout=5)
    record = await one(dig, 9)
    assert record.error is not None
    assert (record.status, record.output, record.missing) == ("partial", [0, 1, 2], ("dig.rest",))
    assert record.error.message == "dig.rest: not done within 5 s"
    assert (await one(dig, 2)).status == "ok"


@in_virtual_time
async def test_a_majority_is_joined_as_soon_as_there_is_one() -> None:
    left: list[str] = []

    async def loser(value: object) -> object:
        try:
            await anyio.sleep(50)
        finally:
            left.append("cancelled")
        return value

    def views(**branches: object) -> Any:
        return parallel("p", join="majority", branches=branches)

    record = await one(views(a=after("a", 1, "Rome"), b=map(loser, name="b"), c=after("c", 2, " rome")))
    assert (record.status, record.output, left) == ("ok", {"a": "Rome", "c": " rome"}, ["cancelled"])
    assert anyio.current_time() == 2
    lost = await one(views(a=after("a", 1, "Rome"), b=after("b", 2, "Bern"), c=after("c", 3, "fails"), d=map(loser)))
    assert lost.error is not None
    assert (lost.status, lost.error.type) == ("failed", "NoMajority")
    assert lost.error.message == "no answer can have 3 of 4 votes: rome: 1, bern: 1; c: c failed"
    assert anyio.current_time() == 5
    assert left == ["cancelled"] * 2


@in_virtual_time
async def test_a_majority_can_be_one_of_a_part_of_each_answer() -> None:
    def says(name: str, label: str, why: str) -> Any:
        return after(name, 1, {"label": label, "why": why})

    join = majority(key="{{ answer.label }}")
    record = await one(parallel("p", join=join, a=says("a", "x", "1"), b=says("b", "y", "2"), c=says("c", "x", "3")))
    assert record.status == "ok"
    odd = scatter("s", split=list, each=map(abs, name="each"), join=majority(key=lambda n: n % 2))
    assert (await one(odd, [2, 1, 3])).output == [2, 1, 3]
    assert (await one(odd, [2, 1])).status == "failed"


@in_virtual_time
async def test_a_drain_cancels_what_a_function_could_not_decide_for_lack_of_calls() -> None:
    async def lends(value: object, visit: Visit) -> object:
        async with visit.without_slot():
            await anyio.sleep(50)
        return value

    views = parallel("p", join=both_of_three, a=after("a", 1), b=map(lends))
    async with Pipeline(views).open([1]) as run:
        await anyio.sleep(2)
        run.drain("calls")
        assert [record async for record in run.results] == []
    assert run.statistics().window.settled["cancelled"] == 1


@pytest.mark.parametrize("wide", [False, True], ids=["parallel", "scatter"])
async def test_in_debug_mode_a_function_that_changes_an_answer_fails_the_item(wide: bool) -> None:
    def spoils(members: Members) -> Any:
        for value in members.values.values():
            value.append(0)  # type: ignore[attr-defined]
        return "ok" if members.done else None

    def looks(members: Members) -> Any:
        return "ok" if members.done else None

    def of(join: Any) -> Any:
        if wide:
            return scatter("p", split=lambda value: [value], each=map(list, name="a"), join=join)
        return parallel("p", join=join, a=map(list, name="a"))

    (bad,) = await Pipeline(of(spoils), debug=True).collect([[1]])
    assert bad.error is not None
    assert (bad.status, bad.error.type) == ("failed", "MutatedInput")
    assert bad.error.message.startswith("stage 'p' changed what it was given, at ")
    (good,) = await Pipeline(of(looks), debug=True).collect([[1]])
    assert good.status == "ok"


@in_virtual_time
async def test_each_decision_is_told_with_what_had_ended_by_then() -> None:
    def value_of(branch: str) -> Any:
        async def answers(value: dict[str, Any]) -> object:
            seconds = value[branch]
            await anyio.sleep(abs(seconds))
            if seconds < 0:
                raise ValueError("as told")
            return branch

        return map(answers, name=branch, concurrency=4)

    views = parallel("p", join=first(2), a=value_of("a"), b=value_of("b"), c=value_of("c"))
    records, decisions = await heard(
        views,
        {"id": "x", "a": 1, "b": 2, "c": 3},
        {"id": "y", "a": 9, "b": 4, "c": 2},
        {"id": "z", "a": -1, "b": -3, "c": 5},
    )
    assert decisions == [
        JoinDecided("x", ("p",), "p", "ok", False, {"a": "ok", "b": "ok", "c": "open"}),
        JoinDecided("z", ("p",), "p", "failed", False, {"a": "failed", "b": "failed", "c": "open"}),
        JoinDecided("y", ("p",), "p", "ok", False, {"a": "open", "b": "ok", "c": "ok"}),
    ]
    assert [record.status for record in records] == ["ok", "ok", "failed"]


@in_virtual_time
async def test_composites_of_every_kind_tell_with_the_path_to_them() -> None:
    async def slowly(seconds: float) -> float:
        await anyio.sleep(seconds)
        return seconds

    inner = parallel("inner", join="any", x=map(slowly, name="x", concurrency=2), y=after("y", 3, "fails"))
    dig = scatter(
        "dig",
        split=lambda value: [value, value + 3],
        each=inner,
        gather=map(len, name="count"),
        join=quorum(1),
        timeout=9,
    )
    _, decisions = await heard(parallel("outer", l=dig, r=route({"odd": after("o", 0.5)}, by=lambda value: "odd")), 1)
    told = [(event.path, event.composite, event.verdict, event.slots) for event in decisions]
    assert told == [
        (("outer", "r", "route"), "route", "ok", {"odd": "ok"}),
        (("outer", "l", "dig", "0", "inner"), "inner", "ok", {"x": "ok", "y": "open"}),
        (("outer", "l", "dig", "1", "inner"), "inner", "ok", {"x": "ok", "y": "failed"}),
        (("outer", "l", "dig"), "dig", "ok", {"0": "ok", "1": "ok"}),
        (("outer", "l", "dig.gather"), "dig.gather", "ok", {"gather": "ok"}),
        (("outer",), "outer", "ok", {"l": "ok", "r": "ok"}),
    ]


@in_virtual_time
async def test_what_a_late_group_was_never_given_can_be_told_from_the_decision() -> None:
    async def slowly(value: int) -> AsyncIterator[int]:
        for number in range(value):
            yield number
            await anyio.sleep(2)

    dig = scatter("dig", split=slowly, each=map(abs, name="each"), join=quorum(2), timeout=5)
    records, (decision,) = await heard(dig, 9)
    assert decision == JoinDecided("0", ("dig",), "dig", "partial", True, {"0": "ok", "1": "ok", "2": "ok"}, False)
    assert explained(records[0], decision) == (records[0].status, records[0].output, records[0].missing)


def explained(record: Record, decision: JoinDecided) -> tuple[str, object, tuple[str, ...]]:
    """What a record has to be by the one decision over it: its status, its output, and what it lacks."""
    finished = [slot for slot, state in decision.slots.items() if state in ("ok", "partial")]
    if decision.verdict == "failed":
        return "failed", None, ()
    lacking = [slot for slot, state in decision.slots.items() if state in ("open", "failed", "cancelled")]
    missing = () if decision.verdict == "ok" else tuple(f"{decision.composite}.{slot}" for slot in lacking)
    rest = () if decision.complete or decision.verdict == "ok" else (f"{decision.composite}.rest",)
    whole = {slot: f"{slot} says" for slot in finished}
    output: object = whole if decision.composite != "race" else next(iter(whole.values()))
    if decision.composite == "dig":
        output = [int(slot) for slot in finished]
    return decision.verdict, output, (*rest, *missing)


@pytest.mark.parametrize("on_timeout", [None, "partial", "fail"])
@pytest.mark.parametrize(
    "join",
    ["any", first(2), quorum(1), quorum(2), "all", both_of_three],
    ids=["any", "first", "quorum1", "quorum2", "all", "custom"],
)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_decision_explains_output_and_missing_exactly(backend: str, join: Any, on_timeout: Any) -> None:
    def branch(name: str) -> Any:
        async def answers(value: int) -> object:
            chance = Random(f"{value} {name}")
            await anyio.sleep(chance.choice([0, 1, 2, 4, 6]))
            if chance.random() < 0.3:
                raise ValueError("as told")
            return f"{name} says"

        return map(answers, name=name, concurrency=32)

    name = "race" if join == "any" else "p"
    stage = parallel(name, join=join, timeout=5, on_timeout=on_timeout, a=branch("a"), b=branch("b"), c=branch("c"))
    records, decisions = run_in(backend, 0, heard, stage, *range(60))
    by_id = {decision.item_id: decision for decision in decisions}
    assert len(by_id) == len(decisions) == len(records) == 60
    for record in records:
        assert explained(record, by_id[record.id]) == (record.status, record.output, record.missing)
    assert len({decision.verdict for decision in decisions}) >= 2
    assert {decision.late for decision in decisions} == {True, False}


def moody(seed: int, name: str) -> Any:
    """A join that says anything at any time, or fails to; the same for the same members."""

    def says(members: Members) -> Any:
        chance = Random(f"{seed} {name} {sorted(members.ended)} {members.complete} {members.late}")
        if chance.random() < 0.1:
            raise ValueError("not today")
        return chance.choice(["ok", "partial", "failed", "perhaps", *[None] * 12])

    return says


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_whatever_functions_say_every_item_ends_once_and_nothing_is_left(backend: str) -> None:
    async def works(value: Any, visit: Visit) -> Any:
        chance = Random(f"{value} {visit.path}")
        try:
            await anyio.sleep(chance.choice([0, 0, 1, 2, 5]))
        finally:
            if chance.random() < 0.2:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(1)
        if chance.random() < 0.15:
            raise ValueError("as told")
        return chance.randrange(3)

    def work(name: str) -> Any:
        return map(works, name=name, concurrency=3)

    async def main(seed: int) -> Counter[str]:
        chance = Random(seed)
        later = {"timeout": chance.choice([None, 2])}
        room = {"max_open": chance.choice([None, 1])}
        needed = chance.choice(["majority", "plurality", 2])
        inner = parallel("inner", join=moody(seed, "inner"), x=work("x"), y=work("y"), **later)
        dig = scatter("dig", split=lambda v: [v, 1, 2], each=inner, join=moody(seed, "dig"), **room)
        poll = vote("poll", work("asked"), samples=4, needed=needed, timeout=4, on_timeout="partial")
        outer = parallel("outer", join=moody(seed, "outer"), timeout=6, a=dig, b=poll | work("b"), c=work("c"))
        size = chance.choice([None, 0, 1])
        pipe = Pipeline(outer | work("last"), max_in_flight=chance.choice([1, 3]), buffer_size=size)
        async with pipe.open(range(12)) as run:
            statuses = Counter([record.status async for record in run.results])
        nothing_is_left(run)
        assert sum(run.statistics().window.settled.values()) == 12
        return statuses

    seen: Counter[str] = Counter()
    for seed in range(60):
        seen += run_in(backend, seed, main, seed)
    assert seen.keys() == {"ok", "partial", "failed"}
