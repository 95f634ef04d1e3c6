"""The rules of simulated servers, each told what time it is."""

from __future__ import annotations

import pytest

from pipeline.core.errors import DefinitionError
from pipeline.core.limits import Limits
from stages.models import SimulatedModel
from stages.models.simulated_gate import Gate, Refused, duration, retry_headers
from stages.models.simulated_limits import ServerLimits, SlidingWindow, SteppedWindow, TokenBucket


def let_in(limits: ServerLimits, times: list[float], tokens: int = 1) -> list[float]:
    """Return the times at which a request was let in."""
    gate = Gate(limits)
    found: list[float] = []
    for now in times:
        if gate.enter(tokens, now) is None:
            gate.leave()
            found.append(now)
    return found


def rule(**limits: object) -> ServerLimits:
    return ServerLimits.parse(limits)


def test_a_token_bucket_lets_its_burst_through_and_then_what_refills() -> None:
    limits = rule(requests_per_minute=120, burst="2s")
    assert let_in(limits, [0.0] * 6) == [0.0] * 4
    assert let_in(limits, [0.0] * 4 + [0.4, 0.5, 0.6, 1.0]) == [0.0] * 4 + [0.5, 1.0]


@pytest.mark.parametrize("window", ["token_bucket", "sliding", "fixed", "second"])
def test_a_request_that_is_told_of_late_brings_no_time_back(window: str) -> None:
    limits = rule(requests_per_minute=60, window=window, **({"burst": "1s"} if window == "token_bucket" else {}))
    times = [base + late for base in range(100, 220) for late in (0.9, 0.1, 0.9, 0.1, 0.5)]
    assert len(let_in(limits, [100.0, *times])) <= 180


def test_a_token_bucket_holds_a_minute_when_nothing_else_is_said() -> None:
    assert len(let_in(rule(requests_per_minute=30), [0.0] * 40)) == 30


def test_a_sliding_window_lets_no_more_through_in_any_sixty_seconds() -> None:
    limits = rule(requests_per_minute=3, window="sliding")
    assert let_in(limits, [0, 30, 50, 59, 60, 61, 89, 90, 109, 110]) == [0, 30, 50, 60, 90, 110]


def test_a_fixed_window_begins_with_the_first_request_and_forgets_at_its_end() -> None:
    limits = rule(requests_per_minute=2, window="fixed")
    assert let_in(limits, [10, 69, 69.5, 70, 70, 71, 129.9, 130]) == [10, 69, 70, 70, 130]


def test_a_server_that_counts_by_the_second_lets_a_whole_sixtieth_through_in_each() -> None:
    limits = rule(requests_per_minute=150, window="second")
    assert let_in(limits, [0, 0.1, 0.2, 0.9, 1.0, 1.0, 1.5, 1.99, 2.0]) == [0, 0.1, 1.0, 1.0, 2.0]


@pytest.mark.parametrize("window", ["token_bucket", "sliding", "fixed", "second"])
def test_who_waits_as_long_as_was_said_is_let_in(window: str) -> None:
    gate = Gate(rule(requests_per_minute=70, tokens_per_minute=1000, window=window))
    now, waits = 1000.0, 0
    for _ in range(300):
        refused = gate.enter(17, now)
        if refused is not None:
            assert refused.wait is not None
            now += refused.wait
            waits += 1
            assert gate.enter(17, now) is None
        gate.leave()
    assert waits > 0
    assert now - 1000.0 >= 17 * 240 / 1000 * 60 - 60


def test_both_rates_hold_and_a_refused_request_counts_for_neither() -> None:
    gate = Gate(rule(requests_per_minute=10, tokens_per_minute=100, window="fixed"))
    assert gate.enter(60, 0.0) is None
    refused = gate.enter(60, 30.0)
    assert refused == Refused("Rate limit reached for tokens: limit 100 a minute; try again in 30s", 30.0)
    assert gate.enter(40, 30.0) is None
    assert gate.headers(30.0) == {
        "x-ratelimit-limit-requests": "10",
        "x-ratelimit-remaining-requests": "8",
        "x-ratelimit-reset-requests": "30s",
        "x-ratelimit-limit-tokens": "100",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "30s",
    }


def test_a_request_above_the_limit_itself_is_never_let_in() -> None:
    refused = Gate(rule(tokens_per_minute="1k")).enter(1001, 0.0)
    assert refused == Refused("Request too large: 1,001 tokens, limit 1,000 a minute", None)
    assert retry_headers(None) == {}


