"""What the numbers of a model's definition may be, as code gives them or as a pipeline file writes them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import cast

from pipeline.core.errors import DefinitionError, Problem
from pipeline.core.names import suggestion
from stages.models.distribution import Distribution


def count(value: object, option: str) -> int:
    """Return a whole number of at least 1. Raises `DefinitionError`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise DefinitionError(Problem(None, option, f"is {value!r}", "give a whole number, at least 1"))
    return value


def seconds(value: object, option: str) -> float:
    """Return a time of more than 0 seconds, from a number or from `30s`. Raises `DefinitionError`."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise DefinitionError(Problem(None, option, f"is {value!r}", "give a time, as 30s"))
    drawn = Distribution.parse(value, option)
    if drawn.shape != "constant" or drawn.low <= 0:
        raise DefinitionError(Problem(None, option, f"is {value!r}", "give a time of more than 0, as 30s"))
    return drawn.low


def percentile(value: object, option: str) -> str | None:
    """Return a percentile as p95, or None. Raises `DefinitionError`."""
    if value is None or (isinstance(value, str) and re.fullmatch("p[5-9][0-9]", value)):
        return value
    raise DefinitionError(Problem(None, option, f"is {value!r}", "give a percentile from p50 to p99, as p95"))


def whole(value: object, option: str) -> int:
    """Return a whole number. Raises `DefinitionError`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise DefinitionError(Problem(None, option, f"is {value!r}", "give a whole number"))
    return value


def texts(**options: object) -> None:
    """Refuse options that are neither a text nor left out. Raises `DefinitionError`."""
    for option, value in options.items():
        if value is not None and not isinstance(value, str):
            raise DefinitionError(Problem(None, option, f"is {value!r}", "give a text"))


def mapping(value: object, option: str) -> Mapping[str, object]:
    """Return a mapping. Raises `DefinitionError`."""
    if not isinstance(value, Mapping):
        raise DefinitionError(Problem(None, option, f"is {value!r}", "give a mapping, as {name: value}"))
    return cast("Mapping[str, object]", value)


def prices(value: object, option: str) -> dict[str, float]:
    """Return prices in US dollars a million tokens. Raises `DefinitionError`, with the nearest right word."""
    given, known = mapping(value, option), ("input", "output", "cached_input")
    right = "as {input: 2.5, output: 10, cached_input: 0.25}, in US dollars a million tokens"
    for name, price in given.items():
        if name not in known:
            hint = suggestion(str(name), known) or right
            raise DefinitionError(Problem(None, option, f"{name!r} is nothing that has a price", hint))
        if isinstance(price, bool) or not isinstance(price, int | float) or not math.isfinite(price) or price < 0:
            hint = f"give a number of at least 0, {right}"
            raise DefinitionError(Problem(None, option, f"{name} is {price!r}", hint))
    for name in known[:2]:
        if name not in given:
            raise DefinitionError(Problem(None, option, f"{name} is missing", f"give both, {right}"))
    return cast("dict[str, float]", dict(given))
