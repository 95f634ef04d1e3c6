"""When a failed attempt becomes another one, and how long that waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import anyio
import pytest

from pipeline.calls.account import Account
from pipeline.calls.allowance import Allowance
from pipeline.calls.call import Call, CallIdentity, Reply, Request, Tries
from pipeline.calls.deadline import Deadline
from pipeline.calls.errors import CallError, FaultClass
from pipeline.calls.gate import Gate
from pipeline.calls.limit import SharedLimit
from pipeline.calls.parameters import Parameters
from pipeline.calls.retry import Retry
from pipeline.calls.retry_after import retry_after
from pipeline.calls.retry_budget import retry_budget
from pipeline.calls.stack import Stack, wrapped
from pipeline.calls.timeout import AttemptTimeout
from pipeline.core.errors import CallsClosed
from pipeline.core.usage import Cost, Usage
from tests.calls.visits import FakeVisit


def request(visit: FakeVisit | None = None) -> Request:
    return Request((), Parameters(), None, visit or FakeVisit(), CallIdentity("1", ("ask",), 0))


def error(fault: FaultClass = "retry", after: float | None = None) -> CallError:
    return CallError("it broke", fault=fault, type="broken", retry_after=after)


def reply(text: str = "ok") -> Reply:
    return Reply(text, Usage(3, 1, requests=1), Cost(0.5, "list"))


def scripted(*outcomes: Reply | Exception) -> tuple[Call, list[int]]:
    """A call that has these outcomes in turn, and the attempt numbers it saw."""
    left: list[Reply | Exception] = list(outcomes)
    seen: list[int] = []

    async def call(asked: Request) -> Reply:
        seen.append(asked.attempt)
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return call, seen


FAST = Retry(wait_initial=0.0)


async def test_an_attempt_is_repeated_until_one_answers() -> None:
    call, seen = scripted(error(), error(), reply())
    visit = FakeVisit()
    answer = await FAST(call)(request(visit))
    assert (answer.text, answer.attempts, seen, visit.given_back) == ("ok", 3, [1, 2, 3], 2)


@pytest.mark.parametrize(
    ("faults", "attempts"),
    [
        (["retry"] * 4, 4),
        (["fail"], 1),
        (["stop"], 1),
        (["park"], 1),
        (["ambiguous"] * 2, 2),
        (["retry", "ambiguous", "retry", "retry"], 4),
        (["ambiguous", "retry", "ambiguous"], 3),
    ],
)
async def test_each_class_of_fault_has_its_number_of_attempts(faults: Sequence[FaultClass], attempts: int) -> None:
    call, seen = scripted(*[error(fault) for fault in faults], reply(), reply())
    with pytest.raises(CallError) as caught:
        await FAST(call)(request())
    assert (len(seen), caught.value.attempts) == (attempts, attempts)


async def test_what_is_no_call_error_is_not_repeated() -> None:
    call, seen = scripted(ValueError("bug"), reply())
    with pytest.raises(ValueError, match="bug"):
        await FAST(call)(request())
    assert seen == [1]


def test_waits_grow_are_spread_and_are_the_same_in_every_run() -> None:
    policy = Retry(wait_initial=0.5, wait_max=60)
    identities = [CallIdentity(str(number), ("ask",), 0) for number in range(500)]
    for attempt, ceiling in ((1, 0.5), (2, 1.0), (3, 2.0), (20, 60.0)):
        waits = [policy.backoff(identity, attempt) for identity in identities]
        assert 0.9 * ceiling < max(waits) < ceiling
        assert 0 <= min(waits) < 0.1 * ceiling
        assert waits == [policy.backoff(identity, attempt) for identity in identities]


def test_what_the_server_asks_for_is_the_least_wait() -> None:
    wait = Retry().wait_before_next(error(after=7.0), request(), 1, 0, now=0.0)
    assert 7.0 <= wait < 7.5


def test_a_server_that_asks_for_too_long_parks_the_item() -> None:
    with pytest.raises(CallError) as caught:
        Retry(wait_max=60).wait_before_next(error(after=61.0), request(), 1, 0, now=0.0)
    assert (caught.value.fault, caught.value.retryable) == ("park", True)
    assert str(caught.value) == "it broke (after 1 attempt; the server asks to wait 61 s, more than 60 s)"


def test_a_wait_that_outlives_the_item_is_not_begun() -> None:
    asked = request(FakeVisit(deadline=105.0))
    assert Retry().wait_before_next(error(after=4.0), asked, 1, 0, now=100.0) < 5.0
    with pytest.raises(CallError, match="would come too late for the item"):
        Retry().wait_before_next(error(after=5.0), asked, 1, 0, now=100.0)


def exhausted() -> Allowance:
    return Allowance("retries", 0.0, 0.0)


async def test_when_too_many_calls_fail_none_is_tried_again() -> None:
    call, seen = scripted(error(), reply())
    with pytest.raises(CallError) as caught:
        await Retry(wait_initial=0.0, budget=exhausted())(call)(request())
    assert str(caught.value) == "it broke (after 1 attempt; no other, because too many calls at this endpoint fail)"
    assert (seen, caught.value.retryable) == ([1], True)


@pytest.mark.parametrize("type", ["rate_limited", "overloaded"])
async def test_what_all_calls_are_slowed_down_for_is_tried_again_all_the_same(type: str) -> None:
    budget = exhausted()
    call, _ = scripted(CallError("slowly", fault="retry", type=type), reply())
    assert (await Retry(wait_initial=0.0, budget=budget)(call)(request())).attempts == 2
    call, _ = scripted(error(after=0.01), reply())
    assert (await Retry(wait_initial=0.0, budget=budget)(call)(request())).attempts == 2
    assert (budget.taken, budget.refused) == (0, 0)


async def test_retries_are_a_tenth_of_the_calls_and_twenty_more() -> None:
    budget = retry_budget("there")
    policy = Retry(attempts=2, wait_initial=0.0, budget=budget)
    attempts = 0

    async def fails(asked: Request) -> Reply:
        nonlocal attempts
        attempts += 1
        raise error()

    for _ in range(1000):
        with pytest.raises(CallError):
            await policy(fails)(request())
    assert 1100 <= attempts <= 1121
    assert (budget.taken, budget.refused) == (attempts - 1000, 2000 - attempts)


async def test_a_wait_that_is_not_begun_takes_nothing_from_the_others() -> None:
    budget = retry_budget("there")
    call, _ = scripted(error(after=100.0))
    with pytest.raises(CallError):
        await Retry(budget=budget)(call)(request())
    assert budget.taken == 0


def excused(fault: FaultClass = "retry") -> CallError:
    made = error(fault)
    made.excused = True
    return made


async def test_attempts_that_found_their_endpoint_down_do_not_count() -> None:
    call, seen = scripted(*[excused() for _ in range(8)], error(), error(), error(), reply())
    visit = FakeVisit()
    answer = await FAST(call)(request(visit))
    assert (answer.attempts, seen, visit.given_back) == (12, list(range(1, 13)), 3)


async def test_what_may_have_been_paid_counts_also_when_the_endpoint_was_down() -> None:
    call, seen = scripted(*[excused("ambiguous") for _ in range(12)], reply())
    with pytest.raises(CallError, match="after 2 attempts"):
        await FAST(call)(request())
    assert seen == [1, 2]


@pytest.mark.parametrize("fault", ["retry", "ambiguous"])
async def test_a_call_of_one_attempt_is_one_request_also_when_the_endpoint_was_down(fault: FaultClass) -> None:
    call, seen = scripted(excused(fault), reply())
    with pytest.raises(CallError) as caught:
        await replace(FAST, attempts=1)(call)(request())
    assert (seen, caught.value.attempts) == ([1], 1)


async def test_but_only_so_many_of_them() -> None:
    call, seen = scripted(*[excused() for _ in range(12)], reply())
    with pytest.raises(CallError, match="after 12 attempts"):
        await FAST(call)(request())
    assert len(seen) == 12


async def test_attempts_are_numbered_over_all_that_is_tried_for_a_call() -> None:
    tries = Tries(made=3)
    call, seen = scripted(error(), reply())
    assert (await FAST(call)(replace(request(), tries=tries))).attempts == 5
    assert seen == [4, 5]


NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e400"}, None),
        ({"retry-after": "9" * 1000}, 1e40),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30"}, 30.0),
        ({"retry-after": "Thu, 01 Jan 2026 11:00:00 GMT"}, None),
        ({"retry-after": "Thu, 99 Foo 2026 11:00:00 GMT"}, None),
        ({"retry-after": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"}, None),
        ({"retry-after": "Mon, 99999999999999999999 Jan 2030 00:00:00 GMT"}, None),
        ({"retry-after": "Mon, 01 Jan 2030 99999999999999999999:00:00 GMT"}, None),
        ({"retry-after": "Mon, 01 Jan 2030 00:00:00 +99999999999999999"}, None),
        ({"retry-after": "später"}, None),
        ({"retry-after": ""}, None),
    ],
)
def test_every_form_of_retry_after_is_read(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(headers, NOW) == (None if seconds is None else pytest.approx(seconds))


async def test_each_attempt_is_admitted_and_charged() -> None:
    paid = CallError("odd", fault="retry", type="odd", usage=Usage(5, 5, requests=1), cost=Cost(1.0, "list"))
    call, _ = scripted(error(), paid, reply())
    visit = FakeVisit()
    await wrapped(call, [FAST, Account()])(request(visit))
    assert visit.admitted == 3
    assert visit.charges == [
        (Usage(requests=1), None),
        (Usage(5, 5, requests=1), Cost(1.0, "list")),
        (Usage(3, 1, requests=1), Cost(0.5, "list")),
    ]


async def test_an_attempt_that_ends_in_any_other_error_is_charged_as_a_request_and_booked_as_unknown() -> None:
    booked: list[tuple[Usage, Cost | None, bool]] = []

    class Put:
        def book(self, usage: Usage, cost: Cost | None, *, known: bool) -> None:
            booked.append((usage, cost, known))

    call, _ = scripted(OverflowError("bug"))
    visit = FakeVisit()
    with pytest.raises(OverflowError):
        await wrapped(call, [FAST, Account()])(replace(request(visit), reservation=Put()))
    assert (visit.admitted, visit.charges) == (1, [(Usage(requests=1), None)])
    assert booked == [(Usage(requests=1), None, False)]


async def test_a_run_that_closes_between_attempts_makes_no_other_one() -> None:
    visit = FakeVisit()

    async def call(asked: Request) -> Reply:
        visit.closed = True
        raise error()

    with pytest.raises(CallsClosed):
        await wrapped(call, [FAST, Account()])(request(visit))
    assert (visit.admitted, visit.requests) == (1, 1)


async def test_no_call_starts_after_the_item_deadline() -> None:
    call, asked = scripted(reply())
    visit = FakeVisit(deadline=anyio.current_time())
    with pytest.raises(CallError) as caught:
        await Stack().around(call)(request(visit))
    assert (caught.value.type, caught.value.fault) == ("item_timeout", "fail")
    assert (len(asked), visit.requests, visit.slot_held) == (0, 0, True)


async def test_a_deadline_that_never_comes_changes_nothing() -> None:
    call, _ = scripted(reply())
    assert (await Deadline()(call)(request())).text == "ok"


async def test_the_clock_of_an_attempt_does_not_run_while_it_waits_for_the_limit() -> None:
    async def quick(asked: Request) -> Reply:
        await anyio.sleep(0.02)
        return reply()

    gate = Gate("m", most=1, adapts=False)
    call = Stack(retry=Retry(attempts=1), limit=SharedLimit(gate), timeout=AttemptTimeout(0.06)).around(quick)
    async with anyio.create_task_group() as tg:
        for _ in range(6):  # the last one waits far longer than its own timeout
            tg.start_soon(call, request())
    assert (gate.statistics().in_flight, gate.statistics().entered) == (0, 6)


async def test_an_attempt_timeout_names_its_length() -> None:
    async def never(asked: Request) -> Reply:
        await anyio.sleep_forever()
        raise AssertionError

    with pytest.raises(CallError, match=r"no answer within 0.01 s"):
        await AttemptTimeout(0.01)(never)(request())


def test_policies_are_values() -> None:
    assert Retry(attempts=3) == Retry(attempts=3)
    assert repr(AttemptTimeout(2.0)) == "AttemptTimeout(seconds=2.0)"
    assert len({Account(), Account(), Deadline()}) == 2
