"""Over aiohttp, nothing else happens between the moment a request departs and its bytes being the system's: what is
counted as sent, and perhaps paid, when the process is killed, was sent."""

from __future__ import annotations

import asyncio
import socket

import httpx2
import pytest

from pipeline.calls.departure import begun
from stages.models.aiohttp_transport import AiohttpTransport, write_at_once
from stages.models.sockets import Sockets

both_loops = pytest.mark.parametrize(
    "anyio_backend", [("asyncio", {"use_uvloop": False}), ("asyncio", {"use_uvloop": True})], ids=["asyncio", "uvloop"]
)


class Watched:
    """An attempt at which the event loop looks, as soon as what departs has done what it can, at what has come to the
    other end; and then has it answered."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self.arrived = b""

    def depart(self) -> None:
        asyncio.get_running_loop().call_soon(self._look)

    def end(self, end: object, usage: object, cost: object) -> None:
        raise AssertionError("a transport ends nothing")

    def _look(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            connection.setblocking(False)
            self.arrived = connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


@both_loops
async def test_a_request_is_on_its_way_in_the_turn_in_which_it_departs() -> None:
    body = b'{"question": 1}'
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(1)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        made, attempt = AiohttpTransport(url, Sockets(None, None)), Watched(listener)
        begun(attempt)
        response = await made.handle_async_request(httpx2.Request("POST", f"{url}/x", content=body))
        begun(None)
        await made.aclose()
    assert response.content == b"{}"
    assert attempt.arrived.startswith(b"POST /v1/x HTTP/1.1\r\n")
    assert attempt.arrived.endswith(b"\r\n\r\n" + body)


class Limited:
    """A transport that tells which limit it was given."""

    def __init__(self, tls: object) -> None:
        self._tls = tls
        self.limits: list[int] = []

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        raise AssertionError("nobody closes it")

    def get_extra_info(self, name: str) -> object:
        return {"sslcontext": self._tls}[name]

    def set_write_buffer_limits(self, high: int) -> None:
        self.limits.append(high)


def test_writes_are_not_held_back_but_with_tls_which_would_pause_the_writer() -> None:
    plain, tls = Limited(None), Limited(object())
    write_at_once(plain)
    write_at_once(tls)
    assert (plain.limits, tls.limits) == ([0], [])
