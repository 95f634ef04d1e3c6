"""How the simulated server fails on the wire: plain and streamed, in the process and over HTTP."""

from __future__ import annotations

import json
from typing import Any

import anyio
import httpx2
import pytest

from pipeline.calls.errors import CallError
from pipeline.core.errors import DefinitionError
from pipeline.core.state import Message
from stages.models import SimulatedModel, resolve
from stages.models.simulated_faults import NAMED
from stages.models.simulated_server import SimulatedTransport
from tests.calls.visits import FakeVisit
from tests.engine.schedules import run_in
from tests.models.test_simulated_protocol import chat, client_of, events_of
from tests.servers.simulated import simulated_http

BROKEN = ("disconnect", "disconnect_mid")


@pytest.fixture(params=["process", "http"])
def way(request: pytest.FixtureRequest) -> str:
    return request.param


async def content_of(way: str, fault: str, **more: object) -> tuple[int, str]:
    async with client_of(way, errors={fault: 1.0}, seed=1) as client:
        response = await client.post("/chat/completions", json=chat(**more))
    return response.status_code, response.text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", BROKEN)
async def test_a_connection_is_broken_before_or_in_the_middle_of_an_answer(way: str, fault: str, stream: bool) -> None:
    async with client_of(way, errors={fault: 1.0}) as client:
        request = client.build_request("POST", "/chat/completions", json=chat(stream=stream))
        if fault == "disconnect":
            with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
                await client.send(request)
            return
        with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):  # noqa: PT012 - where is the transport's
            response = await client.send(request, stream=True)
            assert response.status_code == 200
            await response.aread()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["timeout", "stall", "slow_drip"])
async def test_an_answer_that_does_not_come_keeps_its_client_waiting(way: str, fault: str, stream: bool) -> None:
    async with client_of(way, errors={fault: 1.0}) as client:
        with anyio.move_on_after(0.3) as scope:
            await client.post("/chat/completions", json=chat(stream=stream))
        assert scope.cancelled_caught


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_answer_trickles_a_byte_a_second_in_virtual_time(backend: str) -> None:
    async def ask() -> tuple[float, int]:
        transport = SimulatedTransport(SimulatedModel(errors={"slow_drip": 1.0}, latency="5s"))
        async with httpx2.AsyncClient(transport=transport, base_url="http://sim.localhost") as client:
            start = anyio.current_time()
            response = await client.post("/chat/completions", json=chat())
        assert response.json()["model"] == "m"
        return anyio.current_time() - start, len(response.content)

    seconds, length = run_in(backend, 1, ask)
    assert seconds == pytest.approx(5.0 + length - 1)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_stream_takes_as_long_as_a_plain_answer_and_begins_after_a_fifth_of_it(backend: str) -> None:
    async def ask() -> list[float]:
        transport = SimulatedTransport(SimulatedModel(latency="10s", tokens=30))
        times: list[float] = []
        async with httpx2.AsyncClient(transport=transport, base_url="http://sim.localhost") as client:
            start = anyio.current_time()
            request = client.build_request("POST", "/chat/completions", json=chat(stream=True))
            response = await client.send(request, stream=True)
            times += [anyio.current_time() - start for _ in [await response.aread()]]
            assert transport.ledger.finished == 1
            await client.post("/chat/completions", json=chat())
            times.append(anyio.current_time() - start)
        return times

    assert run_in(backend, 1, ask) == [pytest.approx(10.0), pytest.approx(20.0)]


async def test_a_stream_that_is_left_early_is_counted_as_cancelled() -> None:
    transport = SimulatedTransport(SimulatedModel())
    async with httpx2.AsyncClient(transport=transport, base_url="http://sim.localhost") as client:
        request = client.build_request("POST", "/chat/completions", json=chat(stream=True))
        response = await client.send(request, stream=True)
        assert transport.ledger.in_flight == 1
        await response.aclose()
    ledger = transport.ledger
    assert (ledger.cancelled, ledger.finished, ledger.in_flight) == (1, 0, 0)


async def test_a_stream_ends_in_the_middle_as_if_it_were_whole(way: str) -> None:
    status, text = await content_of(way, "truncated_stream", stream=True)
    events = events_of(text)
    assert status == 200
    assert "[DONE]" not in events
    assert all(each["choices"][0]["finish_reason"] is None for each in events)


async def test_an_answer_is_cut_in_its_middle_or_near_its_end(way: str) -> None:
    for fault in ("truncated_stream", "bad_json"):
        _, text = await content_of(way, fault)
        with pytest.raises(json.JSONDecodeError):
            json.loads(text)


