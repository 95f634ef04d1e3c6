"""What is read from an answer, and what is refused."""

from __future__ import annotations

import pytest

from pipeline.calls.answer import Answer, Terms
from pipeline.calls.counts import read_usage
from pipeline.calls.envelope import read_answer, read_body
from pipeline.calls.errors import CallError
from pipeline.calls.parameters import Parameters
from pipeline.calls.server_errors import ServerError, read_error
from pipeline.core.errors import DefinitionError
from pipeline.core.state import ToolCall
from pipeline.core.usage import Usage


def document(message: object, finish: object = "stop", **more: object) -> dict[str, object]:
    return {"choices": [{"message": message, "finish_reason": finish}], **more}


def fault(body: dict[str, object]) -> tuple[str, str]:
    with pytest.raises(CallError) as caught:
        read_answer(body)
    return caught.value.type, caught.value.fault


def test_a_whole_answer_is_read() -> None:
    counts = {
        "prompt_tokens": 10,
        "completion_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 2},
    }
    answer = read_answer(document({"content": "hi"}, model="m-1", usage=counts))
    assert answer == Answer("hi", "stop", "m-1", Usage(10, 7, 4, 2, requests=1), counts=counts)


def test_a_finish_reason_may_be_missing_where_a_server_leaves_it_out() -> None:
    assert read_answer(document({"content": "hi"}, None), Terms(finish_optional=True)).finish_reason is None
    assert fault(document({"content": "hi"}, None)) == ("unfinished", "ambiguous")


def test_what_a_model_thinks_aloud_is_not_its_answer() -> None:
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    assert read_answer(document({"content": parts})).text == "hi"


def test_a_refusal_is_its_text() -> None:
    assert read_answer(document({"content": None, "refusal": "no"})).finish_reason == "refusal"


CALL = {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"x": 1'}}


@pytest.mark.parametrize("finish", ["tool_calls", "stop"])
def test_calls_of_tools_are_read_where_tools_were_offered(finish: str) -> None:
    said = document({"content": None, "tool_calls": [CALL, {**CALL, "id": ""}]}, finish)
    answer = read_answer(said, Terms(tools=True))
    assert answer.tool_calls == (ToolCall("a", "look", '{"x": 1'), ToolCall("call_1", "look", '{"x": 1'))
    assert (answer.text, answer.finish_reason) == ("", "tool_calls")


@pytest.mark.parametrize(
    ("calls", "finish", "expected"),
    [
        ([], "tool_calls", ("bad_envelope", "fail")),
        (None, "tool_calls", ("bad_envelope", "fail")),
        (None, "function_call", ("bad_envelope", "fail")),
        ("look", "tool_calls", ("bad_envelope", "fail")),
        ([5], "tool_calls", ("bad_envelope", "fail")),
        ([{"id": "a"}], "tool_calls", ("bad_envelope", "fail")),
        ([{"function": {"name": "look", "arguments": {}}}], "tool_calls", ("bad_envelope", "fail")),
        ([CALL], "length", ("truncated", "fail")),
        ([], "stop", ("empty", "ambiguous")),
    ],
)
def test_calls_of_tools_that_cannot_be_made_have_a_class(calls: object, finish: str, expected: tuple[str, str]) -> None:
    said = document({"content": None, "tool_calls": calls}, finish)
    with pytest.raises(CallError) as caught:
        read_answer(said, Terms(tools=True))
    assert (caught.value.type, caught.value.fault) == expected


def test_half_characters_are_replaced() -> None:
    body = rb'{"choices":[{"message":{"content":"a\ud83d \ud83d\ude00"},"finish_reason":"stop"}]}'
    assert read_answer(read_body(body)).text == "a� 😀"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, ("bad_envelope", "fail")),
        ({"choices": "x"}, ("bad_envelope", "fail")),
        ({"choices": []}, ("no_choices", "ambiguous")),
        ({"choices": [1]}, ("bad_envelope", "fail")),
        ({"choices": [{}, {}]}, ("bad_envelope", "fail")),
        ({"error": {"code": 503, "message": "x"}}, ("overloaded", "retry")),
        ({"error": "x"}, ("server_error", "retry")),
        (document(None), ("bad_envelope", "fail")),
        (document({"content": ["x"]}), ("bad_envelope", "fail")),
        (document({"content": [{"type": "text"}]}), ("bad_envelope", "fail")),
        (document({"content": [{"type": "image"}]}), ("bad_envelope", "fail")),
        (document({"content": []}), ("empty", "ambiguous")),
        (document({"content": "x"}, "bored"), ("bad_envelope", "fail")),
        (document({"content": "x"}, ["stop"]), ("bad_envelope", "fail")),
        (document({"content": None}, "tool_calls"), ("bad_envelope", "fail")),
        (document({"content": " \n"}), ("empty", "ambiguous")),
        (document({}), ("empty", "ambiguous")),
        (document({"content": ""}, "length"), ("no_output", "fail")),
        (document({"content": "x"}, "content_filter"), ("filtered", "fail")),
    ],
)
def test_what_is_no_answer_has_a_class(body: dict[str, object], expected: tuple[str, str]) -> None:
    assert fault(body) == expected


