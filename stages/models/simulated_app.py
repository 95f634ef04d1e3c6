"""The simulated server over HTTP: what comes from a socket is asked of the same server as in the process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import anyio
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from stages.models.simulated_ledger import Ledger
from stages.models.simulated_service import Exchange, SimulatedServer
from stages.models.simulated_wire import Answer, failed

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

MAX_REQUEST: Final = 16 * 1024 * 1024  #: bytes of one request

#: the key in a request's state under which the protocol puts the function that breaks its connection
BREAK: Final = "break_connection"

Tell = Callable[[str], None]


def simulated_app(server: SimulatedServer, models: Sequence[str], tell: Tell | None = None) -> Starlette:
    """Return the application; `tell` is told a line for each answer."""

    async def list_models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model(each) for each in models]})

    async def one_model(request: Request) -> Response:
        return JSONResponse(_model(request.path_params["model"]))  # any name is answered, so any is there

    async def ledger(request: Request) -> Response:
        return JSONResponse(server.ledger.document())

    async def reset(request: Request) -> Response:
        document, flying = server.ledger.document(), server.ledger.in_flight
        server.ledger = Ledger(started=flying, in_flight=flying, peak=flying)
        return JSONResponse(document)

    async def unknown(request: Request, error: Exception) -> Response:
        status = 405 if getattr(error, "status_code", 404) == 405 else 404
        return _response(failed(status, "invalid_request_error", f"no {request.method} {request.url.path} here"))

    return Starlette(
        routes=[
            Route("/v1/chat/completions", Asking(server, tell), methods=["POST"]),
            Route("/v1/responses", Asking(server, tell), methods=["POST"]),
            Route("/v1/models", list_models),
            Route("/v1/models/{model:path}", one_model),
            Route("/ledger", ledger, methods=["GET"]),
            Route("/ledger", reset, methods=["POST"]),
        ],
        exception_handlers={404: unknown, 405: unknown},
    )


@dataclass(frozen=True, slots=True)
class Asking:
    """The endpoint of both protocols."""

    server: SimulatedServer
    tell: Tell | None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        begun = anyio.current_time()
        try:
            body = await _body(request)
        except ClientDisconnect:
            return
        if body is None:
            too_large = failed(413, "request_too_large", f"a request has at most {MAX_REQUEST:,} bytes")
            await _response(too_large, {"connection": "close"})(scope, receive, send)
            return
        identity = request.headers.get("x-penstock-call", "")
        exchange = self.server.receive(request.url.path, body, identity, anyio.current_time())
        await _Sending(exchange, scope, receive, send).run()
        if self.tell is not None:
            took = anyio.current_time() - begun
            self.tell(f"{request.method} {request.url.path} {exchange.answer.status or 'no answer'} {took:.3f}s")


@dataclass(frozen=True, slots=True)
class _Sending:
    """Sends one answer, and stops when the client has left."""

    exchange: Exchange
    scope: Scope
    receive: Receive
    send: Send

    async def run(self) -> None:
        async with anyio.create_task_group() as tg:
            tg.start_soon(self._stop_when_left, tg.cancel_scope)
            try:
                await self._answer(self.exchange.answer)
            finally:
                if self.exchange.cancel():  # no end of it was said, so the client has left, or we do
                    self._break()
            tg.cancel_scope.cancel()

    async def _stop_when_left(self, scope: anyio.CancelScope) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def _answer(self, answer: Answer) -> None:
        await anyio.sleep(answer.latency)
        if answer.status is not None:
            await self._send_pieces(answer)
        if answer.ending == "never":
            await anyio.sleep_forever()
        elif answer.ending == "dropped":
            self.exchange.drop()
            if self._break():
                await anyio.sleep_forever()  # until it is seen to be broken
        else:
            self.exchange.finish()
            await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_pieces(self, answer: Answer) -> None:
        length = {} if answer.length is None else {"content-length": str(answer.length)}
        headers = [(name.encode(), value.encode()) for name, value in {**answer.headers, **length}.items()]
        await self.send({"type": "http.response.start", "status": answer.status, "headers": headers})
        for number, piece in enumerate(answer.pieces):
            if number:
                await anyio.sleep(answer.pause)
            await self.send({"type": "http.response.body", "body": piece, "more_body": True})

    def _break(self) -> bool:
        """Break the connection; False under a server that cannot, which then ends what is half answered."""
        found = cast("Callable[[], None] | None", self.scope.get("state", {}).get(BREAK))
        if found is not None:
            found()
        return found is not None


async def _body(request: Request) -> bytes | None:
    """Return the body of a request, or None as soon as it is too long."""
    parts = bytearray()
    async for part in request.stream():
        parts += part
        if len(parts) > MAX_REQUEST:
            return None
    return bytes(parts)


def _response(answer: Answer, headers: dict[str, str] | None = None) -> Response:
    return Response(b"".join(answer.pieces), answer.status or 500, {**answer.headers, **(headers or {})})


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "penstock-sim"}
