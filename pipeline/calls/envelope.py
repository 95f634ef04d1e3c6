"""Reads a chat-completions answer, and believes nothing of it that is not there.

The SDK's typed models accept wrong types, nulls and HTML pages without a word; here each is an error with a class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from pipeline.calls.errors import CallError, FaultClass
from pipeline.calls.faults import fault_of_status
from pipeline.core.usage import Usage

FINISHED: Final = ("stop", "length", "content_filter", "tool_calls", "function_call")


@dataclass(frozen=True, slots=True)
class Answer:
    """The parts of one answer that count."""

    text: str
    finish_reason: str | None
    model: str | None
    usage: Usage | None  #: None when the server counted nothing, or nothing believable


@dataclass(frozen=True, slots=True)
class ServerError:
    """The fields of an error body, in any of the shapes that servers use."""

    code: str | None = None
    type: str | None = None
    message: str = ""


def read_body(body: bytes) -> Mapping[str, object]:
    """Return the JSON object of a 200. Raises `CallError` for a page, half an object, or anything else."""
    try:
        document: object = json.loads(body)
    except (ValueError, RecursionError) as error:
        cut = body.lstrip()[:1] == b"{"
        what = "JSON that ends early or is broken" if cut else _looks_like(body)
        raise _wrong(
            f"the server answered 200 with {what}", "truncated_json" if cut else "not_json", "ambiguous"
        ) from error
    if not isinstance(document, dict):
        raise _wrong(f"the server answered 200 with a JSON {type(document).__name__}, not an object", "bad_envelope")
    return cast("dict[str, object]", document)


def read_answer(document: Mapping[str, object]) -> Answer:
    """Return the parts of an answer. Raises `CallError`, with the usage when the server gave it."""
    usage = read_usage(document.get("usage"))
    try:
        choice = _only_choice(document)
        text, finish = _message(choice, usage)
    except CallError as error:
        error.usage = usage or error.usage
        raise
    model = document.get("model")
    return Answer(whole_text(text), finish, model if isinstance(model, str) else None, usage)


def read_usage(counts: object) -> Usage | None:
    """Return the tokens of one request, or None unless both counts are whole numbers that can be true."""
    given = _mapping(counts)
    read, written = _count(given.get("prompt_tokens")), _count(given.get("completion_tokens"))
    if read is None or written is None:
        return None
    cached = _count(_mapping(given.get("prompt_tokens_details")).get("cached_tokens")) or 0
    reasoning = _count(_mapping(given.get("completion_tokens_details")).get("reasoning_tokens")) or 0
    return Usage(read, written, min(cached, read), min(reasoning, written), requests=1)


def read_error(body: bytes) -> ServerError:
    """Return what an error body says; empty when it says nothing that can be read."""
    try:
        document: object = json.loads(body)
    except (ValueError, RecursionError):
        return ServerError()
    if isinstance(document, list) and document:  # one provider wraps its error in a list
        document = cast("list[object]", document)[0]
    return error_fields(cast("object", document))


def error_fields(document: object) -> ServerError:
    """Return the fields of `{"error": {...}}`, `{"error": "text"}` or a bare `{"message": ...}`."""
    outer = _mapping(document)
    inner = outer.get("error", outer)
    if isinstance(inner, str):
        return ServerError(message=inner)
    fields = _mapping(inner)
    code, kind, message = fields.get("code"), fields.get("type"), fields.get("message")
    return ServerError(
        str(code) if isinstance(code, str | int) else None,
        kind if isinstance(kind, str) else None,
        message if isinstance(message, str) else "",
    )


def whole_text(text: str) -> str:
    """Return `text` with half characters (lone surrogates, which no file can hold) replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join("�" if "\ud800" <= each <= "\udfff" else each for each in text)
    return text


def _only_choice(document: Mapping[str, object]) -> Mapping[str, object]:
    choices = document.get("choices")
    if isinstance(choices, list):
        found = cast("list[object]", choices)
        if len(found) == 1 and isinstance(found[0], dict):
            return cast("dict[str, object]", found[0])
        if not found and "error" not in document:
            raise _wrong("the answer has no choices", "no_choices", "ambiguous")
        if found:
            raise _wrong(f"the answer has {len(found)} choices where one object was asked for", "bad_envelope")
    if document.get("error"):
        raise _inner_error(document)
    raise _wrong(f"choices is {_kind(cast('object', choices))} where a list was asked for", "bad_envelope")


def _inner_error(document: Mapping[str, object]) -> CallError:
    """A gateway that reports its upstream's error under a 200: the inner code is the status that counts."""
    inner = error_fields(document)
    status = int(inner.code) if inner.code and inner.code.isdecimal() and len(inner.code) == 3 else 500
    fault = fault_of_status(status, code=inner.code, error_type=inner.type, message=inner.message)
    return CallError(
        f"the server answered 200 with an error inside: {whole_text(inner.message[:300]) or inner.code}",
        fault=fault.fault,
        type=fault.type,
        http_status=status,
    )


def _message(choice: Mapping[str, object], usage: Usage | None) -> tuple[str, str | None]:
    """Return text and finish reason of a choice; the cases are numbered as they are decided."""
    finish, message = choice.get("finish_reason"), choice.get("message")
    if finish is not None and finish not in FINISHED:  # 1. a word nobody knows
        raise _wrong(f"finish_reason is {str(finish)[:40]!r}", "bad_envelope")
    if not isinstance(message, dict):  # 2. nothing to read
        raise _wrong(f"message is {_kind(message)} where an object was asked for", "bad_envelope")
    fields = cast("dict[str, object]", message)
    content, refusal = fields.get("content"), fields.get("refusal")
    if content is not None and not isinstance(content, str):
        raise _wrong(f"content is {_kind(content)} where a text was asked for", "bad_envelope")
    if finish == "content_filter":  # 3. the provider took the answer away
        raise _wrong("the provider's content filter withheld the answer", "filtered")
    if isinstance(refusal, str) and refusal and not content:  # 4. the model said no, in words
        return refusal, "refusal"
    if finish in ("tool_calls", "function_call"):  # 5. we offer no tools
        raise _wrong("the model called a tool where none was offered", "bad_envelope")
    if not content or not content.strip():  # 6. nothing was said
        raise _silent(cast("str | None", finish), usage)
    return content, cast("str | None", finish)


def _silent(finish: str | None, usage: Usage | None) -> CallError:
    if finish == "length" or (usage and usage.reasoning_tokens and usage.reasoning_tokens == usage.output_tokens):
        return _wrong("the model used all its tokens before it wrote anything; raise max_output_tokens", "no_output")
    return _wrong("the answer is empty", "empty", "ambiguous")


def _wrong(message: str, type: str, fault: FaultClass = "fail") -> CallError:
    return CallError(message, fault=fault, type=type, http_status=200)


def _mapping(value: object) -> Mapping[str, object]:
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def _kind(value: object) -> str:
    return "missing or null" if value is None else f"a {type(value).__name__}"


def _looks_like(body: bytes) -> str:
    start = body.lstrip()[:15].lower()
    if not start:
        return "an empty body"
    return (
        "an HTML page: is base_url right?" if start.startswith((b"<!doctype", b"<html")) else "a body that is no JSON"
    )
