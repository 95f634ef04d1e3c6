"""A server that quotes what it was sent, the key among it, in every place of an answer where words can stand.

The last word of the user's last message says in which place: one of `PLACES`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager

import anyio
import anyio.abc

Quoting = Callable[[str], bytes]


def _http(status: int, body: bytes, kind: str = "application/json", **headers: str) -> bytes:
    named = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return (
        f"HTTP/1.1 {status} Said\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{named}\r\n".encode() + body
    )


def _error(status: int, **headers: Callable[[str], str]) -> Quoting:
    def quote(said: str) -> bytes:
        error = {"error": {"message": f"you sent {said}", "type": said, "code": said, "param": said}}
        made = {name: value(said) for name, value in headers.items()}
        return _http(status, json.dumps(error).encode(), **made)

    return quote


def _answer(**choice: object) -> Quoting:
    def quote(said: str) -> bytes:
        whole = json.dumps({"model": "m", "choices": [{"index": 0, "finish_reason": "stop", **choice}]})
        return _http(200, whole.replace("SAID", said).encode(), x_request_id=f"req-{said}")

    return quote


def _stream(*data: str) -> Quoting:
    def quote(said: str) -> bytes:
        half = len(said) // 2
        filled = [each.replace("SAID", said).replace("HALF", said[:half]).replace("REST", said[half:]) for each in data]
        return _http(200, "".join(f"data: {each}\n\n" for each in filled).encode(), "text/event-stream")

    return quote


def _delta(text: str, finish: str = "null") -> str:
    return '{"choices": [{"index": 0, "delta": {"content": "%s"}, "finish_reason": %s}]}' % (text, finish)  # noqa: UP031


#: where a server may quote what it was sent
PLACES: Mapping[str, Quoting] = {
    **{f"status-{status}": _error(status) for status in (400, 401, 403, 404, 413, 422, 429, 500, 503)},
    "request-id": _error(400, x_request_id=lambda said: f"req-{said}"),
    "retry-after": _error(429, retry_after=lambda said: said),
    "rate-header": _error(429, x_ratelimit_reset_requests=lambda said: said, x_ratelimit_limit_requests=lambda s: s),
    "redirect": _error(302, location=lambda said: f"http://127.0.0.1:1/?key={said}"),
    "error-text": lambda said: _http(400, f"plain words with {said}".encode(), "text/plain"),
    "html": lambda said: _http(200, f"<!doctype html><p>{said}".encode(), "text/html"),
    "cut": lambda said: _http(200, f'{{"model": "{said}", "choi'.encode()),
    "list": lambda said: _http(200, json.dumps([said]).encode()),
    "inner-error": lambda said: _http(
        200, json.dumps({"choices": None, "error": {"code": 400, "message": f"upstream: {said}"}}).encode()
    ),
    "content": _answer(message={"role": "assistant", "content": "you sent SAID, twice: SAID"}),
    "refusal": _answer(message={"role": "assistant", "content": None, "refusal": "not with SAID"}),
    "finish": _answer(message={"role": "assistant", "content": "x"}, finish_reason="SAID"),
    "wrong-type": _answer(message={"role": "assistant", "content": {"SAID": "SAID"}}),
    "tool-call": _answer(
        message={"content": None, "tool_calls": [{"id": "SAID", "function": {"name": "SAID", "arguments": "SAID"}}]},
        finish_reason="tool_calls",
    ),
    "stream-tool-call": _stream(
        '{"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "SAID", "function": {"name": "SAID",'
        ' "arguments": "HALF"}}]}, "finish_reason": null}]}',
        '{"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": "REST"}}]},'
        ' "finish_reason": "tool_calls"}]}',
        "[DONE]",
    ),
    "stream": _stream(_delta("you sent HALF"), _delta("REST, and SAID"), _delta("", '"stop"'), "[DONE]"),
    "stream-error": _stream(_delta("so far: SAID"), '{"error": {"message": "broke at SAID", "code": "SAID"}}'),
    "stream-garbage": _stream(_delta("so far: HALF"), "SAID is no JSON"),
    "stream-cut": _stream(_delta("so far: SAID")),
    "header-line": lambda said: f"HTTP/1.1 200 {said}\r\nbroken header {said}\r\n\r\n".encode(),
    "not-http": lambda said: f"{said}\r\n\r\n".encode(),
}


@asynccontextmanager
async def echoing_server() -> AsyncGenerator[str]:
    """Serve on a free port of this machine until the block ends; gives the base URL."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tg:
        tg.start_soon(listener.serve, _handle)
        yield f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}/v1"
        tg.cancel_scope.cancel()


async def _handle(client: anyio.abc.SocketStream) -> None:
    try:
        async with client:
            head, body = await _request(client)
            secrets = [line.partition(": ")[2] for line in head.split("\r\n") if _is_secret(line)]
            asked = [each["content"] for each in json.loads(body)["messages"] if each["role"] == "user"]
            place = asked[-1].split()[-1]
            await client.send(PLACES[place](" ".join(each.removeprefix("Bearer ") for each in secrets)))
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass


def _is_secret(line: str) -> bool:
    return line.lower().startswith(("authorization:", "x-api-token:"))


async def _request(client: anyio.abc.SocketStream) -> tuple[str, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += await client.receive()
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < int(lengths[0].partition(b":")[2]):
        body += await client.receive()
    return head.decode("latin-1"), body
