"""What a simulated server allows, as providers document it: requests and tokens a minute, and requests at once.

Each rule is a plain object that is told what time it is, so that it holds in virtual time as well as in real time.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, TypeAlias, cast, get_args

from pipeline.core.errors import DefinitionError, Problem
from stages.models.checks import mapping, seconds

#: token_bucket: refilled all the time, holds `burst` seconds of the rate. sliding: any 60 s. fixed: 60 s by 60 s from
#: the first request. second: as fixed, second by second, each with a sixtieth of the limit, rounded down.
Window: TypeAlias = Literal["token_bucket", "sliding", "fixed", "second"]

#: used: tokens read and written. reserved: the more of that and the answer's own token limit, as OpenAI counts.
Charge: TypeAlias = Literal["used", "reserved"]

MINUTE: Final = 60.0
_SLACK: Final = 1e-9  #: what a sum of floats may be off; who waits exactly as long as was said is not refused
_COUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kKM]?)\s*")
_TIMES: Final[Mapping[str, int]] = {"": 1, "k": 1000, "K": 1000, "M": 1_000_000}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """The rules of one simulated server; None is no limit. They are the server's, whatever a client keeps to."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    window: Window = "token_bucket"
    burst: float = MINUTE  #: seconds of the rate that a token bucket holds, full at first
    max_concurrency: int | None = None  #: more at once are refused, with 429
    charge: Charge = "used"

    @classmethod
    def parse(cls, written: object) -> ServerLimits:
        """Read `{requests_per_minute: 500, tokens_per_minute: 200k, window: sliding}`. Raises `DefinitionError`."""
        if isinstance(written, ServerLimits):
            return written
        given = mapping(written, "limits")
        readers = {
            "requests_per_minute": _count,
            "tokens_per_minute": _count,
            "max_concurrency": _count,
            "window": _window,
            "charge": _charge,
            "burst": seconds,
        }
        read: dict[str, object] = {}
        problems: list[Problem] = []
        for name, value in given.items():
            try:
                if name not in readers:
                    raise _wrong("limits", f"{name!r} is no limit of a server", f"known: {', '.join(readers)}")
                read[name] = readers[name](value, f"limits.{name}")
            except DefinitionError as error:
                problems += error.problems
        if "burst" in read and read.get("window", "token_bucket") != "token_bucket":
            hint = "leave it out, or use the window token_bucket"
            problems += _wrong("limits.burst", f"the window {read['window']} has none", hint).problems
        if problems:
            raise DefinitionError(*problems)
        return cls(**read)  # pyright: ignore[reportArgumentType]


class Meter(Protocol):
    """One limit in one unit. The times that it is told never go back."""

    limit: int

    def wait(self, amount: int, now: float) -> float:
        """Return the seconds until `amount` is allowed; 0 if it is now."""
        ...

    def take(self, amount: int, now: float) -> None:
        """Count `amount`, which is allowed now."""
        ...

    def remaining(self, now: float) -> int: ...

    def reset(self, now: float) -> float:
        """Return the seconds until as much is allowed as at first."""
        ...


@dataclass(slots=True)
class TokenBucket:
    """Refilled all the time, up to `room`. A request for more than fits goes alone, and is paid off after it."""

    limit: int
    burst: float
    _level: float = field(init=False)
    _at: float | None = None

    def __post_init__(self) -> None:
        self._level = self.room

    @property
    def rate(self) -> float:
        return self.limit / MINUTE

    @property
    def room(self) -> float:
        return max(1.0, self.rate * self.burst)

    def _filled(self, now: float) -> float:
        passed = 0.0 if self._at is None else now - self._at
        self._level = min(self.room, self._level + passed * self.rate)
        self._at = now
        return self._level

    def wait(self, amount: int, now: float) -> float:
        missing = min(amount, self.room) - self._filled(now)
        return missing / self.rate if missing > _SLACK * self.room else 0.0

    def take(self, amount: int, now: float) -> None:
        self._level = self._filled(now) - amount

    def remaining(self, now: float) -> int:
        return max(0, math.floor(self._filled(now) + _SLACK * self.room))

    def reset(self, now: float) -> float:
        return (self.room - self._filled(now)) / self.rate


