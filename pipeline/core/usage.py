"""What model calls used and what that cost; the numbers of a record."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and requests, summed over attempts. `estimated` says that a server left its own count out."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0  #: the part of `input_tokens` that the server read from its cache
    reasoning_tokens: int = 0  #: the part of `output_tokens` that is not in the text
    requests: int = 0  #: physical tries, failed ones included
    estimated: bool = False

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.requests + other.requests,
            self.estimated or other.estimated,
        )

    def share(self, place: int, count: int) -> Usage:
        """Part number `place` of `count` equal ones, whose sum is the whole: remainders go to the first parts."""

        def part(number: int) -> int:
            return number // count + (place < number % count)

        return Usage(
            part(self.input_tokens),
            part(self.output_tokens),
            part(self.cached_input_tokens),
            part(self.reasoning_tokens),
            part(self.requests),
            self.estimated,
        )


NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class Cost:
    """Money spent, in US dollars, and where the price came from. `usd` is None when any part has no known price."""

    usd: float | None
    source: str

    def __add__(self, other: Cost) -> Cost:
        usd = None if self.usd is None or other.usd is None else self.usd + other.usd
        source = self.source if other.source in self.source.split(" + ") else f"{self.source} + {other.source}"
        return Cost(usd, source)

    def share(self, count: int) -> Cost:
        """One of `count` equal parts."""
        return Cost(None if self.usd is None else self.usd / count, self.source)


class Account:
    """What one record has used so far. What can change: both."""

    __slots__ = ("cost", "usage")

    def __init__(self, usage: Usage = NO_USAGE, cost: Cost | None = None) -> None:
        self.usage = usage
        self.cost = cost

    def charge(self, usage: Usage, cost: Cost | None) -> None:
        """Add one attempt."""
        self.usage = self.usage + usage
        if cost is not None:
            self.cost = cost if self.cost is None else self.cost + cost

    def hand_over(self, to: Account) -> None:
        """Let `to` have all of it, so that it is in one record only."""
        to.charge(self.usage, self.cost)
        self.usage, self.cost = NO_USAGE, None


class RunAccount(Account):
    """What a whole run has used. What can change: everything."""

    __slots__ = ("known_usd", "unpriced")

    def __init__(self) -> None:
        super().__init__()
        self.known_usd = 0.0  #: of attempts with a known price
        self.unpriced = 0  #: attempts without

    def charge(self, usage: Usage, cost: Cost | None) -> None:
        super().charge(usage, cost)
        if cost is None:
            return
        if cost.usd is None:
            self.unpriced += 1
        else:
            self.known_usd += cost.usd


class SubAccount(Account):
    """What a part of a record's work has used, which the record is charged for too."""

    __slots__ = ("whole",)

    def __init__(self, whole: Account) -> None:
        super().__init__()
        self.whole = whole

    def charge(self, usage: Usage, cost: Cost | None) -> None:
        super().charge(usage, cost)
        self.whole.charge(usage, cost)
