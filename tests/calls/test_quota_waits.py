"""Who waits for a quota, in which order, and what is left when they are cancelled."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from random import Random

import anyio
import pytest

from pipeline.calls.call import Reply, Request
from pipeline.calls.errors import CallError
from pipeline.calls.pacing import Pacing
from pipeline.calls.rates import Rates
from pipeline.calls.retry import Retry
from pipeline.calls.stack import wrapped
from pipeline.calls.turnstile import Turnstile
from pipeline.core.errors import CallsClosed
from pipeline.core.usage import Usage
from tests.calls.saturating import request
from tests.engine.schedules import in_virtual_time

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
    call, turnstile = paced(at_once, requests=500, tokens=60_000)
    await call(request(0))
    expected = (
        "quota of m: 500 requests/min (level 1.0 of 2.0), 60000 tokens/min (level 238.0 of 240.0); "
        "0 in flight; 0 wait; 0 of 1 refused"
    )
    assert str(turnstile.statistics()) == expected
    assert str(turnstile) == "the model's quota (500 requests, 60000 tokens a minute, 0 wait)"


async def _run(call: Ask, arrival: int) -> None:
    await call(request(arrival))
