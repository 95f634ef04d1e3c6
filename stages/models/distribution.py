"""A number that is drawn: constant, uniform, lognormal or exponential, written as a short text.

`1s` · `250ms` · `uniform:0.5s..2s` · `lognormal:1s,0.5` (median, sigma) · `exponential:1s` (mean). The same for counts:
`200`, `uniform:50..400`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from random import Random
from typing import Literal, TypeAlias

from pipeline.core.errors import DefinitionError, Problem

Shape: TypeAlias = Literal["constant", "uniform", "lognormal", "exponential"]

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_NUMBER = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(ms|s|m|h|)\s*")


@dataclass(frozen=True, slots=True)
class Distribution:
    """Where a number is drawn from: `low` is the constant, the least, the median or the mean, `high` the other one."""

    shape: Shape
    low: float
    high: float = 0.0

    @classmethod
    def parse(cls, written: str | float | Distribution, option: str) -> Distribution:
        """Read a distribution; `option` is its name in errors. Raises `DefinitionError`."""
        if isinstance(written, Distribution):
            return written
        if isinstance(written, int | float):
            return cls("constant", _finite(float(written), option))
        shape, colon, rest = written.partition(":")
        match shape.strip() if colon else "constant":
            case "constant":
                return cls("constant", _number(rest if colon else written, option))
            case "uniform":
                low, high = _two(rest, "..", written, option)
                if low > high:
                    raise _wrong(option, written, "the least is more than the most")
                return cls("uniform", low, high)
            case "lognormal":
                return cls("lognormal", *_two(rest, ",", written, option))
            case "exponential":
                return cls("exponential", _number(rest, option))
            case _:
                raise _wrong(option, written, "write 1s, uniform:0.5s..2s, lognormal:1s,0.5 or exponential:1s")

    def draw(self, chance: Random) -> float:
        """Draw one number; the same for equal states of `chance`, in every version of Python."""
        match self.shape:
            case "constant":
                return self.low
            case "uniform":
                return self.low + (self.high - self.low) * chance.random()
            case "exponential":
                return -self.low * math.log(1.0 - chance.random())
            case "lognormal":
                return self.low * math.exp(self.high * _normal(chance))


def _normal(chance: Random) -> float:
    """Box and Muller's way, so that a draw always takes two numbers and never depends on the draws before."""
    radius = math.sqrt(-2.0 * math.log(1.0 - chance.random()))
    return radius * math.cos(2.0 * math.pi * chance.random())


def _two(text: str, between: str, written: str, option: str) -> tuple[float, float]:
    first, found, second = text.partition(between)
    if not found:
        raise _wrong(option, written, f"two numbers with {between!r} between them are needed")
    return _number(first, option), _number(second, option)


def _number(text: str, option: str) -> float:
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise _wrong(option, text, "a number, with a unit if it is a time, as 250ms or 1.5s")
    return float(match[1]) * _UNITS[match[2]]


def _finite(value: float, option: str) -> float:
    if not math.isfinite(value) or value < 0:
        raise _wrong(option, str(value), "a number that is not negative")
    return value


def _wrong(option: str, written: str, hint: str) -> DefinitionError:
    return DefinitionError(Problem(None, option, f"cannot read {written!r}", hint))
