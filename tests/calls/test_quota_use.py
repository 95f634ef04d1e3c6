"""How much of a quota is used, and how much refused, against servers that count in different ways.

A few virtual minutes by default. The long programme, which is what the figures in the documentation are from, is

    PENSTOCK_QUOTA_MINUTES=10 python -m pytest tests/calls/test_quota_use.py -s

It prints a line each: what is used between the first and the last sending, and what is refused.
"""

from __future__ import annotations

import math
import os

import pytest

from pipeline.calls.pacing import Pacing
from pipeline.calls.rates import Rates
from pipeline.calls.turnstile import Turnstile
from tests.calls.saturating import Load, Traffic, asking, saturate
from tests.calls.servers import EachSecond, FixedWindows, SlidingMinute, StrictSeconds, TokenBucket
from tests.engine.schedules import run_in

LONG = float(os.environ.get("PENSTOCK_QUOTA_MINUTES", "0"))
MINUTES_OF_REQUESTS = {500: LONG or 3.0, 3500: LONG or 1.2}
TOKENS = 2_000_000
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
COUNTED_BY_THE_MINUTE = pytest.mark.parametrize("server", [TokenBucket, SlidingMinute, FixedWindows])


def told(what: object, traffic: Traffic, limit: float) -> tuple[float, float]:
    used, refused = traffic.used(limit), traffic.share_refused()
    print(f"{what}: {used:.2%} used, {refused:.3%} refused of {len(traffic.sent)}")
    return used, refused


async def ask_for_requests(server: type[TokenBucket | SlidingMinute | FixedWindows], limit: int) -> Traffic:
    turnstile = Turnstile("m")
    turnstile.limit_to(Rates(requests=limit))
    load = Load(60 * MINUTES_OF_REQUESTS[limit], callers=limit // 8 + 20)
    traffic = await saturate(load, Pacing(turnstile), attempt=asking(server(limit), load))
    assert (turnstile.quota.in_flight, len(turnstile.line)) == (0, 0)
    return traffic


async def ask_for_tokens(server: type[TokenBucket | SlidingMinute | FixedWindows], bias: float) -> Traffic:
    turnstile = Turnstile("m")
    turnstile.limit_to(Rates(tokens=TOKENS))
    most = TOKENS / 60 / 4 if server is EachSecond else math.inf  # more than its second holds is never taken
    load = Load(60 * (LONG or 1.5), callers=300, bias=bias, most_tokens=most)
    return await saturate(load, Pacing(turnstile), attempt=asking(server(TOKENS), load, by_tokens=True))


@BACKENDS
@pytest.mark.parametrize("limit", [500, 3500])
@COUNTED_BY_THE_MINUTE
def test_nearly_all_requests_of_a_minute_are_used_and_nearly_none_refused(
    server: type[TokenBucket | SlidingMinute | FixedWindows], limit: int, backend: str
) -> None:
    traffic = run_in(backend, 0, ask_for_requests, server, limit)
    used, refused = told(f"{server.__name__}, {limit} requests, {backend}", traffic, limit)
    assert used >= 0.99
    assert refused <= 0.001


@BACKENDS
@pytest.mark.parametrize("limit", [500, 3500])
def test_a_server_that_counts_portions_of_a_second_refuses_nothing(limit: int, backend: str) -> None:
    traffic = run_in(backend, 0, ask_for_requests, EachSecond, limit)
    _, refused = told(f"EachSecond, {limit} requests, {backend}", traffic, limit)
    assert refused == 0


@BACKENDS
@pytest.mark.parametrize("limit", [500, 3500])
def test_a_server_with_windows_of_one_second_is_approached_and_not_stormed(limit: int, backend: str) -> None:
    """Nothing can be carried over from one second to the next, so what travels unevenly is refused or not used."""
    traffic = run_in(backend, 0, ask_for_requests, StrictSeconds, limit)
    used, refused = told(f"StrictSeconds, {limit} requests, {backend}", traffic, limit)
    assert used >= 0.8
    assert refused <= 0.03


@BACKENDS
@pytest.mark.parametrize("bias", [0.75, 1.25])
@COUNTED_BY_THE_MINUTE
def test_nearly_all_tokens_of_a_minute_are_used_however_wrong_the_first_guesses_are(
    server: type[TokenBucket | SlidingMinute | FixedWindows], bias: float, backend: str
) -> None:
    traffic = run_in(backend, 0, ask_for_tokens, server, bias)
    used, refused = told(f"{server.__name__}, {TOKENS} tokens, guesses by {bias}, {backend}", traffic, TOKENS)
    assert used >= (
        0.99 if LONG >= 10 else 0.95
    )  # what is learned in the first seconds is not made up for in one minute
    assert refused <= 0.001


@BACKENDS
@pytest.mark.parametrize("bias", [0.75, 1.25])
def test_tokens_in_portions_of_a_second_are_never_refused(bias: float, backend: str) -> None:
    traffic = run_in(backend, 0, ask_for_tokens, EachSecond, bias)
    used, refused = told(f"EachSecond, {TOKENS} tokens, guesses by {bias}, {backend}", traffic, TOKENS)
    assert used >= (0.99 if LONG >= 10 else 0.95)
    assert refused == 0
