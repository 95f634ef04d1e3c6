"""Streams as servers write them, for tests."""

from __future__ import annotations

import json

from pipeline.calls.answer import Answer, Terms
from pipeline.calls.envelope import read_answer
from pipeline.calls.sse import Decoder
from pipeline.calls.streamed import ChatPieces

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def sent(*events: object, end: str = "\n") -> bytes:
    """The bytes of events: a text as it is, anything else as JSON."""
    written = [each if isinstance(each, str) else json.dumps(each, ensure_ascii=False) for each in events]
    return "".join(f"data: {each}{end}{end}" for each in written).encode()


def chunk(delta: object = None, finish: object = None, **more: object) -> dict[str, object]:
    choice = {"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "model": "m-1", "choices": [choice], **more}


def says(text: str) -> dict[str, object]:
    return chunk({"content": text})


def counts(usage: object = USAGE) -> dict[str, object]:
    return {"id": "c1", "object": "chat.completion.chunk", "model": "m-1", "choices": [], "usage": usage}


def answered(text: str = "ok", finish: str = "stop") -> tuple[object, ...]:
    """The events of an answer whose text comes in two pieces."""
    half = len(text) // 2
    first = chunk({"role": "assistant", "content": ""}, usage=None)
    return (first, says(text[:half]), says(text[half:]), chunk(finish=finish), counts(), "[DONE]")


def read(stream: bytes, terms: Terms | None = None, part: int = 1 << 30) -> tuple[Answer, list[str]]:
    """Read a stream that comes in parts of so many bytes; return the answer, and the pieces as they are told."""
    terms = terms or Terms()
    decoder, pieces, told = Decoder(1 << 24), ChatPieces(terms.finish_optional), list[str]()
    for start in range(0, len(stream), part):
        told += [text for event in decoder.feed(stream[start : start + part]) if (text := pieces.take(event))]
    rest = None if pieces.over else decoder.end()
    return read_answer(pieces.whole(rest), terms), told
