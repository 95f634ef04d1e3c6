"""What may be asked of any chat model, checked by name and type before anything is sent."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import cast

from pipeline.core.errors import DefinitionError, Problem

_EXPECTED: Mapping[str, str] = {
    "temperature": "a number of at least 0, as 0.7",
    "max_output_tokens": "a whole number, at least 1",
    "stop": "a text or a list of texts",
    "seed": "a whole number",
    "reasoning": "an effort, as low",
    "extra_body": "a mapping",
}


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a call; None and empty leave them to the model."""

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
            merged = {**self.extra_body, **cast("Mapping[str, object]", given["extra_body"])}
            given["extra_body"] = MappingProxyType(merged)
        return replace(self, **given)  # pyright: ignore[reportArgumentType]  # each is checked by name above


PARAMETERS: tuple[str, ...] = tuple(each.name for each in fields(Parameters))


def _checked(name: str, value: object) -> object:
    if name not in PARAMETERS:
        close = difflib.get_close_matches(name, PARAMETERS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(PARAMETERS)}"
        raise _wrong(name, "is not a parameter of a model", hint)
    match name, value:
        case _, bool():
            pass
        case "temperature", int() | float() if value >= 0 and math.isfinite(value):
            return float(value)
        case "max_output_tokens", int() if value >= 1:
            return value
        case ("seed", int()) | ("reasoning", str()) | ("extra_body", Mapping()):
            return cast("object", value)
        case "stop", str():
            return (value,)
        case "stop", list() | tuple() if all(isinstance(each, str) for each in cast("Sequence[object]", value)):
            return tuple(cast("Sequence[str]", value))
        case _:
            pass
    raise _wrong(name, f"is {value!r}", f"give {_EXPECTED[name]}")


def _wrong(name: str, message: str, hint: str) -> DefinitionError:
    return DefinitionError(Problem(None, f"model parameter {name}", message, hint))
