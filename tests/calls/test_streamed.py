"""A streamed answer is the answer that would have come in one piece, or it is none."""

from __future__ import annotations

import pytest

from pipeline.calls.answer import Answer, Terms
from pipeline.calls.errors import CallError
from pipeline.core.state import ToolCall
from pipeline.core.usage import Usage
from tests.calls.streams import USAGE, answered, chunk, counts, read, says, sent

WHOLE = Answer("ok", "stop", "m-1", Usage(10, 5, requests=1), counts=USAGE)
TOOLS = Terms(tools=True)


def fault(stream: bytes, terms: Terms | None = None) -> tuple[str, str]:
    with pytest.raises(CallError) as caught:
        read(stream, terms)
    return caught.value.type, caught.value.fault


def test_pieces_make_the_answer_and_are_told_as_they_come() -> None:
    assert read(sent(*answered("ok"))) == (WHOLE, ["o", "k"])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_stream_cut_at_any_byte_is_no_answer_until_it_is_whole(end: str) -> None:
    text = "a\u2028b — \u00e9 😀\n" * 20
    stream = sent(*answered(text), end=end)
    finish = len(sent(*answered(text)[:4], end=end))
    usage = finish + len(sent(answered(text)[4], end=end))
    done = usage + len("data: [DONE]")
    ends = {finish, finish - 1, usage, usage - 1} if end == "\r\n" else {finish, usage}  # a CR ends a line by itself
    for cut in range(len(stream) + 1):
        found = outcome(stream[:cut])
        if cut in ends or cut >= done:
            counted = None if cut < usage - 1 else (10, 5)
            assert found == (text, "stop", counted)
        else:
            assert found == ("unfinished", "ambiguous")


def outcome(stream: bytes) -> tuple[object, ...]:
    """What a stream says, as text, finish reason and usage; or type and class of what is wrong with it."""
    try:
        answer, _ = read(stream)
    except CallError as error:
        return error.type, error.fault
    return answer.text, answer.finish_reason, answer.usage and (answer.usage.input_tokens, answer.usage.output_tokens)


def test_a_stream_that_comes_byte_by_byte_is_the_same() -> None:
    stream = sent(*answered("a\u2028b é 😀"))
    assert read(stream, part=1) == read(stream)


def test_two_halves_of_a_character_in_two_chunks_are_joined() -> None:
    pieces = (r'{"choices":[{"delta":{"content":"\ud83d"}}]}', r'{"choices":[{"delta":{"content":"\ude00!"}}]}')
    assert read(sent(*pieces, chunk(finish="stop"))) == (Answer("😀!", "stop", "m-1", None), ["😀!"])
    alone = r'{"choices":[{"delta":{"content":"\ud83d"}}]}'
    assert read(sent(alone, says("!"), chunk(finish="stop"))) == (Answer("�!", "stop", "m-1", None), ["�!"])


@pytest.mark.parametrize(
    "stream",
    [
        sent(*answered()[:4], chunk(usage=USAGE), "[DONE]"),  # a gateway counts in a chunk with an empty delta
        sent(*answered()[:3], chunk(finish="stop", usage=USAGE), "[DONE]"),
        sent(*answered()[:4], chunk({"content": ""}, "stop", usage=USAGE), "[DONE]"),
        sent(*answered()[:4], {**counts(), "choices": None}, "[DONE]"),
        sent({**counts({"prompt_tokens": 10, "completion_tokens": 1})}, *answered()),
        b": OPENROUTER PROCESSING\n\n" + sent(*answered()),
        sent(*answered()).removesuffix(b"\n"),
        sent(*answered()).removesuffix(b"\n\n"),
        sent(*answered()[:-1]),
        sent(*answered(), "not JSON", {"error": "too late"}),
    ],
)
def test_what_servers_write_in_several_ways_is_read_in_each(stream: bytes) -> None:
    assert read(stream)[0] == WHOLE


def test_what_a_model_thinks_aloud_is_not_told() -> None:
    thought = chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]})
    said = chunk({"content": [{"type": "text", "text": "hi"}]})
    assert read(sent(thought, said, chunk(finish="stop"), "[DONE]")) == (Answer("hi", "stop", "m-1", None), ["hi"])


