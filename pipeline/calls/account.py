"""Every attempt is admitted by its visit, and charged to it whatever its end."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.calls.call import Call, Reply, Request
from pipeline.calls.departure import begun
from pipeline.calls.errors import CallError
from pipeline.calls.faults import GATEWAY
from pipeline.core.ports import AttemptEnd, OpenAttempt
from pipeline.core.usage import Cost, Usage

_ONE = Usage(requests=1)
_NOTHING = Cost(0.0, "")


@dataclass(frozen=True, slots=True)
class Account:
    """Charges the visit for each attempt: what the server counted, or one request when it counted nothing.

    Asks `visit.admit_call()` first, so `CallsClosed` leaves without a charge. An attempt that is cancelled, or ends in
    an error that is no `CallError`, was sent and may be paid, so it counts as a request. What was put aside for the
    attempt is booked: what it did cost; nothing when it was refused before a model had it; and all of it when nobody
    can say. `model` is named in the journal, which has it before it is sent.
    """

    model: str = ""

    def __call__(self, call: Call, /) -> Call:
        async def accounted(request: Request) -> Reply:
            request.visit.admit_call()
            attempt = await _begin(request, self.model)
            begun(attempt)
            try:
                reply = await call(request)
            except CallError as error:
                _charge(request, error.usage, error.cost)
                _end(attempt, *_book_failure(request, error))
                raise
            except BaseException:
                _charge(request, _ONE, None)
                _book(request, _ONE, None, known=False)
                _end(attempt, "ambiguous", _ONE, None)
                raise
            _charge(request, reply.usage, reply.cost)
            _book(request, reply.usage, reply.cost, known=True)
            _end(attempt, "ok", reply.usage, reply.cost)
            return reply

        return accounted


def unpaid(error: CallError) -> bool:
    """Say whether an attempt surely cost nothing: no connection was made, or the server refused the request."""
    if error.fault in ("retry", "stop", "park"):
        return True
    return error.fault == "fail" and error.http_status is not None and error.http_status not in GATEWAY


async def _begin(request: Request, model: str) -> OpenAttempt | None:
    """Have it in the journal, if there is one, that the attempt is about to be sent."""
    page = request.visit.page
    if page is None:
        return None
    who, aside = request.identity, request.reservation
    reserved = None if aside is None else aside.amount
    attempt = await page.begin_attempt(who.path, who.ordinal, request.attempt, model, reserved)
    try:
        request.visit.admit_call()
    except BaseException:
        attempt.end("unsent", Usage(), None)
        raise
    return attempt


def _end(attempt: OpenAttempt | None, end: AttemptEnd, usage: Usage, cost: Cost | None) -> None:
    if attempt is not None:
        attempt.end(end, usage, cost)


def _charge(request: Request, usage: Usage, cost: Cost | None) -> None:
    request.visit.charge(usage, cost)
    if request.tries is not None:
        request.tries.account.charge(usage, cost)


def _book_failure(request: Request, error: CallError) -> tuple[AttemptEnd, Usage, Cost | None]:
    """Book what an attempt that failed did cost, and say how it ended."""
    counted = bool(error.usage.input_tokens or error.usage.output_tokens)
    if not counted and unpaid(error):
        _book(request, _ONE, _NOTHING, known=True)
        return "refused", _ONE, _NOTHING
    _book(request, error.usage, error.cost, known=counted)
    return "failed" if counted else "ambiguous", error.usage, error.cost


def _book(request: Request, usage: Usage, cost: Cost | None, *, known: bool) -> None:
    if request.reservation is not None:
        request.reservation.book(usage, cost, known=known)
