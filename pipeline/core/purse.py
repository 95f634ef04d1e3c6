"""The purse that calls are paid from: by reservation, so that it is never overdrawn.

Before an attempt, the most that it can cost is claimed; afterwards what it did cost is spent and the rest comes back.
The law, at every instant, in every dimension: spent + reserved <= budget. It rests on claims being upper bounds: what
a server counts beyond one is spent all the same, so that nothing is hidden, and nothing is granted after it.

Who does not fit waits while anything is reserved, since most of a reservation comes back. Nobody is served before
those who came earlier, also if it would fit: else small calls would starve a large one, and the last of the money
would go into items whose next step cannot be paid. Whoever is first and does not fit when nothing is reserved never
will; the purse is exhausted then, and refuses everybody. So at most one upper bound of the budget is left unused.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Final, NamedTuple

from pipeline.core.budget import Budget, amount_text
from pipeline.core.errors import InvariantError

PICOS: Final = 10**12  #: in a dollar; a price of a millionth of a dollar a million tokens is one a token


class Amount(NamedTuple):
    """Money in whole picodollars, tokens and requests: whole numbers, so that sums are exact."""

    picos: int = 0
    tokens: int = 0
    requests: int = 0


_NOTHING: Final = Amount()

DIMENSIONS: Final = tuple(each.name for each in fields(Budget))  #: in the order of `Amount`


def picos(usd: float) -> int:
    """Money as a whole number."""
    return round(usd * PICOS)


@dataclass(frozen=True, slots=True)
class PurseStatistics:
    """A purse at one instant. `spent` and `reserved` tell what the budget limits."""

    budget: Budget
    spent: Budget
    reserved: Budget
    waiting: int  #: calls that wait for reservations of others to come back

    def spent_of(self, dimensions: tuple[str, ...] = DIMENSIONS) -> list[str]:
        """What is spent of what, for each dimension that is limited: `$1.20 of $5.00`, `1,200 of 5,000 tokens`."""
        limited = [name for name in dimensions if getattr(self.budget, name) is not None]
        return [
            f"{_spent(name, getattr(self.spent, name))} of {amount_text(name, getattr(self.budget, name))}"
            for name in limited
        ]

    def __str__(self) -> str:
        limited = [name for name in DIMENSIONS if getattr(self.budget, name) is not None]
        parts: list[str] = []
        for name, spent in zip(limited, self.spent_of(), strict=True):
            reserved = getattr(self.reserved, name)
            parts.append(f"{spent} spent" + (f", {amount_text(name, reserved)} reserved" if reserved else ""))
        waiting = f"; {self.waiting} call{' waits' if self.waiting == 1 else 's wait'} for it" if self.waiting else ""
        return "; ".join(parts) + waiting


class Purse:
    """The money of one run, or of all runs that share it.

    What can change: what is spent, which only grows, what is reserved, and who waits. All of it in one thread, without
    waiting; who is waited for is told by `Claim.wake`.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.exhausted = False
        self.spent = Amount()
        self.reserved = Amount()
        self.claims: dict[Claim, None] = {}  #: those that were granted and have not ended, the earliest first
        self.waiting: list[Claim] = []  #: by arrival
        usd = None if budget.usd is None else picos(budget.usd)
        self._most = (usd, budget.tokens, budget.requests)

    def limits(self, amount: Amount) -> bool:
        """Say whether `amount` takes anything of what is limited."""
        return any(most is not None and each for most, each in zip(self._most, amount, strict=True))

    def short_of(self, amount: Amount) -> tuple[str, ...]:
        """The dimensions in which `amount` does not fit now."""
        return tuple(
            name
            for name, most, *used in zip(DIMENSIONS, self._most, self.spent, self.reserved, amount, strict=True)
            if most is not None and sum(used) > most
        )

    def move(self, spent: Amount = _NOTHING, reserved: Amount = _NOTHING) -> None:
        """Change both at once; the only place where they change."""
        self.spent = _sum(self.spent, spent)
        self.reserved = _sum(self.reserved, reserved)
        if min(self.reserved) < 0 or min(spent) < 0:
            raise InvariantError(f"more came back to a purse than was taken out of it: {self.reserved}")

    def statistics(self) -> PurseStatistics:
        return PurseStatistics(self.budget, self._limited(self.spent), self._limited(self.reserved), len(self.waiting))

    def _limited(self, amount: Amount) -> Budget:
        usd, tokens, requests = self._most
        return Budget(
            None if usd is None else amount.picos / PICOS,
            None if tokens is None else amount.tokens,
            None if requests is None else amount.requests,
        )


