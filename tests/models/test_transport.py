"""Both transports keep to one contract: what goes over the wire, what comes back, what is refused, and what is left."""

from __future__ import annotations

import errno
import gzip
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import anyio
import anyio.lowlevel
import httpx2
import pytest

from pipeline.calls.departure import begun
from pipeline.calls.faults import fault_of_cause
from stages.models import aiohttp_transport, pools, transport
from stages.models.aiohttp_transport import AiohttpTransport
from stages.models.pools import PooledTransport
from stages.models.sockets import Sockets
from stages.models.transport import BadEncoding, ForeignHost, ResponseTooLarge, StaleConnection, open_transport
from tests.servers.raw import Connection, RawServer, forever, raw_server

Transport = PooledTransport | AiohttpTransport
Opens = Callable[..., Transport]
BODY = b'{"question": 1}'

pytestmark = pytest.mark.parametrize(
    ("anyio_backend", "opens"),
    [("asyncio", PooledTransport), ("trio", PooledTransport), ("asyncio", AiohttpTransport)],
    ids=["pools-asyncio", "pools-trio", "aiohttp-asyncio"],
)


@asynccontextmanager
async def opened(opens: Opens, base_url: str, **given: int) -> AsyncIterator[Transport]:
    made = opens(base_url, Sockets(None, None), **given)
    try:
        yield made
    finally:
        assert made.busy == 0
        await made.aclose()


def post(server: RawServer, headers: Mapping[str, str] | None = None) -> httpx2.Request:
    url = f"{server.base_url}/chat/completions"
    return httpx2.Request("POST", url, headers={"X-One": "1", **(headers or {})}, content=BODY)


def streamed(server: RawServer) -> httpx2.Request:
    return post(server, {"Accept": "text/event-stream"})


async def asked(made: Transport, server: RawServer) -> httpx2.Response:
    return await made.handle_async_request(post(server))


async def failure(made: Transport, server: RawServer) -> BaseException:
    with pytest.raises((httpx2.TransportError, transport.TransportRefusal)) as caught:
        await asked(made, server)
    return caught.value


class Departing:
    """An attempt that counts how often it was told to leave, and what was known of the server then."""

    def __init__(self, heads: list[bytes] | None = None) -> None:
        self.heads = heads
        self.times = 0

    def depart(self) -> None:
        assert self.heads in (None, []), "it had left before"
        self.times += 1

    def end(self, end: object, usage: object, cost: object) -> None:
        raise AssertionError("a transport ends nothing")


async def test_an_attempt_departs_on_a_connection_that_is_new_and_on_one_that_was_used(opens: Opens) -> None:
    async def handle(connection: Connection) -> None:
        for _ in range(2):
            await connection.read()
            await connection.answer(b"{}")

    async with raw_server(handle) as server, opened(opens, server.base_url) as made:
        first, second = Departing(server.heads), Departing()
        begun(first)
        await asked(made, server)
        begun(second)
        await asked(made, server)
        begun(None)
        await made.aclose()
    assert (server.opened, first.times, second.times) == (1, 1, 1)


async def test_an_attempt_without_a_body_departs_once(opens: Opens) -> None:
    async def handle(connection: Connection) -> None:
        await connection.read()
        await connection.answer(b"{}")

    async with raw_server(handle) as server, opened(opens, server.base_url) as made:
        attempt = Departing(server.heads)
        begun(attempt)
        await made.handle_async_request(httpx2.Request("GET", f"{server.base_url}/models"))
        begun(None)
    assert attempt.times == 1


async def test_an_attempt_that_finds_no_server_does_not_depart(opens: Opens) -> None:
    async with opened(opens, "http://127.0.0.1:9/v1") as made:
        attempt = Departing()
        begun(attempt)
        with pytest.raises(httpx2.ConnectError):
            await made.handle_async_request(httpx2.Request("POST", "http://127.0.0.1:9/v1/x", content=BODY))
        begun(None)
    assert attempt.times == 0


async def test_what_is_sent_is_what_was_asked_for_and_nothing_else(opens: Opens) -> None:
    bodies: list[bytes] = []

    async def handle(connection: Connection) -> None:
        bodies.append(await connection.read())
        await connection.answer(b'{"a": 1}', headers=b"x-a: 1\r\nX-A: 2\r\n")

    async with raw_server(handle) as server, opened(opens, server.base_url) as made:
        response = await asked(made, server)
    assert bodies == [BODY]
    line, *headers = server.heads[0].split(b"\r\n")
    assert line == b"POST /v1/chat/completions HTTP/1.1"
    assert {name.lower(): value for name, value in (each.split(b": ") for each in headers)} == {
        b"host": f"127.0.0.1:{server.port}".encode(),
        b"x-one": b"1",
        b"content-length": b"15",
    }
    assert (response.status_code, response.content) == (200, b'{"a": 1}')
    assert response.headers.get_list("x-a") == ["1", "2"]


