"""The table of faults, row by row: what a server does, and what that is to us."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import httpx2

from pipeline.calls.errors import FaultClass
from pipeline.core.usage import Usage
from stages.models.transport import BadEncoding, ResponseTooLarge, StaleConnection
from tests.calls.streams import USAGE, answered, chunk, counts, says, sent
from tests.servers.scripted import Sent

PROMPT = "a prompt of forty characters, ten tokens"
KNOWN = Usage(10, 5, requests=1)  #: what a server counted
LOST = Usage(requests=1)  #: nobody knows what it cost: the request is all that is counted


def guessed(text: str) -> Usage:
    """The estimate for an answer of `text`."""
    return Usage(10, -(-len(text) // 4), requests=1, estimated=True)


@dataclass(frozen=True)
class Case:
    """One way to see one fault. `fault` None: it is an answer, perhaps with `flags`."""

    row: int
    what: str
    sent: Sent
    fault: FaultClass | None
    type: str = "ok"
    usage: Usage = LOST  #: of this attempt
    stream: bool | None = None  #: None: it is the same for a plain request and for one that wants a stream
    text: str = "ok"  #: of the answer, when it is one
    flags: tuple[str, ...] = ()
    agent: Mapping[str, object] = field(default_factory=dict[str, object])  #: options of the stage
    model: Mapping[str, object] = field(default_factory=dict[str, object])  #: options of the model
    wait: float | None = None  #: the least seconds before the next attempt

    def __str__(self) -> str:
        mode = {True: " in a stream", False: " in one piece", None: ""}[self.stream]
        return f"row {self.row}: {self.what}{mode}"


def body(document: object) -> Sent:
    return Sent(parts=(json.dumps(document).encode(),))


def stream(*events: object, **more: object) -> Sent:
    whole = sent(*events)
    return Sent(parts=(whole[:50], whole[50:]), kind="text/event-stream", **more)  # type: ignore[arg-type]


def raw(data: bytes, **more: object) -> Sent:
    return Sent(parts=(data,), **more)  # type: ignore[arg-type]


def completion(message: object, finish: object = "stop", **more: object) -> dict[str, object]:
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return {"model": "m-1", "choices": [choice], "usage": USAGE, **more}


GOOD = body(completion({"content": "ok"}))
GOOD_STREAM = stream(*answered())

_RESPONSE = {
    "status": "completed",
    "model": "m-1",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "ok"}]}],
    "usage": {"input_tokens": 10, "output_tokens": 5},
}
_EVENTS = ({"type": "response.output_text.delta", "delta": "ok"}, {"type": "response.completed", "response": _RESPONSE})

#: an answer, by API and by whether it is a stream
GOODS = {
    ("chat", False): GOOD,
    ("chat", True): GOOD_STREAM,
    ("responses", False): body(_RESPONSE),
    ("responses", True): stream(*_EVENTS),
}


def status(code: int, word: str | None = None, message: str = "said", delay: float = 0.0, **headers: str) -> Sent:
    error = {"error": {"message": message, "type": "x", "code": word}}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Sent(code, (json.dumps(error).encode(),), headers=named, delay=delay)


def broken(error: Exception, cause: Exception | None = None) -> Callable[[], Exception]:
    def make() -> Exception:
        error.__cause__ = cause
        return error

    return make


def cases() -> Iterator[Case]:
    yield from connections()
    yield from refusals()
    yield from envelopes()
    yield from streams()


def connections() -> Iterator[Case]:
    """Rows 1 to 8, 51 to 55: what happens to a connection."""

    def lost(
        row: int, what: str, error: Exception, fault: FaultClass, kind: str, cause: Exception | None = None
    ) -> Case:
        return Case(row, what, Sent(raises=broken(error, cause)), fault, kind)

    yield lost(1, "no such host", httpx2.ConnectError("getaddrinfo failed"), "retry", "connection")
    yield lost(2, "connection refused", httpx2.ConnectError("refused"), "retry", "connection")
    yield lost(2, "connection takes too long", httpx2.ConnectTimeout("slow"), "retry", "connection")
    yield lost(3, "no connection free", httpx2.PoolTimeout("full"), "ambiguous", "pool_timeout")
    untrusted = ssl.SSLCertVerificationError("self-signed")
    yield lost(4, "certificate not trusted", httpx2.ConnectError("tls"), "stop", "tls", untrusted)
    yield lost(5, "broken while writing", httpx2.WriteError("gone"), "ambiguous", "disconnected")
    yield lost(5, "writing takes too long", httpx2.WriteTimeout("slow"), "ambiguous", "disconnected")
    yield lost(6, "no first byte", httpx2.ReadTimeout("slow"), "ambiguous", "timeout")
    yield lost(7, "closed before headers", httpx2.RemoteProtocolError("closed"), "ambiguous", "disconnected")
    stale, closed = StaleConnection("unused for a while"), httpx2.RemoteProtocolError("closed")
    yield lost(7, "a kept connection was closed at once", stale, "retry", "disconnected", closed)
    yield Case(8, "no answer in time", Sent(delay=1000.0, parts=(b"",)), "ambiguous", "timeout")
    yield lost(51, "an answer longer than the cap", ResponseTooLarge("too long"), "fail", "too_big")
    yield lost(53, "packed in an unknown way", BadEncoding("br"), "fail", "bad_encoding")
    yield lost(53, "not packed as it says", httpx2.DecodingError("gzip"), "fail", "bad_encoding")
    yield lost(54, "broken framing", httpx2.RemoteProtocolError("chunk"), "ambiguous", "disconnected")
    for code in (201, 204, 206):
        yield Case(55, f"status {code}", status(code), "fail", "bad_status")


def refusals() -> Iterator[Case]:
    """Rows 10 to 26: what is not a 200."""

    def refused(row: int, code: int, fault: FaultClass, kind: str, word: str | None = None, **more: object) -> Case:
        what = " ".join(str(each) for each in (code, word, *more.values()) if each)
        return Case(row, what, status(code, word, **more), fault, kind)  # type: ignore[arg-type]

    yield refused(10, 400, "fail", "too_long", "context_length_exceeded")
    for word in ("content_policy_violation", "content_filter", "invalid_prompt", "cyber_policy"):
        yield refused(11, 400, "fail", "blocked", word)
    for code in (400, 405, 415, 422):
        yield refused(12, code, "fail", "bad_request")
    yield refused(12, 404, "fail", "not_found", "model_not_found")
    yield refused(12, 413, "fail", "too_large")
    for code in (401, 403):
        yield refused(13, code, "stop", "key_refused")
    yield refused(14, 402, "stop", "no_money")
    for word in (
        "credit_balance_exhausted",
        "organization_spend_limit_exceeded",
        "project_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "insufficient_quota",
        "billing_hard_limit_reached",
        "enforced_spend_limit_reached",
    ):
        yield refused(14, 429, "stop", "no_money", word)
    yield refused(15, 429, "retry", "rate_limited", "rate_limit_exceeded")
    for header, value, wait in (
        ("retry_after_ms", "1500", 1.5),
        ("retry_after", "7", 7.0),
        ("retry_after", "0.5", 0.5),
    ):
        told = status(429, "rate_limit_exceeded", **{header: value})
        yield Case(15, f"429 {header} {value}", told, "retry", "rate_limited", wait=wait)
    reset = status(429, x_ratelimit_remaining_requests="0", x_ratelimit_reset_requests="12s")
    yield Case(15, "429 with a reset", reset, "retry", "rate_limited", wait=12.0)
    for code in (429, 503):
        yield refused(16, code, "retry", "slow_down", "slow_down")
    yield refused(17, 429, "fail", "too_large", message="Request too large for m-1")
    yield refused(18, 429, "park", "rate_limited", retry_after="7200")
    yield refused(18, 429, "park", "rate_limited", x_ratelimit_remaining_requests="0", x_ratelimit_reset_requests="5h")
    for code, kind in ((408, "server_timeout"), (409, "conflict"), (425, "too_early")):
        yield refused(19, code, "retry", kind)
    for code in (500, 502, 504, 520, 521, 522, 523, 524):
        yield refused(20, code, "retry", "server_error")
    for code in (502, 504, 524):
        yield refused(20, code, "ambiguous", "server_error", delay=11.0)
    for code in (503, 529):
        yield refused(21, code, "retry", "overloaded")
    for code in (501, 505, 507):
        yield refused(22, code, "fail", "server_error")
    for code in (301, 302, 307, 308):
        yield Case(23, f"redirect {code}", status(code, location="https://m.test/v2"), "stop", "redirected")
    yield refused(24, 500, "fail", "server_error", x_should_retry="false")
    yield refused(24, 429, "fail", "rate_limited", x_should_retry="false")
    yield refused(24, 400, "fail", "bad_request", x_should_retry="true")
    for value in ("nan", "inf", "-5", "1e400", "Mon, 01 Jan 2001 00:00:00 GMT", "soon"):
        yield Case(25, f"Retry-After {value}", status(503, retry_after=value), "retry", "overloaded", wait=0.0)
    yield refused(25, 503, "park", "overloaded", retry_after="121")
    yield Case(26, "reset 1m30s", status(429, x_ratelimit_reset_tokens="1m30s"), "park", "rate_limited")
    yield Case(26, "reset 500ms", status(429, x_ratelimit_reset_tokens="500ms"), "retry", "rate_limited", wait=0.5)
    past = "Mon, 01 Jan 2001 00:00:00 GMT"
    yield Case(64, "a date that the clock has passed", status(429, retry_after=past), "retry", "rate_limited", wait=0.0)


def envelopes() -> Iterator[Case]:
    """Rows 27 to 40, 56 and 57: a 200 that is no answer, or a remarkable one; plain, and as the end of a stream."""

    def plain(row: int, what: str, server: Sent, fault: FaultClass | None, kind: str = "ok", **more: object) -> Case:
        return Case(row, what, server, fault, kind, stream=False, **more)  # type: ignore[arg-type]

    def said(row: int, what: str, message: object, finish: object, fault: FaultClass | None, kind: str = "ok",
             **more: object) -> Iterator[Case]:  # fmt: skip
        """One message, in one piece and in a stream."""
        more = {"usage": KNOWN, **more}
        streamed = stream(chunk(message), chunk(finish=finish), counts(), "[DONE]")
        yield Case(row, what, body(completion(message, finish)), fault, kind, stream=False, **more)  # type: ignore[arg-type]
        yield Case(row, what, streamed, fault, kind, stream=True, **more)  # type: ignore[arg-type]

    html = raw(b"<!doctype html><p>log in", kind="text/html")
    for what, page in (("a page", html), ("nothing", raw(b"")), ("a word", raw(b"no healthy upstream"))):
        yield Case(27, f"{what} under a 200", page, "ambiguous", "not_json")
    yield Case(28, "half a JSON object", raw(b'{"choices": ['), "ambiguous", "truncated_json")
    inside: tuple[tuple[object, FaultClass, str], ...] = (
        (429, "retry", "rate_limited"),
        (502, "retry", "server_error"),
        (400, "fail", "bad_request"),
        (402, "stop", "no_money"),
        ("insufficient_quota", "stop", "no_money"),
    )
    for code, fault, kind in inside:
        inner = {"choices": None, "error": {"code": code, "message": "upstream"}}
        yield Case(29, f"an error {code} inside", body(inner), fault, kind)
    busy = body({"choices": None, "error": {"code": 429, "message": "upstream"}})
    told = replace(busy, headers={"retry-after": "3"})
    yield Case(29, "an error 429 inside, and how long to wait", told, "retry", "rate_limited", wait=3.0)
    yield Case(30, "no choices", body({"choices": []}), "ambiguous", "no_choices")
    for what, wrong in (("choices: null", {"choices": None}), ("two choices", {"choices": [{}, {}]}), ("a list", [1])):
        yield Case(31, what, body(wrong), "fail", "bad_envelope")
    number = {"content": 5}
    yield plain(31, "a number for a text", body(completion(number)), "fail", "bad_envelope", usage=KNOWN)
    yield Case(31, "a number for a text", stream(chunk(number)), "fail", "bad_envelope", guessed(""), stream=True)
    yield from said(32, "cut at the token limit", {"content": "ok"}, "length", None, flags=("truncated",))
    yield from said(32, "cut, and that fails", {"content": "ok"}, "length", "fail", "truncated",
                    agent={"on_truncated": "fail"})  # fmt: skip
    yield from said(
        32, "cut JSON", {"content": '{"a": 1'}, "length", "fail", "truncated", agent={"output": {"a": "integer"}}
    )
    yield from said(33, "withheld by a filter", {"content": "o"}, "content_filter", "fail", "filtered")
    yield from said(34, "a refusal", {"refusal": "ok"}, "stop", None, flags=("refused",))
    yield from said(34, "a refusal, and that fails", {"refusal": "no"}, "stop", "fail", "refused",
                    agent={"on_refused": "fail"})  # fmt: skip
    yield from said(35, "no finish reason", {"content": "ok"}, None, None, model={"finish_optional": True})
    yield from said(35, "no finish reason where one belongs", {"content": "ok"}, None, "ambiguous", "unfinished")
    yield from said(36, "tool calls without one", {"content": "ok"}, "tool_calls", "fail", "bad_envelope")
    yield from said(36, "an unknown finish reason", {"content": "ok"}, "tired", "fail", "bad_envelope")
    yield from said(37, "an empty text", {"content": ""}, "stop", "ambiguous", "empty")
    yield from said(37, "no text", {}, "stop", "ambiguous", "empty")
    yield from said(38, "all tokens thought away", {"content": ""}, "length", "fail", "no_output")
    other = {"model": "m-2"}
    yield plain(56, "another model", body({**completion({"content": "ok"}), **other}), None, usage=KNOWN,
                flags=("model_differs",))  # fmt: skip
    odd_counts: tuple[tuple[str, object, str], ...] = (
        ("more tokens than asked for", {"prompt_tokens": 10, "completion_tokens": 9}, "usage_odd"),
        ("tokens below zero", {"prompt_tokens": -1, "completion_tokens": 1}, "usage_odd"),
        ("no number of tokens", {"prompt_tokens": 1, "completion_tokens": 1e999}, "usage_odd"),
        ("no usage", None, "usage_missing"),
    )
    for what, usage, flag in odd_counts:
        limited = {"max_output_tokens": 8}
        odd = completion({"content": "ok"}, usage=usage)
        yield plain(57, what, body(odd), None, usage=guessed("ok"), flags=(flag,), agent=limited)
        streamed = stream(says("ok"), chunk(finish="stop"), counts(usage), "[DONE]")
        row = 49 if usage is None else 57
        yield Case(row, what, streamed, None, usage=guessed("ok"), flags=(flag,), agent=limited, stream=True)


def streams() -> Iterator[Case]:
    """Rows 42 to 52: what happens to a stream after it began."""
    text = "some text"
    begun = (chunk({"role": "assistant", "content": ""}), says(text))

    def lost(row: int, what: str, server: Sent, fault: FaultClass | None, kind: str = "ok", **more: object) -> Case:
        more = {"usage": guessed(text), **more}
        return Case(row, what, server, fault, kind, stream=True, **more)  # type: ignore[arg-type]

    def told(error: object) -> Sent:
        return stream(*begun, {"error": error})

    yield lost(42, "an error event", told({"code": None, "type": "server_error"}), "ambiguous", "server_error")
    yield lost(42, "an error event: rate", told({"code": "rate_limit_exceeded"}), "ambiguous", "rate_limited")
    yield lost(42, "an error event: for good", told({"code": "invalid_prompt"}), "fail", "blocked")
    yield lost(42, "an error event: no money", told({"code": 402}), "stop", "no_money")
    early = stream({"error": {"code": 503, "message": "busy"}})
    yield lost(42, "an error event before anything else", early, "retry", "overloaded", usage=LOST)
    gone = broken(httpx2.RemoteProtocolError("peer closed connection"))
    yield lost(43, "broken off", stream(*begun, breaks=gone), "ambiguous", "disconnected")
    reset = broken(httpx2.ReadError("reset"))
    yield lost(43, "reset before the first event", Sent(parts=(), kind="text/event-stream", breaks=reset), "ambiguous",
               "disconnected", usage=LOST)  # fmt: skip
    yield lost(43, "reset after its end", stream(*answered(), breaks=reset), None, usage=KNOWN)
    yield lost(44, "a stall", stream(*begun, stalls=True), "ambiguous", "timeout", usage=LOST)
    yield lost(44, "a stall after its end", stream(*answered(), stalls=True), None, usage=KNOWN)
    yield lost(45, "ended too early", stream(*begun), "ambiguous", "unfinished")
    yield lost(45, "ended without a reason", stream(*begun, "[DONE]"), "ambiguous", "unfinished")
    optional = {"finish_optional": True}
    yield lost(45, "ended without a reason, as it always does", stream(*begun, "[DONE]"), None, model=optional,
               text=text, flags=("usage_missing",))  # fmt: skip
    half = Sent(parts=(sent(*begun) + b'data: {"choices": [',), kind="text/event-stream")
    yield lost(46, "half an event", half, "ambiguous", "unfinished", model=optional)
    yield lost(47, "broken JSON", stream(*begun, "{"), "ambiguous", "broken_stream")
    bad = Sent(parts=(sent(*begun) + b"data: \xff\n\n",), kind="text/event-stream")
    yield lost(47, "broken UTF-8", bad, "ambiguous", "broken_stream")
    yield lost(48, "one piece where a stream was asked for", GOOD, None, usage=KNOWN)
    unnamed = Sent(parts=(sent(*answered()),), kind="text/plain")
    yield lost(48, "a stream that does not say so", unnamed, None, usage=KNOWN)
    yield lost(50, "a second choice", stream(*begun, {"choices": [{"index": 1}]}), "fail", "bad_envelope")
    second = stream(*begun, {"choices": [{"index": 1}]}, breaks=reset)
    yield lost(50, "a second choice, and then a reset", second, "fail", "bad_envelope")
    yield lost(50, "text after the end", stream(*begun, chunk(finish="stop"), says("b")), "fail", "bad_envelope")
    endless = Sent(parts=(sent(*begun), *[b": " + b"x" * 4000 + b"\n"] * 10), kind="text/event-stream")
    yield lost(51, "a stream longer than the cap", endless, "fail", "too_big")
    yield lost(52, "a slow drip", stream(*begun, *[says("x")] * 4, drips=90.0), "ambiguous", "timeout", usage=LOST)
