"""The simulated model: the same answers everywhere, and everything that a real one may do."""

from __future__ import annotations

import json
from enum import Enum
from typing import Annotated

import anyio
import pytest
from pydantic import BaseModel, Field

from pipeline.calls.errors import CallError
from pipeline.calls.retry import Retry
from pipeline.calls.schema import Schema
from pipeline.core.errors import DefinitionError
from pipeline.core.state import Message
from pipeline.core.usage import Cost, Usage
from stages.models import SimulatedModel, resolve
from tests.calls.visits import FakeVisit


def asked(prompt: str, system: str = "be brief") -> list[Message]:
    return [Message("system", system), Message("user", prompt)]


async def one(model: SimulatedModel, prompt: str = "why?", item: str = "1", **params: object) -> str:
    async with model.open() as chat:
        return (await chat.call(FakeVisit(item_id=item), asked(prompt), **params)).text


async def answers(backend_order: list[str]) -> str:
    model = SimulatedModel(seed=7, latency="uniform:1ms..3ms", errors={"500": 0.2})
    found: dict[str, object] = {}

    async def ask(item: str) -> None:
        visit = FakeVisit(item_id=item)
        reply = await chat.call(visit, asked(f"question {item}"))
        parsed = await chat.call(visit, asked("score it"), schema={"score": "number", "label": {"enum": ["a", "b"]}})
        found[item] = [reply.text, reply.usage.output_tokens, parsed.parsed, visit.requests]

    async with model.open() as chat, anyio.create_task_group() as tg:
        for item in backend_order:
            tg.start_soon(ask, item)
    return json.dumps(found, sort_keys=True)


def test_answers_are_equal_byte_by_byte_on_both_backends_and_in_any_order() -> None:
    items = [str(number) for number in range(12)]
    first = anyio.run(answers, items, backend="asyncio")
    assert anyio.run(answers, items[::-1], backend="trio") == first
    assert '"requests"' not in first


