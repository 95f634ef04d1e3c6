"""What a server says of its rates in the headers of an answer, in every form that servers write it.

    x-ratelimit-limit-requests: 500              anthropic-ratelimit-requests-limit: 50
    x-ratelimit-remaining-tokens: 149984         anthropic-ratelimit-input-tokens-remaining: 49000
    x-ratelimit-reset-tokens: 1m30s              anthropic-ratelimit-tokens-reset: 2026-01-01T12:00:30Z

What cannot be read, or cannot be, counts as not said.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, TypeAlias

Dimension: TypeAlias = Literal["requests", "tokens", "input_tokens", "output_tokens"]

DIMENSIONS: Final[tuple[Dimension, ...]] = ("requests", "tokens", "input_tokens", "output_tokens")

#: the names of what is said of a dimension: those that most servers use, and Anthropic's
_NAMES: Final[Mapping[Dimension, Mapping[str, tuple[str, str]]]] = {
    each: {
        what: (f"x-ratelimit-{what}-{each}".replace("_", "-"), f"anthropic-ratelimit-{each}-{what}".replace("_", "-"))
        for what in ("limit", "remaining", "reset")
    }
    for each in DIMENSIONS
}
_NUMBER = re.compile(r"\d{1,18}(?:\.\d{0,9})?")
_DURATION = re.compile(
    r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9}(?:\.\d{0,9})?)s)?(?:(\d{1,9}(?:\.\d{0,9})?)ms)?"
)
_UNITS: Final = (86400.0, 3600.0, 60.0, 1.0, 0.001)


@dataclass(frozen=True, slots=True)
class Announced:
    """What was said of one dimension; None for what was not."""

    limit: float | None = None  #: in its period, which is a minute unless resets show that it is not, see `Period`
    remaining: float | None = None
    reset: float | None = None  #: seconds until it is whole again
    exact: bool = True  #: said as seconds; by a time of day it is only as right as two clocks


def rates_announced(headers: Mapping[str, str], now: datetime) -> dict[Dimension, Announced]:
    """Return what `headers` (lower-case names) say of each dimension; nothing of those that they leave out."""
    found: dict[Dimension, Announced] = {}
    if not any("ratelimit" in name for name in headers):
        return found
    for dimension, names in _NAMES.items():
        limit, remaining = _number(_said(headers, names["limit"])), _number(_said(headers, names["remaining"]))
        if limit == 0:
            continue  # some servers write -1 or 0 where they have nothing to say
        reset, exact = _reset(_said(headers, names["reset"]), now)
        if limit is not None or remaining is not None or reset is not None:
            found[dimension] = Announced(limit, remaining, reset, exact)
    if "input_tokens" in found or "output_tokens" in found:
        found.pop("tokens", None)  # the tighter of the two once more, under another name
    return found


def _said(headers: Mapping[str, str], names: tuple[str, str]) -> str:
    value = headers.get(names[0]) or headers.get(names[1])
    return value[:60].strip() if value else ""


def _number(text: str) -> float | None:
    return float(text) if text and _NUMBER.fullmatch(text) and text.isascii() else None


def _reset(text: str, now: datetime) -> tuple[float | None, bool]:
    """Read `1m30s`, `500ms`, plain seconds or a time of day; what is past counts as not said. And whether it is exact,
    see `Announced`."""
    if not text:
        return None, True
    seconds = _number(text)
    if seconds is None and (parts := _DURATION.fullmatch(text)):
        seconds = sum(float(part) * unit for part, unit in zip(parts.groups(), _UNITS, strict=True) if part)
    exact = seconds is not None
    if seconds is None:
        seconds = _time_of_day(text, now)
    return (seconds, exact) if seconds is not None and math.isfinite(seconds) and seconds > 0 else (None, True)


def _time_of_day(text: str, now: datetime) -> float | None:
    try:
        when = datetime.fromisoformat(text)
        return ((when if when.tzinfo else when.replace(tzinfo=UTC)) - now).total_seconds()
    except (ValueError, OverflowError):
        return None
