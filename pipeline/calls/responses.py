"""Reads an answer of the Responses API, as strictly as `pipeline.calls.envelope` reads a chat completion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

from pipeline.calls.answer import NO_TERMS, Answer, Said, Terms, answered, kind, wrong
from pipeline.calls.envelope import read_call
from pipeline.calls.server_errors import inner_error
from pipeline.core.state import ToolCall


def read_response(document: Mapping[str, object], terms: Terms = NO_TERMS) -> Answer:
    """Return the parts of an answer. Raises `CallError`, with the usage when the server gave it."""
    return answered(document, _said, terms)


def _said(document: Mapping[str, object]) -> Said:
    status = document.get("status")
    if status == "failed" or document.get("error"):
        raise inner_error(document, "the model failed")
    if status not in ("completed", "incomplete"):
        raise wrong(f"status is {str(status)[:40]!r} where completed was asked for", "bad_envelope")
    texts: list[str] = []
    refusals: list[str] = []
    calls: list[ToolCall] = []
    for item in _objects(document.get("output"), "output"):
        match item.get("type"):
            case "message":
                _read_message(item, texts, refusals)
            case "function_call":
                calls.append(read_call(item.get("call_id"), item.get("name"), item.get("arguments"), len(calls)))
            case str():  # reasoning, and what the provider's own tools did: nothing that was said
                pass
            case other:
                raise wrong(f"the type of an output is {kind(other)} where a text was asked for", "bad_envelope")
    finish = _why_incomplete(document) if status == "incomplete" else "tool_calls" if calls else "stop"
    return Said("".join(texts), "".join(refusals) or None, tuple(calls), finish)


def _read_message(item: Mapping[str, object], texts: list[str], refusals: list[str]) -> None:
    for part in _objects(item.get("content"), "content"):
        name = "refusal" if part.get("type") == "refusal" else "text"
        if part.get("type") not in ("refusal", "output_text"):
            raise wrong(f"a part of the message is of type {str(part.get('type'))[:40]!r}", "bad_envelope")
        value = part.get(name)
        if not isinstance(value, str):
            raise wrong(f"{name} is {kind(value)} where a text was asked for", "bad_envelope")
        (refusals if name == "refusal" else texts).append(value)


def _why_incomplete(document: Mapping[str, object]) -> str:
    details = document.get("incomplete_details")
    reason = cast("Mapping[str, object]", details).get("reason") if isinstance(details, dict) else None
    match reason:
        case "max_output_tokens":
            return "length"
        case "content_filter":
            return "content_filter"
        case _:
            raise wrong(f"the answer is incomplete, and why is {str(reason)[:40]!r}", "bad_envelope")


def _objects(value: object, name: str) -> Iterator[Mapping[str, object]]:
    if not isinstance(value, list):
        raise wrong(f"{name} is {kind(value)} where a list was asked for", "bad_envelope")
    for each in cast("list[object]", value):
        if not isinstance(each, dict):
            raise wrong(f"{name} holds {kind(each)} where an object was asked for", "bad_envelope")
        yield cast("dict[str, object]", each)
