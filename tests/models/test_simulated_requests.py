"""Whatever bytes a client sends, the simulated server answers or refuses them, and keeps its books."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stages.models import SimulatedModel
from stages.models.simulated_gate import Gate
from stages.models.simulated_limits import ServerLimits
from stages.models.simulated_service import SimulatedServer

SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=4)
WORDS = st.sampled_from(
    ["user", "tool", "system", "function", "text", "object", "array", "string", "auto", "none", "#"]
)
FIELDS_WITHIN = (
    "role content type text name parameters properties required items enum anyOf allOf $ref minItems maxItems"
    " minimum maximum minLength format function schema json_schema tool_calls output call_id"
)
KEYS = st.sampled_from(FIELDS_WITHIN.split())
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS | WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
FIELDS = (
    "model messages input instructions tools tool_choice response_format text stream stream_options n max_tokens"
    " max_completion_tokens max_output_tokens"
)
REQUESTS = st.dictionaries(st.sampled_from(FIELDS.split()), VALUES, max_size=8)
LIKELY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "input": "hi"}


def server(**options: Any) -> SimulatedServer:
    return SimulatedServer(SimulatedModel(**options), Gate(ServerLimits(tokens_per_minute=10_000, max_concurrency=3)))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["/v1/chat/completions", "/v1/responses"]), REQUESTS, st.booleans())
def test_any_request_is_answered_or_refused(path: str, request: dict[str, Any], likely: bool) -> None:
    asked = server()
    exchange = asked.receive(path, json.dumps({**LIKELY, **request} if likely else request).encode(), "", 0.0)
    assert exchange.answer.status in (200, 400, 429)
    assert sum(map(len, exchange.answer.pieces)) > 0
    exchange.finish()
    ledger = asked.ledger
    assert (ledger.started, ledger.finished, ledger.in_flight, asked.gate.busy) == (1, 1, 0, 0)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_refused_that_are_no_request(body: bytes) -> None:
    assert server().receive("/v1/chat/completions", body, "", 0.0).answer.status == 400


def test_an_exchange_ends_once_whatever_is_said_later() -> None:
    asked = server()
    body = json.dumps(LIKELY).encode()
    ends = [asked.receive("/v1/responses", body, str(number), 0.0) for number in range(4)]
    assert [each.answer.status for each in ends] == [200, 200, 200, 429]
    ends[0].finish()
    assert ends[0].cancel() is False
    ends[1].drop()
    ends[1].finish()
    assert ends[2].cancel() is True
    ends[3].finish()
    ledger = asked.ledger
    assert (ledger.finished, ledger.dropped, ledger.cancelled, ledger.refused) == (2, 1, 1, 1)
    assert (ledger.in_flight, ledger.peak, asked.gate.busy) == (0, 4, 0)
