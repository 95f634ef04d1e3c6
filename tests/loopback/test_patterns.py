"""Pipelines against a real HTTP server on loopback: what it logs is what really happened at the model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline import Pipeline, RunStopped
from pipeline.core.stage import Stage
from stages import agent, first, parallel, quorum, resolve
from stages.models import OpenAIModel
from tests.servers.chat import Answer, ChatServer, chat_server


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server() as running:
        yield running


def model(server: ChatServer, name: str = "gpt-4o-mini", **options: object) -> OpenAIModel:
    made = resolve(f"openai/{name}", base_url=server.base_url, api_key_env="LOOPBACK_KEY", **options)
    assert isinstance(made, OpenAIModel)
    return made


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("LOOPBACK_KEY", "canary-8c1f20e9")
    return "canary-8c1f20e9"


def three(server: ChatServer, **options: object) -> Stage:
    """Three researchers on each prompt, one of them slow and one of them broken where the script says so."""
    asks = model(server, attempts=1)
    branches = {
        name: agent(name, model=asks, prompt=f"{name} {{{{ prompt }}}}", concurrency=16) for name in ("a", "b", "c")
    }
    return parallel("three", branches=branches, **options)  # type: ignore[arg-type]


async def test_answer_usage_and_cost_stand_in_the_record(server: ChatServer) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 200, "prompt_tokens_details": {"cached_tokens": 100}}
    server.script("hello", Answer("good day", usage=usage))
    (record,) = await Pipeline(agent("a", model=model(server))).collect(["hello"])
    assert (record.status, record.output) == ("ok", "good day")
    assert (record.usage.input_tokens, record.usage.output_tokens, record.usage.requests) == (1000, 200, 1)
    assert record.usage.cached_input_tokens == 100
    assert record.cost is not None
    assert record.cost.usd is not None
    assert 0 < record.cost.usd < 0.01
    assert record.cost.source.startswith("genai-prices")


async def test_a_model_without_a_known_price_costs_null_and_not_nothing(server: ChatServer) -> None:
    (record,) = await Pipeline(agent("a", model=model(server, "no-such-model-9"))).collect(["hello"])
    assert record.cost is not None
    assert record.cost.usd is None


async def test_a_failing_branch_is_missing_and_touches_no_other_prompt(
    server: ChatServer,
) -> None:
    server.script("b second", Answer(status=400))
    pipe = Pipeline(three(server, join=quorum(2)), ordered=True)
    records = await pipe.collect(["first", "second", "third"])
    assert [record.status for record in records] == ["ok", "partial", "ok"]
    assert records[1].missing == ("three.b",)
    assert records[1].output == {"a": "echo: a second", "c": "echo: c second"}


async def test_a_branch_that_is_too_late_is_missing_and_cancelled_at_the_model(server: ChatServer) -> None:
    server.script("c second", Answer(never=True))
    pipe = Pipeline(three(server, join=quorum(2), timeout=0.5), ordered=True)
    records = await pipe.collect(["first", "second", "third"])
    assert [record.status for record in records] == ["ok", "partial", "ok"]
    assert records[1].missing == ("three.c",)
    await server.until(lambda: server.count("c second", "disconnected") == 1)


async def test_the_losers_of_any_are_cancelled_at_the_model(server: ChatServer) -> None:
    server.script("a x", Answer(never=True))
    server.script("b x", Answer("the winner", delay=0.05))
    server.script("c x", Answer(never=True))
    (record,) = await Pipeline(three(server, join="any")).collect(["x"])
    assert (record.status, record.output) == ("ok", "the winner")
    await server.until(lambda: server.count("a x", "disconnected") == server.count("c x", "disconnected") == 1)


async def test_with_two_in_flight_and_a_branch_that_never_answers_a_hundred_prompts_finish(server: ChatServer) -> None:
    prompts = [f"p{n}" for n in range(100)]
    for prompt in prompts:
        server.script(f"b {prompt}", Answer(never=True))
    pipe = Pipeline(three(server, join=first(2)), max_in_flight=2)
    async with pipe.open(prompts) as run:
        records = [record async for record in run.results]
    assert [record.status for record in records] == ["ok"] * 100
    assert {tuple(record.outputs["three"]) for record in records} == {("a", "c")}  # type: ignore[arg-type]
    assert run.statistics().window.peak <= pipe.bounds.items == 8
    await server.until(lambda: sum(server.count(f"b {prompt}", "started") for prompt in prompts) == 0)


async def test_a_401_stops_the_run_after_one_call_a_worker_and_names_the_variable(server: ChatServer, key: str) -> None:
    prompts = [f"p{n}" for n in range(200)]
    for prompt in prompts:
        server.script(prompt, Answer(status=401, code="invalid_api_key", message=f"Incorrect API key provided: {key}"))
    pipe = Pipeline(agent("a", model=model(server), concurrency=4))
    records = []
    with pytest.raises(RunStopped) as caught:
        async with pipe.open(prompts) as run:
            records += [record async for record in run.results]
    assert 1 <= len(server.log) <= 4
    assert caught.value.cause_kind == "refused"
    assert "LOOPBACK_KEY" in str(caught.value)
    assert key not in str(caught.value)
    assert 1 <= len(records) <= 4
    assert key not in str([record.standard() for record in records])
    assert run.statistics().window.balanced


async def test_a_missing_key_stops_before_the_first_call_and_names_the_variable(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LOOPBACK_KEY")
    with pytest.raises(Exception, match="LOOPBACK_KEY is not set"):
        await Pipeline(agent("a", model=model(server))).collect(["hello"])
    assert server.log == []


async def test_leaving_early_closes_every_connection(server: ChatServer) -> None:
    prompts = [f"p{n}" for n in range(50)]
    for prompt in prompts[1:]:
        server.script(prompt, Answer(never=True))
    pipe = Pipeline(agent("a", model=model(server, max_concurrency=50), concurrency=50))
    async with pipe.open(prompts) as run:
        async for record in run.results:
            assert record.output == "echo: p0"
            await server.until(lambda: len(server.log) == 50)
            break
    await server.until(lambda: sum(each.state == "disconnected" for each in server.log) == 49)
    window = run.statistics().window
    assert (window.alive, window.in_flight, window.settled["cancelled"]) == (0, 0, 49)