def test_an_answer_that_was_paid_and_is_wrong_says_what_it_used() -> None:
    counts = {"prompt_tokens": 3, "completion_tokens": 9}
    with pytest.raises(CallError) as caught:
        read_answer(document({"content": ""}, usage=counts))
    assert caught.value.usage == Usage(3, 9, requests=1)


@pytest.mark.parametrize(
    "counts",
    [None, 5, {}, {"prompt_tokens": 1}, {"prompt_tokens": -1, "completion_tokens": 1}]
    + [{"prompt_tokens": 1, "completion_tokens": each} for each in (True, 1.5, "1", float("nan"), 2**60)],
)
def test_counts_that_cannot_be_true_are_not_believed(counts: object) -> None:
    assert read_usage(counts) is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"error": {"code": "c", "type": "t", "message": "m"}}', ServerError("c", "t", "m")),
        (b'{"error": "m"}', ServerError(message="m")),
        (b'[{"error": {"code": 429, "message": "m"}}]', ServerError("429", None, "m")),
        (b'{"object": "error", "message": "m", "code": 400}', ServerError("400", None, "m")),
        (b'{"detail": "m"}', ServerError(message="m")),
        (b'{"object": "error", "message": {"detail": [1]}}', ServerError(message='{"detail": [1]}')),
        (b'{"error": {"code": true, "type": 5, "message": null}}', ServerError("True")),
        (b'{"error": null, "message": "m"}', ServerError(message="m")),
        (b"<html>", ServerError()),
        (b"[]", ServerError()),
        (b"[" * 100_000, ServerError()),
    ],
)
def test_error_bodies_are_read_in_every_shape(body: bytes, expected: ServerError) -> None:
    assert read_error(body) == expected


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"temprature": 1}, "model parameter temprature: is not a parameter of a model (did you mean temperature?)"),
        ({"temperature": "hot"}, "model parameter temperature: is 'hot' (give a number of at least 0, as 0.7)"),
        ({"temperature": True}, "is True (give a number of at least 0, as 0.7)"),
        ({"max_output_tokens": 0}, "is 0 (give a whole number, at least 1)"),
        ({"temperature": float("nan")}, "is nan (give a number of at least 0, as 0.7)"),
        ({"stop": [1]}, "is [1] (give a text or a list of texts)"),
        ({"seed": 1.5}, "is 1.5 (give a whole number)"),
        ({"stop": 5}, "is 5 (give a text or a list of texts)"),
        ({"extra_body": []}, "is [] (give a mapping)"),
    ],
)
def test_a_wrong_parameter_says_what_would_be_right(options: dict[str, object], text: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        Parameters().updated(options)
    assert text in str(caught.value)


def test_parameters_lie_over_each_other() -> None:
    base = Parameters(temperature=0.5, extra_body={"a": 1, "b": 1})
    updated = base.updated({"temperature": None, "seed": 3, "stop": "x", "extra_body": {"b": 2}})
    assert (updated.temperature, updated.seed, updated.stop) == (0.5, 3, ("x",))
    assert dict(updated.extra_body) == {"a": 1, "b": 2}
