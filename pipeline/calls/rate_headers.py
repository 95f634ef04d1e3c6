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

_NUMBER = re.compile(r"\d{1,18}(?:\.\d{0,9})?")
_DURATION = re.compile(
    r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9}(?:\.\d{0,9})?)s)?(?:(\d{1,9}(?:\.\d{0,9})?)ms)?"
)
_UNITS: Final = (86400.0, 3600.0, 60.0, 1.0, 0.001)


@dataclass(frozen=True, slots=True)
class Announced:
    """What was said of one dimension; None for what was not."""

    limit: float | None = None  #: in its period, which is a minute unless `reset` shows that it is longer
    remaining: float | None = None
    reset: float | None = None  #: seconds until it is whole again


def rates_announced(headers: Mapping[str, str], now: datetime) -> dict[Dimension, Announced]:
    """Return what `headers` (lower-case names) say of each dimension; nothing of those that they leave out."""
    found: dict[Dimension, Announced] = {}
    if not any("ratelimit" in name for name in headers):
        return found
    for dimension in DIMENSIONS:
        word = dimension.replace("_", "-")
        limit = _number(_said(headers, word, "limit"))
        if limit == 0:
            continue  # some servers write -1 or 0 where they have nothing to say
        said = Announced(limit, _number(_said(headers, word, "remaining")), _reset(_said(headers, word, "reset"), now))
        if said != Announced():
            found[dimension] = said
    if "input_tokens" in found or "output_tokens" in found:
        found.pop("tokens", None)  # the tighter of the two once more, under another name
    return found


def _said(headers: Mapping[str, str], dimension: str, what: str) -> str:
    value = headers.get(f"x-ratelimit-{what}-{dimension}") or headers.get(f"anthropic-ratelimit-{dimension}-{what}")
    return (value or "")[:60].strip()


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) and text.isascii() else None


def _reset(text: str, now: datetime) -> float | None:
    """Read `1m30s`, `500ms`, plain seconds or a time of day; what is past counts as not said."""
    seconds = _number(text)
    if seconds is None and text and (parts := _DURATION.fullmatch(text)):
        seconds = sum(float(part) * unit for part, unit in zip(parts.groups(), _UNITS, strict=True) if part)
    if seconds is None:
        seconds = _time_of_day(text, now)
    return seconds if seconds is not None and math.isfinite(seconds) and seconds > 0 else None


def _time_of_day(text: str, now: datetime) -> float | None:
    try:
        when = datetime.fromisoformat(text)
        return ((when if when.tzinfo else when.replace(tzinfo=UTC)) - now).total_seconds()
    except (ValueError, OverflowError):
        return None
