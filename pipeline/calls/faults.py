"""Which class of failure a status, an error code or a broken connection is: pure functions over plain values.

The code decides before the type, the type before the status, and the words never do but where a provider has no code
for it. Transport errors are known by the names of their classes, along the chain of causes, so that this module needs
no HTTP package and any transport's errors are classed alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.calls.errors import FaultClass


@dataclass(frozen=True, slots=True)
class Fault:
    """What a failure is (`type`, the word in the record) and what to do about it (`fault`)."""

    fault: FaultClass
    type: str


#: Money or quota has ended for good: sent as 429, which looks like "wait", and never gets better.
NO_MONEY = frozenset(
    {
        "insufficient_quota",
        "billing_hard_limit_reached",
        "credit_balance_exhausted",
        "enforced_spend_limit_reached",
        "organization_spend_limit_exceeded",
        "organization_usage_limit_exceeded",
        "project_spend_limit_exceeded",
    }
)
BLOCKED = frozenset({"content_policy_violation", "content_filter", "invalid_prompt", "cyber_policy"})

_BY_STATUS: Mapping[int, Fault] = {
    401: Fault("stop", "key_refused"),
    402: Fault("stop", "no_money"),
    403: Fault("stop", "key_refused"),
    404: Fault("fail", "not_found"),
    408: Fault("retry", "server_timeout"),
    409: Fault("retry", "conflict"),
    413: Fault("fail", "too_large"),
    425: Fault("retry", "too_early"),
    429: Fault("retry", "rate_limited"),
    503: Fault("retry", "overloaded"),
    529: Fault("retry", "overloaded"),
    **{status: Fault("retry", "server_error") for status in (500, 520, 521, 522, 523)},
}

#: A gateway that gave up waiting; when it waited long, the model may have answered, and been paid, behind it.
GATEWAY = frozenset({502, 504, 524})
GATEWAY_WAITED = 10.0

#: The first name found along the chain of causes decides, outermost class first. A certificate that is not trusted is
#: looked for before all others; any other trouble of TLS is a broken connection like another.
_BY_CAUSE: Mapping[str, Fault] = {
    "SSLCertVerificationError": Fault("stop", "tls"),
    "StaleConnection": Fault("retry", "disconnected"),
    "PoolTimeout": Fault("ambiguous", "pool_timeout"),
    "ConnectTimeout": Fault("retry", "connection"),
    "ConnectError": Fault("retry", "connection"),
    "WriteError": Fault("ambiguous", "disconnected"),
    "WriteTimeout": Fault("ambiguous", "disconnected"),
    "ReadTimeout": Fault("ambiguous", "timeout"),
    "ReadError": Fault("ambiguous", "disconnected"),
    "RemoteProtocolError": Fault("ambiguous", "disconnected"),
    "LocalProtocolError": Fault("fail", "bad_request"),
    "UnsupportedProtocol": Fault("stop", "bad_base_url"),
    "DecodingError": Fault("fail", "bad_encoding"),
    "BadEncoding": Fault("fail", "bad_encoding"),
    "ForeignHost": Fault("stop", "bad_base_url"),
    "ResponseTooLarge": Fault("fail", "too_big"),
}


def fault_of_status(
    status: int,
    *,
    code: str | None = None,
    error_type: str | None = None,
    message: str = "",
    headers: Mapping[str, str] | None = None,
    waited: float = 0.0,
) -> Fault:
    """Class an answer that is not a 200. `headers` have lower-case names, `waited` is seconds until it came."""
    fault = _of_code(status, code, error_type, message) or _of_plain_status(status, waited)
    refused = (headers or {}).get("x-should-retry", "").strip().lower() == "false"
    if refused and fault.fault in ("retry", "ambiguous"):
        return Fault("fail", fault.type)
    return fault


def fault_of_cause(error: BaseException) -> Fault:
    """Class an error of the connection by the classes along its chain of causes."""
    found = [_BY_CAUSE[name] for name in _class_names(error) if name in _BY_CAUSE]
    untrusted = [fault for fault in found if fault.type == "tls"]
    return (untrusted or found or [Fault("ambiguous", "connection")])[0]


def is_refused(error: BaseException) -> bool:
    """Whether a host was found and says that nobody listens there."""
    return "ConnectionRefusedError" in _class_names(error)


def _of_code(status: int, code: str | None, error_type: str | None, message: str) -> Fault | None:
    for word in (code, error_type):
        if word in NO_MONEY:
            return Fault("stop", "no_money")
        if word in BLOCKED:
            return Fault("fail", "blocked")
        if word == "context_length_exceeded":
            return Fault("fail", "too_long")
        if word == "slow_down" and status in (429, 503):
            return Fault("retry", "slow_down")
    if status == 429 and "request too large" in message.lower():  # no code tells it from "too many requests"
        return Fault("fail", "too_large")
    return None


def _of_plain_status(status: int, waited: float) -> Fault:
    if known := _BY_STATUS.get(status):
        return known
    if status in GATEWAY:
        return Fault("ambiguous" if waited > GATEWAY_WAITED else "retry", "server_error")
    if 300 <= status < 400:
        return Fault("stop", "redirected")
    if 400 <= status < 500:
        return Fault("fail", "bad_request")
    return Fault("fail", "server_error" if status >= 500 else "bad_status")


def _class_names(error: BaseException) -> Iterator[str]:
    seen: set[int] = set()
    here: BaseException | None = error
    while here is not None and id(here) not in seen:
        seen.add(id(here))
        parts: Sequence[BaseException] = getattr(here, "exceptions", ())  # of a group: one for each address, say
        yield from (each.__name__ for one in (here, *parts) for each in type(one).__mro__)
        here = here.__cause__ or here.__context__
