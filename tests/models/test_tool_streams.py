"""An agent with tools whose model streams, through either API: the calls come in pieces, the answer is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipeline import Pipeline
from pipeline.core.events import TextStreamed
from pipeline.core.usage import Usage
from stages import agent
from stages.models import OpenAIModel, resolve
from tests.calls.fault_rows import GOODS
from tests.calls.streams import chunk, counts, sent
from tests.servers.scripted import ScriptedModel, Sent

NAME, ARGUMENTS = "double", ('{"number"', ": 21}")
CALL = {"type": "function_call", "call_id": "a", "name": NAME, "arguments": "".join(ARGUMENTS)}
COUNTS = {"input_tokens": 10, "output_tokens": 5}
WISHES = {
    "chat": (
        chunk({"content": "let me see"}),
        chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": NAME, "arguments": ARGUMENTS[0]}}]}),
        chunk({"tool_calls": [{"index": 0, "function": {"arguments": ARGUMENTS[1]}}]}),
        chunk(finish="tool_calls"),
        counts(),
        "[DONE]",
    ),
    "responses": (
        {"type": "response.output_text.delta", "delta": "let me see"},
        {"type": "response.completed", "response": {"status": "completed", "output": [CALL], "usage": COUNTS}},
    ),
}
SENT = {"chat": "messages", "responses": "input"}
ASKED = {"role": "user", "content": "what is twice 21?"}
FUNCTION = {"name": NAME, "arguments": "".join(ARGUMENTS)}
BACK = {
    "chat": [
        ASKED,
        {
            "role": "assistant",
            "content": "let me see",
            "tool_calls": [{"id": "a", "type": "function", "function": FUNCTION}],
        },
        {"role": "tool", "content": "42", "tool_call_id": "a"},
    ],
    "responses": [ASKED, CALL, {"type": "function_call_output", "call_id": "a", "output": "42"}],
}


def doubling() -> tuple[Callable[..., int], list[int]]:
    seen: list[int] = []

    def double(number: int) -> int:
        """Doubles a number."""
        seen.append(number)
        return number * 2

    return double, seen


@pytest.mark.parametrize("api", ["chat", "responses"])
async def test_a_tool_is_called_between_two_streams(api: str) -> None:
    made = resolve("vllm/m-1", base_url="https://m.test/v1", api=api)
    assert isinstance(made, OpenAIModel)
    wish = Sent(parts=(sent(*WISHES[api]),), kind="text/event-stream")
    model = ScriptedModel(made, (wish, GOODS[api, True]))
    tool, seen = doubling()
    told: list[tuple[int, str]] = []

    def listen(event: object) -> None:
        if isinstance(event, TextStreamed):
            told.append((event.ordinal, event.text))

    pipe = Pipeline(agent("ask", model=model, prompt="{{ prompt }}", tools=[tool], stream=True))
    async with pipe.open(["what is twice 21?"], on_event=listen) as run:
        (record,) = [record async for record in run.results]
    assert (record.status, record.output, seen) == ("ok", "ok", [21])
    assert record.usage == Usage(20, 10, requests=2)
    assert [(ordinal, text) for ordinal, text in told if ordinal == 0] == [(0, "let me see")]
    assert "".join(text for ordinal, text in told if ordinal == 1) == "ok"
    assert model.ledger.bodies[1][SENT[api]] == BACK[api]
