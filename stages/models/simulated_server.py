"""The server side of a simulated model, as an HTTP transport in the process."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, cast

import anyio
import httpx2

from stages.models.distribution import Distribution
from stages.models.simulated_answer import Asked, completion
from stages.models.simulated_faults import MESSAGES

if TYPE_CHECKING:
    from stages.models.simulated import SimulatedModel

_JSON = {"content-type": "application/json"}


@dataclass(slots=True)
class Ledger:
    """What the server saw. Counts only grow but `in_flight`."""

    started: int = 0
    finished: int = 0  #: answered, with whatever status
    cancelled: int = 0  #: given up by the client before there was an answer
    in_flight: int = 0
    peak: int = 0  #: most requests in flight at one time


@dataclass(slots=True, eq=False)
class SimulatedTransport(httpx2.AsyncBaseTransport):
    """Answers chat completions. Chance is drawn from the seed and the call's identity header.

    Without the header, from the request's body and how often that body came before.
    """

    definition: SimulatedModel
    ledger: Ledger = field(default_factory=Ledger)
    _seen: Counter[bytes] = field(default_factory=Counter[bytes])

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        ledger = self.ledger
        ledger.started += 1
        ledger.in_flight += 1
        ledger.peak = max(ledger.peak, ledger.in_flight)
        try:
            response = await self._answer(request)
        except anyio.get_cancelled_exc_class():
            ledger.cancelled += 1
            raise
        else:
            ledger.finished += 1
            return response
        finally:
            ledger.in_flight -= 1

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        body = await request.aread()
        asked = Asked.read(cast("Mapping[str, object]", json.loads(body)))
        chance = Random(self._draw(request, body))
        fault = self.definition.faults().drawn(asked.prompt, chance)
        await anyio.sleep(cast("Distribution", self.definition.latency).draw(chance))
        if fault == "timeout":
            await anyio.sleep_forever()
        if fault == "disconnect":
            raise httpx2.RemoteProtocolError("the simulated server closed the connection", request=request)
        if fault is not None and fault.isdecimal():
            return _error(int(fault))
        if fault == "html":
            return httpx2.Response(200, headers={"content-type": "text/html"}, content=b"<!doctype html><p>simulated")
        tokens = cast("Distribution | None", self.definition.tokens)
        length = None if tokens is None else max(1, round(tokens.draw(chance)))
        document = completion(asked, self.definition.model, fault, length, chance)
        content = json.dumps(document, ensure_ascii=False).encode()
        return httpx2.Response(200, headers=_JSON, content=content[:-9] if fault == "bad_json" else content)

    def _draw(self, request: httpx2.Request, body: bytes) -> int:
        identity = request.headers.get("x-penstock-call", "").encode()
        if not identity:
            digest = hashlib.sha256(body).digest()
            identity = digest + str(self._seen[digest]).encode()
            self._seen[digest] += 1
        seeded = str(self.definition.seed).encode() + b"\x00" + identity
        return int.from_bytes(hashlib.sha256(seeded).digest()[:8], "big")


def _error(status: int) -> httpx2.Response:
    code, message = MESSAGES.get(status, ("simulated", f"a simulated error {status}"))
    error = {"error": {"message": message, "type": code, "code": code}}
    return httpx2.Response(status, headers=_JSON, content=json.dumps(error).encode())
