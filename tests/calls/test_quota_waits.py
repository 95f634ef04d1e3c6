"""Who waits for a quota, in which order, and what is left when they are cancelled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from random import Random

import anyio
import pytest
from anyio.lowlevel import checkpoint

from pipeline import Pipeline
from pipeline.calls.call import Reply, Request
from pipeline.calls.errors import CallError
from pipeline.calls.estimate import OUTPUT
from pipeline.calls.gate import Gate
from pipeline.calls.limit import SharedLimit
from pipeline.calls.pacing import Pacing
from pipeline.calls.parameters import Parameters
from pipeline.calls.rates import Rates
from pipeline.calls.retry import Retry
from pipeline.calls.stack import wrapped
from pipeline.calls.turnstile import Turnstile
from pipeline.core.errors import CallsClosed
from pipeline.core.usage import Usage
from stages import agent, resolve
from stages.models.openai import OpenAIModel
from tests.calls.saturating import request
from tests.calls.visits import FakeVisit
from tests.engine.schedules import in_virtual_time
from tests.servers.scripted import ScriptedModel, Sent

ANSWER = b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}'
ANSWERED = Sent(parts=(ANSWER,), delay=0.1)
Ask = Callable[[Request], Awaitable[Reply]]


def paced(answer: Ask, **rates: float) -> tuple[Ask, Turnstile]:
    turnstile = Turnstile("m")
    turnstile.limit_to(Rates(**rates))
    return Pacing(turnstile)(answer), turnstile


async def at_once(asked: Request) -> Reply:
    return Reply("", Usage(1, 1, requests=1), None)


@in_virtual_time
async def test_who_came_first_goes_first() -> None:
    order: list[int] = []

    async def answer(asked: Request) -> Reply:
        order.append(asked.arrival)
        return await at_once(asked)

    call, _ = paced(answer, requests=60)
    async with anyio.create_task_group() as tg:
        for arrival in (0, 9, 3, 7, 1):
            tg.start_soon(_run, call, arrival)
            await anyio.sleep(0.01)
    assert order == [0, 1, 3, 7, 9]


@in_virtual_time
async def test_two_thousand_who_come_at_once_leave_at_the_rate() -> None:
    call, turnstile = paced(at_once, requests=6000)
    async with anyio.create_task_group() as tg:
        for arrival in range(2000):
            tg.start_soon(_run, call, arrival)
    assert 19.8 < anyio.current_time() < 20.2
    assert (turnstile.quota.sent, turnstile.quota.in_flight, len(turnstile.line)) == (2000, 0, 0)


@in_virtual_time
async def test_whoever_is_cancelled_while_waiting_leaves_no_trace_and_passes_the_turn_on() -> None:
    call, turnstile = paced(at_once, requests=600)
    chance = Random(3)
    scopes: list[anyio.CancelScope] = []

    async def run(arrival: int) -> None:
        with anyio.CancelScope() as scope:
            scopes.append(scope)
            await call(request(arrival))

    async with anyio.create_task_group() as tg:
        for arrival in range(200):
            tg.start_soon(run, arrival)
        for _ in range(150):
            await anyio.sleep(0.05 * chance.random())
            chance.choice(scopes).cancel()
    assert (len(turnstile.line), turnstile.quota.in_flight) == (0, 0)
    cancelled = sum(scope.cancelled_caught for scope in scopes)
    assert turnstile.quota.sent == 200 - cancelled
    assert cancelled > 50
    assert anyio.current_time() < 20.5


@in_virtual_time
async def test_a_refusal_makes_everybody_wait_and_the_refused_one_no_longer_than_that() -> None:
    times: list[tuple[int, float]] = []

    async def answer(asked: Request) -> Reply:
        times.append((asked.arrival, anyio.current_time()))
        if asked.arrival == 0 and asked.attempt == 1:
            raise CallError("slower", fault="retry", type="rate_limited", retry_after=5.0)
        return await at_once(asked)

    turnstile = Turnstile("m")
    turnstile.limit_to(Rates(requests=6000))
    call = wrapped(answer, [Retry(), Pacing(turnstile)])
    async with anyio.create_task_group() as tg:
        tg.start_soon(_run, call, 0)
        await anyio.sleep(0.1)
        assert turnstile.statistics().paused > 4.9
        assert str(turnstile.statistics()).endswith("1 of 1 refused; at 90% of the rates; paused for 5.1 s more")
        assert str(turnstile) == "the end of a pause that the server asked for (5.1 s more)"
        for arrival in (1, 2):
            tg.start_soon(_run, call, arrival)
    assert min(at for arrival, at in times if arrival) >= 5.0
    assert 5.0 <= max(at for arrival, at in times if arrival == 0) <= 5.6


@in_virtual_time
async def test_the_reset_of_what_is_used_up_is_a_wait_that_was_asked_for() -> None:
    headers = {
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "20s",
        "x-ratelimit-remaining-tokens": "9000",
        "x-ratelimit-reset-tokens": "50s",
    }

    async def answer(asked: Request) -> Reply:
        raise CallError("slower", fault="retry", type="rate_limited", headers=headers)

    call, turnstile = paced(answer)
    with pytest.raises(CallError) as caught:
        await call(request(0))
    assert caught.value.retry_after == 20.0
    assert 20.0 <= turnstile.statistics().paused <= 21.0


@in_virtual_time
async def test_calls_are_parked_when_a_pause_is_longer_than_anybody_waits() -> None:
    async def answer(asked: Request) -> Reply:
        raise CallError("tomorrow", fault="retry", type="rate_limited", retry_after=7200.0)

    call, turnstile = paced(answer, requests=600)
    with pytest.raises(CallError):
        await call(request(0))
    with pytest.raises(CallError, match="the server asks to wait 72") as caught:
        await call(request(1))
    assert (caught.value.fault, caught.value.usage.requests, anyio.current_time()) == ("park", 0, 0.0)
    assert turnstile.quota.sent == 1
    with pytest.raises(CallError) as caught:
        await Retry()(call)(request(2))
    assert caught.value.attempts == 0


@in_virtual_time
async def test_nobody_waits_for_a_pause_that_ends_after_its_item_wherever_it_stands() -> None:
    parked: list[tuple[int, str, float]] = []

    async def answer(asked: Request) -> Reply:
        if asked.arrival == 0:
            await anyio.sleep(1)
            raise CallError("later", fault="retry", type="rate_limited", retry_after=30.0)
        return await at_once(asked)

    call, turnstile = paced(answer, requests=6)

    async def run(arrival: int, deadline: float | None) -> None:
        try:
            await call(replace(request(arrival), visit=FakeVisit(deadline=deadline)))
        except CallError as error:
            parked.append((arrival, error.fault, anyio.current_time()))

    async with anyio.create_task_group() as tg:
        for arrival, deadline in enumerate((None, 60.0, 20.0, None, 25.0)):
            tg.start_soon(run, arrival, deadline)
            await checkpoint()
        await anyio.sleep(2)
        with pytest.raises(CallError, match=r"the server asks to wait (29|30) s more, which would be too late"):
            await call(replace(request(5), visit=FakeVisit(deadline=anyio.current_time() + 28)))
        assert sorted(parked) == [(0, "retry", 1.0), (2, "park", 1.0), (4, "park", 1.0)]
        assert len(turnstile.line) == 2
    assert len(parked) == 3


@in_virtual_time
async def test_a_run_that_stops_making_calls_waits_for_no_quota_and_no_gate_and_nothing_is_left_of_those_who_did() -> (
    None
):
    ended: list[tuple[str, float]] = []

    async def answer(asked: Request) -> Reply:
        asked.visit.admit_call()
        await anyio.sleep(20)
        return await at_once(asked)

    turnstile, gate, visit = Turnstile("m"), Gate("m", most=4), FakeVisit()
    turnstile.limit_to(Rates(requests=2, tokens=1000))
    call = wrapped(answer, [SharedLimit(gate, turnstile), Pacing(turnstile)])

    async def run(arrival: int) -> None:
        try:
            await call(replace(request(arrival), visit=visit))
            ended.append(("answered", anyio.current_time()))
        except CallsClosed:
            ended.append(("closed", anyio.current_time()))

    async with anyio.create_task_group() as tg:
        for arrival in range(8):
            tg.start_soon(run, arrival)
        await anyio.sleep(5)
        assert (turnstile.quota.in_flight, len(turnstile.line), len(gate.line)) == (1, 3, 4)
        visit.close()
        await anyio.sleep(1)
        assert ended == [("closed", 5.0)] * 7
        tg.start_soon(run, 8)
    assert ended == [*[("closed", 5.0)] * 7, ("closed", 6.0), ("answered", 20.0)]
    assert (turnstile.quota.in_flight, len(turnstile.line), turnstile.quota.sent) == (0, 0, 1)
    assert (gate.concurrency.in_flight, len(gate.line), gate.holders(), visit.sleepers) == (0, 0, [], set())


@in_virtual_time
async def test_whenever_calls_are_closed_each_is_answered_or_gives_back_what_it_took() -> None:
    for moment in range(40):
        turnstile, gate, visit = Turnstile("m"), Gate("m", most=2), FakeVisit()
        turnstile.limit_to(Rates(requests=60))
        made: list[int] = []

        async def answer(asked: Request, visit: FakeVisit = visit, made: list[int] = made) -> Reply:
            visit.admit_call()
            made.append(asked.arrival)
            await anyio.sleep(0.5)
            return await at_once(asked)

        call = wrapped(answer, [SharedLimit(gate, turnstile), Pacing(turnstile)])
        answered: list[int] = []

        async def run(arrival: int, call: Ask = call, visit: FakeVisit = visit, answered: list[int] = answered) -> None:
            with suppress(CallsClosed):
                await call(replace(request(arrival), visit=visit))
                answered.append(arrival)

        async with anyio.create_task_group() as tg:
            for arrival in range(6):
                tg.start_soon(run, arrival)
            await anyio.sleep(0.25 * (moment // 4))
            for _ in range(moment % 4):
                await checkpoint()
            visit.close()
        assert answered == made
        assert (turnstile.quota.in_flight, len(turnstile.line)) == (0, 0)
        assert (gate.concurrency.in_flight, len(gate.line)) == (0, 0)


@in_virtual_time
async def test_a_call_that_is_not_made_takes_nothing() -> None:
    async def answer(asked: Request) -> Reply:
        raise CallsClosed("no more")

    call, turnstile = paced(answer, requests=60, tokens=60_000)
    before = [rate.bucket.level for rate in turnstile.quota.rates.values()]
    with pytest.raises(CallsClosed):
        await call(request(0, 50.0))
    assert [rate.bucket.level for rate in turnstile.quota.rates.values()] == before


@in_virtual_time
async def test_an_overloaded_server_is_left_alone_and_its_rates_are_not_cut() -> None:
    async def answer(asked: Request) -> Reply:
        raise CallError("busy", fault="retry", type="overloaded", retry_after=3.0)

    call, turnstile = paced(answer, requests=60)
    with pytest.raises(CallError):
        await call(request(0))
    now = turnstile.statistics()
    assert (now.share, now.refused, now.paused >= 3.0) == (1.0, 0, True)


@in_virtual_time
async def test_known_rates_are_told_in_one_line() -> None:
    call, turnstile = paced(at_once, requests=500, tokens=2_000_000)
    await call(request(0))
    expected = "quota of m: 500 requests/min, 2,000,000 tokens/min; 0 in flight; 0 wait; 0 of 1 refused"
    assert str(turnstile.statistics()) == expected
    assert str(turnstile) == "the model's quota (500 requests, 2,000,000 tokens a minute, 0 wait)"


def refusing(*more: Sent, **options: object) -> ScriptedModel:
    """A server that answers the first, asks the next ones to wait, and answers again."""
    code = b'{"error":{"code":"rate_limit_exceeded","message":"slower"}}'
    refused = Sent(status=429, headers={"retry-after": "50"}, parts=(code,))
    definition = resolve("vllm/m", base_url="http://127.0.0.1:9/v1", attempts=2, **options)
    assert isinstance(definition, OpenAIModel)
    return ScriptedModel(definition, (ANSWERED, refused, *more))


@in_virtual_time
async def test_a_run_that_is_drained_to_its_calls_ends_at_once_when_all_of_them_wait() -> None:
    for options in ({}, {"requests_per_minute": 2}, {"requests_per_minute": 600, "max_concurrency": 2}):
        begun, model = anyio.current_time(), refusing(ANSWERED, **options)
        async with Pipeline(agent("ask", model=model, concurrency=8)).open(range(8)) as run:
            await anyio.sleep(5)
            run.drain("calls")
            async for _ in run.results:
                pass
        assert anyio.current_time() == begun + 5, options
        assert sum(run.statistics().window.settled.values()) == 8


@in_virtual_time
async def test_another_model_is_asked_when_a_pause_would_be_too_late_for_the_item() -> None:
    model = refusing(ANSWERED, requests_per_minute=600, fallback=("sim/default",))
    records = await Pipeline(agent("ask", model=model, concurrency=4), item_timeout=20.0).collect(range(6))
    assert [record.status for record in records] == ["ok"] * 6
    assert anyio.current_time() < 20
    assert len(model.ledger.times) < 6


async def _run(call: Ask, arrival: int) -> None:
    await call(request(arrival))


@in_virtual_time
async def test_what_was_learned_while_a_call_waited_is_what_it_takes() -> None:
    turnstile = Turnstile("m")
    turnstile.limit_to(Rates(tokens=60_000))
    asks = [replace(request(number), parameters=Parameters()) for number in range(2)]
    first = await turnstile.enter(asks[0])
    waited: list[float] = []

    async def second() -> None:
        waited.append((await turnstile.enter(asks[1])).guess.reserved.output)

    async with anyio.create_task_group() as tg:
        tg.start_soon(second)
        await checkpoint()
        assert len(turnstile.line) == 1
        turnstile.answered(first, asks[0], Reply("", Usage(1, 10, requests=1), None))
    assert (first.guess.reserved.output, waited) == (OUTPUT, [10.0])
