"""A simulated server as an HTTP transport in the process: what the SDK sends goes no further than here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import anyio
import httpx2

from stages.models.simulated_gate import Gate
from stages.models.simulated_ledger import Ledger
from stages.models.simulated_limits import ServerLimits
from stages.models.simulated_service import Exchange, SimulatedServer

if TYPE_CHECKING:
    from stages.models.simulated import SimulatedModel

__all__ = ["Ledger", "SimulatedTransport"]


class SimulatedTransport(httpx2.AsyncBaseTransport):
    """Answers chat completions and responses of one simulated model.

    A connection that a fault breaks is the error that the HTTP library raises for it. As with every transport of ours,
    an answer is read whole here, but for a stream, which comes piece by piece as it is read.
    """

    def __init__(self, definition: SimulatedModel, gate: Gate | None = None) -> None:
        limits = definition.limits if isinstance(definition.limits, ServerLimits) else ServerLimits()
        self.server = SimulatedServer(definition, gate or Gate(limits))

    @property
    def ledger(self) -> Ledger:
        return self.server.ledger

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        identity = request.headers.get("x-penstock-call", "")
        exchange = self.server.receive(request.url.path, body, identity, anyio.current_time())
        answer = exchange.answer
        try:
            await anyio.sleep(answer.latency)
            if answer.status is None and answer.ending == "never":
                await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            exchange.cancel()
            raise
        if answer.status is None:
            exchange.drop()
            raise httpx2.RemoteProtocolError("the simulated server closed the connection", request=request)
        if answer.at_once:
            exchange.finish()
            return httpx2.Response(answer.status, headers=answer.headers, content=b"".join(answer.pieces))
        response = httpx2.Response(answer.status, headers=answer.headers, stream=_Body(exchange))
        if not answer.streamed:
            try:
                await response.aread()
            finally:
                await response.aclose()
        return response


class _Body(httpx2.AsyncByteStream):
    """The pieces of an answer, each when it is time. No generator, which trio would want to be closed by hand."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._sent = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        answer, number = self._exchange.answer, self._sent
        if number < len(answer.pieces):
            await anyio.sleep(answer.pause if number else 0.0)
            self._sent += 1
            return answer.pieces[number]
        if answer.ending == "never":
            await anyio.sleep_forever()
        if answer.ending == "dropped":
            self._exchange.drop()
            raise httpx2.RemoteProtocolError("the simulated server closed the connection in the middle of its answer")
        self._exchange.finish()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._exchange.cancel()
