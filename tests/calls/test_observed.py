"""What is told of calls and attempts, to whom, and that nothing is told to nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from pipeline import Pipeline
from pipeline.calls.call import Call, Reply, Request
from pipeline.calls.observed import ObservedAttempt, ObservedCall
from pipeline.calls.retry import Retry
from pipeline.calls.stack import wrapped
from pipeline.core.errors import CallsClosed, ItemError
from pipeline.core.events import AttemptEnded, CallEnded, Event
from pipeline.core.usage import Cost, Usage
from stages import agent, resolve
from tests.calls.asking import ask, failure, reply
from tests.calls.visits import FakeVisit
from tests.engine.schedules import in_virtual_time

POLICIES = [ObservedCall("m"), Retry(wait_initial=0.0), ObservedAttempt("m")]


def scripted(*outcomes: Callable[[], Reply | BaseException]) -> Call:
    left = list(outcomes)

    async def call(request: Request) -> Reply:
        await anyio.sleep(2.0)
        outcome = left.pop(0)()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    return call


@in_virtual_time
async def test_each_attempt_and_the_whole_call_are_told() -> None:
    visit = FakeVisit()
    call = wrapped(scripted(lambda: failure(), lambda: reply(flags=("truncated",))), POLICIES)
    await call(ask(visit=visit))
    assert visit.events == [
        AttemptEnded("0", ("ask",), 0, 1, "m", "connection", 2.0, Usage(requests=1), None),
        AttemptEnded("0", ("ask",), 0, 2, "m", "ok", 2.0, Usage(3, 1, requests=1), Cost(0.5, "list")),
        CallEnded("0", ("ask",), 0, "m", "ok", 2, 4.0, ("truncated",)),
    ]


@in_virtual_time
async def test_a_call_that_failed_is_told_by_the_type_of_its_failure() -> None:
    visit = FakeVisit()
    with pytest.raises(ItemError):
        await wrapped(scripted(lambda: failure("too_long", "fail")), POLICIES)(ask(visit=visit))
    assert [(type(each).__name__, outcome_of(each)) for each in visit.events] == [
        ("AttemptEnded", "too_long"),
        ("CallEnded", "too_long"),
    ]


def outcome_of(event: Event) -> str:
    assert isinstance(event, AttemptEnded | CallEnded)
    return event.outcome


@in_virtual_time
async def test_one_that_is_cancelled_is_told_too() -> None:
    visit = FakeVisit()
    with anyio.move_on_after(0.5):
        await wrapped(scripted(lambda: reply()), POLICIES)(ask(visit=visit))
    assert visit.events == [
        AttemptEnded("0", ("ask",), 0, 1, "m", "cancelled", 0.5, None, None),
        CallEnded("0", ("ask",), 0, "m", "cancelled", 1, 0.5, ()),
    ]


@pytest.mark.parametrize(
    ("error", "word"),
    [(CallsClosed("no"), "cancelled"), (ItemError("no", type="budget"), "budget"), (ValueError("bug"), "ValueError")],
)
async def test_every_end_has_a_word(error: Exception, word: str) -> None:
    for policy in (ObservedCall("m"), ObservedAttempt("m")):
        visit = FakeVisit()

        async def call(request: Request) -> Reply:
            raise error

        with pytest.raises(type(error)):
            await policy(call)(ask(visit=visit))
        assert [outcome_of(each) for each in visit.events] == [word]


async def test_nothing_is_told_when_nobody_listens() -> None:
    visit = FakeVisit(listening=False)
    call = wrapped(scripted_at_once(), POLICIES)
    assert (await call(ask(visit=visit))).attempts == 1
    assert visit.events == []


def scripted_at_once() -> Call:
    async def call(request: Request) -> Reply:
        return reply()

    return call


async def test_a_run_tells_its_listener_of_every_call_with_the_name_of_its_model() -> None:
    told: list[Any] = []
    pipe = Pipeline(agent("ask", model=resolve("sim/echo")))
    async with pipe.open(["a", "b"], on_event=told.append) as run:
        assert [record.status async for record in run.results] == ["ok", "ok"]
    calls = [each for each in told if isinstance(each, CallEnded)]
    attempts = [each for each in told if isinstance(each, AttemptEnded)]
    assert sorted((each.item_id, each.path, each.model, each.outcome, each.attempts) for each in calls) == [
        ("0", ("ask",), "sim/echo", "ok", 1),
        ("1", ("ask",), "sim/echo", "ok", 1),
    ]
    assert [each.usage.requests for each in attempts if each.usage] == [1, 1]
