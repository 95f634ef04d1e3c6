"""An endpoint that does not answer is asked by one call at a time, and all others wait or go elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import anyio
import pytest

from pipeline.calls.account import Account
from pipeline.calls.breaker import Breaker
from pipeline.calls.call import Call, Reply, Request, Tries
from pipeline.calls.circuit import FINAL_PAUSE, Circuit, Ticket
from pipeline.calls.errors import CallError
from pipeline.calls.retry import Retry
from pipeline.calls.stack import wrapped
from pipeline.core.errors import CallsClosed
from tests.calls.asking import ask, cancelled_at_every_moment, failure, reply
from tests.calls.visits import FakeVisit
from tests.engine.schedules import in_virtual_time

# -- the circuit, step by step ---------------------------------------------------------------------------------------


def answering() -> Circuit:
    """A circuit whose endpoint has answered once."""
    circuit = Circuit("there")
    circuit.succeeded(entered(circuit), 0.0)
    return circuit


def entered(circuit: Circuit, now: float = 0.0) -> Ticket:
    ticket = circuit.enter(now, patient=False)
    assert ticket is not None
    return ticket


def opened(now: float = 0.0, type: str = "connection", circuit: Circuit | None = None) -> Circuit:
    """A circuit that ten failures in a row have opened."""
    circuit = circuit or answering()
    for _ in range(10):
        circuit.failed(entered(circuit), failure(type), now)
    assert circuit.phase == "open"
    return circuit


def test_ten_failures_in_a_row_open_a_circuit() -> None:
    circuit = answering()
    verdicts = [circuit.failed(entered(circuit), failure(), 0.0) for _ in range(10)]
    assert verdicts == [False] * 9 + [True]
    assert (circuit.phase, circuit.enter(0.5, patient=True)) == ("open", None)


def test_an_answer_in_between_begins_the_row_anew() -> None:
    circuit = answering()
    for _ in range(5):
        for _ in range(9):
            assert not circuit.failed(entered(circuit), failure(), 0.0)
        circuit.succeeded(entered(circuit), 0.0)
    assert circuit.phase == "closed"


@pytest.mark.parametrize(
    ("error", "opens"),
    [
        (failure("connection"), 10),
        (failure("disconnected", "ambiguous"), 10),
        (failure("timeout", "ambiguous"), 10),
        (failure("server_error", "retry", 500), 10),
        (failure("overloaded", "retry", 503), 20),
        (failure("rate_limited", "retry", 429), None),
        (failure("bad_request", "fail", 400), None),
        (failure("server_error", "fail", 501), None),
        (failure("empty", "ambiguous", 200), None),
        (failure("too_big", "fail"), None),
    ],
)
def test_what_a_dead_endpoint_looks_like(error: CallError, opens: int | None) -> None:
    circuit = answering()
    for number in range(1, 50):
        circuit.failed(entered(circuit), error, 0.0)
        if circuit.phase == "open":
            assert number == opens
            return
    assert opens is None


def test_refused_requests_do_not_hide_that_others_are_not_answered() -> None:
    circuit = answering()
    for _ in range(9):
        circuit.failed(entered(circuit), failure(), 0.0)
        circuit.failed(entered(circuit), failure("rate_limited", "retry", 429), 0.0)
    circuit.failed(entered(circuit), failure(), 0.0)
    assert circuit.phase == "open"


def test_one_call_that_cannot_connect_three_times_is_believed() -> None:
    circuit = answering()
    assert [circuit.failed(entered(circuit), failure(), 0.0, attempt) for attempt in (1, 2, 3)] == [False, False, True]


def test_a_call_that_fails_again_is_believed_when_another_one_failed_too() -> None:
    circuit = answering()
    error = failure("disconnected", "ambiguous")
    assert [circuit.failed(entered(circuit), error, 0.0, attempt) for attempt in (1, 1, 2)] == [False, False, True]


def test_a_prompt_that_alone_breaks_the_server_opens_nothing() -> None:
    circuit = answering()
    error = failure("server_error", "retry", 500)
    assert [circuit.failed(entered(circuit), error, 0.0, attempt) for attempt in (1, 2, 3, 4)] == [False] * 4


def test_pauses_double_up_to_half_a_minute_and_each_ends_with_one_probe() -> None:
    circuit, now, pauses = opened(), 0.0, []
    for _ in range(8):
        pauses.append(circuit.probe_at - now)
        now = circuit.probe_at
        assert circuit.enter(now - 0.01, patient=False) is None
        probe = entered(circuit, now)
        assert probe.kind == "probe"
        assert circuit.enter(now, patient=False) is None
        circuit.failed(probe, failure(), now)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]


def test_after_a_probe_those_who_wait_go_in_groups_that_grow() -> None:
    circuit = opened()
    waiters = [circuit.queue((0, number), FakeVisit()) for number in range(7)]
    probe = waiters[0]
    circuit.call_next(1.0)
    circuit.succeeded(tickets_of(circuit, probe), 1.5)
    assert [bool(waiter.ticket) for waiter in waiters] == [True] * 3 + [False] * 4
    for waiter in waiters[1:3]:
        circuit.succeeded(tickets_of(circuit, waiter), 2.0)
    assert all(waiter.ticket for waiter in waiters)
    assert circuit.phase == "closed"


def tickets_of(circuit: Circuit, waiter: object) -> Ticket:
    ticket = waiter.ticket  # type: ignore[attr-defined]
    assert isinstance(ticket, Ticket)
    return ticket


def test_who_has_probed_goes_behind_those_who_have_not() -> None:
    circuit = opened()
    places = [(1, 0), (0, 5), (0, 3), (2, 1)]
    waiters = {place: circuit.queue(place, FakeVisit()) for place in places}
    circuit.call_next(1.0)
    assert [place for place in places if waiters[place].ticket] == [(0, 3)]


def test_what_was_sent_before_an_endpoint_went_down_says_nothing_about_it_now() -> None:
    circuit = answering()
    early = [entered(circuit) for _ in range(3)]
    opened(circuit=circuit)
    circuit.succeeded(early[0], 0.5)
    assert circuit.phase == "open"
    assert circuit.failed(early[1], failure(), 0.5)  # and it is not that attempt's fault
    probe = entered(circuit, 1.0)
    circuit.failed(early[2], failure(), 1.2)
    assert circuit.phase == "probing"
    circuit.succeeded(probe, 1.5)
    assert circuit.phase == "closed"


def test_a_failure_while_it_recovers_opens_it_again() -> None:
    circuit = opened()
    waiters = [circuit.queue((0, number), FakeVisit()) for number in range(9)]
    circuit.call_next(1.0)
    circuit.succeeded(tickets_of(circuit, waiters[0]), 1.0)
    assert circuit.phase == "recovering"
    circuit.failed(tickets_of(circuit, waiters[1]), failure(), 1.5)
    assert (circuit.phase, circuit.probe_at) == ("open", 2.5)


def test_an_endpoint_that_answers_but_never_well_is_not_waited_for() -> None:
    circuit = Circuit("there")
    for _ in range(10):
        assert not circuit.failed(entered(circuit), failure("server_error", "retry", 500), 0.0)
    past = circuit.enter(0.5, patient=True)
    assert past is not None
    assert past.kind == "past"
    assert circuit.enter(0.5, patient=False) is None
    circuit.failed(past, failure("server_error", "retry", 500), 0.6)
    circuit.succeeded(past, 0.7)
    assert circuit.phase == "closed"


def test_a_final_no_is_for_all_and_one_call_a_minute_may_see_whether_it_still_holds() -> None:
    circuit = answering()
    waiting = opened(circuit=circuit).queue((0, 0), FakeVisit())
    late = Ticket(0)
    circuit.failed(late, failure("no_money", "stop", 402), 5.0)
    assert waiting.verdict is not None
    assert waiting.verdict.fault == "stop"
    for now in (5.0, 20.0, 4.9 + FINAL_PAUSE):
        with pytest.raises(CallError, match=r"it said no_money \(so it was not asked again\)") as caught:
            circuit.enter(now, patient=False)
        assert (caught.value.stops_run, caught.value.http_status, caught.value.usage.requests) == (True, 402, 0)
    seeing = entered(circuit, 5.0 + FINAL_PAUSE)
    with pytest.raises(CallError):
        circuit.enter(5.0 + FINAL_PAUSE, patient=False)
    circuit.succeeded(seeing, 70.0)
    entered(circuit, 70.0)


def test_a_model_that_is_forbidden_says_nothing_of_the_others_of_its_account() -> None:
    circuit = answering()
    circuit.failed(entered(circuit), failure("key_refused", "stop", 403), 0.0, model="big")
    assert circuit.enter(1.0, patient=False, model="small") is not None
    with pytest.raises(CallError, match="so it was not asked again"):
        circuit.enter(1.0, patient=False, model="big")
    circuit.succeeded(entered(circuit), 2.0, "small")
    with pytest.raises(CallError):
        circuit.enter(3.0, patient=False, model="big")
    seeing = circuit.enter(FINAL_PAUSE, patient=False, model="big")
    assert seeing is not None
    circuit.succeeded(seeing, 61.0, "big")
    assert circuit.enter(61.0, patient=False, model="big") is not None


def test_an_answer_from_before_a_final_no_does_not_lift_it() -> None:
    circuit = answering()
    early = entered(circuit)
    circuit.failed(entered(circuit), failure("key_refused", "stop", 401), 0.0)
    circuit.succeeded(early, 0.5)
    with pytest.raises(CallError):
        circuit.enter(1.0, patient=False)


def test_a_circuit_is_shown_as_one_line() -> None:
    circuit = opened()
    waiter = circuit.queue((0, 0), FakeVisit())
    assert str(circuit.statistics()) == "endpoint there: open (connection), 1 call waits; it went down once, 0 probes"
    circuit.call_next(1.0)
    for number in range(2):
        circuit.queue((0, number), FakeVisit())
    assert str(circuit.statistics()) == "endpoint there: probing (connection), 2 calls wait; it went down once, 1 probe"
    circuit.succeeded(tickets_of(circuit, waiter), 1.0)
    assert str(circuit.statistics()) == "endpoint there: answers; it went down once, 1 probe"
    opened(circuit=circuit)
    assert str(circuit.statistics()).endswith("; it went down 2 times, 1 probe")
    assert str(circuit) == "the endpoint there, which is down, to answer again"
    assert circuit.holders() == ()


def test_an_endpoint_that_always_answered_is_not_shown() -> None:
    circuit = answering()
    circuit.failed(entered(circuit), failure(), 0.0)
    assert circuit.statistics() is None


def given_up_after(circuit: Circuit, error: CallError) -> float:
    """The seconds for which whoever waits for `circuit` does so when every probe ends in `error`."""
    for _ in range(10):
        circuit.failed(entered(circuit), error, 0.0)
    now = 0.0
    while not circuit.down:
        now = circuit.probe_at
        circuit.failed(entered(circuit, now), error, now)
    return now


def refused(kind: Callable[[], BaseException]) -> CallError:
    error = failure()
    error.__cause__ = OSError("all attempts failed")
    error.__cause__.__cause__ = kind()
    return error


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (failure(), 15.0),
        (refused(lambda: OSError("no such name")), 15.0),
        (refused(lambda: ConnectionRefusedError()), 3.0),
        (refused(lambda: ExceptionGroup("", [OSError("no route"), ConnectionRefusedError()])), 3.0),
    ],
)
def test_one_that_never_answered_is_given_up_soon_and_sooner_when_its_host_refuses(
    error: CallError, seconds: float
) -> None:
    assert given_up_after(Circuit("there"), error) == seconds
    assert given_up_after(answering(), error) == 61.0


# -- the policy ------------------------------------------------------------------------------------------------------


def dead_until(back: float, error: Callable[[], CallError] = failure) -> tuple[Call, list[float]]:
    """A call that fails until `back` and is answered after a second from then on; and when it was made."""
    made: list[float] = []

    async def call(request: Request) -> Reply:
        made.append(anyio.current_time())
        if anyio.current_time() < back:
            raise error()
        await anyio.sleep(1.0)
        return reply(request.visit.item_id)

    return call, made


STEADY = Retry(wait_initial=0.0)


@in_virtual_time
async def test_calls_wait_in_their_order_until_a_probe_is_answered_and_use_up_no_attempt() -> None:
    call, made = dead_until(20.0)
    asked = wrapped(call, [STEADY, Breaker(opened())])
    done: list[str] = []

    async def one(number: int) -> None:
        answer = await asked(ask(number))
        done.append(answer.text)

    async with anyio.create_task_group() as tg:
        for number in range(12):
            tg.start_soon(one, number)
    probes = [at for at in made if at < 20.0]
    assert probes == [1.0, 3.0, 7.0, 15.0]
    assert len(made) == 12 + len(probes)
    assert sorted(done, key=int) == [str(number) for number in range(12)]
    assert anyio.current_time() == 35.0  # the probe at 31, then 2, 4 and the other 5


@in_virtual_time
async def test_what_may_have_been_paid_is_asked_once_more_and_those_go_first_whose_last_attempt_it_is_not() -> None:
    call, made = dead_until(1e9, lambda: failure("disconnected", "ambiguous"))
    breaker, ends = Breaker(opened()), list[tuple[str, float, int | None]]()

    async def one(number: int, doubtful: int) -> None:
        request = replace(ask(number), tries=Tries(made=doubtful, doubtful=doubtful))
        with pytest.raises(CallError) as caught:
            await wrapped(call, [replace(STEADY, ambiguous=1 - doubtful), breaker])(request)
        ends.append((request.visit.item_id, anyio.current_time(), caught.value.attempts))

    async with anyio.create_task_group() as tg:
        tg.start_soon(one, 1, 1)
        tg.start_soon(one, 2, 0)
    assert (made, ends) == ([1.0, 3.0, 7.0], [("1", 3.0, 2), ("2", 7.0, 2)])


@in_virtual_time
async def test_a_waiting_call_gives_its_slot_back_and_counts_its_probes_only() -> None:
    call, made = dead_until(2.0)
    visit = FakeVisit()
    answer = await wrapped(call, [STEADY, Breaker(opened()), Account()])(ask(visit=visit))
    assert (answer.attempts, visit.requests, len(made), visit.slot_held) == (2, 2, 2, True)
    assert visit.given_back == 2


@in_virtual_time
async def test_an_endpoint_that_cannot_be_reached_for_a_minute_stops_the_run() -> None:
    call, made = dead_until(1e9)
    with pytest.raises(CallError, match=r"it said connection \(no answer for 61 s\)") as caught:
        await wrapped(call, [STEADY, Breaker(opened())])(ask())
    assert (caught.value.fault, caught.value.stops_run, made) == ("stop", True, [1.0, 3.0, 7.0, 15.0, 31.0, 61.0])


@in_virtual_time
async def test_an_endpoint_that_has_only_errors_to_say_for_a_minute_fails_its_calls_and_the_next_probe_the_next() -> (
    None
):
    call, made = dead_until(1e9, lambda: failure("server_error", "retry", 500))
    breaker = Breaker(opened(type="server_error"))
    ends: list[tuple[float, str, int | None]] = []

    async def one(number: int) -> None:
        try:
            await wrapped(call, [STEADY, breaker])(ask(number))
        except CallError as error:
            ends.append((anyio.current_time(), error.fault, error.http_status))

    async with anyio.create_task_group() as tg:
        for number in range(5):
            tg.start_soon(one, number)
    await one(9)
    assert [end[1:] for end in ends] == [("park", 500)] * 6
    assert [end[0] for end in ends] == [61.0] * 5 + [91.0]
    assert made[-2:] == [61.0, 91.0]


@in_virtual_time
async def test_one_that_never_answered_is_given_up_soon() -> None:
    call, made = dead_until(1e9)
    with pytest.raises(CallError, match="it has never answered"):
        await wrapped(call, [STEADY, Breaker(opened(circuit=Circuit("there")))])(ask())
    assert made == [1.0, 3.0, 7.0, 15.0]


@in_virtual_time
async def test_with_another_model_to_ask_nobody_waits() -> None:
    call, made = dead_until(1e9)
    visit = FakeVisit()
    request = replace(ask(visit=visit), tries=Tries())
    with pytest.raises(CallError, match="the endpoint is down, so it was not asked") as caught:
        await wrapped(call, [STEADY, Breaker(opened(), patient=False)])(request)
    assert (caught.value.type, caught.value.fault, caught.value.attempts, made) == ("endpoint_down", "park", 0, [])
    assert anyio.current_time() == 0.0


@in_virtual_time
async def test_a_run_that_takes_no_more_calls_has_its_own_reason() -> None:
    circuit = answering()
    circuit.failed(entered(circuit), failure("key_refused", "stop", 401), 0.0)
    call, made = dead_until(0.0)
    with pytest.raises(CallsClosed):
        await Breaker(circuit)(call)(ask(visit=FakeVisit(closed=True)))
    with pytest.raises(CallError, match="key_refused"):
        await Breaker(circuit)(call)(ask())
    assert made == []


@in_virtual_time
async def test_whoever_is_cancelled_leaves_no_trace_whatever_it_waits_for() -> None:
    """The probe's right, a place in the row, a ticket not yet used: each goes to the next call."""
    for setting in (probing_alone, waiting_behind, just_called):
        await cancelled_at_every_moment(*setting())


