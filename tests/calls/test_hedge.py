"""When a second attempt is sent, who wins, and what becomes of the other one."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from pipeline.calls.account import Account
from pipeline.calls.allowance import Allowance
from pipeline.calls.call import Call, Reply, Request
from pipeline.calls.errors import CallError
from pipeline.calls.hedge import Hedge, hedge_allowance
from pipeline.calls.latencies import Histogram, Latencies
from pipeline.calls.observed import ObservedAttempt
from pipeline.calls.retry import Retry
from pipeline.calls.stack import wrapped
from tests.calls.asking import ask, cancelled_at_every_moment, failure, reply
from tests.calls.visits import FakeVisit
from tests.engine.schedules import in_virtual_time

Outcome = tuple[float, Reply | Exception]


def learned(*, slow: int = 0, share: float = 0.95, allowance: Allowance | None = None) -> Hedge:
    """A hedge that has seen a hundred attempts, of a second each but for `slow` ones of ten."""
    latencies = Latencies()
    for number in range(100):
        latencies.of("ask", 0.0).add(10.0 if number < slow else 1.0, 0.0)
    return Hedge(share, latencies, allowance or hedge_allowance("m"))


def taking(*outcomes: Outcome) -> tuple[Call, list[tuple[int, float]]]:
    """A call whose attempts take so long and come to this; and which attempt was sent when."""
    sent: list[tuple[int, float]] = []

    async def call(request: Request) -> Reply:
        seconds, outcome = outcomes[len(sent)]
        sent.append((request.attempt, anyio.current_time()))
        await anyio.sleep(seconds)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return call, sent


def hedged(hedge: Hedge, call: Call) -> Call:
    return wrapped(call, [Retry(attempts=1), hedge, Account(), ObservedAttempt("m")])


async def outcome_of(call: Call, request: Request) -> tuple[str, tuple[str, ...], int | None]:
    """What was said, the flags and the number of attempts."""
    try:
        answer = await call(request)
    except CallError as error:
        return error.message, (), error.attempts
    return answer.text, answer.flags, answer.attempts


LATE = pytest.approx(1.03, abs=0.03)


@in_virtual_time
async def test_a_quick_attempt_is_not_raced() -> None:
    call, sent = taking((1.0, reply()))
    assert await outcome_of(hedged(learned(), call), ask()) == ("ok", (), 1)
    assert sent == [(1, 0.0)]


@in_virtual_time
async def test_the_second_attempt_wins_and_the_first_is_cancelled_and_charged() -> None:
    call, sent = taking((10.0, reply("slow")), (1.0, reply("second")))
    visit = FakeVisit()
    assert await outcome_of(hedged(learned(), call), ask(visit=visit)) == ("second", ("hedged",), 2)
    assert sent == [(1, 0.0), (2, LATE)]
    assert anyio.current_time() == pytest.approx(2.03, abs=0.03)
    assert (visit.requests, visit.spare) == (2, 1)


@in_virtual_time
async def test_the_first_attempt_may_still_win() -> None:
    call, sent = taking((1.5, reply("first")), (9.0, reply("second")))
    assert await outcome_of(hedged(learned(), call), ask()) == ("first", ("hedged",), 2)
    assert (len(sent), anyio.current_time()) == (2, 1.5)


@pytest.mark.parametrize(
    ("first", "second", "said", "ends"),
    [
        ((5.0, "fails"), (1.0, "second"), "second", 2.03),
        ((1.5, "fails"), (3.0, "second"), "second", 4.03),
        ((5.0, "first"), (1.0, "fails"), "first", 5.0),
        ((5.0, "fails"), (1.0, "fails before"), "it said fails before (after 2 attempts)", 5.0),
        ((1.5, "fails before"), (3.0, "fails"), "it said fails before (after 2 attempts)", 4.03),
    ],
)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_leg_that_fails_leaves_it_to_the_other(
    backend: str, first: tuple[float, str], second: tuple[float, str], said: str, ends: float
) -> None:
    @in_virtual_time
    async def race() -> None:
        legs = [(seconds, failure(text) if "fails" in text else reply(text)) for seconds, text in (first, second)]
        call, _ = taking(*legs)
        assert (await outcome_of(hedged(learned(), call), ask()))[0] == said
        assert anyio.current_time() == pytest.approx(ends, abs=0.05)

    race(backend)


@in_virtual_time
async def test_a_failure_before_the_race_is_left_to_the_retries() -> None:
    call, sent = taking((0.5, failure()), (1.0, reply()))
    assert (await outcome_of(hedged(learned(), call), ask()))[0] == "it said connection"
    assert len(sent) == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("hedge", "request_of"),
    [
        (lambda: Hedge(0.95, Latencies(), hedge_allowance("m")), lambda: ask()),
        (lambda: learned(), lambda: ask(stream=True)),
        (lambda: learned(), lambda: ask(visit=FakeVisit(spare=0))),
        (lambda: learned(), lambda: ask(visit=FakeVisit(stage="another"))),
        (lambda: learned(allowance=Allowance("second attempts", 0.0, 0.0)), lambda: ask()),
    ],
    ids=["nothing was learned", "a stream", "no free slot", "another stage", "too many already"],
)
def test_no_second_attempt(backend: str, hedge: Callable[[], Hedge], request_of: Callable[[], Request]) -> None:
    @in_virtual_time
    async def call_once() -> None:
        call, sent = taking((10.0, reply("slow")))
        assert await outcome_of(hedged(hedge(), call), request_of()) == ("slow", (), 1)
        assert len(sent) == 1

    call_once(backend)


@in_virtual_time
async def test_waiting_before_an_attempt_is_sent_is_no_slowness() -> None:
    call, sent = taking((1.0, reply()))

    def after_a_wait(inner: Call) -> Call:
        async def waiting(request: Request) -> Reply:
            await anyio.sleep(50.0)
            return await inner(request)

        return waiting

    asked = wrapped(call, [learned(), after_a_wait, ObservedAttempt("m")])
    assert await outcome_of(asked, ask()) == ("ok", (), 1)
    assert sent == [(1, 50.0)]


def unsent(inner: Call) -> Call:
    """Second legs find that something which they need is not to be had."""

    async def held_back(request: Request) -> Reply:
        if request.leg is not None and request.leg.second:
            raise failure("budget")
        return await inner(request)

    return held_back


def waiting(inner: Call) -> Call:
    """Second legs wait longer than first ones take."""

    async def held_back(request: Request) -> Reply:
        if request.leg is not None and request.leg.second:
            await anyio.sleep(50.0)
        return await inner(request)

    return held_back


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("hold_back", [unsent, waiting])
@pytest.mark.parametrize(
    ("outcome", "said"), [(reply("first"), "first"), (failure("its own"), "it said its own")], ids=["ok", "fails"]
)
def test_a_second_attempt_that_is_never_sent_counts_as_none(
    backend: str, hold_back: Callable[[Call], Call], outcome: Reply | Exception, said: str
) -> None:
    @in_virtual_time
    async def race() -> None:
        call, sent = taking((10.0, outcome), (1.0, reply("second")))
        hedge, visit = learned(), FakeVisit()
        asked = wrapped(call, [Retry(attempts=1), hedge, hold_back, Account(), ObservedAttempt("m")])
        if hold_back is waiting and isinstance(outcome, Exception):  # whose time comes when the first has failed
            assert await outcome_of(asked, ask(visit=visit)) == ("second", ("hedged",), 2)
            return
        assert await outcome_of(asked, ask(visit=visit)) == (said, (), 1)
        assert (sent, anyio.current_time(), visit.requests) == ([(1, 0.0)], 10.0, 1)
        assert (hedge.allowance.left, hedge.allowance.statistics()) == (hedge.allowance.burst, None)

    race(backend)


@in_virtual_time
async def test_what_is_no_call_error_ends_the_race_like_a_failure() -> None:
    call, _ = taking((5.0, ValueError("bug")), (1.0, ValueError("another")))
    with pytest.raises(ValueError, match="another"):
        await hedged(learned(), call)(ask())


@in_virtual_time
async def test_whoever_is_cancelled_in_a_race_leaves_no_trace() -> None:
    visit = FakeVisit()
    hedge = learned(allowance=Allowance("second attempts", 1.0, 10.0))
    running = 0

    async def call(request: Request) -> Reply:
        nonlocal running
        running += 1
        try:
            await anyio.sleep(5.0 if request.attempt == 1 else 2.0)
        finally:
            running -= 1
        return reply()

    async def scenario() -> None:
        await hedged(hedge, call)(ask(visit=visit))

    async def check() -> None:
        assert (running, visit.spare) == (0, 1)

    assert await cancelled_at_every_moment(scenario, check) > 50


# -- what is learned -------------------------------------------------------------------------------------------------


def test_a_percentile_is_said_when_enough_was_seen_and_is_of_the_last_two_minutes() -> None:
    histogram = Histogram(0.0)
    for number in range(19):
        histogram.add(1.0 + number / 100, 1.0)
    assert histogram.percentile(0.5, 1.0) is None
    histogram.add(1.19, 1.0)
    assert histogram.percentile(0.5, 1.0) == pytest.approx(1.1, rel=0.06)
    assert histogram.percentile(0.95, 1.0) == pytest.approx(1.19, rel=0.06)
    assert histogram.percentile(0.5, 61.0) == pytest.approx(1.1, rel=0.06)
    assert histogram.percentile(0.5, 121.0) is None


def test_both_periods_count() -> None:
    histogram = Histogram(0.0)
    for _ in range(15):
        histogram.add(1.0, 59.0)
        histogram.add(3.0, 61.0)
    assert histogram.percentile(0.3, 61.0) == pytest.approx(1.0, rel=0.06)
    assert histogram.percentile(0.9, 61.0) == pytest.approx(3.0, rel=0.06)
    assert histogram.percentile(0.9, 1000.0) is None


@pytest.mark.parametrize("slow", [0, 3, 5, 7, 9])
def test_a_percentile_never_falls_among_the_few_that_it_is_to_find(slow: int) -> None:
    histogram = learned(slow=slow).latencies.of("ask", 0.0)
    late = histogram.percentile(0.95, 0.0)
    assert late is not None
    assert 1.0 <= late <= 2.2


def test_durations_of_nothing_are_counted_too() -> None:
    histogram = Histogram(0.0)
    for _ in range(20):
        histogram.add(0.0, 0.0)
    assert histogram.percentile(0.5, 0.0) == pytest.approx(1e-6, rel=0.06)


def test_an_allowance_is_a_share_of_calls_and_a_few_more() -> None:
    allowance = Allowance("retries", 0.1, 3.0)
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]
    for _ in range(10):
        allowance.earn()
    assert [allowance.take(), allowance.take()] == [True, False]
    for _ in range(1000):
        allowance.earn()
    assert (allowance.left, str(allowance.statistics())) == (
        3.0,
        "retries: 4, at most 10% of calls, 2 more were refused",
    )


def test_an_allowance_is_shown_when_somebody_asked_for_it_and_what_was_not_needed_comes_back() -> None:
    allowance = Allowance("retries", 0.1, 1.0)
    assert allowance.statistics() is None
    assert [allowance.take(), allowance.take()] == [True, False]
    assert str(allowance.statistics()) == "retries: 1, at most 10% of calls, 1 more was refused"
    allowance.give_back()
    assert (allowance.left, allowance.taken) == (1.0, 0)
