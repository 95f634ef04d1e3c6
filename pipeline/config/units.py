"""Quantities as people write them: `250ms 30s 2m 1h`, `25.6k 1M`, `5usd`, `500/min`, `3%`, `5usd,2Mtok`.

Each function takes the text and returns the number, or raises `WrongForm`, which says what would be right.
"""

from __future__ import annotations

import re
from decimal import Decimal

from pipeline.core.budget import Budget

_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,9})?)"
_DURATION = re.compile(rf"{_NUMBER}(ms|s|m|h)")
_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}
_COUNT = re.compile(rf"{_NUMBER}([kKMG]?)")
_TIMES = {"": 1, "k": 1000, "K": 1000, "M": 1_000_000, "G": 1_000_000_000}
_LIMIT = re.compile(r"(\S*?)\s*(usd|tok|req)", re.IGNORECASE)
_RATE = re.compile(r"(\S+?)\s*/\s*(s|sec|second|min|minute|h|hour)")
_PER_MINUTE = {"s": 60.0, "sec": 60.0, "second": 60.0, "min": 1.0, "minute": 1.0, "h": 1 / 60, "hour": 1 / 60}


class WrongForm(ValueError):
    """The text is not such a quantity. `shown` is the text as a message repeats it, `verdict` the rest of that."""

    def __init__(self, text: str, verdict: str, hint: str | None = None) -> None:
        self.shown = repr(text if len(text) <= 40 else text[:37] + "...")
        self.verdict = verdict
        self.hint = hint
        super().__init__(f"{self.shown} {verdict}" + (f"; {hint}" if hint else ""))


def duration(text: str) -> float | None:
    """Seconds; None for `none`. Parts add up: `1h30m`."""
    if text == "none":
        return None
    parts = [*_DURATION.finditer(text)]
    if not parts or "".join(part[0] for part in parts) != text:
        also = f"did you mean {text}s?" if re.fullmatch(_NUMBER, text) else None
        raise WrongForm(text, "is not a duration: write 250ms, 30s, 2m, 1h or none", also)
    return float(sum(Decimal(part[1]) * _SECONDS[part[2]] for part in parts))


def count(text: str) -> int:
    """A whole number of things, not negative."""
    found = _COUNT.fullmatch(text)
    number = Decimal(found[1]) * _TIMES[found[2]] if found else None
    if number is None or number != number.to_integral_value():
        raise WrongForm(text, "is not a count: write a whole number like 16, 25.6k or 1M")
    return int(number)


def share(text: str) -> float:
    """A part of the whole, from 0.0 to 1.0."""
    found = re.fullmatch(rf"{_NUMBER}\s*%", text)
    if found is None or Decimal(found[1]) > 100:
        raise WrongForm(text, "is not a share: write 3% (from 0% to 100%)")
    return float(Decimal(found[1]) / 100)


def count_or_share(text: str) -> int | float:
    """An int for a count, a float for a share."""
    if text.endswith("%"):
        return share(text)
    try:
        return count(text)
    except ValueError:
        raise WrongForm(text, "is neither a count nor a share: write 10 or 5%") from None


def rate(text: str) -> float:
    """Things a minute; a bare count is meant a minute."""
    found = _RATE.fullmatch(text)
    try:
        return count(found[1]) * _PER_MINUTE[found[2]] if found else float(count(text))
    except ValueError:
        raise WrongForm(text, "is not a rate: write 500/min, 200k/min or 10/s") from None


def money(text: str) -> float:
    """US dollars."""
    found = re.fullmatch(rf"{_NUMBER}\s*usd", text, re.IGNORECASE)
    if found is None:
        raise WrongForm(text, "is not an amount of money: write 5usd or 0.50usd")
    return float(found[1])


def budget(text: str) -> Budget:
    """The most that may be spent; several limits are written with commas between them."""
    parts = [_LIMIT.fullmatch(part.strip()) for part in text.split(",")]
    given = {part[2].lower(): part[1] for part in parts if part}
    try:
        if len(given) != len(parts):
            raise WrongForm(text, "names something twice, or nothing")
        return Budget(
            usd=money(given["usd"] + "usd") if "usd" in given else None,
            tokens=count(given["tok"]) if "tok" in given else None,
            requests=count(given["req"]) if "req" in given else None,
        )
    except WrongForm:
        bare = re.fullmatch(rf"\$?{_NUMBER}\$?", text)
        hint = f"did you mean {bare[1]}usd?" if bare else None
        verdict = "is not a budget: write 5usd, 2Mtok, 10kreq or 5usd,2Mtok"
        raise WrongForm(text, verdict, hint) from None
