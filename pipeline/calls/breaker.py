"""While an endpoint is down nobody asks it but one call at a time; all others wait, or ask another model."""

from __future__ import annotations

from dataclasses import dataclass

import anyio

from pipeline.calls.call import Call, Reply, Request, Tries
from pipeline.calls.circuit import Circuit, Ticket, Waiter
from pipeline.calls.errors import CallError
from pipeline.core.events import EndpointChanged


@dataclass(frozen=True, slots=True)
class Breaker:
    """Asks `circuit` before each attempt, and tells it how the attempt went.

    A patient call waits, without its stage's slot and without using up an attempt, until the endpoint answers a probe
    or counts as down for good: then the run stops if it cannot be reached (it can be resumed), and the call fails if it
    only has errors to say. One with other models to ask does not wait, and fails with `endpoint_down`.
    """

    circuit: Circuit
    model: str = ""
    patient: bool = True
    name: str = ""  #: of the model, for people

    def __call__(self, call: Call, /) -> Call:
        circuit = self.circuit

        async def guarded(request: Request) -> Reply:
            ticket = circuit.enter_at_once() or await self._admitted(request)
            if ticket.kind == "probe" and request.tries is not None:
                request.tries.probes += 1
            try:
                reply = await call(request)
            except CallError as error:
                error.excused = circuit.failed(ticket, error, anyio.current_time(), request.attempt, self.model)
                self._tell(request, error.message)
                if circuit.down and ticket.kind == "probe":
                    raise circuit.given_up() from error
                raise
            except BaseException:
                circuit.dropped(ticket, anyio.current_time())
                raise
            if not circuit.succeeded_as_ever(ticket):
                circuit.succeeded(ticket, anyio.current_time(), self.model)
                self._tell(request)
            return reply

        return guarded

    def _tell(self, request: Request, why: str = "") -> None:
        """Say that the endpoint went down, or is back, to the run whose call has found that."""
        circuit, visit = self.circuit, request.visit
        news = circuit.news()
        if news is not None and visit.listening:
            name = self.name or self.model
            visit.emit(EndpointChanged(circuit.endpoint, name, news, why, circuit.waiting, self.patient))

    async def _admitted(self, request: Request) -> Ticket:
        try:
            ticket = self.circuit.enter(anyio.current_time(), patient=self.patient, model=self.model)
            if ticket is not None:
                return ticket
            if not self.patient or (request.leg is not None and request.leg.second):
                raise self.circuit.unreachable()
            return await self._turn(request)
        except CallError:
            if request.tries is not None:
                request.tries.give_back()
            request.visit.admit_call()  # a run that takes no more calls has its own reason
            raise

    async def _turn(self, request: Request) -> Ticket:
        """Wait for a ticket. The slot is in hand again before it is used, and whoever is cancelled passes it on."""
        circuit, tries = self.circuit, request.tries or Tries()
        waiter = circuit.queue((tries.probes + tries.doubtful, request.arrival), request.visit)
        try:
            async with request.visit.without_slot():
                with request.visit.waiting(circuit):
                    await _called(circuit, waiter)
        except BaseException:
            circuit.leave(waiter, anyio.current_time())
            raise
        if waiter.verdict is not None:
            raise waiter.verdict
        assert waiter.ticket is not None
        return waiter.ticket


async def _called(circuit: Circuit, waiter: Waiter) -> None:
    """Wait until there is a ticket or a verdict; the first in the row is woken when a probe is due."""
    while waiter.ticket is None and waiter.verdict is None:
        waiter.changed = anyio.Event()
        alarm = circuit.probe_at if circuit.is_next(waiter) else float("inf")
        with anyio.CancelScope(deadline=alarm) as scope:
            await waiter.changed.wait()
        if scope.cancelled_caught:
            circuit.call_next(anyio.current_time())
