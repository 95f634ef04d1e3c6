"""Which class each failure has: the table, row by row."""

from __future__ import annotations

import ssl

import pytest

from pipeline.calls.faults import Fault, fault_of_cause, fault_of_status
from pipeline.calls.secrets import Secrets


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "context_length_exceeded", Fault("fail", "too_long")),
        (400, "content_filter", Fault("fail", "blocked")),
        (400, None, Fault("fail", "bad_request")),
        (401, None, Fault("stop", "key_refused")),
        (402, None, Fault("stop", "no_money")),
        (403, None, Fault("stop", "key_refused")),
        (404, "model_not_found", Fault("fail", "not_found")),
        (405, None, Fault("fail", "bad_request")),
        (408, None, Fault("retry", "server_timeout")),
        (409, None, Fault("retry", "conflict")),
        (413, None, Fault("fail", "too_large")),
        (422, None, Fault("fail", "bad_request")),
        (425, None, Fault("retry", "too_early")),
        (429, None, Fault("retry", "rate_limited")),
        (429, "rate_limit_exceeded", Fault("retry", "rate_limited")),
        (429, "insufficient_quota", Fault("stop", "no_money")),
        (429, "billing_hard_limit_reached", Fault("stop", "no_money")),
        (503, "slow_down", Fault("retry", "slow_down")),
        (500, None, Fault("retry", "server_error")),
        (502, None, Fault("retry", "server_error")),
        (503, None, Fault("retry", "overloaded")),
        (520, None, Fault("retry", "server_error")),
        (529, None, Fault("retry", "overloaded")),
        (501, None, Fault("fail", "server_error")),
        (505, None, Fault("fail", "server_error")),
        (302, None, Fault("stop", "redirected")),
        (204, None, Fault("fail", "bad_status")),
    ],
)
def test_status_and_code_decide(status: int, code: str | None, expected: Fault) -> None:
    assert fault_of_status(status, code=code) == expected


def test_the_type_decides_where_there_is_no_code() -> None:
    assert fault_of_status(429, error_type="insufficient_quota") == Fault("stop", "no_money")


def test_a_gateway_that_waited_long_may_have_been_answered() -> None:
    assert fault_of_status(504, waited=10.0).fault == "retry"
    assert fault_of_status(504, waited=10.1).fault == "ambiguous"


def test_a_request_larger_than_the_rate_limit_never_succeeds() -> None:
    assert fault_of_status(429, message="Request too large for gpt-4o") == Fault("fail", "too_large")


@pytest.mark.parametrize(("word", "expected"), [("false", "fail"), ("true", "retry"), ("", "retry")])
def test_a_server_may_forbid_a_retry(word: str, expected: str) -> None:
    assert fault_of_status(500, headers={"x-should-retry": word}).fault == expected


def test_a_server_cannot_ask_for_a_retry_of_what_never_succeeds() -> None:
    assert fault_of_status(400, headers={"x-should-retry": "true"}).fault == "fail"


def chained(outer: str, inner: BaseException) -> BaseException:
    error = type(outer, (Exception,), {})()
    error.__cause__ = inner
    return error


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ConnectError", Fault("retry", "connection")),
        ("ConnectTimeout", Fault("retry", "connection")),
        ("ReadTimeout", Fault("ambiguous", "timeout")),
        ("ReadError", Fault("ambiguous", "disconnected")),
        ("WriteError", Fault("ambiguous", "disconnected")),
        ("RemoteProtocolError", Fault("ambiguous", "disconnected")),
        ("PoolTimeout", Fault("ambiguous", "pool_timeout")),
        ("DecodingError", Fault("fail", "bad_encoding")),
        ("SomethingElse", Fault("ambiguous", "connection")),
    ],
)
def test_the_class_of_the_cause_decides(name: str, expected: Fault) -> None:
    assert fault_of_cause(chained(name, OSError())) == expected


def test_a_certificate_that_is_not_trusted_is_found_below_the_connect_error() -> None:
    assert fault_of_cause(chained("ConnectError", ssl.SSLCertVerificationError())) == Fault("stop", "tls")
    assert fault_of_cause(chained("ReadError", ssl.SSLEOFError())) == Fault("ambiguous", "disconnected")


def test_a_chain_of_causes_that_goes_round_ends() -> None:
    first, second = Exception(), Exception()
    first.__cause__, second.__cause__ = second, first
    assert fault_of_cause(first) == Fault("ambiguous", "connection")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("key sk-abcdefgh-9876 is wrong", "key [key] is wrong"),
        ("key sk-ab***9876 is wrong", "key [key] is wrong"),
        ("key sk-abcde is cut", "key [key] is cut"),
        ("ends in 9876.", "ends in [key]"),
        ("two\nlines\x1b[31m", "two lines [31m"),
    ],
)
def test_a_servers_words_are_shown_without_the_key(text: str, shown: str) -> None:
    assert Secrets(("sk-abcdefgh-9876",)).line(text) == shown


def test_long_words_of_a_server_are_cut() -> None:
    assert Secrets().line("x" * 400) == "x" * 300 + "…"
