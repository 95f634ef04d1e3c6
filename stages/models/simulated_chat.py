"""Writes an answer as a chat completion: one document, or the pieces of a stream."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from stages.models.simulated_answer import Said
from stages.models.simulated_wire import encoded

DONE: Final = b"data: [DONE]\n\n"
NOTHING: Final[Mapping[str, object]] = {}

#: a word and the blank after it, which is about what a token is
_WORD = re.compile(r"\S+\s*|\s+")


def completion(answer: Said, fault: str | None) -> dict[str, object]:
    """Return the body of a 200."""
    choice = {"index": 0, "message": _message(answer), "finish_reason": answer.finish}
    choices: object = None if fault in ("null_choices", "inner_error") else [] if fault == "empty_choices" else [choice]
    document: dict[str, object] = {
        "id": answer.id,
        "object": "chat.completion",
        "created": 0,
        "model": answer.model,
        "choices": choices,
        "usage": None if fault == "missing_usage" else usage(answer),
    }
    return {**document, "error": inner_error()} if fault == "inner_error" else document


def chunks(answer: Said, fault: str | None, include_usage: bool) -> Iterator[bytes]:
    """Return the events of a stream, `[DONE]` included."""
    head = {"id": answer.id, "object": "chat.completion.chunk", "created": 0, "model": answer.model}
    deltas: list[Mapping[str, object]] = [{"role": "assistant", "content": ""}, *_deltas(answer)]
    for number, delta in enumerate(deltas):
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        choices: object = None if fault == "null_choices" else [] if fault == "empty_choices" else [choice]
        yield event({**head, "choices": choices})
        if fault == "inner_error" and number * 2 >= len(deltas) - 1:
            yield event({"error": inner_error()})
            return
    if fault not in ("null_choices", "empty_choices"):
        last: dict[str, object] = {"index": 0, "delta": NOTHING, "finish_reason": answer.finish}
        yield event({**head, "choices": [last]})
    if include_usage and fault != "missing_usage":
        yield event({**head, "choices": [], "usage": usage(answer)})
    yield DONE


def usage(answer: Said) -> dict[str, object]:
    return {
        "prompt_tokens": answer.read,
        "completion_tokens": answer.written,
        "total_tokens": answer.read + answer.written,
    }


def pieces(text: str) -> Sequence[str]:
    """Return a text cut into words, which together are the text."""
    return _WORD.findall(text)


def event(data: object, name: str | None = None) -> bytes:
    """Return one server-sent event."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: ".encode() + encoded(data) + b"\n\n"


def inner_error() -> dict[str, object]:
    return {"code": 502, "type": "upstream_error", "message": "the simulated upstream had an error"}


def _message(answer: Said) -> dict[str, object]:
    if answer.refusal is not None:
        return {"role": "assistant", "content": None, "refusal": answer.refusal}
    if answer.wish is None:
        return {"role": "assistant", "content": answer.text}
    function = {"name": answer.wish.name, "arguments": answer.wish.arguments}
    call = {"id": answer.wish.id, "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _deltas(answer: Said) -> Iterator[Mapping[str, object]]:
    if answer.refusal is not None:
        yield from ({"refusal": piece} for piece in pieces(answer.refusal))
    elif answer.wish is None:
        yield from ({"content": piece} for piece in pieces(answer.text))
    else:
        function = {"name": answer.wish.name, "arguments": ""}
        yield {"tool_calls": [{"index": 0, "id": answer.wish.id, "type": "function", "function": function}]}
        for piece in pieces(answer.wish.arguments):
            yield {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
