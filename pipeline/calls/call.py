"""A call is `async Request -> Reply`, and a policy is `Call -> Call`.

Everything that a policy may need is in the request, so that a policy is a frozen value without memory: the visit that
asks, which call of the item this is, and which attempt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

from pipeline.calls.errors import NO_HEADERS
from pipeline.calls.parameters import Parameters
from pipeline.calls.schema import Schema
from pipeline.calls.tool import Tool
from pipeline.core.ports import Visit
from pipeline.core.purse import Amount
from pipeline.core.state import Message, ToolCall
from pipeline.core.usage import Account, Cost, Usage


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


@dataclass(slots=True, eq=False)
class Tries:
    """Numbers the physical tries of one call, over its retries, its second legs and the models it falls back to."""

    made: int = 0
    probes: int = 0  #: those of them that asked an endpoint that was down whether it is back
    doubtful: int = 0  #: those of them that failed and may have been paid
    account: Account = field(default_factory=Account)  #: what all of them have used

    def next(self) -> int:
        """Return the number of one more try."""
        self.made += 1
        return self.made

    def give_back(self) -> None:
        """The last number was of a try that was not made."""
        self.made -= 1


class Leg(Protocol):
    """One of two attempts that race, as the policies inside the race see it."""

    @property
    def second(self) -> bool:
        """Whether the other one was there before it; such a one need not wait for anything."""
        ...

    def sent(self) -> None:
        """It has waited for everything that it had to wait for, and goes out now."""
        ...


#: What an answer that is not whole becomes: a reply with its flag, or a failure of the item.
Judgement: TypeAlias = Literal["accept", "fail"]


@dataclass(frozen=True, slots=True)
class Request:
    """One thing asked of a model."""

    messages: tuple[Message, ...]
    parameters: Parameters
    schema: Schema | None
    visit: Visit
    identity: CallIdentity
    attempt: int = 1  #: physical tries so far, this one included
    arrival: int = 0  #: the place of its call among all calls of a run; what waits longest goes first
    tools: tuple[Tool, ...] = ()  #: offered to the model
    stream: bool = False  #: ask for the answer piece by piece, and tell `TextStreamed` of each
    on_truncated: Judgement = "accept"  #: what an answer that was cut at its token limit becomes
    on_refused: Judgement = "accept"  #: what a refusal in words becomes
    reservation: Reservation | None = None  #: what was put aside for it from the visit's purses
    asked: Mapping[str, object] = field(default_factory=dict[str, object])  #: parameters, less the model's own defaults
    tries: Tries | None = None  #: what `attempt` is counted by; None until somebody counts
    leg: Leg | None = None  #: which of two attempts that race this is


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model answered. `usage` and `cost` are those of the attempt that answered."""

    text: str
    usage: Usage
    cost: Cost | None
    parsed: object = None  #: the validated object when a schema was asked for
    finish_reason: str | None = None  #: stop, length, refusal, tool_calls; None where a server leaves it out
    model: str | None = None  #: the name the server gave, which may be a dated version of the one asked for
    request_id: str | None = None
    attempts: int = 1
    tool_calls: tuple[ToolCall, ...] = ()  #: what the model wants to be called before it answers
    #: truncated, refused, usage_missing, usage_odd, model_differs, cached, hedged, fallback
    flags: tuple[str, ...] = ()
    #: of the answer, lower-case names; what a quota learns from
    headers: Mapping[str, str] = field(default_factory=lambda: NO_HEADERS, compare=False, repr=False)


class Reservation(Protocol):
    """What was put aside for one attempt, see `pipeline.calls.budget`."""

    @property
    def amount(self) -> Amount:
        """The most that the attempt can cost."""
        ...

    def book(self, usage: Usage, cost: Cost | None, *, known: bool) -> None:
        """Spend what the attempt did cost; what is not known may have cost all that was put aside."""
        ...


Call: TypeAlias = Callable[[Request], Awaitable[Reply]]


class Policy(Protocol):
    """A frozen value that wraps a call in another one."""

    def __call__(self, call: Call, /) -> Call: ...
