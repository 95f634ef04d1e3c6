"""When the first calls of a run fail alike, and when that says nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from pipeline import Pipeline, RunStopped
from pipeline.calls.call import Reply, Request
from pipeline.calls.detector import Detector, FirstCalls
from pipeline.calls.errors import CallError, FaultClass
from pipeline.core.limits import Limits
from stages import agent
from tests.calls.asking import ask, failure, reply
from tests.calls.flaky import Server, served
from tests.engine.schedules import in_virtual_time


def fails(
    first: FirstCalls, count: int, type: str = "bad_request", fault: FaultClass = "fail", items: int = 10
) -> bool:
    """Whether `count` calls of `items` items that fail alike stop the run."""
    return any(first.failed(str(number % items), failure(type, fault)) for number in range(count))


@pytest.mark.parametrize(
    ("type", "fault", "stops"),
    [
        ("bad_request", "fail", True),
        ("not_found", "fail", True),
        ("not_json", "ambiguous", True),
        ("bad_envelope", "fail", True),
        ("server_error", "fail", True),
        ("server_error", "retry", False),
        ("rate_limited", "retry", False),
        ("rate_limited", "park", False),
        ("too_long", "fail", False),
        ("blocked", "fail", False),
        ("item_timeout", "fail", False),
        ("budget", "fail", False),
        ("connection", "retry", False),
        ("key_refused", "stop", False),
    ],
)
def test_only_what_is_wrong_as_a_whole_stops_a_run(type: str, fault: FaultClass, stops: bool) -> None:
    assert not fails(FirstCalls(), 9, type, fault)
    assert fails(FirstCalls(), 100, type, fault) == stops


@pytest.mark.parametrize(("items", "stops"), [(1, False), (4, False), (5, True)])
def test_the_calls_of_a_few_items_say_nothing_of_the_others(items: int, stops: bool) -> None:
    assert fails(FirstCalls(), 1000, items=items) == stops


def test_after_it_has_stopped_a_run_the_watch_begins_anew() -> None:
    first = FirstCalls()
    assert [number for number in range(1, 31) if first.failed(str(number), failure("bad_request", "fail"))] == [
        10,
        20,
        30,
    ]
    assert len(first._items) == 0


def test_one_answer_ends_the_watch_for_good() -> None:
    first = FirstCalls()
    fails(first, 9)
    first.answered()
    assert not fails(first, 1000)


@pytest.mark.parametrize("other", ["not_found", "too_long", "blocked"])
def test_failures_of_two_kinds_are_the_items_own(other: str) -> None:
    first = FirstCalls()
    fails(first, 9)
    first.failed("x", failure(other, "fail"))
    assert not fails(first, 1000)


def test_what_passes_says_nothing() -> None:
    first = FirstCalls()
    fails(first, 9)
    first.failed("x", failure("connection", "retry"))
    assert fails(first, 1)


async def test_the_failure_that_is_one_too_many_stops_the_run_and_says_why() -> None:
    outcomes: list[Reply | CallError] = [failure("bad_request", "fail") for _ in range(10)]
    errors = await errors_of(FirstCalls(), outcomes)
    assert [error.stops_run for error in errors] == [False] * 9 + [True]
    assert str(errors[-1]) == "all of the first 10 calls failed alike: it said bad_request"
    assert (errors[-1].fault, errors[-1].retryable) == ("stop", False)


async def test_an_answer_in_time_stops_nothing() -> None:
    outcomes: list[Reply | CallError] = [failure("bad_request", "fail") for _ in range(30)]
    outcomes.insert(9, reply())
    assert not any(error.stops_run for error in await errors_of(FirstCalls(), outcomes))


async def errors_of(first: FirstCalls, outcomes: Sequence[Reply | CallError]) -> list[CallError]:
    errors: list[CallError] = []
    for number, outcome in enumerate(outcomes):

        async def call(request: Request, outcome: Reply | CallError = outcome) -> Reply:
            if isinstance(outcome, CallError):
                raise outcome
            return outcome

        try:
            await Detector(first)(call)(ask(number))
        except CallError as error:
            errors.append(error)
    return errors


@in_virtual_time
async def test_a_wrong_model_name_costs_a_few_requests_and_not_one_for_each_item() -> None:
    server = Server(trouble=lambda now: 404)
    pipe = Pipeline(agent("ask", model=served(server), concurrency=4))
    with pytest.raises(RunStopped, match="all of the first 10 calls failed alike") as caught:
        await pipe.collect([f"p{number}" for number in range(1000)])
    assert caught.value.cause_kind == "refused"
    assert 10 <= server.requests <= 13


@in_virtual_time
async def test_a_run_that_was_stopped_says_nothing_about_the_next_one_within_the_same_limits() -> None:
    wrong = Server(trouble=lambda now: 404)
    server = Server(trouble=lambda now: 404 if server.requests == 1 else None)
    async with Limits() as limits:
        with pytest.raises(RunStopped):
            await Pipeline(agent("ask", model=served(wrong))).collect([str(n) for n in range(50)], limits=limits)
        pipe = Pipeline(agent("ask", model=served(server), concurrency=1))
        records = await pipe.collect([str(n) for n in range(20)], limits=limits)
    assert Counter(record.status for record in records) == {"failed": 1, "ok": 19}


@in_virtual_time
async def test_one_prompt_asked_many_times_stops_nothing() -> None:
    server = Server(trouble=lambda now: 404)
    stage = agent("a", model=served(server))
    for name in "bcdefghijkl":
        stage = stage | agent(name, model=served(server))  # type: ignore[assignment]
    (record,) = await Pipeline(stage).collect(["p"])
    assert record.status == "failed"
