"""What is read from an answer of the Responses API, plain and streamed, and what is refused."""

from __future__ import annotations

import pytest

from pipeline.calls.answer import Answer, Terms
from pipeline.calls.errors import CallError
from pipeline.calls.responses import read_response
from pipeline.calls.responses_streamed import ResponsePieces
from pipeline.calls.sse import Decoder
from pipeline.core.state import ToolCall
from pipeline.core.usage import Usage
from tests.calls.streams import sent

COUNTS = {
    "input_tokens": 10,
    "output_tokens": 7,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens_details": {"reasoning_tokens": 2},
}


def message(*parts: object) -> dict[str, object]:
    return {"type": "message", "role": "assistant", "content": list(parts)}


def text(said: object) -> dict[str, object]:
    return {"type": "output_text", "text": said, "annotations": []}


def response(*output: object, status: object = "completed", **more: object) -> dict[str, object]:
    return {"object": "response", "status": status, "model": "m-1", "output": list(output), "usage": COUNTS, **more}


CALL = {"type": "function_call", "call_id": "a", "name": "look", "arguments": "{}"}
WHOLE = Answer("hi", "stop", "m-1", Usage(10, 7, 4, 2, requests=1), counts=COUNTS)


def test_a_whole_answer_is_read() -> None:
    assert read_response(response({"type": "reasoning", "summary": []}, message(text("h"), text("i")))) == WHOLE


def test_an_answer_that_is_cut_says_so() -> None:
    cut = response(message(text("hi")), status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    assert read_response(cut).finish_reason == "length"


def test_a_refusal_is_its_text() -> None:
    answer = read_response(response(message({"type": "refusal", "refusal": "no"})))
    assert (answer.text, answer.finish_reason) == ("no", "refusal")


def test_a_call_of_a_tool_is_read_where_tools_were_offered() -> None:
    answer = read_response(response(message(text("so")), CALL), Terms(tools=True))
    assert (answer.text, answer.finish_reason, answer.tool_calls) == (
        "so",
        "tool_calls",
        (ToolCall("a", "look", "{}"),),
    )


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({}, ("bad_envelope", "fail")),
        (response(status="queued"), ("bad_envelope", "fail")),
        (response(status=None), ("bad_envelope", "fail")),
        (response(), ("empty", "ambiguous")),
        (response(output=None), ("bad_envelope", "fail")),
        (response(5), ("bad_envelope", "fail")),
        (response({"type": 5}), ("bad_envelope", "fail")),
        (response(message(5)), ("bad_envelope", "fail")),
        (response(message({"type": "picture"})), ("bad_envelope", "fail")),
        (response(message(text(None))), ("bad_envelope", "fail")),
        (response(CALL), ("bad_envelope", "fail")),
        (response({**CALL, "name": ""}), ("bad_envelope", "fail")),
        (response({**CALL, "arguments": {}}), ("bad_envelope", "fail")),
        (response(status="incomplete"), ("bad_envelope", "fail")),
        (response(status="incomplete", incomplete_details={"reason": "content_filter"}), ("filtered", "fail")),
        (response(status="incomplete", incomplete_details={"reason": "max_output_tokens"}), ("no_output", "fail")),
        (response(status="failed", error={"code": "server_error", "message": "x"}), ("server_error", "retry")),
        (response(status="failed", error={"code": "rate_limit_exceeded"}), ("rate_limited", "retry")),
        (response(status="failed", error=None), ("server_error", "retry")),
    ],
)
def test_what_is_no_answer_has_a_class(document: dict[str, object], expected: tuple[str, str]) -> None:
    with pytest.raises(CallError) as caught:
        read_response(document)
    assert (caught.value.type, caught.value.fault) == expected


def events(*tail: object) -> tuple[object, ...]:
    first = {"type": "response.created", "response": response(status="in_progress")}
    pieces = [{"type": "response.output_text.delta", "delta": each} for each in ("h", "i")]
    numbered = [first, *pieces, *tail]
    return tuple({"sequence_number": n, **each} for n, each in enumerate(numbered) if isinstance(each, dict))


def read(stream: bytes) -> tuple[Answer, list[str]]:
    decoder, pieces = Decoder(1 << 20), ResponsePieces()
    told = [said for event in decoder.feed(stream) if (said := pieces.take(event))]
    return read_response(pieces.whole(None if pieces.over else decoder.end())), told


LAST = {"type": "response.completed", "response": response(message(text("hi")))}


def test_the_last_event_of_a_stream_is_the_answer() -> None:
    assert read(sent(*events(LAST))) == (WHOLE, ["h", "i"])
    assert read(sent(*events(LAST), "[DONE]", "anything")) == (WHOLE, ["h", "i"])


def test_a_stream_cut_at_any_byte_is_no_answer_until_it_is_whole() -> None:
    stream = sent(*events(LAST))
    for cut in range(len(stream) - 1):
        with pytest.raises(CallError) as caught:
            read(stream[:cut])
        assert (caught.value.type, caught.value.fault) == ("unfinished", "ambiguous")


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (sent(*events({"type": "error", "code": "server_error", "message": "x"})), ("server_error", "retry")),
        (sent(*events({"type": "error", "error": {"code": "429"}})), ("rate_limited", "retry")),
        (sent(*events({"type": "response.failed", "response": response(status="failed", error={"code": "x"})})),
         ("server_error", "retry")),
        (sent(*events(LAST)[:2], *events(LAST)[1:]), ("bad_envelope", "fail")),
        (sent(*events({"type": "response.completed", "response": None})), ("bad_envelope", "fail")),
        (sent(*events({"type": "response.output_text.delta", "delta": None})), ("bad_envelope", "fail")),
        (sent(*events(), "{"), ("broken_stream", "ambiguous")),
    ],
)  # fmt: skip
def test_a_stream_that_is_wrong_has_a_class(stream: bytes, expected: tuple[str, str]) -> None:
    with pytest.raises(CallError) as caught:
        read(stream)
    assert (caught.value.type, caught.value.fault) == expected
