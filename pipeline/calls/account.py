"""Every attempt is admitted by its visit, and charged to it whatever its end."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.calls.call import Call, Reply, Request
from pipeline.calls.errors import CallError
from pipeline.calls.faults import GATEWAY
from pipeline.core.usage import Cost, Usage

_ONE = Usage(requests=1)
_NOTHING = Cost(0.0, "")


@dataclass(frozen=True, slots=True)
class Account:
    """Charges the visit for each attempt: what the server counted, or one request when it counted nothing.

    Asks `visit.admit_call()` first, so `CallsClosed` leaves without a charge. An attempt that is cancelled, or ends in
    an error that is no `CallError`, was sent and may be paid, so it counts as a request. What was put aside for the
    attempt is booked: what it did cost; nothing when it was refused before a model had it; and all of it when nobody
    can say.
    """

    def __call__(self, call: Call, /) -> Call:
        async def accounted(request: Request) -> Reply:
            request.visit.admit_call()
            try:
                reply = await call(request)
            except CallError as error:
                request.visit.charge(error.usage, error.cost)
                _book_failure(request, error)
                raise
            except BaseException:
                request.visit.charge(_ONE, None)
                _book(request, _ONE, None, known=False)
                raise
            request.visit.charge(reply.usage, reply.cost)
            _book(request, reply.usage, reply.cost, known=True)
            return reply

        return accounted


def unpaid(error: CallError) -> bool:
    """Say whether an attempt surely cost nothing: no connection was made, or the server refused the request."""
    if error.fault in ("retry", "stop", "park"):
        return True
    return error.fault == "fail" and error.http_status is not None and error.http_status not in GATEWAY


def _book_failure(request: Request, error: CallError) -> None:
    counted = error.usage.input_tokens or error.usage.output_tokens
    if not counted and unpaid(error):
        _book(request, _ONE, _NOTHING, known=True)
    else:
        _book(request, error.usage, error.cost, known=bool(counted))


def _book(request: Request, usage: Usage, cost: Cost | None, *, known: bool) -> None:
    if request.reservation is not None:
        request.reservation.book(usage, cost, known=known)
