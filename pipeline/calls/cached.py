"""A call that was answered before is not made again, and equal calls at the same time are made once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final, Protocol, cast

import anyio

from pipeline.calls.call import Call, Reply, Request
from pipeline.calls.errors import ModelError
from pipeline.calls.flights import Flights, Follower
from pipeline.calls.schema import SchemaError
from pipeline.core.events import TextStreamed
from pipeline.core.state import ToolCall
from pipeline.core.usage import Cost, Usage

FREE: Final = Cost(0.0, "cache")
_COUNTS: Final = ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens")
_FINISHED: Final = ("stop", "tool_calls")
_EVEN: Final = frozenset({"hedged", "usage_missing"})  #: flags of an answer that is good all the same


class Kept(Protocol):
    """Where answers are kept, see `pipeline.calls.cache`."""

    async def get(self, key: bytes) -> str | None: ...

    async def put(self, key: bytes, answer: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Cached:
    """Answers from `kept` what was answered before; makes no attempt then, and costs nothing.

    `body_of` writes the request as it would be sent; with `scope` (server, protocol, account, headers), the stage's
    path and the number of the call it is the key. Items with equal prompts share an answer; the votes of one item and
    the rounds of a loop do not. Only whole good answers are kept: finished, flagged with nothing odd, and fitting the
    schema. When a call that others wait for fails, the first of them makes it; when its answer is not one to keep, each
    makes its own.
    """

    kept: Kept
    flights: Flights
    scope: tuple[str | None, ...]
    body_of: Callable[[Request], object]

    def __call__(self, call: Call, /) -> Call:
        async def cached(request: Request) -> Reply:
            key = self.key_of(request)
            while True:
                if self.flights.lead(key, request.visit):
                    return await self._lead(key, call, request)
                follower = self.flights.follow(key)
                await self._wait(key, follower, request)
                if follower.answer is not None:
                    return _told(_read(follower.answer), request)
                if follower.alone:
                    reply = await call(request)
                    await self._keep(key, _answer_of(reply, request))
                    return reply

        return cached

    def key_of(self, request: Request) -> bytes:
        """32 bytes for what the answer depends on; it is the same whether it comes in pieces or as a whole."""
        who, body = request.identity, self.body_of(replace(request, stream=False))
        parts = [self.scope, body, who.path, who.ordinal]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).digest()

    async def _wait(self, key: bytes, follower: Follower, request: Request) -> None:
        """Wait without the stage's slot, which the call that is waited for may need."""
        try:
            async with request.visit.without_slot():
                with request.visit.waiting(follower):
                    await follower.told.wait()
        except BaseException:
            self.flights.leave(key, follower)
            raise

    async def _lead(self, key: bytes, call: Call, request: Request) -> Reply:
        try:
            found = await self.kept.get(key)
            if found is not None:
                reply = _told(_read(found), request)
                self.flights.land(key, found)
                return reply
            reply = await call(request)
        except BaseException:
            self.flights.abandon(key)
            raise
        answer = _answer_of(reply, request)
        self.flights.land(key, answer)
        await self._keep(key, answer)
        return reply

    async def _keep(self, key: bytes, answer: str | None) -> None:
        if answer is not None:
            with anyio.CancelScope(shield=True):  # it is paid
                await self.kept.put(key, answer)


def _answer_of(reply: Reply, request: Request) -> str | None:
    """What is kept of a reply, and told to others; None if it is not one to keep."""
    return _write(reply) if _is_whole(reply, request) else None


def _is_whole(reply: Reply, request: Request) -> bool:
    if reply.finish_reason not in _FINISHED or not _EVEN.issuperset(reply.flags):
        return False
    if request.schema is not None and not reply.tool_calls:
        try:
            request.schema.validate(reply.text)
        except SchemaError:
            return False
    return True


def _told(reply: Reply, request: Request) -> Reply:
    """Let a listener that waits for pieces have the whole text as one."""
    if request.stream and reply.text and request.visit.listening:
        who = request.identity
        request.visit.emit(TextStreamed(who.item_id, who.path, who.ordinal, request.attempt, reply.text))
    return reply


def _write(reply: Reply) -> str:
    document = {
        "text": reply.text,
        "finish_reason": reply.finish_reason,
        "model": reply.model,
        "request_id": reply.request_id,
        "usage": {name: getattr(reply.usage, name) for name in _COUNTS},
        "tool_calls": [asdict(each) for each in reply.tool_calls],
    }
    return json.dumps(document, ensure_ascii=False)


def _read(answer: str) -> Reply:
    """Return the reply that was written. Raises `ModelError` for what this program cannot have written."""
    try:
        document = _mapping(json.loads(answer))
        usage = _mapping(document["usage"])
        calls = [_mapping(each) for each in cast("Sequence[object]", document["tool_calls"])]
        return Reply(
            text=_text(document["text"]),
            usage=Usage(**{name: _number(usage[name]) for name in _COUNTS}),  # pyright: ignore[reportArgumentType]
            cost=FREE,
            finish_reason=_text(document["finish_reason"]),
            model=_text_or_none(document["model"]),
            request_id=_text_or_none(document["request_id"]),
            attempts=0,
            tool_calls=tuple(ToolCall(**{name: _text(each) for name, each in call.items()}) for call in calls),
            flags=("cached",),
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ModelError("the cache holds an answer that cannot be read; delete it, or name another file") from error


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TypeError("no mapping")
    return cast("dict[str, object]", value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _number(value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise TypeError("no count")
    return value