async def test_connections_are_used_again_and_are_as_many_as_are_in_flight(opens: Opens) -> None:
    waiting = 0
    all_there = anyio.Event()

    async def handle(connection: Connection) -> None:
        nonlocal waiting
        while True:
            await connection.read()
            waiting += 1
            if waiting == 20:
                all_there.set()
            await all_there.wait()
            await connection.answer()

    async with raw_server(handle) as server, opened(opens, server.base_url) as made:
        async with anyio.create_task_group() as tg:
            for _ in range(20):
                tg.start_soon(asked, made, server)
        for _ in range(30):
            await asked(made, server)
        assert (server.opened, server.left) == (20, 0)
    assert len(server.heads) == 50


async def test_a_body_may_come_in_chunks_or_end_with_the_connection(opens: Opens) -> None:
    async def handle(connection: Connection) -> None:
        await connection.read()
        await connection.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
        await connection.read()
        await connection.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nto the end")

    async with raw_server(handle) as server, opened(opens, server.base_url) as made:
        assert (await asked(made, server)).content == b"abcde"
        assert (await asked(made, server)).content == b"to the end"
        await server.until_all_left()
    assert server.opened == 1


async def test_an_answer_without_a_body_is_empty(opens: Opens) -> None:
    async def handle(connection: Connection) -> None:
        await connection.read()
        await connection.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await forever(connection)

    async with raw_server(handle) as server, opened(opens, server.base_url) as made:
        response = await asked(made, server)
        assert (response.status_code, response.content) == (204, b"")
        assert (await asked(made, server)).content == b"{}"


@pytest.mark.parametrize("status", ["200 OK", "500 Internal Server Error"])
async def test_an_answer_that_is_too_long_is_cut_off_and_its_connection_closed(opens: Opens, status: str) -> None:
    async def handle(connection: Connection) -> None:
        await connection.read()
        await connection.write(b"HTTP/1.1 %b\r\n\r\n" % status.encode())
        while True:  # until the client has left
            await connection.write(b"x" * 1000)
            await anyio.lowlevel.checkpoint()

    async with raw_server(handle) as server, opened(opens, server.base_url, max_answer=5000) as made:
        assert str(await failure(made, server)) == "the answer is longer than 5,000 bytes"
        await server.until_all_left()


async def test_an_answer_of_just_the_longest_length_is_read(opens: Opens) -> None:
    async def handle(connection: Connection) -> None:
        for length in (5000, 5001):
            await connection.read()
            await connection.answer(b"x" * length)

    async with raw_server(handle) as server, opened(opens, server.base_url, max_answer=5000) as made:
        assert len((await asked(made, server)).content) == 5000
        assert type(await failure(made, server)) is ResponseTooLarge


async def test_packed_answers_are_unpacked_up_to_the_cap_and_others_refused(opens: Opens) -> None:
    async def handle(connection: Connection) -> None:
        for body, packing in ((gzip.compress(b"abc"), b"gzip"), (gzip.compress(b"x" * 9999), b"gzip"), (b"?", b"br")):
            await connection.read()
            await connection.answer(body, headers=b"content-encoding: %b\r\n" % packing)

    async with raw_server(handle) as server, opened(opens, server.base_url, max_answer=5000) as made:
        response = await asked(made, server)
        assert (response.content, "content-encoding" in response.headers) == (b"abc", False)
        assert type(await failure(made, server)) is ResponseTooLarge
        assert type(await failure(made, server)) is BadEncoding


@pytest.mark.parametrize(
    "url", ["http://localhost:{port}/v1", "https://127.0.0.1:{port}/v1", "http://127.0.0.1:1/v1", "http://other/v1"]
)
async def test_nothing_is_sent_to_another_origin(opens: Opens, url: str) -> None:
    async with raw_server(forever) as server, opened(opens, server.base_url) as made:
        with pytest.raises(ForeignHost):
            await made.handle_async_request(httpx2.Request("POST", url.format(port=server.port), content=BODY))
    assert (server.opened, server.heads) == (0, [])


