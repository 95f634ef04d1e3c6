"""A call that was answered before is not made again, and equal calls at the same time are made once."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol, cast

import anyio

from pipeline.calls.call import Call, Reply, Request
from pipeline.calls.errors import ModelError
from pipeline.calls.schema import SchemaError
from pipeline.core.events import TextStreamed
from pipeline.core.state import ToolCall
from pipeline.core.usage import Cost, Usage

if TYPE_CHECKING:
    from pipeline.core.ports import Visit

FREE: Final = Cost(0.0, "cache")
_COUNTS: Final = ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens")
_FINISHED: Final = ("stop", "tool_calls")
_EVEN: Final = frozenset({"hedged", "usage_missing"})  #: flags of an answer that is good all the same


class Kept(Protocol):
    """Where answers are kept, see `pipeline.calls.cache`."""

    async def get(self, key: bytes) -> str | None: ...

    async def put(self, key: bytes, answer: str) -> None: ...


class Flights:
    """The calls that are being made, by key, and who waits for the answer of each."""

    def __init__(self) -> None:
        self._leaders: dict[bytes, Visit] = {}
        self._waiting: dict[bytes, deque[Follower]] = {}

    def lead(self, key: bytes, visit: Visit) -> bool:
        """Say whether this call is the one to be made; else there is one in flight."""
        if key in self._leaders:
            return False
        self._leaders[key] = visit
        return True

    def follow(self, key: bytes) -> Follower:
        """Wait for the call in flight: until there is its answer, or this call is to be made itself."""
        follower = Follower(self._leaders[key])
        self._waiting.setdefault(key, deque()).append(follower)
        return follower

    def land(self, key: bytes, answer: str | None) -> None:
        """The call in flight was answered, and all who wait have it; without an answer each makes its own call."""
        del self._leaders[key]
        for follower in self._waiting.pop(key, ()):
            follower.answer, follower.alone = answer, answer is None
            follower.told.set()

    def abandon(self, key: bytes) -> None:
        """The call in flight was cancelled: the first who waits makes it now, and the others wait for that one."""
        del self._leaders[key]
        if waiting := self._waiting.get(key):
            waiting.popleft().told.set()

    def leave(self, key: bytes, follower: Follower) -> None:
        """Who waits does so no more. If it had just been told to make the call, the next one is."""
        waiting = self._waiting.get(key)
        if waiting is not None and follower in waiting:
            waiting.remove(follower)
        elif waiting and key not in self._leaders and follower.is_to_lead:
            waiting.popleft().told.set()
        if waiting is not None and not waiting:
            del self._waiting[key]


class Follower:
    """A call that waits for an equal one. Satisfies `ports.Hold`."""

    __slots__ = ("_leader", "alone", "answer", "told")

    def __init__(self, leader: Visit) -> None:
        self._leader = leader
        self.told = anyio.Event()
        self.answer: str | None = None
        self.alone = False

    @property
    def is_to_lead(self) -> bool:
        return self.told.is_set() and self.answer is None and not self.alone

    def __str__(self) -> str:
        return "the answer to an equal call"

    def holders(self) -> Sequence[Visit]:
        return (self._leader,)


@dataclass(frozen=True, slots=True)
class Cached:
    """Answers from `kept` what was answered before; makes no attempt then, and costs nothing.

    `body_of` writes the request as it would be sent; with `scope` (address, protocol), the stage's path and the number
    of the call it is the key. Items with equal prompts share an answer; the votes of one item and the rounds of a loop
    do not. Only whole good answers are kept: finished, flagged with nothing odd, and fitting the schema.
    """

    kept: Kept
    flights: Flights
    scope: tuple[str, ...]
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
                    return await call(request)

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
        except Exception:
            self.flights.land(key, None)
            raise
        except BaseException:
            self.flights.abandon(key)
            raise
        answer = _write(reply) if _is_whole(reply, request) else None
        self.flights.land(key, answer)
        if answer is not None:
            with anyio.CancelScope(shield=True):  # it is paid
                await self.kept.put(key, answer)
        return reply


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
