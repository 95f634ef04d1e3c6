"""Whatever a server sends: a class of failure or an answer, and never anything else."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from pipeline.calls.answer import Terms
from pipeline.calls.counts import read_usage
from pipeline.calls.envelope import read_answer, read_body
from pipeline.calls.errors import CallError
from pipeline.calls.faults import fault_of_status
from pipeline.calls.responses import read_response
from pipeline.calls.responses_streamed import ResponsePieces
from pipeline.calls.retry_after import retry_after
from pipeline.calls.schema import Schema
from pipeline.calls.secrets import Secrets
from pipeline.calls.server_errors import read_error
from pipeline.calls.sse import SentEvent
from pipeline.calls.streamed import ChatPieces

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    ["choices", "error", "usage", "model", "message", "content", "finish_reason", "refusal", "code"]
)
documents = st.dictionaries(names, st.lists(st.dictionaries(names, json_values), max_size=2) | json_values)


outputs = st.lists(
    st.dictionaries(
        st.sampled_from(["type", "content", "text", "refusal", "name", "call_id", "arguments"]),
        st.sampled_from(["message", "function_call", "output_text", "refusal"]) | json_values,
    ),
    max_size=3,
)
responses = st.fixed_dictionaries(
    {"status": st.sampled_from(["completed", "incomplete", "failed"]) | json_values, "output": outputs | json_values},
    optional={"error": json_values, "usage": json_values, "model": json_values, "incomplete_details": json_values},
)
deltas = st.dictionaries(st.sampled_from(["content", "refusal", "tool_calls", "role"]), json_values)
choices = st.dictionaries(
    st.sampled_from(["index", "delta", "finish_reason", "usage"]), st.none() | deltas | json_values
)
chunks = st.dictionaries(
    st.sampled_from(["choices", "usage", "model", "error"]), st.lists(choices, max_size=2) | json_values
)
events = st.dictionaries(
    st.sampled_from(["type", "delta", "sequence_number", "response", "error", "code"]),
    st.sampled_from(["response.output_text.delta", "response.completed", "error"]) | json_values | responses,
)


@given(responses, st.booleans())
def test_any_response_is_an_answer_or_a_call_error(document: dict[str, object], tools: bool) -> None:
    try:
        text = read_response(document, Terms(tools)).text
    except CallError as error:
        text = error.message
    text.encode()


@given(st.lists(chunks, max_size=4), st.booleans(), st.booleans())
def test_any_chunks_are_an_answer_or_a_call_error(found: list[dict[str, object]], tools: bool, optional: bool) -> None:
    pieces = ChatPieces(optional)
    try:
        told = [pieces.take(SentEvent("", json.dumps(each))) for each in found]
        text = read_answer(pieces.whole(None), Terms(tools, optional)).text
    except CallError as error:
        text, told = error.message, []
    "".join([text, pieces.text, *told]).encode()


@given(st.lists(events, max_size=4))
def test_any_events_are_a_response_or_a_call_error(found: list[dict[str, object]]) -> None:
    pieces = ResponsePieces()
    with suppress(CallError):
        for each in found:
            pieces.take(SentEvent("", json.dumps(each))).encode()
        read_response(pieces.whole(None))
    pieces.text.encode()


@given(documents)
def test_any_document_is_an_answer_or_a_call_error(document: dict[str, object]) -> None:
    try:
        text = read_answer(document).text
    except CallError as error:
        text = error.message
    text.encode()


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_an_object_or_a_call_error(body: bytes) -> None:
    with suppress(CallError):
        assert isinstance(read_body(body), dict)
    read_error(body)


@given(json_values)
def test_any_counts_are_believable_or_none(counts: object) -> None:
    usage = read_usage(counts)
    assert usage is None or (usage.input_tokens >= 0 and usage.output_tokens >= 0)


def dates() -> st.SearchStrategy[str]:
    """Dates as servers write them, each number of any size."""
    number = st.integers(0, 70) | st.integers(-(10**22), 10**22)
    zone = st.sampled_from(["GMT", "UTC", "", "EST"]) | number.map(lambda each: f"{each:+05d}")
    months = st.sampled_from(["Jan", "Feb", "Dec", "Foo"])
    written = "Mon, {:02d} {} {:04d} {:02d}:{:02d}:{:02d} {}".format
    return st.builds(written, number, months, st.integers(0, 9999) | number, number, number, number, zone)


@given(
    st.text(alphabet="0123456789.-+eE naif:,GMT", max_size=60) | dates() | st.text(max_size=60) | st.floats().map(str),
    st.sampled_from(["retry-after", "retry-after-ms"]),
)
def test_any_retry_after_is_a_finite_wait_or_none(text: str, header: str) -> None:
    wait = retry_after({header: text}, datetime.now(UTC))
    assert wait is None or (math.isfinite(wait) and wait > 0)


@given(st.integers(100, 999), st.none() | st.text(max_size=30), st.text(max_size=30))
def test_any_status_has_a_class(status: int, code: str | None, message: str) -> None:
    assert fault_of_status(status, code=code, message=message).type


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_key_never_survives_redaction(before: str, after: str) -> None:
    key = "sk-live-4f9a8b7c6d5e"
    assert key not in Secrets((key,)).line(f"{before}{key}{after}")


scalars = st.sampled_from(["string", "number", "integer", "boolean", "null"])
short_forms = st.dictionaries(
    st.text(st.characters(codec="ascii", categories=("L",)), min_size=1, max_size=5),
    st.recursive(
        scalars | st.fixed_dictionaries({"enum": st.lists(st.text(max_size=4), min_size=1, max_size=3, unique=True)}),
        lambda inner: st.lists(inner, min_size=1, max_size=1),
        max_leaves=4,
    ),
    min_size=1,
    max_size=4,
)


@given(short_forms, st.integers(0, 2**32))
def test_the_simulator_fits_every_short_form(written: dict[str, object], seed: int) -> None:
    from random import Random

    from stages.models.simulated_schema import Conforming

    schema = Schema.of(written)
    value = Conforming(schema.json_schema, "about", Random(seed)).value()
    assert schema.validate(json.dumps(value)) == value
