"""What model calls used and what that cost; the numbers of a record."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Final, Self, cast

from pipeline.core.purse import PICOS, picos

_AND: Final = " + "  #: between the sources of a cost


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
        return Usage(
            _part(self.input_tokens, place, count),
            _part(self.output_tokens, place, count),
            _part(self.cached_input_tokens, place, count),
            _part(self.reasoning_tokens, place, count),
            _part(self.requests, place, count),
            self.estimated,
        )


NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class Cost:
    """Money spent, in US dollars, and where the price came from: of several sources all their names, in alphabetical
    order. `usd` is None when any part has no known price."""

    usd: float | None
    source: str


class Account:
    """What somebody has used so far. What can change: everything.

    Money is counted in whole picodollars, so what it comes to does not depend on what was charged first.
    """

    __slots__ = ("_picos", "_priced", "_sources", "usage")

    def __init__(self) -> None:
        self.usage = NO_USAGE
        self._picos = 0  #: of what has a known price
        self._priced = True  #: everything has one
        self._sources: frozenset[str] = frozenset()  #: empty while no cost was told

    @property
    def cost(self) -> Cost | None:
        """What all of it cost; None when nothing is known of any cost."""
        if not self._sources:
            return None
        return Cost(self._picos / PICOS if self._priced else None, _AND.join(sorted(self._sources)))

    def charge(self, usage: Usage, cost: Cost | None) -> None:
        """Add one attempt."""
        self.usage = self.usage + usage
        if cost is None:
            return
        if cost.source not in self._sources:
            self._sources = self._sources.union(cost.source.split(_AND))
        if cost.usd is None:
            self._priced = False
        else:
            self._picos += picos(cost.usd)

    def hand_over(self, to: Account) -> None:
        """Let `to` have all of it, so that it is in one record only."""
        if self.usage is NO_USAGE and not self._sources:
            return
        to.usage = to.usage + self.usage
        to._picos += self._picos
        to._priced = to._priced and self._priced
        to._sources = to._sources | self._sources
        self.usage, self._picos, self._priced, self._sources = NO_USAGE, 0, True, frozenset()

    def stored(self) -> list[object] | None:
        """All of it as JSON, to be `restored`; None when there is nothing."""
        if self.usage is NO_USAGE and not self._sources:
            return None
        return [list(astuple(self.usage)), self._picos, self._priced, sorted(self._sources)]

    @classmethod
    def restored(cls, stored: object) -> Self:
        """The account of which `stored` was made."""
        counts, money, priced, sources = cast("tuple[list[int], int, bool, list[str]]", stored)
        account = cls()
        account.usage = Usage(*counts[:-1], estimated=bool(counts[-1]))
        account._picos, account._priced, account._sources = money, priced, frozenset(sources)
        return account

    def share(self, place: int, count: int) -> Account:
        """Part number `place` of `count` equal ones, whose sum is the whole: remainders go to the first parts."""
        part = Account()
        part.usage = self.usage.share(place, count)
        part._picos = _part(self._picos, place, count)
        part._priced, part._sources = self._priced, self._sources
        return part


class RunAccount(Account):
    """What a whole run has used, whatever became of it. What can change: everything."""

    __slots__ = ("unpriced",)

    def __init__(self) -> None:
        super().__init__()
        self.unpriced = 0  #: attempts without a known price

    @property
    def known_usd(self) -> float:
        """What those with a known price cost."""
        return self._picos / PICOS

    def charge(self, usage: Usage, cost: Cost | None) -> None:
        super().charge(usage, cost)
        if cost is not None and cost.usd is None:
            self.unpriced += 1


def _part(number: int, place: int, count: int) -> int:
    return number // count + (place < number % count)
