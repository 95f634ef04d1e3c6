"""Writes the body of a chat-completions request: from a request of ours to the fields of the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, Literal, TypeAlias, cast

from pipeline.calls.call import Request
from pipeline.calls.schema import Schema
from pipeline.calls.tool import Tool
from pipeline.core.state import Message, ToolCall

TokenField: TypeAlias = Literal["max_completion_tokens", "max_tokens"]

#: json_schema: the server holds the model to the schema. json_object: it holds it to JSON, and a message tells it the
#: schema, for servers that know no more or ignore what they do not know.
SchemaMode: TypeAlias = Literal["json_schema", "json_object"]

_TELL: Final = "Answer with one JSON value that fits this JSON Schema, and with nothing else:\n"


def chat_body(
    request: Request, model: str, token_field: TokenField, schema_mode: SchemaMode, stream_usage: bool = True
) -> dict[str, object]:
    """Return the body; what is not asked for is left out, and `extra_body` is laid over the rest last.

    Names of agents stay at home: several servers refuse a message with a field that they do not know.
    """
    asked = request.parameters
    body: dict[str, object] = {"model": model, "messages": [_message(each) for each in request.messages]}
    optional = {
        "temperature": asked.temperature,
        token_field: asked.max_output_tokens,
        "stop": list(asked.stop) or None,
        "seed": asked.seed,
        "reasoning_effort": asked.reasoning,
    }
    body.update({name: value for name, value in optional.items() if value is not None})
    if request.schema is not None:
        _ask_for_schema(body, request.schema, schema_mode)
    if request.tools:
        body["tools"] = [_tool(each) for each in request.tools]
    if request.stream:
        body["stream"] = True
        if stream_usage:
            body["stream_options"] = {"include_usage": True}
    body.update(asked.extra_body)
    return body


def _message(message: Message) -> dict[str, object]:
    if message.tool_calls:
        calls = [_call(each) for each in message.tool_calls]
        return {"role": message.role, "content": message.content or None, "tool_calls": calls}
    if message.tool_call_id is not None:
        return {"role": message.role, "content": message.content, "tool_call_id": message.tool_call_id}
    return {"role": message.role, "content": message.content}


def _call(call: ToolCall) -> dict[str, object]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _tool(tool: Tool) -> dict[str, object]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}


def _ask_for_schema(body: dict[str, object], schema: Schema, mode: SchemaMode) -> None:
    if mode == "json_schema":
        wanted = {"name": schema.name, "strict": is_strict(schema.json_schema), "schema": dict(schema.json_schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": wanted}
        return
    told = {"role": "system", "content": told_schema(schema)}
    body["messages"] = [told, *cast("list[object]", body["messages"])]
    body["response_format"] = {"type": "json_object"}


def told_schema(schema: Schema) -> str:
    """Return the words that tell a model its schema, where the server does not hold it to one."""
    return _TELL + json.dumps(schema.json_schema, ensure_ascii=False)


def is_strict(json_schema: object) -> bool:
    """Say whether servers would take a schema as `strict`: every object closed, and every key of it required."""
    if isinstance(json_schema, list):
        return all(is_strict(each) for each in cast("list[object]", json_schema))
    if not isinstance(json_schema, Mapping):
        return True
    node = cast("Mapping[str, object]", json_schema)
    properties = node.get("properties")
    if node.get("type") == "object" or isinstance(properties, Mapping):
        names = set(cast("Mapping[str, object]", properties or {}))
        if node.get("additionalProperties") is not False or names != set(cast("list[str]", node.get("required") or [])):
            return False
    return all(is_strict(each) for each in node.values())
