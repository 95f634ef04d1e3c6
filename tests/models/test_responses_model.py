"""The Responses API through the real SDK: what goes over the wire, and what comes of it."""

from __future__ import annotations

import pytest

from pipeline.calls.errors import CallError
from pipeline.calls.schema import Schema
from pipeline.calls.tool import Tool
from pipeline.core.errors import DefinitionError
from pipeline.core.events import TextStreamed
from pipeline.core.state import Message, ToolCall
from pipeline.core.usage import Usage
from stages.models import OpenAIModel, resolve
from tests.calls.fault_rows import body
from tests.calls.streams import sent
from tests.calls.test_responses import CALL, LAST, events, message, response, text
from tests.calls.visits import FakeVisit
from tests.servers.scripted import ScriptedModel, Sent

GOOD = body(response(message(text("hi"))))
GOOD_STREAM = Sent(parts=(sent(*events(LAST)),), kind="text/event-stream")
HI = [Message("system", "be brief"), Message("user", "hello")]


def model(*script: Sent, **options: object) -> ScriptedModel:
    made = resolve("vllm/m-1", base_url="https://m.test/v1", api="responses", **options)
    assert isinstance(made, OpenAIModel)
    return ScriptedModel(made, script)


async def test_the_request_holds_what_was_asked_and_nothing_is_stored() -> None:
    asked = model(GOOD, temperature=0.5, extra_body={"top_k": 3})
    async with asked.open() as chat:
        reply = await chat.call(FakeVisit(), HI, max_output_tokens=50, reasoning="low")
    assert (reply.text, reply.usage, reply.flags) == ("hi", Usage(10, 7, 4, 2, requests=1), ())
    assert asked.ledger.bodies == [
        {
            "model": "m-1",
            "store": False,
            "instructions": "be brief",
            "input": [{"role": "user", "content": "hello"}],
            "temperature": 0.5,
            "max_output_tokens": 50,
            "reasoning": {"effort": "low"},
            "top_k": 3,
        }
    ]


async def test_tools_and_what_came_of_them_go_over_the_wire() -> None:
    tool = Tool("look", "looks", {"type": "object", "properties": {}, "required": [], "additionalProperties": False})
    said = Message("assistant", "so", tool_calls=(ToolCall("a", "look", "{}"),))
    asked = model(body(response(CALL)))
    async with asked.open() as chat:
        reply = await chat.call(FakeVisit(), [*HI, said, Message("tool", "found", tool_call_id="a")], tools=[tool])
    assert reply.tool_calls == (ToolCall("a", "look", "{}"),)
    (seen,) = asked.ledger.bodies
    assert seen["input"] == [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "so"},
        {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "a", "output": "found"},
    ]
    told = {"name": "look", "description": "looks", "parameters": dict(tool.parameters)}
    assert seen["tools"] == [{"type": "function", **told, "strict": True}]


@pytest.mark.parametrize("mode", ["json_schema", "json_object"])
async def test_a_schema_is_asked_for_as_the_server_knows_it(mode: str) -> None:
    schema = Schema.of({"a": "integer"})
    asked = model(body(response(message(text('{"a": 1}')))), schema_mode=mode)
    async with asked.open() as chat:
        assert (await chat.call(FakeVisit(), HI, schema=schema)).parsed == {"a": 1}
    (seen,) = asked.ledger.bodies
    plain = dict(schema.json_schema)
    if mode == "json_schema":
        wanted = {"type": "json_schema", "name": schema.name, "strict": True, "schema": plain}
        assert (seen["text"], seen["instructions"]) == ({"format": wanted}, "be brief")
    else:
        assert seen["text"] == {"format": {"type": "json_object"}}
        assert str(seen["instructions"]).startswith("be brief\n\nAnswer with one JSON value")


async def test_a_stream_is_told_piece_by_piece() -> None:
    asked, visit = model(GOOD_STREAM), FakeVisit()
    async with asked.open() as chat:
        reply = await chat.call(visit, HI, stream=True)
    assert (reply.text, reply.usage) == ("hi", Usage(10, 7, 4, 2, requests=1))
    assert [event.text for event in visit.events if isinstance(event, TextStreamed)] == ["h", "i"]
    assert asked.ledger.bodies[0]["stream"] is True
    assert asked.ledger.open == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_failure_is_tried_again_on_the_same_api(stream: bool) -> None:
    failed = response(status="failed", error={"code": "server_error", "message": "x"})
    event = {"type": "response.failed", "response": failed}
    bad = Sent(parts=(sent(*events(event)),), kind="text/event-stream") if stream else body(failed)
    asked = model(bad, GOOD_STREAM if stream else GOOD)
    async with asked.open() as chat:
        reply = await chat.call(FakeVisit(), HI, stream=stream)
    assert (reply.text, reply.attempts, len(asked.ledger.bodies)) == ("hi", 2, 2)


async def test_a_parameter_that_this_api_has_not_is_never_left_out_in_silence() -> None:
    asked, visit = model(GOOD), FakeVisit()
    async with asked.open() as chat:
        with pytest.raises(CallError) as caught:
            await chat.call(visit, HI, stop=["END"])
    assert str(caught.value) == "the Responses API has no stop; leave it out, or ask with api: chat"
    assert (asked.ledger.bodies, visit.requests) == ([], 0)


@pytest.mark.parametrize(
    ("use", "options", "text"),
    [
        ("anthropic/claude", {"api": "responses"}, "api: anthropic has no such API as far as is known"),
        ("openai/gpt", {"api": "completions"}, "api: is 'completions' (chat or responses)"),
        ("openai/gpt", {"api": "responses", "seed": 5}, "seed: the Responses API has no seed"),
        ("openai/gpt", {"apis": ("chat",)}, "apis: is not an option of a model"),
    ],
)
def test_an_api_that_a_provider_has_not_is_refused(use: str, options: dict[str, object], text: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        resolve(use, **options)
    assert text in str(caught.value)
