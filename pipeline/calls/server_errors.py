"""What an error body says, in any of the shapes that servers use; and an error that hides in a 200 or in a stream."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from pipeline.calls.errors import CallError
from pipeline.calls.faults import fault_of_status
from pipeline.calls.strict_json import object_of

#: The status that a server would have sent with these words, for errors that come without one.
_STATUS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("rate_limit_exceeded", "rate_limit_error", "throttling_error", "too_many_requests"), 429),
    **dict.fromkeys(("slow_down", "overloaded", "overloaded_error", "engine_overloaded", "service_unavailable"), 503),
    **dict.fromkeys(("invalid_api_key", "authentication_error"), 401),
    **dict.fromkeys(("permission_error", "permission_denied"), 403),
    **dict.fromkeys(("not_found_error", "model_not_found"), 404),
    **dict.fromkeys(("invalid_request_error", "invalid_request", "bad_request", "context_length_exceeded"), 400),
    "timeout": 504,
}


@dataclass(frozen=True, slots=True)
class ServerError:
    """The fields of an error body."""

    code: str | None = None
    type: str | None = None
    message: str = ""


def read_error(body: bytes) -> ServerError:
    """Return what an error body says; empty when it says nothing that can be read."""
    try:
        document: object = json.loads(body)
    except (ValueError, RecursionError):
        return ServerError()
    if isinstance(document, list) and document:  # one provider wraps its error in a list
        document = cast("list[object]", document)[0]
    return error_fields(cast("object", document))


def error_fields(document: object) -> ServerError:
    """Return the fields of `{"error": {...}}`, `{"error": "text"}`, a bare `{"message": ...}` or `{"detail": ...}`."""
    outer = object_of(document)
    inner = outer.get("error") or outer
    if isinstance(inner, str):
        return ServerError(message=inner)
    fields = object_of(inner)
    code, kind = fields.get("code"), fields.get("type")
    return ServerError(
        str(code) if isinstance(code, str | int) else None,
        kind if isinstance(kind, str) else None,
        _words(fields.get("message") or fields.get("detail")),
    )


def inner_error(
    document: Mapping[str, object], where: str = "the server answered 200 with an error inside"
) -> CallError:
    """An error that came under a 200: the code inside is the status that counts."""
    inner = error_fields(document)
    status = _status(inner)
    fault = fault_of_status(status, code=inner.code, error_type=inner.type, message=inner.message)
    said = inner.message[:300] or inner.code or inner.type or "no reason given"
    return CallError(f"{where}: {whole_text(said)}", fault=fault.fault, type=fault.type, http_status=status)


def _words(message: object) -> str:
    """What is no text, such as a list of what is wrong with each field, is shown as it came."""
    return message if isinstance(message, str) else json.dumps(message)[:300] if message else ""


def _status(inner: ServerError) -> int:
    if inner.code and inner.code.isdecimal() and len(inner.code) == 3:
        return int(inner.code)
    return next((_STATUS[word] for word in (inner.code, inner.type) if word in _STATUS), 500)


def whole_text(text: str) -> str:
    """Return `text` with pairs of half characters joined, and what is left of them (which no file can hold) replaced by
    U+FFFD. Pieces of a stream may part a pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