class Claim:
    """The most that one attempt can cost, asked of all its purses at once: it has it of all of them or of none.

    A claim that waits has nothing, so no two of them can wait for each other; those that have something wait for no
    claim, if whoever made them sees to it. Equal arrivals keep the order in which they came.
    """

    __slots__ = ("amount", "arrival", "ended", "granted", "owner", "purses", "refused", "wake")

    def __init__(
        self,
        purses: Iterable[Purse],
        amount: Amount,
        *,
        arrival: int,
        owner: object,
        wake: Callable[[], None],
        patient: bool = True,
    ) -> None:
        """Claim `amount`. What became of it is known at once, or it `waits`; `wake` is called when it does no more.

        One that is not `patient` is granted now or not at all; it ends without a word and nobody is refused for it.
        """
        self.purses = tuple(purse for purse in purses if purse.limits(amount))
        self.amount = amount
        self.arrival = arrival
        self.owner = owner
        self.wake = wake
        self.granted = False
        self.refused: Purse | None = None  #: the purse that is exhausted
        self.ended = False
        for purse in self.purses:
            purse.waiting.insert(bisect_right(purse.waiting, arrival, key=_arrival), self)
        if not self.purses:
            self.granted = True
        elif patient or self.verdict() is True:
            _serve(self.purses)
        else:
            self._leave()
            self.ended = True

    @property
    def waits(self) -> bool:
        return not (self.granted or self.refused or self.ended)

    def spend(self, cost: Amount | None) -> None:
        """End with what the attempt did cost; None: it is not known, so it may have been all of it."""
        self._end(self.amount if cost is None else cost)

    def end(self) -> None:
        """Give back what was not spent, or wait no more. Does nothing when it has ended."""
        if self.waits:
            self._leave()
            self.ended = True
            _serve(self.purses)
        elif not self.ended:
            self._end(Amount())

    def _end(self, cost: Amount) -> None:
        if self.ended:
            return
        self.ended = True
        if not self.granted:
            return
        for purse in self.purses:
            del purse.claims[self]
            purse.move(cost, Amount(*(-each for each in self.amount)))
        _serve(self.purses)

    def verdict(self) -> bool | Purse | None:
        """True: it can be granted. A purse: that one is exhausted. None: it has to wait."""
        for purse in self.purses:
            if purse.exhausted:
                return purse
        if any(purse.waiting[0] is not self for purse in self.purses):
            return None
        short = [purse for purse in self.purses if purse.short_of(self.amount)]
        return next((purse for purse in short if not purse.claims), None if short else True)

    def take(self) -> None:
        """Reserve it."""
        self._leave()
        self.granted = True
        for purse in self.purses:
            purse.claims[self] = None
            purse.move(reserved=self.amount)

    def refuse(self, purse: Purse) -> None:
        """End it because `purse` is exhausted, for everybody from now on."""
        self._leave()
        self.refused = purse
        purse.exhausted = True

    def _leave(self) -> None:
        for purse in self.purses:
            purse.waiting.remove(self)


def _serve(purses: Sequence[Purse]) -> None:
    """Grant or refuse what waits first, as far as that goes; then the others in whose way it stood."""
    changed = [*purses]
    while changed:
        purse = changed.pop()
        while purse.waiting:
            first = purse.waiting[0]
            verdict = first.verdict()
            if verdict is None:
                break
            if isinstance(verdict, Purse):
                first.refuse(verdict)
            else:
                first.take()
            first.wake()
            changed += (other for other in first.purses if other is not purse)


def _sum(one: Amount, other: Amount) -> Amount:
    return Amount(*(here + there for here, there in zip(one, other, strict=True)))


def _arrival(claim: Claim) -> int:
    return claim.arrival


def _spent(dimension: str, spent: float) -> str:
    return amount_text(dimension, spent) if dimension == "usd" else f"{spent:,}"
