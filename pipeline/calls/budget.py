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

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import anyio

from pipeline.calls.call import Call, Reply, Request
from pipeline.calls.errors import CallError
from pipeline.calls.parameters import Parameters
from pipeline.calls.pricing import Tariff
from pipeline.core.budget import Budget, BudgetSpent, amount_text
from pipeline.core.errors import ItemError, Problem
from pipeline.core.ports import Visit
from pipeline.core.purse import DIMENSIONS, PICOS, Amount, Claim, Purse, picos
from pipeline.core.usage import Cost, Usage

#: bytes that stand for the tokens between messages, which a server adds by itself
_AROUND_A_MESSAGE = 32
_AROUND_A_REQUEST = 256
_AROUND_TOOLS = 1024  #: some servers tell a model in words of their own how tools are called

_LIMITS_OF_OUTPUT = ("max_tokens", "max_completion_tokens", "max_output_tokens")


class Unbounded(ItemError):
    """Nobody can tell the most that a call costs, so it cannot be made under the run's budget."""

    stops_run = True


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
            return CallError("the budget has nothing to spare for a second attempt", fault="retry", type="budget")
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


def unbounded(model: str, tariff: Tariff, budget: Budget, parameters: Parameters | None) -> list[Problem]:
    """Why the most that a call costs is not known, for what `budget` limits; parameters None: those are not known."""
    free = tariff.most(1, 1) == 0
    if budget.usd is not None and tariff.most(0, 0) is None:
        text = f"{model} has no known price, so a budget in dollars cannot hold"
        return [Problem(None, "model", text, "give it price: {input: 2.5, output: 10}, in dollars a million tokens")]
    counts = budget.tokens is not None or (budget.usd is not None and not free)
    if counts and parameters is not None and most_output(parameters) is None:
        text = f"{model} may answer at any length, so a budget cannot hold"
        return [Problem(None, "max_output_tokens", text, "give the agent or its model max_output_tokens: 1000")]
    return []


def most_input(request: Request) -> int:
    """More than the tokens that a request can be read as: no token is shorter than a byte."""
    said = [text for each in request.messages for text in (each.content, each.name or "", each.tool_call_id or "")]
    said += [part for each in request.messages for call in each.tool_calls for part in (call.id, call.name)]
    said += [call.arguments for each in request.messages for call in each.tool_calls]
    said += [part for tool in request.tools for part in (tool.name, tool.description, _json(tool.parameters))]
    if request.schema is not None:
        said.append(_json(request.schema.json_schema))
    if request.parameters.extra_body:
        said.append(_json(request.parameters.extra_body))
    parts = len(request.messages) + len(request.tools) + sum(len(each.tool_calls) for each in request.messages)
    around = _AROUND_A_REQUEST + _AROUND_A_MESSAGE * parts + (_AROUND_TOOLS if request.tools else 0)
    return around + sum(len(text.encode("utf-8", "surrogatepass")) for text in said)


def most_output(parameters: Parameters) -> int | None:
    """The most tokens of an answer, reasoning included; None when it may be of any length."""
    extra = parameters.extra_body
    given = [parameters.max_output_tokens, *(extra.get(name) for name in _LIMITS_OF_OUTPUT)]
    limits = [each for each in given if isinstance(each, int) and each > 0]
    answers = extra.get("n", 1)
    return max(limits) * (answers if isinstance(answers, int) and answers > 1 else 1) if limits else None


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


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
