"""How long a server asked us to wait, in every form that servers write it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds to wait from `now`, or None when the server does not say, or says nothing usable.

    Reads `retry-after-ms`, then `retry-after` as seconds, a float or an HTTP date; `headers` have lower-case names.
    What is negative, past, not finite or not a number counts as not said: the ordinary backoff is then the least.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    written = headers.get("retry-after")
    seconds = _number(written)
    return seconds if seconds is not None else _date(written, now)


def _number(text: str | None) -> float | None:
    try:
        value = float(text[:40]) if text else -1.0
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _date(text: str | None, now: datetime) -> float | None:
    try:
        when = parsedate_to_datetime(text[:60]) if text else now
    except (ValueError, OverflowError):  # the second for numbers that no machine's integer holds
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    seconds = (when - now).total_seconds()
    return seconds if seconds > 0 else None
