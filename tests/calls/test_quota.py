"""The arithmetic of a quota: what may be sent when, and what is learned from answers and refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.calls.bucket import MAKE_UP, Bucket
from pipeline.calls.estimate import Charge, Estimates, Guess
from pipeline.calls.pace import Pace
from pipeline.calls.quota import Quota, Ticket
from pipeline.calls.rate_headers import Announced
from pipeline.calls.rates import Rates
from pipeline.core.usage import Usage
from stages.models.simulated_limits import Meter, SlidingWindow, SteppedWindow
from stages.models.simulated_limits import TokenBucket as MinuteBucket
from tests.calls.saturating import request


def guess(tokens: float = 1.0) -> Guess:
    return Guess(Charge(tokens, 0.0), tokens)


ONE = guess()


def send_when_ready(quota: Quota, now: float, asked: Guess = ONE) -> tuple[Ticket, float]:
    now = max(now, quota.ready_at(asked, now))
    return quota.send(asked, now), now


@settings(deadline=None, max_examples=40)
@given(
    limit=st.integers(1, 5000),
    rests=st.lists(st.floats(0, 30).map(lambda rest: 0.0 if rest < 20 else rest), min_size=20, max_size=150),
)
def test_no_window_ever_holds_more_requests_than_its_rate_and_one_burst(limit: int, rests: list[float]) -> None:
    quota, now, sent = Quota(0.0, Rates(requests=limit)), 0.0, list[float]()
    for rest in rests:
        _, now = send_when_ready(quota, now + rest)
        sent.append(now)
    bucket = quota.rates["requests"].bucket
    for first in range(0, len(sent), 7):
        for last in range(first, len(sent)):
            assert last - first + 1 <= bucket.rate * (sent[last] - sent[first]) + bucket.burst + 1e-3


@settings(deadline=None, max_examples=40)
@given(costs=st.lists(st.floats(1, 900), min_size=10, max_size=150))
def test_no_minute_ever_holds_more_tokens_than_the_limit(costs: list[float]) -> None:
    quota, now, sent = Quota(0.0, Rates(tokens=1000)), 0.0, list[tuple[float, float]]()
    for cost in costs:
        ticket, now = send_when_ready(quota, now, guess(cost))
        quota.settle(ticket, Charge(cost, 0.0), now, guess(cost))
        sent.append((now, cost))
    for start, _ in sent:
        assert sum(cost for at, cost in sent if start <= at < start + 60) <= 1000 + 1e-6


def test_a_request_larger_than_the_bucket_goes_alone_when_it_is_full() -> None:
    quota = Quota(0.0, Rates(tokens=60_000))
    huge = guess(50_000)
    assert quota.ready_at(huge, 0.0) == 0.0
    quota.send(huge, 0.0)
    assert 49 < quota.ready_at(guess(100), 0.0) < 51
    beyond = guess(1e9)
    assert quota.ready_at(beyond, 0.0) < 61


def test_what_was_not_used_comes_back() -> None:
    quota = Quota(0.0, Rates(tokens=60_000))
    ticket = quota.send(guess(1000), 0.0)
    quota.settle(ticket, Charge(10.0, 0.0), 1.0)
    assert quota.ready_at(guess(200), 1.0) == 1.0


def test_the_lower_number_of_two_users_and_a_server_holds() -> None:
    quota = Quota(0.0, Rates(requests=600))
    quota.limit_to(Rates(requests=300))
    quota.limit_to(Rates(requests=900, tokens=1000))
    assert quota.given == Rates(requests=300, tokens=1000)
    ticket = quota.send(ONE, 0.0)
    quota.learn(ticket, {"requests": Announced(60.0), "input_tokens": Announced(500.0)}, 1.0)
    limits = {name: rate.bucket.limit for name, rate in quota.rates.items()}
    assert limits == {"requests": 60.0, "tokens": 1000, "input_tokens": 500.0}


def test_what_is_whole_only_after_hours_is_no_rate_of_a_minute() -> None:
    quota = Quota(0.0)
    ticket = quota.send(ONE, 0.0)
    quota.learn(ticket, {"requests": Announced(14400.0, 14399.0, 6.0)}, 1.0)
    assert quota.announced
    quota.learn(ticket, {"requests": Announced(14400.0, 14370.0, 180.0)}, 2.0)
    assert not quota.announced


def hear(*said: Announced, every: float, latency: float = 0.2, answers: int = 20) -> Quota:
    """A quota after so many answers, which said this in turn."""
    quota = Quota(0.0)
    for number in range(answers):
        ticket = quota.send(ONE, number * every)
        quota.settle(ticket, Charge(1.0, 0.0), number * every + latency)
        quota.learn(ticket, {"requests": said[number % len(said)]}, number * every + latency)
    return quota


def test_what_is_always_whole_again_within_a_second_is_no_rate_of_a_minute() -> None:
    assert not hear(Announced(10.0, 9.0, 1.0), every=6.0).announced
    assert not hear(Announced(600.0, 590.0, 0.9), Announced(600.0, 300.0, 0.4), every=0.5).announced
    assert hear(Announced(10.0, 9.0, 1.0), every=6.0, answers=1).announced


def test_a_minute_that_fills_evenly_is_not_taken_for_less_however_short_its_resets_are() -> None:
    for said in (Announced(500.0, 499.0, 0.12), Announced(500.0, 499.0, 0.06), Announced(10_000.0, 9_990.0, 0.06)):
        assert hear(said, every=0.5).announced
    assert hear(Announced(500.0, 499.0, 0.001), every=5.0, latency=0.12).announced  # less than one, rounded up
    assert hear(Announced(500.0, 450.0, 0.001, exact=False), every=0.5).announced  # another clock


def test_of_a_minute_of_which_little_may_go_at_once_the_rate_is_kept() -> None:
    assert hear(Announced(600.0, 9.0, 0.1), every=0.1, answers=100).announced


@pytest.mark.parametrize("kind", [partial(MinuteBucket, burst=60.0), SlidingWindow, SteppedWindow])
@pytest.mark.parametrize("limit", [10, 500])
def test_no_way_to_count_a_minute_is_taken_for_another_period(kind: Callable[[int], Meter], limit: int) -> None:
    quota, meter, now = Quota(0.0), kind(limit), 0.0
    while now < 200:
        now = max(now + 0.01, quota.ready_at(ONE, now))
        ticket = quota.send(ONE, now)
        if meter.wait(1, now) == 0:
            meter.take(1, now)
        said = Announced(float(limit), float(meter.remaining(now)), meter.reset(now) or None)
        quota.settle(ticket, Charge(1.0, 0.0), now)
        quota.learn(ticket, {"requests": said}, now)
        assert quota.announced


def test_what_the_server_says_is_left_lowers_the_level_and_never_raises_it_above_nothing() -> None:
    quota = Quota(0.0, Rates(requests=600))
    ticket = quota.send(ONE, 0.0)
    bucket = quota.rates["requests"].bucket
    before = bucket.level
    quota.learn(ticket, {"requests": Announced(600.0, 599.0)}, 0.0)
    assert bucket.level == before
    quota.learn(ticket, {"requests": Announced(600.0, 0.0)}, 0.0)
    assert bucket.level == 0.0


def test_everybody_pauses_and_then_leaves_one_after_the_other() -> None:
    quota = Quota(0.0, Rates(requests=600))
    ticket = quota.send(ONE, 0.0)
    quota.refuse(ticket, 1.0, wait=5.0)
    first = quota.ready_at(ONE, 1.0)
    quota.send(ONE, first)
    assert first >= 6.0
    assert quota.ready_at(ONE, first) >= first + 0.09


def test_without_known_rates_they_leave_one_after_the_other_too() -> None:
    quota, at = Quota(0.0), list[float]()
    tickets = [quota.send(ONE, 0.0) for _ in range(10)]
    quota.refuse(tickets[0], 1.0, wait=5.0)
    now = 1.0
    for _ in range(3):
        _, now = send_when_ready(quota, now)
        at.append(now)
    assert at[0] == 6.0
    assert 0.0 < at[1] - at[0] < 1.0
    assert quota.ready_at(ONE, 100.0) == 100.0


def test_one_burst_of_refusals_is_one_cut_which_is_gone_after_ten_seconds() -> None:
    quota = Quota(0.0, Rates(requests=600))
    tickets = [quota.send(ONE, 0.0) for _ in range(5)]
    for ticket in tickets:
        quota.refuse(ticket, 1.0)
    assert (quota.pace.share(1.0), quota.refused) == (0.9, 5)
    assert quota.pace.share(6.0) == pytest.approx(0.95)
    assert quota.pace.share(12.0) == 1.0


def test_slow_down_halves_what_is_sent_and_grows_by_half_in_a_quarter_of_an_hour() -> None:
    pace = Pace(0.0)
    pace.slow_down(1.0)
    assert pace.share(0.0) == 0.5
    assert pace.share(900.0) == pytest.approx(0.75)
    pace.advance(900.0)
    pace.keep_near(0.2)
    assert pace.share(900.0) == 0.4


@given(share=st.floats(0.06, 1.0), seconds=st.floats(0.01, 50.0))
def test_the_pace_reaches_what_it_says_it_will(share: float, seconds: float) -> None:
    pace = Pace(0.0)
    pace.slow_down(min(1.0, share * 2))
    pace.keep_near(1.0)
    assert pace.advance(pace.after(seconds)) == pytest.approx(seconds)


def test_a_bucket_saves_what_it_was_kept_from() -> None:
    bucket = Bucket(60_000)
    bucket.held = True
    bucket.refill(2.0)
    bucket.held = False
    bucket.take(bucket.burst, 2.0)
    bucket.refill(0.1)
    assert bucket.level == pytest.approx(bucket.rate * 0.1 * (1 + MAKE_UP))


def test_guesses_are_learned_by_sums_and_by_stage() -> None:
    estimates = Estimates()
    asked = request(1, 1000.0)
    for _ in range(50):
        first = estimates.guess(asked)
        estimates.learn("ask", first, Usage(2000, 1, requests=1))
    assert estimates.guess(asked).reserved.input == pytest.approx(2000, rel=0.05)


def test_who_counts_the_token_limit_gives_nothing_back() -> None:
    estimates = Estimates("most")
    asked = request(1, 0.25)
    made = Guess(Charge(1.0, 3999.0), 1.0)
    assert estimates.guess(asked).reserved.of("tokens") == pytest.approx(1.25)
    assert estimates.settled(made, Usage(10, 20)).of("tokens") == 4000
    assert estimates.settled(made, Usage(10, 5000)).of("tokens") == 5010


def test_what_a_server_read_from_its_cache_counts_only_where_it_does() -> None:
    usage = Usage(100, 5, cached_input_tokens=90)
    assert Estimates("used").used(usage) == Charge(100.0, 5.0)
    assert Estimates("uncached").used(usage) == Charge(10.0, 5.0)
    assert Estimates().used(Usage(-5, -5)) == Charge(0.0, 0.0)


def test_nothing_is_waited_for_where_nothing_is_known() -> None:
    quota = Quota(0.0)
    for _ in range(1000):
        assert quota.ready_at(ONE, 0.0) == 0.0
        quota.send(ONE, 0.0)
    assert math.isclose(quota.in_flight, 1000)
