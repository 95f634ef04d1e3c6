"""Budgets of whole runs: never above them at any instant, nearly all of them used, and nothing waits for ever."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import anyio
import pytest

from pipeline import Budget, DefinitionError, Limits, Message, Pipeline, RunStopped, Visit
from pipeline.calls.pricing import Given
from pipeline.core.purse import Amount, Claim, picos
from pipeline.core.run import Run
from pipeline.core.stage import Stage
from pipeline.core.state import ConversationState
from pipeline.core.statistics import Statistics
from stages import agent, first, loop, parallel, resolve, scatter
from stages.models import SimulatedModel
from tests.engine.schedules import in_virtual_time, run_in
from tests.engine.spenders import Books, Spender, watched

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])

CALLS = 1000

FREE = Given.of({"input": 0, "output": 0})


def asks(model: Spender | SimulatedModel, name: str = "ask", concurrency: int = CALLS) -> Stage:
    return agent(name, model=model, prompt="{{ prompt }}", concurrency=concurrency, max_output_tokens=1000)


def one_call_each(model: Spender) -> Stage:
    return asks(model)


def scattered_loops(model: Spender) -> Stage:
    """Ten children an item, two rounds each."""
    rounds = loop(asks(model), until=lambda _: False, max_rounds=2)
    return scatter("dig", split=lambda _: list(range(10)), each=rounds)


def races(model: Spender) -> Stage:
    """Two ask, the slower one is cancelled, and may be charged for."""
    return parallel("race", join=first(1), a=asks(model, "a"), b=asks(model, "b"))


async def spend(pipe: Pipeline, items: int) -> tuple[Statistics, RunStopped | None]:
    """Run `items` and return how it ended."""
    runs: list[Run] = []
    try:
        async with pipe.open([f"prompt {number}" for number in range(items)]) as run:
            runs.append(run)
            async for _ in run.results:
                pass
    except RunStopped as stopped:
        return runs[0].statistics(), stopped
    return runs[0].statistics(), None


@BACKENDS
@pytest.mark.parametrize("limited", ["usd", "tokens", "requests"])
@pytest.mark.parametrize(
    ("build", "items"), [(one_call_each, CALLS), (scattered_loops, CALLS // 20), (races, CALLS // 2)]
)
def test_a_third_of_what_a_thousand_concurrent_calls_cost_is_never_exceeded_and_used_up(
    backend: str, limited: str, build: Callable[[Spender], Stage], items: int
) -> None:
    """With refusals, answers that are lost, answers that never come, and losers that are cancelled."""
    model = Spender(refused=0.05, lost=0.02, hung=0.01)

    async def main() -> None:
        free = replace(model, books=Books())
        await spend(Pipeline(build(free), max_in_flight=CALLS), items)
        whole = free.books
        assert whole.requests >= CALLS
        budget = Budget(
            **{limited: {"usd": whole.usd, "tokens": whole.tokens, "requests": whole.requests}[limited] // 3}
        )
        if limited == "usd":
            budget = Budget(usd=whole.usd / 3)
        paid = replace(model, books=Books())
        pipe = Pipeline(build(paid), max_in_flight=CALLS, budget=budget)
        with watched() as watch:
            now, stopped = await spend(pipe, items)
        assert stopped is not None
        assert (stopped.cause_kind, watch.broken) == ("budget", [])
        assert watch.changes > CALLS // 3
        assert watch.most_waiting > CALLS // 3
        assert watch.unknown > 0
        (purse,) = watch.purses.values()
        assert (purse.claims, purse.waiting, min(purse.reserved), max(purse.reserved)) == ({}, [], 0, 0)
        most, spent = getattr(budget, limited), getattr(now.budgets[0].spent, limited)
        assert 0.95 * most <= spent <= most
        charged = getattr(paid.books, limited)  # by the server: also for what was lost and what was cancelled
        assert charged <= spent * (1 + 1e-12)
        assert now.window.settled["failed"] == 0
        assert now.window.settled["cancelled"] > 0

    run_in(backend, 0, main)


@BACKENDS
def test_the_simulated_model_is_held_to_a_budget_through_all_its_policies(backend: str) -> None:
    model = resolve(
        "sim/default",
        latency="lognormal:1s,0.5",
        tokens="uniform:50..1000",
        errors={"429": 0.03, "disconnect": 0.02, "500": 0.02},
        price={"input": 2.5, "output": 10},
        hedge="p95",
        max_concurrency=100,
    )
    assert isinstance(model, SimulatedModel)

    async def main() -> None:
        whole, _ = await spend(Pipeline(asks(model), max_in_flight=CALLS), 300)
        assert whole.cost is not None
        assert whole.cost.usd is not None
        budget = Budget(usd=whole.cost.usd / 3)
        with watched() as watch:
            now, stopped = await spend(Pipeline(asks(model), max_in_flight=CALLS, budget=budget), 300)
        assert stopped is not None
        assert watch.broken == []
        spent = now.budgets[0].spent.usd
        assert spent is not None
        assert budget.usd is not None
        assert 0.95 * budget.usd <= spent <= budget.usd
        assert now.cost is not None
        assert now.cost.source == "given"

    run_in(backend, 0, main)


@in_virtual_time
async def test_a_run_whose_budget_is_enough_is_not_held_up() -> None:
    now, stopped = await spend(Pipeline(asks(Spender()), budget=Budget(usd=5)), 100)
    assert stopped is None
    assert (now.window.settled["ok"], now.budgets[0].waiting) == (100, 0)
    assert str(now.budgets[0]) == f"${now.cost.usd:.4f}".rstrip("0") + " of $5.00 spent"  # type: ignore[union-attr]


@in_virtual_time
async def test_what_does_not_fit_is_left_as_it_was_and_what_is_in_flight_is_finished() -> None:
    model = Spender(least=1000)  # each costs all that was put aside for it but some input
    now, stopped = await spend(Pipeline(asks(model, concurrency=3), budget=Budget(tokens=5000)), 10)
    assert stopped is not None
    assert (now.window.settled["ok"], now.window.settled["failed"]) == (4, 0)
    assert stopped.reason == (
        "the budget of 5,000 tokens is used up: 4,032 of 5,000 tokens are spent, and stage 'ask' may need 1,296 tokens "
        "for the next attempt of spender; raise it to go on"
    )


@in_virtual_time
async def test_a_budget_that_is_too_small_for_one_call_says_so() -> None:
    model = Spender()
    _, stopped = await spend(Pipeline(asks(model), budget=Budget(usd=0.01)), 10)
    assert stopped is not None
    assert stopped.reason == (
        "the budget of $0.01 is too small for one call: stage 'ask' may need $0.0107 for an attempt of spender; "
        "raise it, or lower max_output_tokens"
    )
    assert model.books.requests == 0


@in_virtual_time
async def test_calls_that_are_free_go_on_under_a_budget_that_is_spent() -> None:
    """No money is put aside for them; a budget of requests counts them all the same."""
    free = Spender(tariff=FREE)
    unlimited = agent("free", model=free, prompt="{{ prompt }}")
    now, stopped = await spend(Pipeline(unlimited, budget=Budget(usd=0)), 20)
    assert (stopped, now.window.settled["ok"]) == (None, 20)
    now, stopped = await spend(Pipeline(unlimited, budget=Budget(requests=12)), 20)
    assert stopped is not None
    assert now.window.settled["ok"] == 12


@BACKENDS
@pytest.mark.parametrize("seed", range(5))
def test_calls_between_attempts_keep_nothing_from_those_that_wait_for_money(backend: str, seed: int) -> None:
    """One slot, one unit of the model, and most attempts refused: whoever waits for one of them has no other."""
    model = Spender(refused=0.6, max_concurrency=1, attempts=8)

    async def main() -> None:
        now, stopped = await spend(Pipeline(asks(model, concurrency=2), budget=Budget(tokens=2600)), 20)
        assert stopped is not None
        assert now.window.settled["ok"] > 0

    run_in(backend, seed, main)


@in_virtual_time
async def test_calls_that_wait_for_money_are_counted_and_a_drain_ends_their_wait() -> None:
    model = Spender(least=1000, most=1000)
    async with Pipeline(asks(model), budget=Budget(tokens=1400)).open(["a", "b", "c"]) as run:
        await anyio.sleep(0.01)
        now = run.statistics()
        assert str(now.budgets[0]) == "0 of 1,400 tokens spent, 1,289 tokens reserved; 2 calls wait for it"
        assert (now.stages[0].slots.borrowed, now.stages[0].slots.sleeping) == (1, 2)  # who waits has no slot
        run.drain("calls")
        assert len([record async for record in run.results]) == 1
    assert run.statistics().window.settled["cancelled"] == 2


class Twofold:
    """Asks once, or for "two" a second time at the same time, which costs nothing and takes longer."""

    name = "twofold"

    def __init__(self, paid: Spender, free: Spender) -> None:
        self.paid, self.free = paid, free

    def resources(self) -> tuple[Spender, ...]:
        return (self.paid, self.free)

    async def process(self, prompt: str, state: ConversationState, visit: Visit) -> str:
        async def ask(model: Spender) -> None:
            await visit.call(model, [Message("user", prompt)], max_output_tokens=1000)

        async with anyio.create_task_group() as tg:
            tg.start_soon(ask, self.paid)
            if prompt == "two":
                tg.start_soon(ask, self.free)
        return prompt


@in_virtual_time
async def test_a_visit_keeps_no_slot_for_a_call_that_waits_for_money_when_its_others_have_ended() -> None:
    """Else it would keep it from the one whose reservation it waits for."""
    pipe = Pipeline(agent(Twofold(Spender(name="paid"), Spender(name="free", tariff=FREE)), concurrency=1))
    async with Limits(Budget(usd=0.015)) as limits:
        assert limits.purse is not None
        other = Claim([limits.purse], Amount(picos(0.015)), arrival=0, owner=None, wake=lambda: None)
        async with pipe.open(["one", "two"], limits=limits) as run:
            await anyio.sleep(0.1)
            other.end()
            assert [record.status async for record in run.results] == ["ok", "ok"]


@in_virtual_time
async def test_runs_that_share_limits_may_share_a_budget() -> None:
    model = Spender()
    ended: list[str] = []

    async def share(limits: Limits, own: Budget | None) -> None:
        try:
            await Pipeline(asks(model), budget=own).collect(["a prompt"] * 50, limits=limits)
        except RunStopped as stopped:
            ended.append(stopped.cause_kind)

    with watched() as watch:
        async with Limits(Budget(tokens=30_000)) as limits, anyio.create_task_group() as tg:
            tg.start_soon(share, limits, None)
            tg.start_soon(share, limits, Budget(usd=5))
    assert (ended, watch.broken) == (["budget", "budget"], [])
    shared = next(purse for purse in watch.purses.values() if purse.budget.tokens)
    assert 28_500 <= shared.spent.tokens <= 30_000


@in_virtual_time
async def test_a_server_that_writes_more_than_it_was_asked_for_is_not_asked_again() -> None:
    """Nobody can hold it to the bound; what it charged for is told, and is the end."""
    model = Spender(least=5000, most=5000)
    now, stopped = await spend(Pipeline(asks(model), budget=Budget(tokens=6000)), 20)
    assert stopped is not None
    assert model.books.requests == 4  # those that were covered when the first of them answered
    assert now.budgets[0].spent.tokens == model.books.tokens
    assert "20,032 of 6,000 tokens are spent" in stopped.reason


# -- what cannot be paid ----------------------------------------------------------------------------------------------

NO_BOUND = "may answer at any length, so a budget cannot hold (give the agent or its model max_output_tokens: 1000)"
NO_PRICE = (
    "has no known price, so a budget in dollars cannot hold "
    "(give it price: {input: 2.5, output: 10}, in dollars a million tokens)"
)


@pytest.mark.parametrize(
    ("model", "budget", "problem"),
    [
        (
            resolve("sim/x", price={"input": 1, "output": 1}),
            Budget(usd=1),
            f"stage 'ask', max_output_tokens: sim/x {NO_BOUND}",
        ),
        (
            resolve("sim/x"),
            Budget(tokens=1),
            f"stage 'ask', max_output_tokens: sim/x {NO_BOUND}",
        ),
        (
            resolve("vllm/qwen", max_output_tokens=10),
            Budget(usd=1),
            f"stage 'ask', model: vllm/qwen {NO_PRICE}",
        ),
    ],
)
def test_what_cannot_be_paid_is_found_before_the_run(model: SimulatedModel, budget: Budget, problem: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        Pipeline(agent("ask", model=model), budget=budget)
    assert str(caught.value) == problem


async def test_what_cannot_be_paid_from_a_shared_budget_is_found_when_the_run_opens() -> None:
    pipe = Pipeline(agent("ask", model="vllm/qwen", max_output_tokens=10))
    async with Limits(Budget(usd=1)) as limits:
        with pytest.raises(DefinitionError, match="stage 'ask', model: vllm/qwen has no known price"):
            await pipe.collect(["a"], limits=limits)


def test_what_can_be_paid_is_taken() -> None:
    priced = resolve("sim/x", price={"input": 1, "output": 1})
    Pipeline(agent("ask", model=priced, max_output_tokens=10), budget=Budget(usd=1, tokens=1000))
    Pipeline(agent("ask", model=replace(priced, parameters=priced.parameters.updated({"max_output_tokens": 5}))))
    Pipeline(agent("ask", model="sim/x"), budget=Budget(usd=1))  # it costs nothing
    Pipeline(agent("ask", model="vllm/qwen"), budget=Budget(requests=1))
    Pipeline(agent("ask", model="openai/gpt-5", max_output_tokens=10), budget=Budget(usd=1))


def test_models_that_are_fallen_back_to_have_to_be_payable_too() -> None:
    cheap = resolve("sim/x", fallback=(resolve("vllm/qwen"),))
    with pytest.raises(DefinitionError, match="stage 'ask', model: vllm/qwen has no known price"):
        Pipeline(agent("ask", model=cheap, max_output_tokens=10), budget=Budget(usd=1))


class OwnAgent:
    """An agent that says nothing of what it asks its model with."""

    name = "own"

    def __init__(self, model: Spender, **params: object) -> None:
        self.model = model
        self.params = params

    def resources(self) -> tuple[Spender]:
        return (self.model,)

    async def process(self, prompt: str, state: ConversationState, visit: Visit) -> str:
        return (await visit.call(self.model, [Message("user", prompt)], **self.params)).text


@in_virtual_time
async def test_an_agent_of_ones_own_that_gives_no_bound_stops_the_run_with_the_same_words() -> None:
    model = Spender()
    with pytest.raises(RunStopped) as caught:
        await Pipeline(agent(OwnAgent(model)), budget=Budget(tokens=10**6)).collect(["a", "b"])
    assert (caught.value.cause_kind, model.books.requests) == ("refused", 0)
    assert caught.value.reason == f"spender {NO_BOUND}"
    records = await Pipeline(agent(OwnAgent(model, max_output_tokens=1000)), budget=Budget(tokens=10**6)).collect(["a"])
    assert [record.status for record in records] == ["ok"]


def test_a_price_that_is_not_known_is_found_in_agents_of_ones_own_too() -> None:
    with pytest.raises(DefinitionError, match="stage 'own', model: vllm/x has no known price"):
        Pipeline(agent(OwnAgent(resolve("vllm/x"))), budget=Budget(usd=1))  # type: ignore[arg-type]
