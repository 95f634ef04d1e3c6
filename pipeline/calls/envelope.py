"""Reads a chat-completions answer, and believes nothing of it that is not there.

The SDK's typed models accept wrong types, nulls and HTML pages without a word; here each is an error with a class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, cast

from pipeline.calls.answer import NO_TERMS, Answer, Said, Terms, answered, content_text, kind, wrong
from pipeline.calls.server_errors import inner_error, whole_text
from pipeline.core.state import ToolCall

FINISHED: Final = ("stop", "length", "content_filter", "tool_calls", "function_call")


def read_body(body: bytes) -> Mapping[str, object]:
    """Return the JSON object of a 200. Raises `CallError` for a page, half an object, or anything else."""
    try:
        document: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        cut = body.lstrip()[:1] == b"{"
        what = "JSON that ends early or is broken" if cut else _looks_like(body)
        raise wrong(
            f"the server answered 200 with {what}", "truncated_json" if cut else "not_json", "ambiguous"
        ) from error
    if not isinstance(document, dict):
        raise wrong(f"the server answered 200 with a JSON {type(document).__name__}, not an object", "bad_envelope")
    return cast("dict[str, object]", document)


def read_answer(document: Mapping[str, object], terms: Terms = NO_TERMS) -> Answer:
    """Return the parts of an answer. Raises `CallError`, with the usage when the server gave it."""
    return answered(document, lambda whole: _said(_only_choice(whole), terms), terms)


def read_call(id: object, name: object, arguments: object, place: int) -> ToolCall:
    """Return one call of a tool. Raises `CallError`; an id that is left out is made up, it is only repeated to the
    server."""
    if not isinstance(name, str) or not name:
        raise wrong(f"the name of a tool call is {kind(name)} where a text was asked for", "bad_envelope")
    if not isinstance(arguments, str):
        raise wrong(f"the arguments of a tool call are {kind(arguments)} where a text was asked for", "bad_envelope")
    label = id if isinstance(id, str) and id else f"call_{place}"
    return ToolCall(whole_text(label), whole_text(name), whole_text(arguments))


def _only_choice(document: Mapping[str, object]) -> Mapping[str, object]:
    choices = document.get("choices")
    if isinstance(choices, list):
        found = cast("list[object]", choices)
        if len(found) == 1 and isinstance(found[0], dict):
            return cast("dict[str, object]", found[0])
        if not found and "error" not in document:
            raise wrong("the answer has no choices", "no_choices", "ambiguous")
        if found:
            raise wrong(f"the answer has {len(found)} choices where one object was asked for", "bad_envelope")
    if document.get("error"):
        raise inner_error(document)
    raise wrong(f"choices is {kind(cast('object', choices))} where a list was asked for", "bad_envelope")


def _said(choice: Mapping[str, object], terms: Terms) -> Said:
    """Return what a choice says, its types checked."""
    finish, message = choice.get("finish_reason"), choice.get("message")
    if finish is not None and finish not in FINISHED:
        raise wrong(f"finish_reason is {str(finish)[:40]!r}", "bad_envelope")
    if not isinstance(message, dict):
        raise wrong(f"message is {kind(message)} where an object was asked for", "bad_envelope")
    fields = cast("dict[str, object]", message)
    refusal = fields.get("refusal")
    return Said(
        content_text(fields.get("content")),
        refusal if isinstance(refusal, str) else None,
        _calls(fields.get("tool_calls")) if terms.tools else (),
        "tool_calls" if finish == "function_call" else cast("str | None", finish),
    )


def _calls(found: object) -> tuple[ToolCall, ...]:
    if not found:  # null and the empty list are said by servers that called nothing
        return ()
    if not isinstance(found, list):
        raise wrong(f"tool_calls is {kind(found)} where a list was asked for", "bad_envelope")
    calls: list[ToolCall] = []
    for place, each in enumerate(cast("list[object]", found)):
        if not isinstance(each, dict):
            raise wrong(f"a tool call is {kind(each)} where an object was asked for", "bad_envelope")
        fields = cast("dict[str, object]", each)
        function = fields.get("function")
        inner = cast("dict[str, object]", function) if isinstance(function, dict) else {}
        calls.append(read_call(fields.get("id"), inner.get("name"), inner.get("arguments"), place))
    return tuple(calls)


def _looks_like(body: bytes) -> str:
    start = body.lstrip()[:15].lower()
    if not start:
        return "an empty body"
    return (
        "an HTML page: is base_url right?" if start.startswith((b"<!doctype", b"<html")) else "a body that is no JSON"
    )
