"""A call that an earlier run has finished is not made again: its end comes from the journal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TypeAlias, cast

from pipeline.calls.call import Call, Reply, Request, Tries
from pipeline.calls.errors import CallError, FaultClass
from pipeline.core.codec import canonical
from pipeline.core.ports import Page
from pipeline.core.record import cost_json, cost_of, usage_json, usage_of
from pipeline.core.state import ToolCall
from pipeline.core.usage import Cost, Usage

KIND = "call"

#: what was used, and what it cost
Paid: TypeAlias = "tuple[Usage, Cost | None]"

#: Ends of a call that say nothing of the request: it has them again only if things are as they were.
_PASSING = ("item_timeout",)


@dataclass(frozen=True, slots=True)
class Journalled:
    """Writes how each call ended into the journal of the run, and answers from there what was written before.

    An end is used again only when the request is the same: `body_of` writes it as it would be sent, `scope` says to
    whom. An answer is charged to the root again, as the earlier run did, and not to this one. What ends with the run
    (a key that is refused, no money, a wait that is too long) is not written. Without a journal it does nothing.
    """

    scope: tuple[str, ...]
    body_of: Callable[[Request], object]

    def __call__(self, call: Call, /) -> Call:
        async def journalled(request: Request) -> Reply:
            page = request.visit.page
            if page is None:
                return await call(request)
            who, asked = request.identity, self.hash_of(request)
            found = page.find(KIND, who.path, who.ordinal)
            if isinstance(found, Mapping) and found["asked"] == asked:
                return _recalled(request, cast("Mapping[str, object]", found))
            tries = request.tries
            if tries is None:
                tries = Tries()
                request = replace(request, tries=tries)
            try:
                reply = await call(request)
            except CallError as error:
                if error.fault not in ("stop", "park") and error.type not in _PASSING:
                    paid = tries.account.usage, tries.account.cost
                    _write(page, request, {"asked": asked, "error": _written_error(error), **_payment(paid)})
                raise
            paid = tries.account.usage, tries.account.cost
            _write(page, request, {"asked": asked, "reply": _written(reply, paid), **_payment(paid)})
            return reply

        return journalled

    def hash_of(self, request: Request) -> str:
        """What the answer depends on, as 32 hex digits; the same whether it comes in pieces or as a whole."""
        body = self.body_of(replace(request, stream=False) if request.stream else request)
        judged = [request.on_truncated, request.on_refused]
        return blake2b(canonical([self.scope, body, judged]), digest_size=16).hexdigest()


def _write(page: Page, request: Request, end: dict[str, object]) -> None:
    page.write(KIND, request.identity.path, end, request.identity.ordinal)


def _payment(paid: Paid) -> dict[str, object]:
    usage, cost = paid
    counts: dict[str, object] = {"usage": usage_json(usage)}
    return counts if cost is None else {**counts, "cost": cost_json(cost)}


def _paid(written: Mapping[str, object]) -> Paid:
    """What `_payment` made."""
    cost = cast("Mapping[str, object] | None", written.get("cost"))
    return usage_of(cast("Mapping[str, object]", written["usage"])), None if cost is None else cost_of(cost)


def _recalled(request: Request, end: Mapping[str, object]) -> Reply:
    """The end of a call as it was, its cost charged to the root. Raises the error that it ended with."""
    paid = _paid(end)
    request.visit.recall(*paid)
    if "error" in end:
        raise _error(cast("Mapping[str, object]", end["error"]))
    return _reply(cast("Mapping[str, object]", end["reply"]), paid)


def _written(reply: Reply, paid: Paid) -> dict[str, object]:
    """The reply; what it cost only if that is not `paid`, what all attempts did cost."""
    written: dict[str, object] = {"text": reply.text, "attempts": reply.attempts}
    if (reply.usage, reply.cost) != paid:
        written |= _payment((reply.usage, reply.cost))
    for name in ("finish_reason", "model", "request_id"):
        if (value := getattr(reply, name)) is not None:
            written[name] = value
    if reply.tool_calls:
        written["tool_calls"] = [[call.id, call.name, call.arguments] for call in reply.tool_calls]
    if reply.flags:
        written["flags"] = list(reply.flags)
    return written


def _reply(written: Mapping[str, object], paid: Paid) -> Reply:
    return Reply(
        cast(str, written["text"]),
        *(_paid(written) if "usage" in written else paid),
        finish_reason=cast("str | None", written.get("finish_reason")),
        model=cast("str | None", written.get("model")),
        request_id=cast("str | None", written.get("request_id")),
        attempts=cast(int, written["attempts"]),
        tool_calls=tuple(ToolCall(*call) for call in cast("list[list[str]]", written.get("tool_calls", []))),
        flags=tuple(cast("list[str]", written.get("flags", []))),
    )


def _written_error(error: CallError) -> dict[str, object]:
    told = {"message": error.message, "fault": error.fault, "type": error.type, "attempts": error.attempts}
    more = {"http_status": error.http_status, "request_id": error.request_id, "answer": error.answer}
    return {**told, **{name: value for name, value in more.items() if value is not None}}


def _error(written: Mapping[str, object]) -> CallError:
    error = CallError(
        cast(str, written["message"]),
        fault=cast(FaultClass, written["fault"]),
        type=cast(str, written["type"]),
        http_status=cast("int | None", written.get("http_status")),
        request_id=cast("str | None", written.get("request_id")),
        answer=cast("str | None", written.get("answer")),
    )
    error.attempts = cast(int, written["attempts"])
    return error