async def test_redirects_are_handed_back_and_cookies_forgotten(opens: Opens) -> None:
    async def handle(connection: Connection) -> None:
        await connection.read()
        await connection.answer(b"", "302 Found", b"location: /elsewhere\r\nset-cookie: a=1; path=/\r\n")
        await forever(connection)

    async with raw_server(handle) as server, opened(opens, server.base_url) as made:
        response = await asked(made, server)
        assert (response.status_code, "set-cookie" in response.headers) == (302, False)
        await asked(made, server)
    assert [b"cookie" in head.lower() for head in server.heads] == [False, False]


async def test_the_environment_sends_nothing_elsewhere(opens: Opens, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with raw_server(forever) as server, opened(opens, server.base_url) as made:
        assert (await asked(made, server)).content == b"{}"


async def test_a_server_that_is_not_there_is_a_failed_connection(opens: Opens, free_tcp_port: int) -> None:
    server = RawServer(free_tcp_port)
    async with opened(opens, server.base_url) as made:
        error = await failure(made, server)
    assert type(error) is httpx2.ConnectError
    assert fault_of_cause(error).fault == "retry"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nab",
        b"no HTTP at all\r\n\r\n",
    ],
    ids=["nothing", "half a head", "half a body", "half a chunk", "nonsense"],
)
async def test_an_answer_that_breaks_off_is_doubtful(opens: Opens, answer: bytes) -> None:
    async def handle(connection: Connection) -> None:
        await connection.read()
        if answer:
            await connection.write(answer)

    async with raw_server(handle) as server, opened(opens, server.base_url) as made:
        error = await failure(made, server)
        assert type(error) is httpx2.RemoteProtocolError
        assert fault_of_cause(error).fault == "ambiguous"
        await server.until_all_left()


async def test_a_connection_that_the_server_closed_while_it_was_idle_is_not_used_or_costs_nothing(
    opens: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aiohttp_transport, "STALE", 5.0)

    async def handle(connection: Connection) -> None:
        await connection.read()
        await connection.answer()

    async with raw_server(handle) as server, opened(opens, server.base_url) as made:
        for number in range(1, 4):
            try:
                answer = await asked(made, server)
            except StaleConnection:  # it had not been told yet
                answer = await asked(made, server)
            assert answer.content == b"{}"
            await server.until_all_left()
            assert server.opened == number