@dataclass(slots=True)
class SlidingWindow:
    """At most `limit` in any 60 seconds."""

    limit: int
    _taken: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])
    _used: int = 0

    def _expire(self, now: float) -> None:
        while self._taken and self._taken[0][0] <= now - MINUTE + _SLACK:
            self._used -= self._taken.popleft()[1]

    def wait(self, amount: int, now: float) -> float:
        self._expire(now)
        excess = self._used + min(amount, self.limit) - self.limit
        for at, taken in self._taken:
            if excess <= 0:
                return 0.0
            excess -= taken
            if excess <= 0:
                return at + MINUTE - now
        return 0.0

    def take(self, amount: int, now: float) -> None:
        self._taken.append((now, amount))
        self._used += amount

    def remaining(self, now: float) -> int:
        self._expire(now)
        return max(0, self.limit - self._used)

    def reset(self, now: float) -> float:
        self._expire(now)
        return self._taken[-1][0] + MINUTE - now if self._taken else 0.0


@dataclass(slots=True)
class SteppedWindow:
    """At most `share` in each step of `length` seconds; a request for more goes alone, and is paid off after it."""

    limit: int
    length: float = MINUTE
    _begun: float | None = None
    _used: int = 0

    @property
    def share(self) -> int:
        return max(1, math.floor(self.limit * self.length / MINUTE))

    def _step(self, now: float) -> None:
        if self._begun is None:
            self._begun = now
        steps = math.floor((now - self._begun + _SLACK) / self.length)
        if steps > 0:
            self._begun += steps * self.length
            self._used = max(0, self._used - steps * self.share)

    def wait(self, amount: int, now: float) -> float:
        self._step(now)
        excess = self._used + min(amount, self.share) - self.share
        if excess <= 0:
            return 0.0
        return cast(float, self._begun) + math.ceil(excess / self.share) * self.length - now

    def take(self, amount: int, now: float) -> None:
        self._step(now)
        self._used += amount

    def remaining(self, now: float) -> int:
        self._step(now)
        return max(0, self.share - self._used)

    def reset(self, now: float) -> float:
        self._step(now)
        steps = math.ceil(self._used / self.share)
        return cast(float, self._begun) + steps * self.length - now if steps else 0.0


def meter(limits: ServerLimits, limit: int) -> Meter:
    """Return the rule for one of the two rates."""
    match limits.window:
        case "token_bucket":
            return TokenBucket(limit, limits.burst)
        case "sliding":
            return SlidingWindow(limit)
        case "fixed":
            return SteppedWindow(limit)
        case "second":
            return SteppedWindow(limit, 1.0)


def _count(value: object, option: str) -> int:
    found = _COUNT.fullmatch(value) if isinstance(value, str) else None
    number = float(found[1]) * _TIMES[found[2]] if found else value
    whole = isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)
    if not whole or number != int(cast(float, number)) or cast(float, number) < 1:
        raise _wrong(option, f"is {value!r}", "give a whole number, at least 1, as 500 or 200k")
    return int(cast(float, number))


def _window(value: object, option: str) -> str:
    return _one_of(value, option, get_args(Window))


def _charge(value: object, option: str) -> str:
    return _one_of(value, option, get_args(Charge))


def _one_of(value: object, option: str, words: tuple[str, ...]) -> str:
    if value not in words:
        raise _wrong(option, f"is {value!r}", f"one of {', '.join(words)}")
    return cast(str, value)


def _wrong(option: str, message: str, hint: str) -> DefinitionError:
    return DefinitionError(Problem(None, option, message, hint))
