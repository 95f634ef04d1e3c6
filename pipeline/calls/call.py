"""A call is `async Request -> Reply`, and a policy is `Call -> Call`.

Everything that a policy may need is in the request, so that a policy is a frozen value without memory: the visit that
asks, which call of the item this is, and which attempt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from pipeline.calls.parameters import Parameters
from pipeline.calls.schema import Schema
from pipeline.core.ports import Visit
from pipeline.core.state import Message
from pipeline.core.usage import Cost, Usage


@dataclass(frozen=True, slots=True)
class CallIdentity:
    """Which call of which item: `ordinal` counts the calls of one visit, `path` says which stage was visited."""

    item_id: str
    path: tuple[str, ...]
    ordinal: int

    def digest(self, *more: object) -> bytes:
        """32 bytes that are the same in every run and on every machine; what chance is drawn from."""
        parts = (self.item_id, *self.path, self.ordinal, *more)
        return hashlib.sha256("\x00".join(str(part) for part in parts).encode()).digest()


@dataclass(frozen=True, slots=True)
class Request:
    """One thing asked of a model."""

    messages: tuple[Message, ...]
    parameters: Parameters
    schema: Schema | None
    visit: Visit
    identity: CallIdentity
    attempt: int = 1  #: physical tries so far, this one included


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model answered. `usage` and `cost` are those of the attempt that answered."""

    text: str
    usage: Usage
    cost: Cost | None
    parsed: object = None  #: the validated object when a schema was asked for
    finish_reason: str | None = None  #: stop, length, refusal; None where a server leaves it out
    model: str | None = None  #: the name the server gave, which may be a dated version of the one asked for
    request_id: str | None = None
    attempts: int = 1


Call: TypeAlias = Callable[[Request], Awaitable[Reply]]


class Policy(Protocol):
    """A frozen value that wraps a call in another one."""

    def __call__(self, call: Call, /) -> Call: ...
