"""What the simulated server says on the wire: the same in the process and over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import httpx2
import jsonschema
import openai
import pytest

from stages.models import SimulatedModel, simulated_service
from stages.models.simulated_app import MAX_REQUEST
from stages.models.simulated_server import SimulatedTransport
from tests.engine.schedules import run_in
from tests.servers.simulated import simulated_http

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "look_up", "parameters": SCHEMA}}


def chat(prompt: str = "why?", **more: object) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": prompt}], **more}


@asynccontextmanager
async def client_of(way: str, **options: Any) -> AsyncGenerator[httpx2.AsyncClient]:
    """A client of a new server, in the process or over HTTP."""
    definition = SimulatedModel(**options)
    if way == "process":
        transport = SimulatedTransport(definition)
        async with httpx2.AsyncClient(transport=transport, base_url="http://sim.localhost/v1") as client:
            yield client
        return
    with simulated_http(definition) as address:
        async with httpx2.AsyncClient(base_url=f"{address}/v1", trust_env=False) as client:
            yield client


async def answer(way: str, body: Mapping[str, object], path: str = "/chat/completions", **options: Any) -> Any:
    async with client_of(way, **options) as client:
        response = await client.post(path, json=dict(body))
        assert response.status_code == 200, response.text
        return response.json()


def events_of(text: str) -> list[Any]:
    """The data of the events of a stream, in order."""
    found = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    return [json.loads(each) if each != "[DONE]" else each for each in found]


@pytest.fixture(params=["process", "http"])
def way(request: pytest.FixtureRequest) -> str:
    return request.param


async def test_the_same_request_has_the_same_answer_in_the_process_and_over_http() -> None:
    found: list[list[bytes]] = []
    for each in ("process", "http"):
        async with client_of(each, seed=4, tokens="uniform:10..90", errors={"500": 0.5}) as client:
            answers = [await client.post("/chat/completions", json=chat()) for _ in range(4)]
        found.append([response.content for response in answers])
    assert found[0] == found[1]
    assert len(set(found[0])) > 1


async def test_a_stream_says_the_same_as_the_plain_answer_with_usage_if_it_is_wanted(way: str) -> None:
    async with client_of(way, seed=1, tokens=50) as client:
        told = await client.post("/chat/completions", json=chat(stream=True, stream_options={"include_usage": True}))
        bare = await client.post("/chat/completions", json=chat(stream=True))
    assert told.headers["content-type"].startswith("text/event-stream")
    *chunks, last, usage, done = events_of(told.text)
    assert done == "[DONE]"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(each["choices"][0]["delta"]["content"] for each in chunks)
    assert text.startswith("[simulated sim/m, take ")
    assert len(text) == 200
    assert {each["choices"][0]["finish_reason"] for each in chunks} == {None}
    assert last["choices"] == [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 1, "completion_tokens": 50, "total_tokens": 51}
    assert [each["choices"] for each in events_of(bare.text)[:-1] if not each["choices"]] == []


async def test_a_tool_is_called_first_with_arguments_that_fit_and_then_its_answer_is_mentioned(way: str) -> None:
    first = await answer(way, chat(tools=[TOOL]), seed=2)
    choice = first["choices"][0]
    call = choice["message"]["tool_calls"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("tool_calls", None)
    assert call["function"]["name"] == "look_up"
    jsonschema.validate(json.loads(call["function"]["arguments"]), SCHEMA)
    asked: list[object] = [
        {"role": "user", "content": "why?"},
        choice["message"],
        {"role": "tool", "tool_call_id": call["id"], "content": "42 degrees"},
    ]
    second = await answer(way, chat(tools=[TOOL], messages=asked), seed=2)
    assert second["choices"][0]["finish_reason"] == "stop"
    assert second["choices"][0]["message"]["content"].endswith("In answer to: why? The tools said: 42 degrees")


async def test_a_streamed_tool_call_adds_up_to_one() -> None:
    async with client_of("process", seed=2) as client:
        response = await client.post("/chat/completions", json=chat(tools=[TOOL], stream=True))
    *chunks, done = events_of(response.text)
    parts = [part for each in chunks for part in each["choices"][0]["delta"].get("tool_calls", [])]
    assert {part["index"] for part in parts} == {0}
    assert parts[0]["function"]["name"] == "look_up"
    jsonschema.validate(json.loads("".join(part["function"]["arguments"] for part in parts)), SCHEMA)
    assert (chunks[-1]["choices"][0]["finish_reason"], done) == ("tool_calls", "[DONE]")


@pytest.mark.parametrize(
    ("more", "called"),
    [
        ({"tool_choice": "none"}, None),
        ({"tool_choice": "required"}, "look_up"),
        ({"tools": [TOOL, {"function": {"name": "b"}}], "tool_choice": {"function": {"name": "b"}}}, "b"),
        ({"model": "echo"}, None),
    ],
)
async def test_the_client_says_whether_and_which_tool_is_called(more: dict[str, object], called: str | None) -> None:
    message = (await answer("process", chat(**{"tools": [TOOL], **more})))["choices"][0]["message"]
    names = [each["function"]["name"] for each in message.get("tool_calls", [])]
    assert names == ([called] if called else [])


async def test_the_responses_api_answers_with_text_json_and_tool_calls(way: str) -> None:
    plain = await answer(way, {"model": "m", "input": "why?", "instructions": "You are the judge."}, "/responses")
    assert plain["status"] == "completed"
    assert plain["output"][0]["content"][0]["text"].startswith("[simulated sim/m as judge, take ")
    assert plain["usage"]["input_tokens"] == -(-len("why?You are the judge.") // 4)
    form = {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}
    fitting = await answer(way, {"model": "m", "input": "why?", "text": form}, "/responses")
    jsonschema.validate(json.loads(fitting["output"][0]["content"][0]["text"]), SCHEMA)
    cut = await answer(way, {"model": "m", "input": "why?", "max_output_tokens": 2}, "/responses")
    assert (cut["status"], cut["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


async def test_the_responses_api_calls_a_tool_and_reads_its_output() -> None:
    tools = [{"type": "function", **TOOL["function"]}]
    first = await answer("process", {"model": "m", "input": "why?", "tools": tools}, "/responses")
    call = first["output"][0]
    assert (call["type"], call["name"]) == ("function_call", "look_up")
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "why?"}]},
        call,
        {"type": "function_call_output", "call_id": call["call_id"], "output": "42"},
    ]
    second = await answer("process", {"model": "m", "input": items, "tools": tools}, "/responses")
    assert second["output"][0]["content"][0]["text"].endswith("In answer to: why? The tools said: 42")


async def test_streamed_responses_are_numbered_and_end_with_the_whole(way: str) -> None:
    async with client_of(way, seed=3) as client:
        response = await client.post("/responses", json={"model": "m", "input": "why?", "stream": True})
    events = events_of(response.text)
    assert [each["sequence_number"] for each in events] == list(range(len(events)))
    text = "".join(each["delta"] for each in events if each["type"] == "response.output_text.delta")
    assert events[-1]["type"] == "response.completed"
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == text
    assert events[0]["response"]["status"] == "in_progress"


def test_the_sdk_reads_both_apis_plain_and_streamed() -> None:
    with (
        simulated_http(SimulatedModel(seed=1)) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as sdk,
    ):
        assert [each.id for each in sdk.models.list()] == ["default"]
        assert sdk.models.retrieve("any/name").id == "any/name"
        asked: Any = [{"role": "user", "content": "why?"}]
        plain = sdk.chat.completions.create(model="m", messages=asked)
        assert plain.usage is not None
        assert plain.usage.total_tokens == plain.usage.prompt_tokens + plain.usage.completion_tokens
        with sdk.chat.completions.create(model="m", messages=asked, stream=True) as stream:
            pieces = [each.choices[0].delta.content or "" for each in stream]
        assert "".join(pieces).endswith("In answer to: why?")
        assert sdk.responses.create(model="m", input="why?").output_text.endswith("why?")
        with sdk.responses.create(model="m", input="why?", stream=True) as events:
            kinds = [each.type for each in events]
        assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")


@pytest.mark.parametrize(
    ("path", "body", "message", "param"),
    [
        ("/chat/completions", b"{", "the body is not JSON: ", None),
        ("/chat/completions", b"[1]", "the body is no JSON object", None),
        ("/chat/completions", b"\xff", "the body is not JSON: ", None),
        ("/chat/completions", b"[" * 100_000, "the body is not JSON: ", None),
        ("/chat/completions", chat(messages=[]), "messages is not a list with something in it", "messages"),
        ("/chat/completions", chat(messages=[{"role": "king"}]), "messages[0].role is 'king'", "messages[0].role"),
        ("/chat/completions", chat(messages=["hi"]), "messages[0].role is None", "messages[0].role"),
        ("/chat/completions", chat(messages=[{"role": "user", "content": 5}]), "neither a text nor a list", None),
        ("/chat/completions", chat(model=""), "model is missing; any name will do", "model"),
        ("/chat/completions", chat(n=2), "the simulated model gives one choice; leave n out", "n"),
        ("/chat/completions", chat(stream="yes"), "stream is not true or false", "stream"),
        ("/chat/completions", chat(max_tokens=0), "max_tokens is not a whole number of at least 1", "max_tokens"),
        ("/chat/completions", chat(tools=[{"type": "function"}]), "tools[0] is no function with a name", "tools[0]"),
        ("/responses", {"model": "m"}, "input is not a list with something in it", "input"),
        ("/responses", {"model": "m", "input": [{"type": "pie"}]}, "input[0].type is 'pie'", "input[0].type"),
    ],
)
async def test_a_request_that_cannot_be_read_is_refused_as_providers_do(
    path: str, body: object, message: str, param: str | None
) -> None:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with client_of("process") as client:
        response = await client.post(path, content=content)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (400, "invalid_request_error")
    assert message in error["message"]
    assert param is None or error["param"] == param


SCALAR: dict[str, Any] = {"type": "string"}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "minItems": 2**31, "items": SCALAR},
        {"type": "array", "minItems": 400, "items": {"type": "array", "minItems": 400, "items": SCALAR}},
        {
            "$defs": {"a": {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "required": ["a"]}},
            "$ref": "#/$defs/a",
        },
        {"type": "integer", "minimum": 1e400},
        {"type": "number", "minimum": float("-inf")},
        {"type": "array", "minItems": float("nan")},
        {"type": "string", "maxLength": float("inf")},
        {"type": "array", "items": SCALAR, "minItems": "many", "maxItems": -1},
        {"enum": 5, "anyOf": 7, "allOf": "x", "$ref": [], "properties": [], "required": {}},
        {"type": ["string", {}], "anyOf": [5, None]},
        {"type": "string", "minLength": 10**12},
        {"allOf": [{"$ref": "#"}]},
    ],
)
async def test_a_hostile_schema_is_answered_or_refused_and_breaks_nothing(schema: dict[str, Any]) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    content = json.dumps(chat(response_format=form)).encode()
    tool = {"type": "function", "function": {"name": "x", "parameters": schema}}
    async with client_of("process") as client:
        for body in (content, json.dumps(chat(tools=[tool])).encode()):
            response = await client.post("/chat/completions", content=body)
            assert response.status_code in (200, 400)
            assert len(response.content) < 10 * 2**20
        assert (await client.post("/chat/completions", json=chat())).status_code == 200


async def test_half_a_character_is_answered_as_a_whole_one() -> None:
    body = b'{"model": "echo", "messages": [{"role": "user", "content": "a\\ud800b"}]%s}'
    async with client_of("process") as client:
        for more in (b"", b', "stream": true'):
            response = await client.post("/chat/completions", content=body % more)
            assert (response.status_code, "a?b" in response.text) == (200, True)


async def test_only_so_many_bodies_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated_service, "REMEMBERED", 2)
    async with client_of("process") as client:
        first = [(await client.post("/chat/completions", json=chat(prompt))).content for prompt in "abab"]
        await client.post("/chat/completions", json=chat("c"))
        again = [(await client.post("/chat/completions", json=chat(prompt))).content for prompt in "ba"]
    assert len(set(first)) == 4
    assert again[0] not in first
    assert again[1] == first[0]


async def test_parts_of_a_message_are_read_together() -> None:
    parts = [{"type": "text", "text": "why "}, {"type": "image_url", "image_url": {}}, {"type": "text", "text": "so?"}]
    found = await answer("process", chat(model="echo", messages=[{"role": "user", "content": parts}]))
    assert found["choices"][0]["message"]["content"] == "why so?"


async def test_limits_are_announced_and_refusals_say_when_to_come_again(way: str) -> None:
    limits = {"requests_per_minute": 60, "tokens_per_minute": "10k", "window": "token_bucket", "burst": "1s"}
    async with client_of(way, limits=limits) as client:
        first, second = [await client.post("/chat/completions", json=chat()) for _ in range(2)]
    assert first.headers["x-ratelimit-limit-requests"] == "60"
    assert first.headers["x-ratelimit-remaining-requests"] == "0"
    assert int(first.headers["x-ratelimit-remaining-tokens"]) < 167
    assert first.headers["x-ratelimit-reset-requests"] == "1s"
    assert (second.status_code, second.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert second.headers["retry-after"] == "1"
    assert 0 < int(second.headers["retry-after-ms"]) <= 1000


@pytest.mark.parametrize(("charge", "left"), [("used", 974), ("reserved", 600)])
async def test_tokens_are_charged_as_used_or_as_reserved(charge: str, left: int) -> None:
    async with client_of("process", limits={"tokens_per_minute": 1000, "charge": charge}) as client:
        response = await client.post("/chat/completions", json=chat(max_tokens=400))
    assert int(response.headers["x-ratelimit-remaining-tokens"]) == left


async def test_a_refused_body_is_not_counted_as_an_occurrence() -> None:
    async with client_of("process", seed=5, limits={"requests_per_minute": 1}) as client:
        first, refused = [await client.post("/chat/completions", json=chat()) for _ in range(2)]
    async with client_of("process", seed=5) as client:
        second = [(await client.post("/chat/completions", json=chat())).content for _ in range(2)]
    assert (first.content, refused.status_code) == (second[0], 429)
    assert second[0] != second[1]


async def test_an_identity_decides_and_not_the_body() -> None:
    found: list[Any] = []
    async with client_of("process", seed=5) as client:
        for prompt, identity in (("a", "1"), ("a", "1"), ("a", "2")):
            headers = {"x-penstock-call": identity}
            found.append((await client.post("/chat/completions", json=chat(prompt), headers=headers)).content)
    assert found[0] == found[1] != found[2]


async def ledger_of(client: httpx2.AsyncClient, method: str = "GET") -> dict[str, Any]:
    address = str(client.base_url).split("/v1", maxsplit=1)[0]
    return (await client.request(method, f"{address}/ledger")).json()


async def seen_of(client: httpx2.AsyncClient, count: str) -> dict[str, Any]:
    """The ledger as soon as `count` in it is no longer 0."""
    with anyio.fail_after(10):
        while not (seen := await ledger_of(client))[count]:  # noqa: ASYNC110 - it changes in another thread
            await anyio.sleep(0.01)
    return seen


async def test_the_ledger_counts_what_was_asked_and_begins_anew_when_told() -> None:
    async with client_of("http", limits={"requests_per_minute": 3}, tokens=10) as client:
        for _ in range(4):
            await client.post("/chat/completions", json=chat())
        await client.post("/chat/completions", content=b"?")
        seen = await ledger_of(client, "POST")
        assert (seen["started"], seen["finished"], seen["refused"], seen["admitted"]) == (5, 5, 1, 3)
        assert seen["by_status"] == {"200": 3, "400": 1, "429": 1}
        assert (seen["input_tokens"], seen["output_tokens"], seen["charged_tokens"]) == (3, 30, 33)
        assert (seen["peak"], seen["in_flight"], seen["cancelled"], seen["dropped"]) == (1, 0, 0, 0)
        assert seen["span"] > 0
        again = await ledger_of(client)
        assert (again["started"], again["span"], again["by_status"]) == (0, 0.0, {})


async def test_a_ledger_that_begins_anew_keeps_what_is_in_flight_and_counts_who_leaves() -> None:
    async with client_of("http", latency="1h") as client:
        async with anyio.create_task_group() as tg:
            tg.start_soon(partial(client.post, "/chat/completions", json=chat()))
            await seen_of(client, "in_flight")
            await ledger_of(client, "POST")
            seen = await ledger_of(client)
            assert (seen["started"], seen["in_flight"], seen["peak"]) == (1, 1, 1)
            tg.cancel_scope.cancel()
        seen = await seen_of(client, "cancelled")
        assert (seen["started"], seen["finished"], seen["in_flight"]) == (1, 0, 0)


async def test_more_requests_at_once_than_allowed_are_refused(way: str) -> None:
    statuses: list[int] = []
    async with client_of(way, latency="500ms", limits={"max_concurrency": 2}) as client:

        async def ask(number: int) -> None:
            statuses.append((await client.post("/chat/completions", json=chat(str(number)))).status_code)

        async with anyio.create_task_group() as tg:
            for number in range(4):
                tg.start_soon(ask, number)
        assert (await client.post("/chat/completions", json=chat())).status_code == 200
    assert sorted(statuses) == [200, 200, 429, 429]


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nope", 404), ("GET", "/chat/completions", 405)])
async def test_what_is_not_there_is_said_in_the_same_form(method: str, path: str, status: int) -> None:
    async with client_of("http") as client:
        response = await client.request(method, path)
    assert response.status_code == status
    assert response.json()["error"]["message"] == f"no {method} /v1{path} here"


async def test_a_request_that_is_too_long_is_not_read_to_its_end() -> None:
    async def endless() -> AsyncGenerator[bytes]:
        for _ in range(MAX_REQUEST // 2**20 + 1):
            yield b" " * 2**20

    async with client_of("http") as client:
        response = await client.post("/chat/completions", content=endless())
    assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")


@pytest.mark.parametrize("window", ["token_bucket", "sliding", "fixed", "second"])
def test_limits_hold_in_virtual_time_alike_on_both_backends(window: str) -> None:
    async def ask_all() -> tuple[list[float], int, float]:
        limits = {"requests_per_minute": 10, "window": window, **({"burst": "12s"} if window == "token_bucket" else {})}
        transport = SimulatedTransport(SimulatedModel(latency="100ms", limits=limits))
        begun, answered = anyio.current_time(), list[float]()

        async def ask(number: int) -> None:
            while True:
                response = await client.post("/chat/completions", json=chat(str(number)))
                if response.status_code == 200:
                    answered.append(round(anyio.current_time() - begun, 6))
                    return
                await anyio.sleep(int(response.headers["retry-after-ms"]) / 1000)

        async with (
            httpx2.AsyncClient(transport=transport, base_url="http://sim.localhost/v1") as client,
            anyio.create_task_group() as tg,
        ):
            for number in range(22):
                tg.start_soon(ask, number)
        return answered, transport.ledger.refused, transport.ledger.span

    found = [run_in(backend, 3, ask_all) for backend in ("asyncio", "trio")]
    answered, refused, span = found[0]
    assert found[1] == found[0]
    assert (len(answered), refused > 0) == (22, True)
    assert span == pytest.approx({"token_bucket": 120, "sliding": 120, "fixed": 120, "second": 21}[window], abs=0.2)
