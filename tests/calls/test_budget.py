"""What is put aside for an attempt, what it is spent on, and who waits for it."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import anyio
import pytest

from pipeline.calls.account import unpaid
from pipeline.calls.breaker import Breaker
from pipeline.calls.budget import Reserve
from pipeline.calls.call import Call, CallIdentity, Reply, Request
from pipeline.calls.circuit import Circuit
from pipeline.calls.errors import CallError, FaultClass
from pipeline.calls.fallback import Fallback
from pipeline.calls.parameters import Parameters
from pipeline.calls.prices import ListPrice
from pipeline.calls.pricing import SIMULATED, Given, Rates
from pipeline.calls.retry import Retry
from pipeline.calls.schema import Schema
from pipeline.calls.stack import Stack
from pipeline.calls.timeout import AttemptTimeout
from pipeline.calls.tool import Tool
from pipeline.calls.upper_bound import Unbounded, most_input, most_output
from pipeline.core.budget import Budget, BudgetSpent
from pipeline.core.errors import CallsClosed
from pipeline.core.ports import Hold
from pipeline.core.purse import Amount, Claim, Purse, picos
from pipeline.core.state import Message, ToolCall
from pipeline.core.usage import Cost, Usage
from tests.calls.visits import FakeVisit
from tests.engine.schedules import in_virtual_time

TARIFF = Given.of({"input": 1, "output": 10})
HEAD = 256 + 32  #: bytes that stand for what a server adds to a request of one message


@dataclass
class Payer(FakeVisit):
    """A visit that remembers what it waited for."""

    holds: list[Hold] = field(default_factory=list[Hold])

    def waiting(self, hold: Hold) -> AbstractContextManager[None]:
        return self._waiting(hold)

    @contextmanager
    def _waiting(self, hold: Hold) -> Generator[None]:
        self.holds.append(hold)
        yield


def request(visit: FakeVisit, most: int | None = 100, arrival: int = 0, text: str = "hi") -> Request:
    asked = Parameters(max_output_tokens=most)
    identity = CallIdentity("1", ("ask",), 0)
    return Request((Message("user", text),), asked, None, visit, identity, arrival=arrival)


def payer(*budgets: Budget) -> Payer:
    return Payer(purses=tuple(Purse(budget) for budget in budgets))


def reply(read: int = 10, written: int = 20, *, estimated: bool = False) -> Reply:
    usage = Usage(read, written, requests=1, estimated=estimated)
    return Reply("ok", usage, TARIFF.cost(usage))


def answers(*outcomes: Reply | Exception, seconds: float = 1.0) -> Call:
    left = list(outcomes)

    async def ask(asked: Request) -> Reply:
        await anyio.sleep(seconds)
        outcome = left.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return ask


def paid(ask: Call, **more: object) -> Call:
    policies = {"deadline": None, "retry": None, "budget": Reserve("m", TARIFF), **more}
    return Stack(**policies).around(ask)  # type: ignore[arg-type]


def error(
    fault: FaultClass, status: int | None = None, usage: Usage | None = None, cost: Cost | None = None
) -> CallError:
    return CallError("it broke", fault=fault, type="broken", http_status=status, usage=usage, cost=cost)


# -- what is put aside ------------------------------------------------------------------------------------------------


def test_input_is_bounded_by_its_bytes_and_what_a_server_adds() -> None:
    visit = FakeVisit()
    assert most_input(request(visit, text="ä€")) == HEAD + 5
    tool = Tool("t", "does", {"type": "object"})
    call = Message("assistant", "", tool_calls=(ToolCall("id", "name", "{}"),))
    answer = Message("tool", "four", tool_call_id="id")
    asked = replace(request(visit), messages=(call, answer), tools=(tool,), schema=Schema.of({"a": "string"}))
    assert asked.schema is not None
    schema = json.dumps(dict(asked.schema.json_schema))
    texts = ("id", "name", "{}", "four", "id", "t", "does", '{"type": "object"}', schema)
    assert most_input(asked) == 256 + 1024 + 4 * 32 + sum(len(text) for text in texts)
    more = replace(request(visit), parameters=Parameters(extra_body={"prediction": "x"}))
    assert most_input(more) == HEAD + 2 + len('{"prediction": "x"}')
    assert most_input(request(visit, text="\ud800")) == HEAD + 3  # half a character that no text should have


@pytest.mark.parametrize(
    ("parameters", "most"),
    [
        (Parameters(), None),
        (Parameters(max_output_tokens=5), 5),
        (Parameters(max_output_tokens=5, extra_body={"max_tokens": 50}), 50),
        (Parameters(extra_body={"max_completion_tokens": 7}), 7),
        (Parameters(max_output_tokens=5, extra_body={"n": 3}), 15),
        (Parameters(extra_body={"n": 3, "max_tokens": "many"}), None),
    ],
)
def test_output_is_bounded_by_what_is_asked_for_wherever_it_is_said(parameters: Parameters, most: int | None) -> None:
    assert most_output(parameters) == most


@in_virtual_time
async def test_an_attempt_has_its_most_put_aside_and_what_it_did_not_cost_comes_back() -> None:
    visit = payer(Budget(usd=1, tokens=10_000, requests=5))
    (purse,) = visit.purses
    async with anyio.create_task_group() as tg:
        tg.start_soon(paid(answers(reply())), request(visit))
        await anyio.sleep(0.5)
        tokens = HEAD + 2
        assert purse.reserved == Amount(picos((tokens * 1 + 100 * 10) / 1e6), tokens + 100, 1)
        assert purse.spent == Amount()
    assert (purse.reserved, purse.spent) == (Amount(), Amount(picos(0.00021), 30, 1))
    assert visit.charges == [(Usage(10, 20, requests=1), Cost(0.00021, "given"))]
    assert visit.given_back == 0


@in_virtual_time
async def test_without_a_budget_nothing_is_asked_and_nothing_needs_a_bound() -> None:
    assert (await paid(answers(reply()))(request(FakeVisit(), most=None))).text == "ok"


@in_virtual_time
async def test_a_budget_of_requests_needs_no_bound_and_no_price() -> None:
    visit = payer(Budget(requests=1))
    nothing_known = Reserve("m", ListPrice("nobody", None))
    assert (await paid(answers(reply()), budget=nothing_known)(request(visit, most=None))).text == "ok"
    assert visit.purses[0].spent.requests == 1


@in_virtual_time
async def test_what_is_free_needs_no_money_and_no_bound() -> None:
    visit = payer(Budget(usd=0))
    assert (await paid(answers(reply()), budget=Reserve("m", SIMULATED))(request(visit, most=None))).text == "ok"
    assert visit.purses[0].claims == {}


@pytest.mark.parametrize(
    ("reserve", "most", "words"),
    [
        (
            Reserve("m", TARIFF),
            None,
            "m may answer at any length, so a budget cannot hold (give the agent ",
        ),
        (Reserve("m", ListPrice("m", None)), 10, "m has no known price, so a budget in dollars cannot hold (give "),
    ],
)
async def test_what_has_no_upper_bound_is_not_asked(reserve: Reserve, most: int | None, words: str) -> None:
    with pytest.raises(Unbounded) as caught:
        await paid(answers(), budget=reserve)(request(payer(Budget(usd=1)), most))
    assert caught.value.message.startswith(words)
    assert (caught.value.stops_run, caught.value.type) == (True, "no_upper_bound")


# -- what it is spent on ----------------------------------------------------------------------------------------------

WHOLE = HEAD + 2 + 100


@pytest.mark.parametrize(
    ("outcome", "spent"),
    [
        (reply(), 30),
        (reply(estimated=True), WHOLE),  # the server did not count, so it may have been more
        (error("retry", 429), 0),
        (error("retry"), 0),  # no connection
        (error("fail", 400), 0),
        (error("fail", 504), WHOLE),  # told not to be tried again, and yet it may have been answered
        (error("stop", 401), 0),
        (error("park", 429), 0),
        (error("ambiguous"), WHOLE),
        (error("ambiguous", 504), WHOLE),
        (error("fail"), WHOLE),  # an answer that could not be used, and did not say what it cost
        (error("fail", usage=Usage(10, 20, requests=1), cost=Cost(0.1, "given")), 30),
        (error("ambiguous", usage=Usage(10, 20, requests=1), cost=Cost(0.1, "given")), 30),
        (RuntimeError("a bug"), WHOLE),
    ],
)
async def test_each_end_of_an_attempt_spends_what_it_cost_or_may_have_cost(
    outcome: Reply | Exception, spent: int
) -> None:
    visit = payer(Budget(tokens=1000, requests=3))
    with nullcontext() if isinstance(outcome, Reply) else pytest.raises(type(outcome)):
        await paid(answers(outcome, seconds=0.0))(request(visit))
    assert visit.purses[0].spent[1:] == (spent, 1)
    assert (visit.purses[0].reserved, visit.purses[0].claims) == (Amount(), {})


@in_virtual_time
async def test_a_cost_that_is_not_known_is_all_of_it_under_a_budget_of_money_only() -> None:
    unpriced = replace(reply(), cost=Cost(None, "unknown price"))
    money, tokens = payer(Budget(usd=1)), payer(Budget(tokens=1000))
    await paid(answers(unpriced))(request(money))
    await paid(answers(unpriced))(request(tokens))
    assert money.purses[0].spent.picos == TARIFF.most(HEAD + 2, 100)
    assert tokens.purses[0].spent.tokens == 30


@in_virtual_time
async def test_an_attempt_that_is_cancelled_or_out_of_time_may_have_cost_all() -> None:
    visit = payer(Budget(tokens=10_000))
    with anyio.move_on_after(0.5):
        await paid(answers(reply()))(request(visit))
    assert visit.purses[0].spent.tokens == WHOLE
    with pytest.raises(CallError, match="no answer within"):
        await paid(answers(reply()), timeout=AttemptTimeout(0.5))(request(visit))
    assert (visit.purses[0].spent.tokens, visit.purses[0].claims) == (2 * WHOLE, {})


@in_virtual_time
async def test_an_attempt_that_the_run_did_not_let_begin_spends_nothing() -> None:
    visit = payer(Budget(tokens=1000))
    visit.closed = True
    with pytest.raises(CallsClosed):
        await paid(answers(reply()))(request(visit))
    assert (visit.purses[0].spent, visit.purses[0].claims) == (Amount(), {})


@in_virtual_time
async def test_each_attempt_is_covered_and_nothing_is_kept_between_them() -> None:
    visit = payer(Budget(tokens=10_000))
    (purse,) = visit.purses
    call = paid(answers(error("retry", 429), error("ambiguous"), reply()), retry=Retry(wait_initial=8.0))
    reserved: list[int] = []
    async with anyio.create_task_group() as tg:
        tg.start_soon(call, request(visit))
        while not visit.charges or visit.charges[-1][0].output_tokens == 0:
            await anyio.sleep(0.1)
            reserved.append(purse.reserved.tokens)
    assert set(reserved) == {0, WHOLE}
    assert [here for here, before in zip(reserved[1:], reserved, strict=False) if here != before] == [
        0,
        WHOLE,
        0,
        WHOLE,
        0,
    ]
    assert purse.spent.tokens == WHOLE + 30


@in_virtual_time
async def test_a_model_that_is_fallen_back_to_is_covered_at_its_own_price() -> None:
    visit = payer(Budget(usd=1))
    (purse,) = visit.purses
    dear = Reserve("dear", Given(Rates.flat(100, 1000)))
    seen: list[int] = []

    class Other:
        async def take_over(self, asked: Request) -> Reply:
            async def ask(inner: Request) -> Reply:
                seen.append(purse.reserved.picos)
                return reply()

            return await Stack(retry=None, budget=dear).instead(ask)(asked)

    call = paid(answers(error("retry", 503)), fallback=Fallback((Other(),)))
    assert (await call(request(visit))).flags == ("fallback",)
    assert seen == [dear.tariff.most(HEAD + 2, 100)]
    assert purse.reserved == Amount()


# -- waiting ----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_what_does_not_fit_waits_without_its_slot_and_is_seen_to_wait() -> None:
    purse = Purse(Budget(tokens=WHOLE + 50))
    first, second = Payer(purses=(purse,)), Payer(purses=(purse,))
    async with anyio.create_task_group() as tg:
        tg.start_soon(paid(answers(reply(0, 20))), request(first))
        await anyio.sleep(0.5)
        tg.start_soon(paid(answers(reply(0, 20))), request(second, arrival=1))
        await anyio.sleep(0.1)
        assert (second.slot_held, second.given_back, first.given_back) == (False, 1, 0)
        (hold,) = second.holds
        assert str(hold) == (
            f"a share of the budget (0 of {WHOLE + 50} tokens spent, {WHOLE} tokens reserved; 1 call waits for it)"
        )
        assert list(hold.holders()) == [first]
    assert (anyio.current_time(), second.slot_held, purse.spent.tokens) == (2.0, True, 40)


@in_virtual_time
async def test_a_call_that_is_cancelled_while_it_waits_leaves_its_place() -> None:
    purse = Purse(Budget(tokens=WHOLE + 50))
    visits = [Payer(purses=(purse,)) for _ in range(3)]
    async with anyio.create_task_group() as tg:
        tg.start_soon(paid(answers(reply(0, 20))), request(visits[0]))
        await anyio.sleep(0.1)
        with anyio.move_on_after(0.1):
            await paid(answers())(request(visits[1], arrival=1))
        assert purse.waiting == []
        await paid(answers(reply(0, 20)))(request(visits[2], arrival=2))
    assert (purse.spent.tokens, purse.claims) == (40, {})


@in_virtual_time
async def test_what_never_fits_ends_the_run_in_words_for_people() -> None:
    visit = payer(Budget(usd=0.0015, requests=9))
    await paid(answers(reply()))(request(visit))
    with pytest.raises(BudgetSpent) as caught:
        await paid(answers())(request(visit, most=120))
    assert (caught.value.stops_run, caught.value.type) == (True, "budget")
    assert caught.value.message == (
        "the budget of $0.0015 and 9 requests is used up: $0.00021 of $0.0015 is spent, and stage 'ask' may need "
        "$0.0015 for the next attempt of m; raise it to go on"
    )
    with pytest.raises(BudgetSpent) as caught:
        await paid(answers())(request(payer(Budget(tokens=300)), most=200))
    assert caught.value.message == (
        "the budget of 300 tokens is too small for one call: stage 'ask' may need 490 tokens for an attempt of m; "
        "raise it, or lower max_output_tokens"
    )
    with pytest.raises(BudgetSpent) as caught:  # it would fit, but one that came earlier did not
        await paid(answers())(request(visit, most=1))
    assert "$0.00021 of $0.0015 and 1 of 9 requests are spent" in caught.value.message


@in_virtual_time
async def test_a_run_that_only_finishes_has_not_ended_for_want_of_money() -> None:
    visit = payer(Budget(tokens=10))
    visit.closed = True
    with pytest.raises(CallsClosed):
        await paid(answers())(request(visit))


@in_virtual_time
async def test_a_budget_that_is_spent_says_nothing_about_an_endpoint() -> None:
    circuit = Circuit("here")
    with pytest.raises(BudgetSpent):
        await paid(answers(), breaker=Breaker(circuit))(request(payer(Budget(tokens=10))))
    assert (circuit.phase, circuit.answered, circuit.statistics()) == ("closed", False, None)
    assert (await paid(answers(reply()), breaker=Breaker(circuit))(request(payer(Budget(tokens=1000))))).text == "ok"


class Second:
    """The second leg of a race."""

    second = True

    def sent(self) -> None:
        raise AssertionError("it was not sent")


@in_virtual_time
async def test_a_second_leg_does_not_wait_for_money_and_ends_no_run_for_want_of_it() -> None:
    purse = Purse(Budget(tokens=WHOLE))
    Claim([purse], Amount(tokens=1), arrival=0, owner=None, wake=lambda: None)
    visit = Payer(purses=(purse,))
    with pytest.raises(CallError) as caught:
        await paid(answers())(replace(request(visit), leg=Second()))
    assert (caught.value.fault, caught.value.type, purse.exhausted, purse.waiting) == ("retry", "budget", False, [])
    assert anyio.current_time() == 0.0


@pytest.mark.parametrize(
    ("fault", "status", "free"),
    [
        ("retry", None, True),
        ("retry", 500, True),
        ("stop", 401, True),
        ("park", 429, True),
        ("fail", 400, True),
        ("fail", 502, False),
        ("fail", None, False),
        ("ambiguous", None, False),
        ("ambiguous", 524, False),
    ],
)
def test_what_surely_cost_nothing(fault: FaultClass, status: int | None, free: bool) -> None:
    assert unpaid(error(fault, status)) is free
