"""Streams, and faults that only sockets have, over a real connection and whichever transport the event loop gets."""

from __future__ import annotations

import gzip
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import anyio
import httpx2
import pytest

from pipeline.calls.errors import CallError
from pipeline.core.events import Event, TextStreamed
from pipeline.core.state import Message
from pipeline.core.usage import Usage
from pipeline.core.virtual import virtual
from stages.models import OpenAIModel, resolve
from stages.models.opening import OpenChat
from stages.models.replies import same_model
from tests.calls.streams import answered, says, sent
from tests.calls.visits import FakeVisit
from tests.servers.scripted import ScriptedModel, Sent
from tests.servers.wire import Wire, WireServer, chunked, head, wire_server

STREAM = head(200, "text/event-stream")
CHUNKED = head(200, "text/event-stream", "transfer-encoding: chunked")
EVENTS = sent(*answered("hello"))
PLAIN = b'{"model": "m", "choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]}'
GZIP = ("content-encoding: gzip",)


@asynccontextmanager
async def opened(server: WireServer, **options: object) -> AsyncGenerator[OpenChat]:
    options = {"attempts": 1, "timeout": 5.0, **options}
    async with resolve("vllm/m", base_url=server.base_url, **options).open() as chat:
        assert isinstance(chat, OpenChat)
        yield chat


async def asked(chat: OpenChat, visit: FakeVisit, stream: bool) -> object:
    """Ask, and return the text, or type and class of the failure."""
    try:
        reply = await chat.call(visit, [Message("user", "hi")], stream=stream)
    except CallError as error:
        return error.type, error.fault
    return reply.text


async def outcome(stream: bool, *wires: Wire, **options: object) -> object:
    async with wire_server(*wires) as server, opened(server, **options) as chat:
        found = await asked(chat, FakeVisit(), stream)
        assert server.requests == 1
        return found


def patience(wire: Wire) -> float:
    """Seconds of an attempt: few only where they are waited for."""
    return 1.0 if wire.leave == "stall" else 20.0


def told(visit: FakeVisit) -> list[str]:
    return [event.text for event in visit.events if isinstance(event, TextStreamed)]


async def test_pieces_are_told_before_the_answer_is_whole_and_the_connection_is_used_again() -> None:
    first = chunked(sent(*answered("hello")[:2]))
    wires = (Wire(CHUNKED, first, chunked(EVENTS[len(sent(*answered("hello")[:2])) :]), chunked(b""), leave="keep"),)
    visit = FakeVisit()
    async with wire_server(*wires) as server, opened(server) as chat:
        for _ in range(3):
            reply = await chat.call(visit, [Message("user", "hi")], stream=True)
        assert (server.requests, server.connections) == (3, 1)
    assert (reply.text, reply.usage, reply.flags) == ("hello", Usage(10, 5, requests=1), ())
    assert told(visit) == ["he", "llo"] * 3