def test_a_request_above_what_fits_at_once_goes_alone_and_is_paid_off() -> None:
    gate = Gate(rule(tokens_per_minute=600, burst="1s"))
    assert gate.enter(30, 0.0) is None
    refused = gate.enter(10, 0.0)
    assert refused is not None
    assert refused.wait == pytest.approx(3.0)
    stepped = Gate(rule(tokens_per_minute=600, window="second"))
    assert stepped.enter(30, 0.0) is None
    refused = stepped.enter(10, 0.5)
    assert refused is not None
    assert refused.wait == pytest.approx(2.5)


def test_requests_at_once_are_counted_until_they_leave_and_the_limit_can_change() -> None:
    gate = Gate(rule(max_concurrency=2))
    assert [gate.enter(1, 0.0) is None for _ in range(3)] == [True, True, False]
    gate.leave()
    assert gate.enter(1, 0.0) is None
    gate.max_concurrency = 3
    assert [gate.enter(1, 0.0) is None for _ in range(2)] == [True, False]
    assert gate.headers(0.0) == {}


@pytest.mark.parametrize(
    ("meter", "left", "reset"),
    [
        (TokenBucket(60, 60.0), 50, 10.0),
        (SlidingWindow(60), 50, 60.0),
        (SteppedWindow(60), 50, 60.0),
        (SteppedWindow(60, 1.0), 0, 10.0),
    ],
)
def test_what_is_left_and_when_all_is_there_again(
    meter: TokenBucket | SlidingWindow | SteppedWindow, left: int, reset: float
) -> None:
    assert meter.wait(10, 5.0) == 0.0
    meter.take(10, 5.0)
    assert (meter.remaining(5.0), meter.reset(5.0)) == (left, pytest.approx(reset))
    assert (meter.remaining(500.0), meter.reset(500.0)) == (meter.remaining(5000.0), 0.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0ms"), (0.0171, "18ms"), (1.0, "1s"), (59.5, "59.5s"), (360.0, "6m0s"), (90.25, "1m30.25s")],
)
def test_durations_are_written_as_providers_do(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_when_to_come_again_is_rounded_up() -> None:
    assert retry_headers(1.2341) == {"retry-after": "2", "retry-after-ms": "1235"}


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"requests_per_minut": 3}, "pipeline, limits: 'requests_per_minut' is no limit of a server (known: "),
        ({"tokens_per_minute": "200x"}, "pipeline, limits.tokens_per_minute: is '200x' (give a whole number, at least"),
        ({"requests_per_minute": 0}, "pipeline, limits.requests_per_minute: is 0 "),
        ({"requests_per_minute": True}, "pipeline, limits.requests_per_minute: is True "),
        ({"requests_per_minute": float("nan")}, "pipeline, limits.requests_per_minute: is nan "),
        ({"window": "minute"}, "limits.window: is 'minute' (one of token_bucket, sliding, fixed, second)"),
        ({"charge": "all"}, "limits.charge: is 'all' (one of used, reserved)"),
        ({"burst": "0s"}, "limits.burst: is '0s' (give a time of more than 0, as 30s)"),
        ({"window": "sliding", "burst": "1s"}, "limits.burst: the window sliding has none (leave it out, "),
        (5, "pipeline, limits: is 5 (give a mapping"),
    ],
)
def test_a_wrong_limit_says_where_what_and_what_would_be_right(limits: object, text: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        ServerLimits.parse(limits)
    assert text in str(caught.value)


def test_counts_and_times_are_written_as_people_do() -> None:
    written = {"requests_per_minute": 500, "tokens_per_minute": "0.2M", "burst": "500ms", "max_concurrency": "1k"}
    assert ServerLimits.parse(written) == ServerLimits(
        requests_per_minute=500, tokens_per_minute=200_000, burst=0.5, max_concurrency=1000
    )


async def test_models_of_one_name_and_limits_share_them_within_a_run() -> None:
    rules = {"requests_per_minute": 1}
    same, again = SimulatedModel(limits=rules), SimulatedModel(limits=rules, seed=2)
    async with Limits() as limits, same.open_within(limits) as one, again.open_within(limits) as two:
        assert one.server.gate is two.server.gate
        async with SimulatedModel(model="b", limits=rules).open_within(limits) as other:
            assert other.server.gate is not one.server.gate
        async with same.open() as alone:
            assert alone.server.gate is not one.server.gate
