"""What the server saw in all lives of a run: lines in a file that outlive whoever is killed.

Each is written by one `write`, appended, so it is there or not, and the file is what a server elsewhere would know.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import httpx2

from pipeline.calls.call import Request
from pipeline.calls.departure import departs
from stages.models import simulated, simulated_server


class Seen(NamedTuple):
    """One line. `what`: "arrived", "answered", "delivered", or a name of a workload's own."""

    life: int
    what: str
    name: Any  #: of a request: item, path, ordinal, attempt

    @property
    def call(self) -> tuple[str, tuple[str, ...], int]:
        item, path, ordinal, _ = self.name
        return item, tuple(path), ordinal

    @property
    def attempt(self) -> tuple[str, tuple[str, ...], int, int]:
        return (*self.call, self.name[3])


class Ledger:
    """The end that a life writes to."""

    def __init__(self, path: Path, life: int) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._life = life

    def write(self, what: str, name: Any) -> None:
        os.write(self._fd, json.dumps([self._life, what, name]).encode() + b"\n")


def read(path: Path) -> list[Seen]:
    return [Seen(*json.loads(line)) for line in path.read_bytes().splitlines()] if path.exists() else []


_open: list[Ledger] = []  # of this process, which lives for one life


def happened(what: str, name: Any) -> None:
    """Write that something of a workload's own happened."""
    (ledger,) = _open
    ledger.write(what, name)


def keep(path: Path, life: int, probe: Callable[[str], None]) -> Ledger:
    """Have all simulated models of this process write what they see. For a process that is not used for anything
    else afterwards."""
    ledger = Ledger(path, life)
    _open.append(ledger)

    class Recorded(simulated_server.SimulatedTransport):
        tells_departures = True

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            name = json.loads(bytes.fromhex(request.headers["x-where"]))
            probe("request:before")
            departs()
            ledger.write("arrived", name)
            probe("request:arrived")
            try:
                response = await super().handle_async_request(request)
            except anyio.get_cancelled_exc_class():
                ledger.write("left", name)
                raise
            ledger.write("answered", name)
            probe("request:answered")
            return response

    identity = simulated._identity  # pyright: ignore[reportPrivateUsage]

    def identified(request: Request) -> dict[str, str]:
        who = request.identity
        name = [who.item_id, list(who.path), who.ordinal, request.attempt]
        return {**identity(request), "x-where": json.dumps(name).encode().hex()}

    simulated_server.SimulatedTransport = Recorded
    simulated._identity = identified  # pyright: ignore[reportPrivateUsage]
    return ledger
