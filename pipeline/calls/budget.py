"""No attempt is sent before the most that it can cost was put aside for it.

Each attempt is covered by itself: retries, second legs of a hedge, and models that are fallen back to, each at the
prices of the model that is asked. A reservation lives from just before the model's limits to the end of the attempt,
so a call that waits between attempts keeps nothing from others; since it came earlier, it is the first to be served
when it comes back.

Why nobody waits for ever. A call that waits for its reservation holds none (a claim has all of it or nothing) and has
given the stage's slot back. A call that holds one waits for the slot, the model's limits, its quota and its answer,
never for another reservation; the units of limits and quotas are held only by calls that have their reservations. So
whoever has something comes to an end and gives it back, and with nothing reserved the first in the row is served or
told that it never will be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import anyio

from pipeline.calls.call import Call, Reply, Request
from pipeline.calls.errors import CallError
from pipeline.calls.pricing import Tariff
from pipeline.calls.upper_bound import Unbounded, most_input, most_output, unbounded
from pipeline.core.budget import Budget, BudgetSpent, amount_text
from pipeline.core.errors import ItemError
from pipeline.core.ports import Visit
from pipeline.core.purse import DIMENSIONS, PICOS, Amount, Claim, Purse, picos
from pipeline.core.usage import NO_USAGE, Cost, Usage


@dataclass(frozen=True, slots=True)
class Reserve:
    """Claims the most that an attempt of `model` can cost, and waits for it where others may give it back.

    Raises `BudgetSpent` when it will never fit, and `Unbounded` when there is no such most.
    """

    model: str
    tariff: Tariff

    def __call__(self, call: Call, /) -> Call:
        async def paid(request: Request) -> Reply:
            purses = request.visit.purses
            if not purses:
                return await call(request)
            claim = await self._claimed(request, purses)
            try:
                return await call(replace(request, reservation=Reserved(claim)))
            finally:
                claim.end()

        return paid

    def most(self, request: Request, purses: Sequence[Purse]) -> Amount:
        """The most that one attempt of `request` can use of `purses`. Raises `Unbounded`."""
        limited = Budget(
            usd=next((0.0 for purse in purses if purse.budget.usd is not None), None),
            tokens=next((0 for purse in purses if purse.budget.tokens is not None), None),
        )
        problems = unbounded(self.model, self.tariff, limited, request.parameters)
        if problems:
            raise Unbounded("; ".join(f"{each.message} ({each.hint})" for each in problems), type="no_upper_bound")
        if limited == Budget():
            return Amount(requests=1)
        read, written = most_input(request), most_output(request.parameters) or 0
        cost = self.tariff.most(read, written) if limited.usd is not None else 0
        return Amount(cost or 0, read + written, 1)

    async def _claimed(self, request: Request, purses: Sequence[Purse]) -> Claim:
        visit, told = request.visit, anyio.Event()
        patient = request.leg is None or not request.leg.second
        claim = Claim(
            purses,
            self.most(request, purses),
            arrival=request.arrival,
            owner=visit,
            wake=lambda: told.set(),
            patient=patient,
        )
        try:
            if claim.waits:
                async with visit.without_slot():
                    with visit.waiting(Share(claim)):
                        await told.wait()
            if not claim.granted:
                visit.admit_call()  # a run that has ended otherwise has not ended for want of money
                raise self._spent(claim, visit)
        except BaseException:
            claim.end()
            raise
        return claim

    def _spent(self, claim: Claim, visit: Visit) -> ItemError:
        purse = claim.refused
        if purse is None:
            said = "the budget has nothing to spare for a second attempt"
            return CallError(said, fault="retry", type="budget", usage=NO_USAGE)
        needs = f"stage {visit.stage!r} may need {_needed(purse, claim.amount)} for"
        if Purse(purse.budget).short_of(claim.amount):
            words = (
                f"is too small for one call: {needs} an attempt of {self.model}; raise it, or lower max_output_tokens"
            )
        else:
            words = f"is used up: {_left(purse, claim.amount)}, and {needs} the next attempt of {self.model}"
            words += "; raise it to go on"
        return BudgetSpent(f"the budget of {purse.budget} {words}")


@dataclass(frozen=True, slots=True)
class Reserved:
    """What was put aside for one attempt. Satisfies `Reservation`."""

    claim: Claim

    @property
    def amount(self) -> Amount:
        """The most that the attempt can cost."""
        return self.claim.amount

    def book(self, usage: Usage, cost: Cost | None, *, known: bool) -> None:
        """Spend what the attempt used, the rest comes back. All of it, when the server has not told, or its price is
        not known."""
        usd = None if cost is None else cost.usd
        money = any(purse.budget.usd is not None for purse in self.claim.purses)
        if not known or usage.estimated or (money and usd is None):
            self.claim.spend(None)
        else:
            self.claim.spend(Amount(picos(usd or 0.0), usage.input_tokens + usage.output_tokens, 1))


@dataclass(frozen=True, slots=True)
class Share:
    """Waits for others to give back what they do not need. Satisfies `ports.Hold`."""

    claim: Claim

    def __str__(self) -> str:
        return "a share of the budget (" + "; ".join(str(purse.statistics()) for purse in self.claim.purses) + ")"

    def holders(self) -> Sequence[Visit]:
        owners = [claim.owner for purse in self.claim.purses for claim in purse.claims]
        return [each for each in owners if hasattr(each, "item_id")]  # pyright: ignore[reportReturnType]


def _short(purse: Purse, amount: Amount) -> tuple[str, ...]:
    """The dimensions to speak of: those in which an amount does not fit, else all that are limited."""
    return purse.short_of(amount) or tuple(name for name in DIMENSIONS if getattr(purse.budget, name) is not None)


def _left(purse: Purse, amount: Amount) -> str:
    """What is spent of what, as `$4.98 of $5.00 is spent`."""
    names = _short(purse, amount)
    return f"{' and '.join(purse.statistics().spent_of(names))} {'is' if names == ('usd',) else 'are'} spent"


def _needed(purse: Purse, amount: Amount) -> str:
    values = dict(zip(DIMENSIONS, (amount.picos / PICOS, amount.tokens, amount.requests), strict=True))
    return " and ".join(amount_text(name, values[name]) for name in _short(purse, amount))
