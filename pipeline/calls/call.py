"""A call is `async Request -> Reply`, and a policy is `Call -> Call`.

Everything that a policy may need is in the request, so that a policy is a frozen value without memory: the visit that
asks, which call of the item this is, and which attempt.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Protocol, TypeAlias

from pipeline.calls.schema import Schema
from pipeline.core.errors import DefinitionError, Problem
from pipeline.core.ports import Visit
from pipeline.core.state import Message
from pipeline.core.usage import Cost, Usage


@dataclass(frozen=True, slots=True)
class Parameters:
    """What may be asked of any chat model; None and empty leave it to the model."""

    temperature: float | None = None
    max_output_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    reasoning: str | None = None  #: the effort, as the provider words it: minimal, low, medium, high
    #: fields of one provider, sent as they are
    extra_body: Mapping[str, object] = field(default_factory=dict[str, object], hash=False)

    def updated(self, options: Mapping[str, object]) -> Parameters:
        """Return these parameters with `options` over them; None leaves a value as it is, `extra_body` is merged.

        Raises `DefinitionError` for an unknown name, with the nearest right one, and for a value of the wrong type.
        """
        given = {name: _checked(name, value) for name, value in options.items() if value is not None}
        if "extra_body" in given:
            given["extra_body"] = MappingProxyType({**self.extra_body, **_mapping(given["extra_body"])})
        return replace(self, **given)  # pyright: ignore[reportArgumentType]  # checked by name and type above


PARAMETERS: tuple[str, ...] = tuple(each.name for each in fields(Parameters))


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


def _checked(name: str, value: object) -> object:
    if name not in PARAMETERS:
        raise _wrong(name, "is not a parameter of a model", _nearest(name))
    match name, value:
        case ("temperature", bool()) | ("max_output_tokens" | "seed", bool()):
            expected = "a number"
        case "temperature", int() | float():
            return float(value)
        case "max_output_tokens", int():
            if value >= 1:
                return value
            expected = "a whole number, at least 1"
        case "seed", int():
            return value
        case "reasoning", str():
            return value
        case "stop", str():
            return (value,)
        case "stop", list() | tuple():
            return tuple(str(each) for each in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case "extra_body", Mapping():
            return value  # pyright: ignore[reportUnknownVariableType]
        case _:
            expected = _EXPECTED[name]
    raise _wrong(name, f"is {value!r}", f"give {expected}")


_EXPECTED = {
    "temperature": "a number, as 0.7",
    "max_output_tokens": "a whole number, at least 1",
    "stop": "a text or a list of texts",
    "seed": "a whole number",
    "reasoning": "an effort, as low",
    "extra_body": "a mapping",
}


def _nearest(name: str) -> str:
    close = difflib.get_close_matches(name, PARAMETERS, n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(PARAMETERS)}"


def _mapping(value: object) -> Mapping[str, object]:
    assert isinstance(value, Mapping)
    return {str(key): each for key, each in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _wrong(name: str, message: str, hint: str) -> DefinitionError:
    return DefinitionError(Problem(None, f"model parameter {name}", message, hint))