async def test_the_answer_says_that_it_is_simulated_who_speaks_and_what_was_asked() -> None:
    async with SimulatedModel(seed=1).open() as chat:
        reply = await chat.call(FakeVisit(), asked("why is the sky blue?", "You are the planner. Plan."))
    assert reply.text.startswith("[simulated sim/default as planner, take ")
    assert reply.text.endswith("In answer to: why is the sky blue?")
    assert reply.cost == Cost(0.0, "simulated")
    assert reply.usage == Usage(12, -(-len(reply.text) // 4), requests=1)


async def test_seed_item_and_ordinal_each_change_the_answer() -> None:
    async with SimulatedModel(seed=1).open() as chat:
        visit = FakeVisit()
        first, second = [(await chat.call(visit, asked("why?"))).text for _ in range(2)]
    texts = {first, second, await one(SimulatedModel(seed=2)), await one(SimulatedModel(seed=1), item="2")}
    assert len(texts) == 4
    assert await one(SimulatedModel(seed=1)) == first


async def test_the_echo_model_answers_the_prompt_itself() -> None:
    prompt = "Translate: “bonjour”\n\twith “tabs” and 🚰"
    assert await one(SimulatedModel(model="echo"), prompt) == prompt


async def test_a_long_prompt_is_shown_up_to_a_cap() -> None:
    assert (await one(SimulatedModel(), "x" * 2001)).endswith("x" * 2000 + "… (2001 characters)")


async def test_latency_is_waited(anyio_backend: str) -> None:
    start = anyio.current_time()
    await one(SimulatedModel(latency="50ms"))
    assert anyio.current_time() - start >= 0.05


async def test_tokens_set_the_length_of_an_answer() -> None:
    async with SimulatedModel(tokens="uniform:100..120").open() as chat:
        counts = [(await chat.call(FakeVisit(item_id=str(n)), asked("?"))).usage.output_tokens for n in range(5)]
    assert all(100 <= count <= 120 for count in counts)
    assert len(set(counts)) > 1


async def test_an_answer_over_the_token_limit_is_cut_and_says_so() -> None:
    async with SimulatedModel(tokens=500).open() as chat:
        reply = await chat.call(FakeVisit(), asked("?"), max_output_tokens=10)
    assert (len(reply.text), reply.finish_reason, reply.usage.output_tokens) == (40, "length", 10)


async def test_errors_come_in_about_their_share_and_are_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    visit = FakeVisit()
    model = SimulatedModel(errors={"429": "30%", "500": 0.1}, attempts=20)
    monkeypatch.setattr(Retry, "backoff", lambda *asked: 0.0)
    async with model.open() as chat:
        for _ in range(200):
            await chat.call(visit, asked("?"))
        assert chat.ledger.started == visit.requests
    assert 310 <= visit.requests <= 360  # 200 calls of 1 / (1 - 0.4) attempts each: 333


@pytest.mark.parametrize(
    ("fault", "kind", "requests"),
    [
        ("400", "bad_request", 1),
        ("401", "key_refused", 1),
        ("402", "no_money", 1),
        ("500", "server_error", 2),
        ("429", "rate_limited", 2),
        ("disconnect", "disconnected", 2),
        ("html", "not_json", 2),
        ("bad_json", "truncated_json", 2),
        ("null_choices", "bad_envelope", 1),
        ("empty", "empty", 2),
        ("filtered", "filtered", 1),
        ("timeout", "timeout", 2),
    ],
)
async def test_each_fault_looks_as_it_does_from_a_real_server(fault: str, kind: str, requests: int) -> None:
    model = SimulatedModel(errors={fault: "100%"}, attempts=2, timeout=0.05)
    async with model.open() as chat:
        with pytest.raises(CallError) as caught:
            await chat.call(FakeVisit(), asked("?"))
        assert (caught.value.type, chat.ledger.started) == (kind, requests)


async def test_a_refusal_and_a_cut_answer_are_told_apart_from_a_whole_one() -> None:
    async with SimulatedModel(errors={"refusal": 1.0}).open() as chat:
        assert (await chat.call(FakeVisit(), asked("?"))).finish_reason == "refusal"
    async with SimulatedModel(errors={"length": 1.0}).open() as chat:
        assert (await chat.call(FakeVisit(), asked("?"))).finish_reason == "length"


async def test_prompts_can_be_chosen_to_fail_or_to_hang() -> None:
    async with SimulatedModel(fail_when="poison", hang_when="sleep", timeout=0.05, attempts=1).open() as chat:
        for prompt, kind in (("a poison b", "bad_request"), ("go to sleep", "timeout")):
            with pytest.raises(CallError) as caught:
                await chat.call(FakeVisit(), asked(prompt))
            assert caught.value.type == kind
        assert (await chat.call(FakeVisit(), asked("fine"))).finish_reason == "stop"


async def test_a_cancelled_call_is_seen_by_the_server() -> None:
    async with SimulatedModel(latency="1h").open() as chat:
        async with anyio.create_task_group() as tg:
            tg.start_soon(chat.call, FakeVisit(), asked("?"))
            await anyio.wait_all_tasks_blocked()
            assert (chat.ledger.started, chat.ledger.in_flight) == (1, 1)
            tg.cancel_scope.cancel()
        ledger = chat.ledger
        assert (ledger.started, ledger.finished, ledger.cancelled, ledger.in_flight) == (1, 0, 1, 0)


async def test_max_concurrency_bounds_what_is_in_flight() -> None:
    async with SimulatedModel(latency="1ms", max_concurrency=3).open() as chat:
        async with anyio.create_task_group() as tg:
            for number in range(10):
                tg.start_soon(chat.call, FakeVisit(item_id=str(number)), asked("?"))
        assert (chat.ledger.peak, chat.ledger.finished) == (3, 10)


class Kind(Enum):
    prose = "prose"
    code = "code"


class Part(BaseModel):
    title: Annotated[str, Field(min_length=3, max_length=40)]
    weight: Annotated[float, Field(gt=0, le=2)]
    next: Part | None = None


class Plan(BaseModel):
    kind: Kind
    parts: Annotated[list[Part], Field(min_length=2, max_length=5)]
    rounds: Annotated[int, Field(ge=3, lt=6)]
    ready: bool
    note: str | None
    when: str = "now"


async def test_an_answer_fits_a_pydantic_class_with_references_limits_and_recursion() -> None:
    async with SimulatedModel(seed=3).open() as chat:
        for number in range(20):
            reply = await chat.call(FakeVisit(item_id=str(number)), asked("plan it"), schema=Plan)
            assert isinstance(reply.parsed, Plan)
            assert reply.attempts == 1


@pytest.mark.parametrize(
    "written",
    [
        {"questions": ["string"]},
        {"score": "number", "ok": "boolean", "n": "integer", "label": {"enum": ["a", "b"]}, "deep": {"er": ["number"]}},
        {"type": "array", "items": {"type": "integer", "minimum": 5, "multipleOf": 5}, "minItems": 4},
        {"enum": ["x", "y", "z"]},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
        {"type": "object", "properties": {"at": {"type": "string", "format": "date-time"}}, "required": ["at"]},
        {"allOf": [{"properties": {"a": {"const": 1}}, "required": ["a"]}, {"type": "object"}]},
    ],
)
async def test_an_answer_fits_every_form_of_schema(written: dict[str, object]) -> None:
    async with SimulatedModel(seed=5).open() as chat:
        for number in range(10):
            reply = await chat.call(FakeVisit(item_id=str(number)), asked("do it"), schema=written)
            assert reply.parsed == Schema.of(written).validate(reply.text)
            assert reply.attempts == 1


async def test_texts_in_a_structured_answer_show_what_they_answer() -> None:
    async with SimulatedModel().open() as chat:
        reply = await chat.call(FakeVisit(), asked("split the river"), schema={"questions": ["string"]})
    assert isinstance(reply.parsed, dict)
    questions = reply.parsed["questions"]
    assert len(set(questions)) == 3
    assert all(each.startswith("[simulated questions ") and "split the river" in each for each in questions)


async def test_a_class_is_chosen_by_the_seed() -> None:
    schema = {"label": {"enum": ["a", "b", "c"]}}
    async with SimulatedModel(seed=1).open() as chat:
        labels = [(await chat.call(FakeVisit(item_id=str(n)), asked("?"), schema=schema)).text for n in range(30)]
    assert len(set(labels)) == 3


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"latency": "fast"}, "pipeline, latency: cannot read 'fast'"),
        ({"latency": -1}, "pipeline, latency: cannot read '-1.0' (a number that is not negative)"),
        ({"latency": "uniform:2..1"}, "the least is more than the most"),
        ({"errors": {"900": 0.1}}, "pipeline, errors: '900' is no fault"),
        ({"errors": {"429": "3"}}, "pipeline, errors.429: '3' is no share (write 3% or 0.03)"),
        ({"errors": {"429": 0.6, "500": 0.6}}, "the shares are more than 100% together"),
        ({"latencyy": 1}, "pipeline, latencyy: is not an option of a model (did you mean latency?)"),
        ({"attempts": 0}, "pipeline, attempts: is 0 (give a whole number, at least 1)"),
        ({"timeout": "0s"}, "give a time of more than 0, as 30s"),
        ({"seed": "x"}, "pipeline, seed: is 'x' (give a whole number)"),
    ],
)
def test_a_wrong_option_says_where_what_and_what_would_be_right(options: dict[str, object], text: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        resolve("sim/default", **options)
    assert text in str(caught.value)


def test_equal_definitions_are_equal_and_can_be_keys() -> None:
    assert resolve("sim/default", latency="1s") == resolve("sim/default", latency=1.0)
    assert len({resolve("sim/default", seed=1), resolve("sim/default", seed=1), resolve("sim/default", seed=2)}) == 2


async def test_the_same_simulator_without_the_private_header_answers_by_body_and_occurrence() -> None:
    import httpx2

    from stages.models.simulated_server import SimulatedTransport

    async def twice() -> list[bytes]:
        transport = SimulatedTransport(SimulatedModel(seed=4))
        body = {"model": "default", "messages": [{"role": "user", "content": "hi"}]}
        async with httpx2.AsyncClient(transport=transport, base_url="http://sim.localhost") as client:
            return [(await client.post("/chat/completions", json=body)).content for _ in range(2)]

    first = await twice()
    assert first[0] != first[1]
    assert await twice() == first
