"""Writes an answer as the Responses API does: one document, or the events of a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from stages.models.simulated_answer import Said
from stages.models.simulated_chat import event, inner_error, pieces


def response(answer: Said, fault: str | None) -> dict[str, object]:
    """Return the body of a 200."""
    why = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(answer.finish)
    failed = fault == "inner_error"
    nothing = failed or fault in ("null_choices", "empty_choices")
    return {
        "id": f"resp_{answer.id}",
        "object": "response",
        "created_at": 0,
        "status": "failed" if failed else "incomplete" if why else "completed",
        "error": {"code": "server_error", "message": inner_error()["message"]} if failed else None,
        "incomplete_details": {"reason": why} if why else None,
        "model": answer.model,
        "output": (None if fault == "null_choices" else []) if nothing else [_item(answer)],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": None if fault == "missing_usage" else _usage(answer),
    }


def events(answer: Said, fault: str | None) -> Iterator[bytes]:
    """Return the events of a stream; the last holds the whole response."""
    for number, (name, fields) in enumerate(_events(answer, fault)):
        yield event({"type": name, "sequence_number": number, **fields}, name)


def _events(answer: Said, fault: str | None) -> Iterator[tuple[str, Mapping[str, object]]]:
    whole = response(answer, fault)
    nothing: dict[str, object] = {"status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    begun: dict[str, object] = {"response": {**whole, **nothing}}
    yield "response.created", begun
    yield "response.in_progress", begun
    if fault == "inner_error":
        yield "response.failed", {"response": whole}
        return
    if whole["output"]:
        yield from _item_events(answer)
    yield f"response.{whole['status']}", {"response": whole}


def _item_events(answer: Said) -> Iterator[tuple[str, Mapping[str, object]]]:
    item = _item(answer)
    place: dict[str, object] = {"item_id": item["id"], "output_index": 0}
    within = place if answer.wish is not None else {**place, "content_index": 0}
    kind, field, text = _spoken(answer)
    empty: dict[str, object] = {"arguments": ""} if answer.wish is not None else {"content": []}
    yield "response.output_item.added", {"output_index": 0, "item": {**item, **empty, "status": "in_progress"}}
    if answer.wish is None:
        yield "response.content_part.added", {**within, "part": _part(answer, "")}
    for piece in pieces(text):
        yield f"response.{kind}.delta", {**within, "delta": piece}
    yield f"response.{kind}.done", {**within, field: text}
    if answer.wish is None:
        yield "response.content_part.done", {**within, "part": _part(answer, text)}
    yield "response.output_item.done", {"output_index": 0, "item": item}


def _spoken(answer: Said) -> tuple[str, str, str]:
    """Return what the events of an answer are called, which field holds it, and what it is."""
    if answer.wish is not None:
        return "function_call_arguments", "arguments", answer.wish.arguments
    if answer.refusal is not None:
        return "refusal", "refusal", answer.refusal
    return "output_text", "text", answer.text


def _item(answer: Said) -> dict[str, object]:
    if answer.wish is not None:
        wish = answer.wish
        return {
            "type": "function_call",
            "id": f"fc_{answer.id}",
            "call_id": wish.id,
            "name": wish.name,
            "arguments": wish.arguments,
            "status": "completed",
        }
    whole = answer.finish in ("stop", "tool_calls")
    return {
        "type": "message",
        "id": f"msg_{answer.id}",
        "role": "assistant",
        "status": "completed" if whole else "incomplete",
        "content": [_part(answer, _spoken(answer)[2])],
    }


def _part(answer: Said, text: str) -> dict[str, object]:
    if answer.refusal is not None:
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "text": text, "annotations": []}


def _usage(answer: Said) -> dict[str, object]:
    return {
        "input_tokens": answer.read,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": answer.written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": answer.read + answer.written,
    }
