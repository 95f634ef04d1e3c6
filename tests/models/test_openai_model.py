"""The real SDK against a real server: what goes over the wire, and what each answer of it becomes."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import anyio
import pytest

from pipeline.calls.errors import CallError, ModelError
from pipeline.calls.tool import Tool
from pipeline.core.errors import CallsClosed
from pipeline.core.events import TextStreamed
from pipeline.core.state import Message, ToolCall
from pipeline.core.usage import Cost, Usage
from stages.models import OpenAIModel, resolve
from stages.models.opening import OpenChat
from tests.calls.streams import answered, sent
from tests.calls.visits import FakeVisit
from tests.servers.chat import Answer, ChatServer

KEY = "sk-secret-0123456789-tail"


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TEST_KEY", KEY)
    return KEY


def model(server: ChatServer, **options: object) -> OpenAIModel:
    made = resolve("openai/gpt-4o-mini", **{"base_url": server.base_url, "api_key_env": "TEST_KEY", **options})
    assert isinstance(made, OpenAIModel)
    return made


@asynccontextmanager
async def opened(server: ChatServer, **options: object) -> AsyncIterator[OpenChat]:
    async with model(server, **options).open() as chat:
        yield chat


def asked(prompt: str) -> list[Message]:
    return [Message("system", "be brief"), Message("user", prompt)]


async def failure(chat: OpenChat, visit: FakeVisit, prompt: str) -> CallError:
    with pytest.raises(CallError) as caught:
        await chat.call(visit, asked(prompt))
    return caught.value


@pytest.fixture(autouse=True)
def _key(key: str) -> None:
    pass


async def test_an_answer_becomes_a_reply_with_usage_and_price(server: ChatServer) -> None:
    server.script("hi", Answer("hello"))
    visit = FakeVisit()
    async with opened(server) as chat:
        reply = await chat.call(visit, asked("hi"))
    assert reply.text == "hello"
    assert reply.usage == Usage(10, 5, requests=1)
    assert reply.cost is not None
    assert reply.cost.usd == pytest.approx(10 * 0.15e-6 + 5 * 0.6e-6)
    assert reply.cost.source.startswith("genai-prices ")
    assert (reply.finish_reason, reply.model, reply.request_id, reply.attempts) == ("stop", "gpt-4o-mini", "req-1", 1)
    assert visit.charges == [(reply.usage, reply.cost)]


async def test_the_request_holds_what_was_asked_and_nothing_else(server: ChatServer) -> None:
    async with opened(server, temperature=0.5, organization="org-1", headers={"X-Team": "a"}) as chat:
        await chat.call(FakeVisit(), asked("wire"), max_output_tokens=7, stop=["END"], extra_body={"top_k": 3})
    (seen,) = server.seen("wire")
    assert seen.body == {
        "model": "gpt-4o-mini",
        "messages": [{"role": "system", "content": "be brief"}, {"role": "user", "content": "wire"}],
        "temperature": 0.5,
        "max_completion_tokens": 7,
        "stop": ["END"],
        "top_k": 3,
    }
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["openai-organization"] == "org-1"
    assert seen.headers["x-team"] == "a"
    assert "x-penstock-call" not in seen.headers


async def test_the_environment_adds_nothing_to_a_request(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-other")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-env")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj-env")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Env: yes\nAuthorization: Bearer env")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with opened(server) as chat:
        await chat.call(FakeVisit(), asked("env"))
    (seen,) = server.seen("env")
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert not {"openai-organization", "openai-project", "x-env"} & set(seen.headers)


async def test_a_model_without_a_key_sends_none_of_ours(server: ChatServer) -> None:
    async with resolve("ollama/qwen", base_url=server.base_url).open() as chat:
        await chat.call(FakeVisit(), asked("keyless"))
    assert server.seen("keyless")[0].headers["authorization"] == "Bearer none"


async def test_a_missing_key_stops_the_opening_and_names_its_variable(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(ModelError) as caught:
        async with opened(server):
            pass
    assert str(caught.value) == "model openai/gpt-4o-mini: the variable TEST_KEY is not set; put the key into it"


async def test_a_key_with_a_line_end_is_refused_without_being_shown(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY", KEY + "\n")
    with pytest.raises(ModelError) as caught:
        async with opened(server):
            pass
    assert "TEST_KEY" in str(caught.value)
    assert "secret" not in str(caught.value)


async def test_nothing_that_can_be_printed_holds_the_key(server: ChatServer) -> None:
    async with opened(server, headers={"X-Secret": "other-secret"}) as chat:
        shown = repr(chat) + repr(chat.definition) + str(chat)
    assert "secret" not in shown


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_key_is_one_request_and_stops_the_run(server: ChatServer, status: int) -> None:
    server.script("no", Answer(status=status, message=f"Incorrect API key provided: sk-se***tail and {KEY}."))
    visit = FakeVisit()
    async with opened(server) as chat:
        error = await failure(chat, visit, "no")
    assert server.started("no") == 1
    assert (error.stops_run, error.retryable, error.http_status, error.type) == (True, False, status, "key_refused")
    assert error.message == (
        f"openai/gpt-4o-mini: HTTP {status}, the key in TEST_KEY was refused: "
        "Incorrect API key provided: [key] and [key]"
    )
    assert visit.charges == [(Usage(requests=1), None)]


@pytest.mark.parametrize(("status", "code"), [(402, None), (429, "insufficient_quota")])
async def test_an_account_without_money_stops_the_run(server: ChatServer, status: int, code: str | None) -> None:
    server.script("poor", Answer(status=status, code=code))
    async with opened(server) as chat:
        error = await failure(chat, FakeVisit(), "poor")
    assert server.started("poor") == 1
    assert (error.stops_run, error.type) == (True, "no_money")
    assert "the account of the key in TEST_KEY has no credit or quota left" in error.message


async def test_a_bad_request_is_made_once(server: ChatServer) -> None:
    server.script("bad", Answer(status=400, message="no such field"))
    async with opened(server) as chat:
        error = await failure(chat, FakeVisit(), "bad")
    assert server.started("bad") == 1
    assert error.message == "openai/gpt-4o-mini: HTTP 400, no such field"
    assert (error.stops_run, error.retryable, error.request_id, error.attempts) == (False, False, "req-1", 1)


async def test_a_rate_limit_is_waited_for_with_the_slot_given_back(server: ChatServer) -> None:
    server.script("busy", Answer(status=429, headers={"retry-after-ms": "20"}), Answer("late"))
    visit = FakeVisit()
    async with opened(server) as chat:
        start = anyio.current_time()
        reply = await chat.call(visit, asked("busy"))
        assert anyio.current_time() - start >= 0.02
    assert (reply.text, reply.attempts) == ("late", 2)
    assert (visit.given_back, visit.slot_held, visit.admitted, visit.requests) == (1, True, 2, 2)


@pytest.mark.parametrize("status", [408, 409, 500, 502, 503, 529])
async def test_a_passing_fault_is_tried_again(server: ChatServer, status: int) -> None:
    server.script("flaky", Answer(status=status), Answer("well"))
    async with opened(server) as chat:
        reply = await chat.call(FakeVisit(), asked("flaky"))
    assert (reply.text, reply.attempts) == ("well", 2)


async def test_the_last_attempt_says_how_many_there_were(server: ChatServer) -> None:
    server.script("down", Answer(status=500, message="boom"))
    async with opened(server, attempts=2) as chat:
        error = await failure(chat, FakeVisit(), "down")
    assert error.message == "openai/gpt-4o-mini: HTTP 500, boom (after 2 attempts)"
    assert (server.started("down"), error.attempts, error.retryable) == (2, 2, True)


async def test_an_attempt_that_takes_too_long_is_given_up_and_tried_again(server: ChatServer) -> None:
    server.script("slow", Answer(never=True), Answer("fast"))
    async with opened(server, timeout=0.3) as chat:
        reply = await chat.call(FakeVisit(), asked("slow"))
        await server.until(lambda: server.count("slow", "disconnected") == 1)
    assert (reply.text, reply.attempts) == ("fast", 2)


async def test_cancelling_a_call_closes_its_connection(server: ChatServer) -> None:
    server.script("wait", Answer(never=True))
    visit = FakeVisit()
    async with opened(server) as chat:
        async with anyio.create_task_group() as tg:
            tg.start_soon(chat.call, visit, asked("wait"))
            await server.until(lambda: server.started("wait") == 1)
            tg.cancel_scope.cancel()
        await server.until(lambda: server.count("wait", "disconnected") == 1)
        assert visit.charges == [(Usage(requests=1), None)]
        assert (await chat.call(FakeVisit(), asked("next"))).text == "echo: next"


async def test_a_model_closed_under_cancellation_leaves_no_connection(server: ChatServer) -> None:
    with anyio.CancelScope() as scope:
        async with opened(server) as chat:
            await chat.call(FakeVisit(), asked("open"))
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught  # and no ResourceWarning, which would be an error here


@pytest.mark.parametrize(
    ("body", "kind", "requests"),
    [
        (b"<!DOCTYPE html><p>log in", "not_json", 2),
        (b"", "not_json", 2),
        (b'{"choices": [', "truncated_json", 2),
        (b'{"choices": []}', "no_choices", 2),
        (b'{"choices": null}', "bad_envelope", 1),
        (b'{"choices": [{"message": {"content": 5}, "finish_reason": "stop"}]}', "bad_envelope", 1),
        (b'{"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]}', "empty", 2),
        (b'{"choices": [{"message": {"content": null}, "finish_reason": "length"}]}', "no_output", 1),
        (b'{"choices": [{"message": {"content": "x"}, "finish_reason": "content_filter"}]}', "filtered", 1),
        (b'{"choices": null, "error": {"code": 400, "message": "upstream"}}', "bad_request", 1),
    ],
)
async def test_a_200_that_holds_no_answer_is_an_error(
    server: ChatServer, body: bytes, kind: str, requests: int
) -> None:
    server.script("odd", Answer(body=body))
    async with opened(server) as chat:
        error = await failure(chat, FakeVisit(), "odd")
    assert (error.type, server.started("odd")) == (kind, requests)


async def test_an_error_inside_a_200_is_classed_by_its_own_code(server: ChatServer) -> None:
    inner = b'{"choices": null, "error": {"code": 429, "message": "upstream is busy"}}'
    server.script("inner", Answer(body=inner), Answer("then"))
    async with opened(server) as chat:
        assert (await chat.call(FakeVisit(), asked("inner"))).text == "then"


async def test_a_server_that_counts_nothing_gets_an_estimate(server: ChatServer) -> None:
    server.script("12345678", Answer("abcd", usage=None))
    async with opened(server) as chat:
        reply = await chat.call(FakeVisit(), asked("12345678"))
    assert reply.usage == Usage(4, 1, requests=1, estimated=True)


async def test_a_redirect_is_refused_and_the_key_goes_nowhere(server: ChatServer) -> None:
    server.script("moved", Answer(status=307, headers={"location": f"{server.base_url}/chat/completions"}))
    async with opened(server) as chat:
        error = await failure(chat, FakeVisit(), "moved")
    assert (server.started("moved"), error.stops_run, error.type) == (1, True, "redirected")


async def test_an_answer_longer_than_the_cap_is_not_read_to_its_end(server: ChatServer) -> None:
    packed = gzip.compress(b" " * (17 * 1024 * 1024))
    server.script("bomb", Answer(body=packed, headers={"content-encoding": "gzip"}))
    async with opened(server) as chat:
        error = await failure(chat, FakeVisit(), "bomb")
    assert (error.type, server.started("bomb")) == ("too_big", 1)
    assert "longer than 16,777,216 bytes" in error.message


async def test_an_endless_answer_is_left_at_the_cap(server: ChatServer) -> None:
    server.script("endless", Answer(body=b" " * (20 * 1024 * 1024)))
    async with opened(server) as chat:
        error = await failure(chat, FakeVisit(), "endless")
        assert error.type == "too_big"
        assert (await chat.call(FakeVisit(), asked("next"))).text == "echo: next"


async def test_a_packed_answer_that_was_not_asked_for_is_read_all_the_same(server: ChatServer) -> None:
    body = b'{"choices": [{"message": {"content": "unpacked"}, "finish_reason": "stop"}]}'
    server.script("packed", Answer(body=gzip.compress(body), headers={"content-encoding": "gzip"}))
    async with opened(server) as chat:
        assert (await chat.call(FakeVisit(), asked("packed"))).text == "unpacked"


@pytest.mark.parametrize("encoding", ["gzip", "br"])
async def test_an_answer_that_cannot_be_unpacked_fails_once(server: ChatServer, encoding: str) -> None:
    server.script("broken", Answer(body=b"not packed", headers={"content-encoding": encoding}))
    async with opened(server) as chat:
        error = await failure(chat, FakeVisit(), "broken")
    assert (error.type, server.started("broken")) == ("bad_encoding", 1)


async def test_a_server_that_wants_a_key_of_a_model_without_one_says_what_to_set(server: ChatServer) -> None:
    server.script("locked", Answer(status=401, message=""))
    async with resolve("ollama/x", base_url=server.base_url).open() as chat:
        error = await failure(chat, FakeVisit(), "locked")
    assert error.message == "ollama/x: HTTP 401, it wants a key, set api_key_env"


async def test_a_cookie_is_not_kept(server: ChatServer) -> None:
    server.script("cookie", Answer(headers={"set-cookie": "who=first"}))
    async with opened(server) as chat:
        for _ in range(2):
            await chat.call(FakeVisit(), asked("cookie"))
    assert "cookie" not in server.seen("cookie")[1].headers


async def test_a_server_that_is_not_there_is_tried_again_and_named(free_tcp_port: int) -> None:
    base_url = f"http://127.0.0.1:{free_tcp_port}/v1"
    async with resolve("ollama/qwen", base_url=base_url, attempts=2).open() as chat:
        with pytest.raises(CallError) as caught:
            await chat.call(FakeVisit(), asked("anyone?"))
    assert (caught.value.type, caught.value.attempts) == ("connection", 2)
    said = f"no connection to 127.0.0.1:{free_tcp_port}: connection refused; is it running, and is base_url right?"
    assert caught.value.message == f"ollama/qwen: {said} (after 2 attempts)"


async def test_a_closed_run_makes_no_attempt(server: ChatServer) -> None:
    visit = FakeVisit(closed=True)
    async with opened(server) as chat:
        with pytest.raises(CallsClosed):
            await chat.call(visit, asked("late"))
    assert (server.started("late"), visit.charges) == (0, [])


async def test_a_model_never_has_more_attempts_in_flight_than_its_own_limit(server: ChatServer) -> None:
    server.script("many", Answer(delay=0.05))
    async with opened(server, max_concurrency=2) as chat, anyio.create_task_group() as tg:
        for number in range(5):
            tg.start_soon(chat.call, FakeVisit(item_id=str(number)), asked("many"))
        await server.until(lambda: server.started("many") == 2)
        assert server.count("many", "started") <= 2
    assert server.count("many", "finished") == 5


async def test_many_calls_at_once_use_several_small_pools(server: ChatServer) -> None:
    async with opened(server) as chat, anyio.create_task_group() as tg:
        for number in range(80):
            tg.start_soon(chat.call, FakeVisit(item_id=str(number)), asked("crowd"))
    assert server.count("crowd", "finished") == 80


async def test_an_unknown_price_is_said_to_be_unknown(server: ChatServer) -> None:
    async with resolve("vllm/qwen", base_url=server.base_url).open() as chat:
        assert (await chat.call(FakeVisit(), asked("free?"))).cost == Cost(None, "unknown price")


LOOK = Tool("look", "looks something up", {"type": "object", "properties": {"what": {"type": "string"}}})
ROUND = [
    Message("system", "be brief"),
    Message("user", "tools"),
    Message("assistant", "", tool_calls=(ToolCall("a", "look", '{"what": "x"}'),)),
    Message("tool", "found", tool_call_id="a"),
]


async def test_tools_and_what_came_of_them_go_over_the_wire(server: ChatServer) -> None:
    wish = {"id": "b", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    said = {"choices": [{"message": {"content": None, "tool_calls": [wish]}, "finish_reason": "tool_calls"}]}
    server.script("tools", Answer(body=json.dumps(said).encode()))
    async with opened(server) as chat:
        reply = await chat.call(FakeVisit(), ROUND, tools=[LOOK])
    assert (reply.text, reply.finish_reason) == ("", "tool_calls")
    assert reply.tool_calls == (ToolCall("b", "look", "{}"),)
    (seen,) = server.seen("tools")
    call = {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"what": "x"}'}}
    assert cast("list[object]", seen.body["messages"])[2:] == [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "found", "tool_call_id": "a"},
    ]
    told = {"name": "look", "description": "looks something up", "parameters": dict(LOOK.parameters)}
    assert seen.body["tools"] == [{"type": "function", "function": told}]


@pytest.mark.parametrize("stream", [False, True])
async def test_half_a_character_is_sent_as_one_that_every_server_takes(server: ChatServer, stream: bool) -> None:
    """A pair of halves is the character that it stands for, and a backslash of the prompt stays one."""
    whole = "half \ufffd, pair \U0001f600, \\ud800"
    events = Answer(body=sent(*answered("ok")), headers={"content-type": "text/event-stream"})
    server.script(whole, events if stream else Answer("ok"))
    async with opened(server, extra_body={"tags": ("\udfff", "ok")}) as chat:
        reply = await chat.call(FakeVisit(), asked("half \ud800, pair \ud83d\ude00, \\ud800"), stream=stream)
    (seen,) = server.seen(whole)
    assert seen.body["tags"] == ["\ufffd", "ok"]
    assert reply.text == "ok"


@pytest.mark.parametrize(("option", "asked_for"), [(True, {"include_usage": True}), (False, None)])
async def test_a_stream_is_asked_for_and_its_usage_where_that_is_known(
    server: ChatServer, option: bool, asked_for: object
) -> None:
    server.script("pieces", Answer(body=sent(*answered("hello")), headers={"content-type": "text/event-stream"}))
    visit = FakeVisit()
    async with opened(server, stream_usage=option) as chat:
        reply = await chat.call(visit, asked("pieces"), stream=True)
    (seen,) = server.seen("pieces")
    assert (seen.body["stream"], seen.body.get("stream_options")) == (True, asked_for)
    assert seen.headers["accept"] == "text/event-stream"
    assert (reply.text, reply.usage, reply.request_id) == ("hello", Usage(10, 5, requests=1), "req-1")
    assert visit.charges == [(reply.usage, reply.cost)]
    assert [event.text for event in visit.events if isinstance(event, TextStreamed)] == ["he", "llo"]


async def test_an_answer_that_is_not_whole_is_one_unless_the_stage_says_otherwise(server: ChatServer) -> None:
    server.script("long", Answer("half", finish_reason="length"))
    visit = FakeVisit()
    async with opened(server) as chat:
        reply = await chat.call(visit, asked("long"))
        assert (reply.text, reply.flags) == ("half", ("truncated",))
        with pytest.raises(CallError) as caught:
            await chat.call(visit, asked("long"), on_truncated="fail")
    assert (caught.value.type, caught.value.answer) == ("truncated", "half")
    assert visit.charges == [(reply.usage, reply.cost)] * 2
    assert str(caught.value) == "openai/gpt-4o-mini: the answer was cut at the token limit; raise max_output_tokens"