def test_a_refusal_comes_in_pieces_too() -> None:
    stream = sent(chunk({"refusal": "I w"}), chunk({"refusal": "on't"}), chunk(finish="stop"), "[DONE]")
    assert read(stream) == (Answer("I won't", "refusal", "m-1", None), ["I w", "on't"])


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"", ("unfinished", "ambiguous")),
        (sent("[DONE]"), ("unfinished", "ambiguous")),
        (sent(says("a")), ("unfinished", "ambiguous")),
        (sent(says("a"), "[DONE]"), ("unfinished", "ambiguous")),
        (sent(says("a"), chunk(finish="stop")) + b"data: {", ("unfinished", "ambiguous")),
        (sent(says("a"), "{", "[DONE]"), ("broken_stream", "ambiguous")),
        (sent(says("a"), "[1]"), ("bad_envelope", "fail")),
        (sent(says("a"), {"error": {"code": 429, "message": "slow"}}), ("rate_limited", "retry")),
        (sent(says("a"), {"error": {"type": "overloaded_error"}}), ("overloaded", "retry")),
        (sent(says("a"), {"error": {"code": "insufficient_quota"}}), ("no_money", "stop")),
        (sent(says("a"), {"error": {"code": None, "type": "server_error"}}), ("server_error", "retry")),
        (b"event: error\n" + sent({"message": "bad", "code": 400}), ("bad_request", "fail")),
        (sent(chunk(finish="stop")), ("empty", "ambiguous")),
        (sent(chunk(finish="length")), ("no_output", "fail")),
        (sent(says("a"), chunk(finish="content_filter")), ("filtered", "fail")),
        (sent(says("a"), chunk(finish="bored")), ("bad_envelope", "fail")),
        (sent(says("a"), chunk(finish="stop"), says("b")), ("bad_envelope", "fail")),
        (sent(says("a"), chunk(finish="stop"), chunk(finish="length")), ("bad_envelope", "fail")),
        (sent({"choices": [{"index": 1, "delta": {"content": "a"}}]}), ("bad_envelope", "fail")),
        (sent({"choices": [{"index": 0}, {"index": 1}]}), ("bad_envelope", "fail")),
        (sent({"choices": {}}), ("bad_envelope", "fail")),
        (sent({"choices": [1]}), ("bad_envelope", "fail")),
        (sent(chunk([])), ("bad_envelope", "fail")),
        (sent(chunk({"content": 5})), ("bad_envelope", "fail")),
        (sent(chunk({"tool_calls": {"0": 1}})), ("bad_envelope", "fail")),
        (sent(chunk({"tool_calls": [1]})), ("bad_envelope", "fail")),
        (sent(chunk({"tool_calls": [{"index": 2, "id": "a"}]})), ("bad_envelope", "fail")),
        (sent(chunk({"tool_calls": [{"index": 0, "id": "a", "function": 1}]})), ("bad_envelope", "fail")),
        (sent(chunk({"tool_calls": [{"index": 0, "id": "a"}]}), chunk({"tool_calls": [{"index": 0, "id": "b"}]})),
         ("bad_envelope", "fail")),
        (sent(says("a"), chunk(finish="tool_calls")), ("bad_envelope", "fail")),
    ],
)  # fmt: skip
def test_what_is_no_answer_has_a_class(stream: bytes, expected: tuple[str, str]) -> None:
    assert fault(stream) == expected


@pytest.mark.parametrize("stream", [sent(says("a")), sent(says("a"), "[DONE]")])
def test_a_server_that_never_says_why_it_ends_is_believed_when_it_ends_between_events(stream: bytes) -> None:
    terms = Terms(finish_optional=True)
    assert read(stream, terms)[0] == Answer("a", None, "m-1", None)
    assert fault(stream[:-4], terms) == ("unfinished", "ambiguous")
    assert fault(b"", terms) == ("unfinished", "ambiguous")


def piece(index: int | None, id: str | None = None, name: str | None = None, arguments: str = "") -> dict[str, object]:
    call = {"index": index, "id": id, "function": {"name": name, "arguments": arguments}}
    return chunk({"tool_calls": [{key: value for key, value in call.items() if value is not None}]})


def test_tool_calls_are_put_together_by_their_index() -> None:
    pieces = (piece(0, "a", "look", '{"x"'), piece(1, "b", "go"), piece(0, arguments=":1}"), piece(1, arguments="{}"))
    answer, told = read(sent(*pieces, chunk(finish="tool_calls"), "[DONE]"), TOOLS)
    assert (answer.tool_calls, told) == ((ToolCall("a", "look", '{"x":1}'), ToolCall("b", "go", "{}")), [])
    assert (answer.text, answer.finish_reason) == ("", "tool_calls")


def test_tool_calls_without_an_index_are_opened_by_their_id() -> None:
    pieces = (piece(None, "a", "look", "{"), piece(None, arguments="}"), piece(None, "b", "go", "{}"))
    answer, _ = read(sent(*pieces, chunk(finish="stop"), "[DONE]"), TOOLS)
    assert answer.tool_calls == (ToolCall("a", "look", "{}"), ToolCall("b", "go", "{}"))


def test_a_tool_call_that_is_cut_off_is_never_made() -> None:
    stream = sent(piece(0, "a", "look", '{"x": '), chunk(finish="length"), "[DONE]")
    assert fault(stream, TOOLS) == ("truncated", "fail")
