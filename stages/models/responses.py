"""Writes the body of a request to the Responses API; nothing is stored there, so a run can be replayed anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pipeline.calls.call import Request
from pipeline.calls.errors import CallError
from pipeline.calls.schema import Schema
from pipeline.core.state import Message
from pipeline.core.usage import NO_USAGE
from stages.models.body import SchemaMode, is_strict, told_schema

#: Parameters of a chat completion that the Responses API has no field for.
MISSING: Final = ("stop", "seed")


def responses_body(request: Request, model: str, schema_mode: SchemaMode) -> dict[str, object]:
    """Return the body; what is not asked for is left out, and `extra_body` is laid over the rest last.

    The first system message becomes the instructions. Raises `CallError` for a parameter that this API does not have:
    left out in silence it would change the answers.
    """
    asked = request.parameters
    refused = [name for name in MISSING if getattr(asked, name)]
    if refused:
        said = f"the Responses API has no {' and no '.join(refused)}; leave it out, or ask with api: chat"
        raise CallError(said, fault="fail", type="bad_request", usage=NO_USAGE)  # it was never sent
    messages = request.messages
    body: dict[str, object] = {"model": model, "store": False}
    if messages and messages[0].role == "system":
        body["instructions"], messages = messages[0].content, messages[1:]
    body["input"] = _input(messages)
    optional = {
        "temperature": asked.temperature,
        "max_output_tokens": asked.max_output_tokens,
        "reasoning": None if asked.reasoning is None else {"effort": asked.reasoning},
        "tools": [_tool(each.name, each.description, each.parameters) for each in request.tools] or None,
        "stream": request.stream or None,
    }
    body.update({name: value for name, value in optional.items() if value is not None})
    if request.schema is not None:
        _ask_for_schema(body, request.schema, schema_mode)
    body.update(asked.extra_body)
    return body


def _input(messages: Sequence[Message]) -> list[dict[str, object]]:
    items: list[dict[str, object]] = []
    for message in messages:
        if message.role == "tool":
            said: dict[str, object] = {
                "type": "function_call_output",
                "call_id": message.tool_call_id,
                "output": message.content,
            }
            items.append(said)
            continue
        if message.content or not message.tool_calls:
            items.append({"role": message.role, "content": message.content})
        for call in message.tool_calls:
            wish: dict[str, object] = {"type": "function_call", "call_id": call.id, "name": call.name}
            items.append({**wish, "arguments": call.arguments})
    return items


def _tool(name: str, description: str, parameters: Mapping[str, object]) -> dict[str, object]:
    schema = dict(parameters)
    return {
        "type": "function",
        "name": name,
        "description": description,
        "parameters": schema,
        "strict": is_strict(schema),
    }


def _ask_for_schema(body: dict[str, object], schema: Schema, mode: SchemaMode) -> None:
    wanted: dict[str, object] = {"type": "json_object"}
    if mode == "json_schema":
        plain = dict(schema.json_schema)
        wanted = {"type": "json_schema", "name": schema.name, "strict": is_strict(plain), "schema": plain}
    else:
        role = f"{body['instructions']}\n\n" if "instructions" in body else ""
        body["instructions"] = role + told_schema(schema)
    body["text"] = {"format": wanted}