def probing_alone() -> tuple[Callable[[], object], ...]:
    circuit = opened()

    async def scenario() -> None:
        circuit.probe_at = anyio.current_time()
        call, _ = dead_until(0.0)
        await Breaker(circuit)(call)(ask())

    async def check() -> None:
        assert circuit.statistics().waiting == 0
        assert circuit.phase in ("open", "closed")
        if circuit.phase == "closed":
            opened(circuit=circuit)

    return scenario, check  # type: ignore[return-value]


def waiting_behind() -> tuple[Callable[[], object], ...]:
    circuit = opened()

    async def scenario() -> None:
        call, _ = dead_until(0.0)
        async with anyio.create_task_group() as tg:
            for number in range(5):
                tg.start_soon(Breaker(circuit)(call), ask(number))

    async def check() -> None:
        assert circuit.statistics().waiting == 0
        call, _ = dead_until(0.0)
        with anyio.fail_after(100):
            assert (await Breaker(circuit)(call)(ask())).text == "0"
        assert circuit.phase == "closed"
        opened(anyio.current_time(), circuit=circuit)

    return scenario, check  # type: ignore[return-value]


def just_called() -> tuple[Callable[[], object], ...]:
    """The first in the row is cancelled; the second must have the probe in its place."""
    circuit = opened()

    async def scenario() -> None:
        call, _ = dead_until(0.0)
        await Breaker(circuit)(call)(ask(0))

    async def check() -> None:
        call, _ = dead_until(0.0)
        with anyio.fail_after(100):
            async with anyio.create_task_group() as tg:
                for number in range(1, 4):
                    tg.start_soon(Breaker(circuit)(call), ask(number))
        assert (circuit.phase, circuit.statistics().waiting) == ("closed", 0)
        opened(anyio.current_time(), circuit=circuit)

    return scenario, check  # type: ignore[return-value]