async def test_a_stream_has_one_event_that_is_no_json() -> None:
    _, text = await content_of("process", "bad_json", stream=True)
    wrong = 0
    for line in text.split("\n\n"):
        data = line.removeprefix("data: ").strip()
        if data and data != "[DONE]":
            try:
                json.loads(data)
            except json.JSONDecodeError:
                wrong += 1
    assert (wrong, text.endswith("data: [DONE]\n\n")) == (1, True)


async def test_an_upstream_error_stands_inside_a_200() -> None:
    status, text = await content_of("process", "inner_error")
    document = json.loads(text)
    assert (status, document["choices"], document["error"]["code"]) == (200, None, 502)
    events = events_of((await content_of("process", "inner_error", stream=True))[1])
    assert "choices" in events[0]
    assert events[-1] == {"error": document["error"]}


async def test_usage_is_missing_where_it_was_wanted() -> None:
    assert json.loads((await content_of("process", "missing_usage"))[1])["usage"] is None
    _, text = await content_of("process", "missing_usage", stream=True, stream_options={"include_usage": True})
    events = events_of(text)
    assert events[-1] == "[DONE]"
    assert not any("usage" in each for each in events[:-1])


async def test_who_asks_for_a_stream_may_get_a_plain_answer() -> None:
    _, text = await content_of("process", "plain_stream", stream=True)
    assert json.loads(text)["object"] == "chat.completion"


@pytest.mark.parametrize(("fault", "choices"), [("null_choices", None), ("empty_choices", [])])
async def test_there_are_no_choices(fault: str, choices: object) -> None:
    assert json.loads((await content_of("process", fault))[1])["choices"] == choices
    events = events_of((await content_of("process", fault, stream=True))[1])
    assert {json.dumps(each["choices"]) for each in events[:-1]} == {json.dumps(choices)}


@pytest.mark.parametrize(
    ("fault", "delta", "finish"),
    [
        ("refusal", "[simulated] I will not answer that.", "stop"),
        ("filtered", None, "content_filter"),
        ("length", None, "length"),
        ("empty", "", "stop"),
    ],
)
async def test_what_is_said_wrongly_is_streamed_so_too(fault: str, delta: str | None, finish: str) -> None:
    *chunks, last, done = events_of((await content_of("process", fault, stream=True))[1])
    field = "refusal" if fault == "refusal" else "content"
    said = "".join(each["choices"][0]["delta"].get(field) or "" for each in chunks)
    assert (last["choices"][0]["finish_reason"], done) == (finish, "[DONE]")
    assert delta is None or said == delta


async def test_faults_of_what_is_said_come_before_a_tool_call() -> None:
    tools = [{"type": "function", "function": {"name": "x", "parameters": {}}}]
    for fault, finish in (("length", "length"), ("filtered", "content_filter"), ("refusal", "stop"), ("empty", "stop")):
        choice = json.loads((await content_of("process", fault, tools=tools))[1])["choices"][0]
        assert (choice["finish_reason"], "tool_calls" in choice["message"]) == (finish, False)


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("429", 429, "rate_limit_exceeded"),
        ("429:insufficient_quota", 429, "insufficient_quota"),
        ("400:context_length_exceeded", 400, "context_length_exceeded"),
        ("529", 529, "simulated"),
        ("307", 307, "simulated"),
    ],
)
async def test_every_status_can_be_had_with_any_code(way: str, fault: str, status: int, code: str) -> None:
    found, text = await content_of(way, fault)
    assert (found, json.loads(text)["error"]["code"]) == (status, code)


@pytest.mark.parametrize("name", ["200", "999", "429:", "429:no such", "tiemout", "４２９"])
def test_a_name_that_is_no_fault_is_refused(name: str) -> None:
    with pytest.raises(DefinitionError, match="is no fault"):
        SimulatedModel(errors={name: 0.1})


@pytest.mark.parametrize("fault", [*NAMED, "500", "400"])
async def test_the_engine_sees_a_fault_alike_in_the_process_and_over_http(fault: str) -> None:
    """Waits are left out of `slow_drip`, `stall` and `timeout` by a short attempt."""
    short = fault in ("slow_drip", "stall", "timeout")
    options: dict[str, Any] = {"attempts": 1, "timeout": 0.3 if short else 30}
    found: list[object] = []
    with simulated_http(SimulatedModel(errors={fault: 1.0}, seed=1)) as address:
        for model in (
            SimulatedModel(errors={fault: 1.0}, seed=1, **options),
            resolve("vllm/default", base_url=f"{address}/v1", **options),
        ):
            async with model.open() as opened:
                try:
                    reply = await opened.call(FakeVisit(), [Message("user", "why?")])
                    found.append((reply.finish_reason, reply.usage.estimated))
                except CallError as error:
                    found.append((error.type, error.fault, error.http_status))
    assert found[0] == found[1]