class Listener(FakeVisit):
    """Says when it was told something."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = anyio.Event()

    def emit(self, event: Event) -> None:
        super().emit(event)
        if isinstance(event, TextStreamed):
            self.heard.set()


async def test_a_piece_is_told_while_the_server_still_thinks() -> None:
    visit = Listener()
    async with wire_server(Wire(STREAM, sent(says("so far")), leave="stall")) as server, opened(server) as chat:
        async with anyio.create_task_group() as tg:
            tg.start_soon(asked, chat, visit, True)
            with anyio.fail_after(5):
                await visit.heard.wait()
            tg.cancel_scope.cancel()
        assert told(visit) == ["so far"]


async def test_nobody_is_told_who_does_not_listen() -> None:
    visit = FakeVisit(listening=False)
    async with wire_server(Wire(STREAM, EVENTS)) as server, opened(server) as chat:
        assert await asked(chat, visit, True) == "hello"
    assert told(visit) == []


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        (Wire(STREAM, EVENTS), "hello"),
        (Wire(STREAM, EVENTS, leave="reset"), "hello"),
        (Wire(CHUNKED, chunked(EVENTS), leave="stall"), "hello"),
        (Wire(CHUNKED, chunked(EVENTS)), "hello"),
        (Wire(head(), PLAIN), "hello"),
        (Wire(head(200, "text/event-stream", *GZIP), gzip.compress(EVENTS)), "hello"),
        (Wire(STREAM, EVENTS[:300]), ("unfinished", "ambiguous")),
        (Wire(STREAM, EVENTS[:300], leave="stall"), ("timeout", "ambiguous")),
        (Wire(CHUNKED, chunked(EVENTS[:300])), ("disconnected", "ambiguous")),
        (Wire(CHUNKED, chunked(EVENTS[:300]), leave="reset"), ("disconnected", "ambiguous")),
        (Wire(STREAM, b"data: " + b"x" * (17 << 20)), ("too_big", "fail")),
        (Wire(STREAM, (b": " + b"x" * 250 + b"\n") * 80_000), ("too_big", "fail")),
    ],
)
async def test_what_a_stream_comes_to(wire: Wire, expected: object) -> None:
    assert await outcome(True, wire, timeout=patience(wire)) == expected


async def test_a_broken_chunk_after_a_good_one_is_a_broken_connection_at_once_or_in_time() -> None:
    found = await outcome(True, Wire(CHUNKED, chunked(EVENTS[:300]), b"zz\r\n"), timeout=1.0)
    assert found in [("disconnected", "ambiguous"), ("timeout", "ambiguous")]  # aiohttp does not tell its reader


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        (Wire(), ("disconnected", "ambiguous")),
        (Wire(leave="reset"), ("disconnected", "ambiguous")),
        (Wire(b"HTTP/1.1 2"), ("disconnected", "ambiguous")),
        (Wire(b"hello\r\n\r\n"), ("disconnected", "ambiguous")),
        (Wire(b"HTTP/1.1 100 Continue\r\n\r\n", head(), PLAIN), "hello"),
        (Wire(b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n", head(), PLAIN), "hello"),
        (Wire(head(204)), ("bad_status", "fail")),
        (Wire(head(206), PLAIN), ("bad_status", "fail")),
        (Wire(head(200, "application/json", "content-length: 500"), PLAIN), ("disconnected", "ambiguous")),
        (Wire(head(200, "application/json", "transfer-encoding: chunked"), b"zz\r\n"), ("disconnected", "ambiguous")),
        (Wire(head(200, "application/json", *GZIP), b"\x1f\x8bnot"), ("bad_encoding", "fail")),
        (Wire(head(200, "application/json", *GZIP), gzip.compress(b" " * (20 << 20))), ("too_big", "fail")),
        (Wire(head(200, "application/json", "content-encoding: br"), PLAIN), ("bad_encoding", "fail")),
        (Wire(head(503, "text/event-stream"), b"data: busy\n\n"), ("overloaded", "retry")),
        (Wire(b"HTTP/1.1 200 OK\r\n", b"x-long: " + b"y" * (1 << 20)), ("disconnected", "ambiguous")),
        (Wire(leave="stall"), ("timeout", "ambiguous")),
    ],
)
async def test_what_a_connection_comes_to(wire: Wire, expected: object, stream: bool) -> None:
    assert await outcome(stream, wire, timeout=patience(wire)) == expected


STREAM_CUT = sent(*answered("a\u2028é😀"), end="\r\n")
FINISHED = len(sent(*answered("a\u2028é😀")[:4], end="\r\n"))


@pytest.mark.parametrize("breaks", [None, httpx2.ReadError, httpx2.RemoteProtocolError, httpx2.ReadTimeout])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_stream_that_ends_at_any_byte_is_never_an_answer_unless_it_is_whole(
    backend: str, breaks: type[httpx2.TransportError] | None
) -> None:
    async def check() -> None:
        made = resolve("vllm/m-1", base_url="https://m.test/v1", attempts=1)
        assert isinstance(made, OpenAIModel)
        good = Sent(parts=(STREAM_CUT,), kind="text/event-stream")
        reason = None if breaks is None else lambda: breaks("it broke")
        cuts = [
            Sent(parts=(STREAM_CUT[:cut],), kind="text/event-stream", breaks=reason) for cut in range(len(STREAM_CUT))
        ]
        model = ScriptedModel(made, tuple(each for cut in cuts for each in (cut, good)))
        done = STREAM_CUT.index(b"[DONE]") + len("[DONE]")
        async with model.open() as chat:
            for cut in range(len(STREAM_CUT)):
                found = await asked(chat, FakeVisit(item_id=str(cut)), True)
                assert await asked(chat, FakeVisit(), True) == "a\u2028é😀"
                if found == "a\u2028é😀":
                    assert cut >= (FINISHED - 1 if breaks is None else done)
                else:
                    assert found in [(kind, "ambiguous") for kind in ("unfinished", "disconnected", "timeout")]
        assert model.ledger.open == 0

    anyio.run(check, **virtual(backend))


async def test_many_streams_that_are_cancelled_anywhere_leave_nothing_behind() -> None:
    wire = Wire(CHUNKED, *[chunked(sent(each)) for each in answered("hello")], chunked(b""), leave="keep")
    async with wire_server(wire) as server, opened(server) as chat:

        async def worker(number: int) -> None:
            for turn in range(10):
                with anyio.move_on_after((number * 7 + turn * 3) % 11 * 0.0007):
                    await chat.call(FakeVisit(item_id=f"{number}.{turn}"), [Message("user", "hi")], stream=True)

        async with anyio.create_task_group() as tg:
            for number in range(10):
                tg.start_soon(worker, number)
        for _ in range(20):
            assert await asked(chat, FakeVisit(), True) == "hello"


@pytest.mark.parametrize(
    ("asked_for", "given", "same"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("gpt-4o", None, True),
        ("openai/gpt-4o", "gpt-4o", True),
        ("qwen", "qwen:latest", True),
        ("mistral-large-latest", "mistral-large-2407", True),
        ("Meta-Llama", "meta-llama", True),
        ("gpt-4", "gpt-4o", False),
        ("gpt-4", "gpt-4-turbo", False),
        ("gpt-4o", "gpt-4o-mini", False),
    ],
)
def test_a_version_of_a_model_is_that_model_and_another_one_is_not(
    asked_for: str, given: str | None, same: bool
) -> None:
    assert same_model(asked_for, given) == same
