"""Every attempt is admitted by its visit, and charged to it whatever its end."""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from pipeline.calls.call import Call, Reply, Request
from pipeline.calls.errors import CallError
from pipeline.core.usage import Usage


@dataclass(frozen=True, slots=True)
class Account:
    """Charges the visit for each attempt: what the server counted, or one request when it counted nothing.

    Asks `visit.admit_call()` first, so `CallsClosed` leaves without a charge. An attempt that is cancelled was sent,
    and may be paid, so it counts as a request.
    """

    def __call__(self, call: Call, /) -> Call:
        async def accounted(request: Request) -> Reply:
            request.visit.admit_call()
            try:
                reply = await call(request)
            except CallError as error:
                request.visit.charge(error.usage, error.cost)
                raise
            except anyio.get_cancelled_exc_class():
                request.visit.charge(Usage(requests=1), None)
                raise
            request.visit.charge(reply.usage, reply.cost)
            return reply

        return accounted