async def test_a_used_connection_that_closes_at_once_cost_nothing(
    opens: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handle(connection: Connection) -> None:
        await connection.read()
        await connection.answer()
        await connection.read()

    for module in (pools, aiohttp_transport):
        monkeypatch.setattr(module, "STALE", 5.0)
    async with raw_server(handle) as server, opened(opens, server.base_url) as made:
        await asked(made, server)
        error = await failure(made, server)
        assert type(error) is StaleConnection
        assert fault_of_cause(error).fault == "retry"
        for module in (pools, aiohttp_transport):
            monkeypatch.setattr(module, "STALE", 0.0)  # as if it had taken longer
        await asked(made, server)
        assert fault_of_cause(await failure(made, server)).fault == "ambiguous"


async def test_a_cancelled_request_closes_its_connection(opens: Opens) -> None:
    sent = anyio.Event()

    async def handle(connection: Connection) -> None:
        await connection.read()
        sent.set()
        await connection.until_left()

    async with raw_server(handle) as server, opened(opens, server.base_url) as made:
        async with anyio.create_task_group() as tg:
            tg.start_soon(asked, made, server)
            await sent.wait()
            assert made.busy == 1
            tg.cancel_scope.cancel()
        assert made.busy == 0
        await server.until_all_left()


EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


async def test_a_stream_is_handed_on_as_it_comes(opens: Opens) -> None:
    taken = anyio.Event()

    async def handle(connection: Connection) -> None:
        await connection.read()
        await connection.write(EVENTS + b"data: 1\n\n")
        await taken.wait()
        await connection.write(b"data: 2\n\n")

    async with raw_server(handle) as server, opened(opens, server.base_url) as made:
        response = await made.handle_async_request(streamed(server))
        parts: list[bytes] = []
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        async for part in response.stream:
            parts.append(part)
            taken.set()
        assert (parts, made.busy) == ([b"data: 1\n\n", b"data: 2\n\n"], 1)
        await response.aclose()
        assert made.busy == 0
        await server.until_all_left()


async def test_a_stream_that_is_closed_early_closes_its_connection(opens: Opens) -> None:
    async def handle(connection: Connection) -> None:
        await connection.read()
        await connection.write(EVENTS + b"data: 1\n\n")
        await connection.until_left()

    async with raw_server(handle) as server, opened(opens, server.base_url) as made:
        response = await made.handle_async_request(streamed(server))
        with anyio.CancelScope() as scope:
            async for _ in response.aiter_raw():
                scope.cancel()
        await response.aclose()
        await server.until_all_left()


async def test_a_stream_that_breaks_off_is_doubtful(opens: Opens) -> None:
    async def handle(connection: Connection) -> None:
        await connection.read()
        await connection.write(EVENTS.replace(b"\r\n\r\n", b"\r\ntransfer-encoding: chunked\r\n\r\n") + b"9\r\ndata:")

    async with raw_server(handle) as server, opened(opens, server.base_url) as made:
        response = await made.handle_async_request(streamed(server))
        with pytest.raises(httpx2.RemoteProtocolError):
            async for _ in response.aiter_raw():
                pass
        await response.aclose()


@pytest.mark.parametrize(
    ("status", "kind"), [("500 Internal Server Error", b"text/event-stream"), ("200 OK", b"application/json")]
)
async def test_what_is_no_stream_is_read_whole_whoever_asked(opens: Opens, status: str, kind: bytes) -> None:
    async def handle(connection: Connection) -> None:
        while True:
            await connection.read()
            await connection.answer(b"{}", status, b"content-type: %b\r\n" % kind)

    async with raw_server(handle) as server, opened(opens, server.base_url) as made:
        response = await made.handle_async_request(streamed(server))
        assert (response.content, made.busy) == (b"{}", 0)
        await asked(made, server)
        assert server.opened == 1


async def test_an_idle_connection_is_closed_after_a_while(opens: Opens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "KEPT", -1.0)
    monkeypatch.setattr(aiohttp_transport, "KEPT", 0.0)
    async with raw_server(forever) as server, opened(opens, server.base_url) as made:
        await asked(made, server)
        await asked(made, server)
        assert server.opened == 2
        await made.aclose()
        await server.until_all_left()


async def test_an_idle_connection_is_closed_when_any_pool_is_used_after_a_while(
    opens: Opens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "KEPT", -1.0)
    monkeypatch.setattr(aiohttp_transport, "KEPT", 0.01)  # it has a timer of its own
    sockets = Sockets(None, None)
    async with raw_server(forever) as one, raw_server(forever) as two:
        made = [opens(server.base_url, sockets) for server in (one, two)]
        await asked(made[0], one)
        await asked(made[1], two)
        await one.until_all_left()
        for each in made:
            await each.aclose()


async def test_a_new_connection_takes_the_room_of_an_idle_one_of_another_pool(opens: Opens) -> None:
    sockets = Sockets(100, 1, busy=1)
    async with raw_server(forever) as one, raw_server(forever) as two:
        made = [opens(server.base_url, sockets) for server in (one, two)]
        for _ in range(2):
            await asked(made[0], one)
        assert (one.opened, one.left, sockets.idle) == (1, 0, 1)
        await asked(made[1], two)
        await one.until_all_left()
        assert (two.opened, two.left, sockets.idle) == (1, 0, 1)
        await asked(made[0], one)
        await two.until_all_left()
        assert (one.opened, sockets.idle) == (2, 1)
        for each in made:
            await each.aclose()
        assert sockets.pools == []


async def test_a_process_without_a_descriptor_waits_for_one(opens: Opens, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first two connections fail for want of one, as in real life deep inside of what opens them."""
    sockets, failed = Sockets(100, None, busy=1), 0
    real = socket.socket.__init__

    def init(self: socket.socket, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        nonlocal failed
        if failed < 2 and fileno is None:
            failed += 1
            raise OSError(errno.EMFILE, "Too many open files")
        real(self, family, type, proto, fileno)

    async with raw_server(forever) as server:
        made = opens(server.base_url, sockets)
        monkeypatch.setattr(socket.socket, "__init__", init)
        assert (await asked(made, server)).content == b"{}"
        await made.aclose()
    assert (failed, sockets.ran_out, sockets.busy, server.opened) == (2, 2, 1, 1)


async def test_each_event_loop_gets_the_fastest_transport_that_it_can_run(
    opens: Opens, monkeypatch: pytest.MonkeyPatch, anyio_backend_name: str
) -> None:
    found = open_transport("http://127.0.0.1:1/v1", Sockets(None, None))
    assert type(found) is (AiohttpTransport if anyio_backend_name == "asyncio" else PooledTransport)
    monkeypatch.setattr(transport, "find_spec", lambda name: None)
    assert type(open_transport("http://127.0.0.1:1/v1", Sockets(None, None))) is PooledTransport
