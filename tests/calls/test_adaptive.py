"""How many attempts are in flight at a server that says nothing but no."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Literal

import anyio
import pytest

from pipeline.calls.adaptive import START, Concurrency, Entry
from pipeline.calls.call import Reply, Request
from pipeline.calls.errors import CallError
from pipeline.calls.gate import Gate
from pipeline.calls.limit import SharedLimit
from pipeline.calls.rates import Rates
from pipeline.calls.turnstile import Turnstile
from pipeline.core.usage import Usage
from tests.calls.saturating import Load, Traffic, crowding, mean_latency, request, saturate
from tests.engine.schedules import in_virtual_time, run_in

#: ten minutes as a rule; fewer in the default run, where the figures are the same
SECONDS = 60 * float(os.environ.get("PENSTOCK_QUOTA_MINUTES", "3"))
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


async def crowd(seconds: float, allowed: Callable[[float], int]) -> Traffic:
    load = Load(seconds, callers=250, latency=1.0, median_tokens=1.0)
    return await saturate(load, SharedLimit(Gate("m")), attempt=crowding(allowed, load))


def capacity(allowed: int, seconds: float) -> float:
    return allowed / mean_latency(Load(0, 0, latency=1.0)) * seconds


def forty(now: float) -> int:
    return 40


@BACKENDS
def test_a_server_that_takes_40_is_found_in_seconds_and_hardly_ever_refuses(backend: str) -> None:
    traffic = run_in(backend, 0, crowd, SECONDS, forty)
    shares = [traffic.answered_between(start, start + 30) / capacity(40, 30) for start in range(0, round(SECONDS), 30)]
    print(f"{backend}: {min(shares):.1%} at least of each half minute, {traffic.share_refused():.2%} refused")
    assert min(shares) >= 0.9
    assert traffic.share_refused() <= 0.01
    assert traffic.share_refused(60) <= 0.01


@BACKENDS
def test_a_limit_that_is_halved_or_doubled_is_followed_in_half_a_minute(backend: str) -> None:
    def allowed(now: float) -> int:
        return 40 if now < 60 else 20 if now < 120 else 40

    traffic = run_in(backend, 0, crowd, 180.0, allowed)
    assert traffic.answered_between(90, 120) >= 0.9 * capacity(20, 30)
    assert traffic.answered_between(150, 180) >= 0.9 * capacity(40, 30)


def entered(limit: Concurrency, count: int) -> list[Entry]:
    return [limit.enter() for _ in range(count)]


def test_it_doubles_in_one_round_until_the_first_refusal() -> None:
    limit = Concurrency()
    for entry in entered(limit, START):
        limit.answered(entry, 1.0, saturated=True)
    assert limit.limit == 2 * START


def test_it_does_not_grow_when_nobody_wants_more() -> None:
    limit = Concurrency()
    for entry in entered(limit, START):
        limit.answered(entry, 1.0, saturated=False)
    assert limit.limit == START


def test_a_burst_of_refusals_is_one_cut() -> None:
    limit = Concurrency()
    for entry in entered(limit, 20):
        limit.refuse(entry, 1.0)
    assert (limit.limit, limit.refused, limit.refused_at) == (16, 20, 20)


def test_answers_to_what_was_sent_before_a_cut_change_nothing() -> None:
    limit = Concurrency()
    entries = entered(limit, 20)
    limit.refuse(entries[-1], 1.0)
    for entry in entries:
        limit.answered(entry, 1.5, saturated=True)
    assert limit.limit == 16
    limit.answered(limit.enter(), 2.0, saturated=True)
    assert limit.limit == 17


def test_after_a_cut_it_is_back_just_below_where_it_was_refused_and_stays_there() -> None:
    limit = Concurrency()
    limit.refuse(entered(limit, 20)[-1], 1.0)
    for _ in range(100):
        limit.answered(limit.enter(), 2.0, saturated=True)
    assert (limit.limit, limit.phase) == (19, "hold")


def test_the_users_number_is_where_it_starts_and_where_it_ends() -> None:
    limit = Concurrency(64, most=64)
    for entry in entered(limit, 64):
        limit.answered(entry, 1.0, saturated=True)
    assert limit.limit == 64
    limit.refuse(limit.enter(), 1.0)
    for _ in range(1000):
        limit.answered(limit.enter(), 100.0, saturated=True)
    assert limit.limit == 64


def test_known_rates_open_it_until_it_is_refused() -> None:
    limit = Concurrency()
    limit.unbind()
    assert limit.limit == math.inf
    assert limit.free
    limit.refuse(entered(limit, 50)[-1], 1.0)
    limit.unbind()
    assert limit.limit == 40


Type = Literal["rate_limited", "slow_down", "overloaded", "server_error"]


@pytest.mark.parametrize(
    ("type", "rated", "counts"),
    [
        ("rate_limited", False, True),
        ("rate_limited", True, False),
        ("slow_down", False, True),
        ("slow_down", True, False),
        ("overloaded", False, True),
        ("overloaded", True, True),
        ("server_error", False, False),
    ],
)
async def test_which_failures_are_refusals(type: Type, rated: bool, counts: bool) -> None:
    gate, turnstile = Gate("m"), Turnstile("m")
    if rated:
        turnstile.limit_to(Rates(requests=60))

    async def refused(asked: Request) -> Reply:
        raise CallError("no", fault="retry", type=type)

    with pytest.raises(CallError):
        await SharedLimit(gate, turnstile)(refused)(request(1))
    assert gate.concurrency.refused == counts
    assert gate.holders() == []


@in_virtual_time
async def test_who_came_first_goes_first() -> None:
    gate, order = Gate("m", most=1), list[int]()

    async def answer(asked: Request) -> Reply:
        order.append(asked.arrival)
        await anyio.sleep(1)
        return Reply("", Usage(), None)

    call = SharedLimit(gate)(answer)
    async with anyio.create_task_group() as tg:
        for arrival in (5, 9, 7, 6, 8):
            tg.start_soon(_ask, call, arrival)
            await anyio.sleep(0.01)
    assert order == [5, 6, 7, 8, 9]


@in_virtual_time
async def test_it_can_be_resized_while_calls_wait() -> None:
    gate = Gate("m", most=1)

    async def answer(asked: Request) -> Reply:
        await anyio.sleep(10)
        return Reply("", Usage(), None)

    call = SharedLimit(gate)(answer)
    async with anyio.create_task_group() as tg:
        for arrival in range(10):
            tg.start_soon(_ask, call, arrival)
        await anyio.sleep(1)
        assert str(gate) == "the model's max_concurrency (1/1 attempts in flight)"
        gate.resize(4)
        await anyio.sleep(1)
        assert (gate.concurrency.in_flight, len(gate.line)) == (4, 6)
        gate.resize(2)
        await anyio.sleep(10)
        assert (gate.concurrency.in_flight, len(gate.line)) == (2, 4)
        expected = "concurrency of m: 2 in flight; limit 2; 4 wait; 0 of 6 refused"
        assert str(gate.statistics()) == expected


async def _ask(call: Callable[[Request], object], arrival: int) -> None:
    await call(request(arrival))  # pyright: ignore[reportGeneralTypeIssues]


def test_a_refusal_of_the_only_one_says_nothing_of_how_many_are_too_many() -> None:
    limit = Concurrency()
    while limit.limit > 1:
        limit.refuse(_entered(limit), 0.0)
    limit.refuse(_entered(limit), 0.0)
    assert (limit.limit, limit.refused_at) == (1.0, None)
    for _ in range(30):  # clean answers open it again as at the start
        entry = _entered(limit)
        limit.answered(entry, 0.0, saturated=True)
    assert limit.limit > 20


def _entered(limit: Concurrency) -> Entry:
    entry = limit.enter()
    limit.leave()
    return entry


def test_a_limit_that_is_being_learned_says_what_it_does() -> None:
    assert str(Gate("m").statistics()) == "concurrency of m: 0 in flight; limit 20, growing; 0 wait; 0 of 0 refused"
    most = Gate("m", most=8, adapts=False).statistics()
    assert str(most) == "concurrency of m: 0 in flight; limit 8; 0 wait; 0 of 0 refused"
