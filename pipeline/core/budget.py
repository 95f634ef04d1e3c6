"""What a run may spend on its model calls, in money, tokens or requests; and the words for it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Protocol, runtime_checkable

from pipeline.core.errors import ItemError, Problem


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that a run may spend; None leaves a dimension unlimited."""

    usd: float | None = None
    tokens: int | None = None  #: input and output together
    requests: int | None = None

    def __str__(self) -> str:
        return " and ".join(
            amount_text(each.name, value) for each in fields(self) if (value := getattr(self, each.name)) is not None
        )


class BudgetSpent(ItemError):
    """A call would not fit into the budget, whatever others give back. It ends the run; its item is not failed but left
    as it is, for a run with more money."""

    stops_run = True

    def __init__(self, message: str) -> None:
        super().__init__(message, type="budget")


@runtime_checkable
class Payable(Protocol):
    """A model whose calls may be paid from a budget."""

    def against_budget(self, budget: Budget, parameters: Mapping[str, object] | None) -> Sequence[Problem]:
        """Why they cannot be, when they are made with `parameters`; None: those are known only when it is called."""
        ...


@runtime_checkable
class Payer(Protocol):
    """An agent that knows what it asks its models with."""

    def against_budget(self, budget: Budget) -> Sequence[Problem]:
        """Why its calls cannot be paid from `budget`."""
        ...


def budget_problems(budget: object) -> list[Problem]:
    """What is wrong with the budget of a pipeline, None included, which is none."""
    right = "give Budget(usd=5.0), Budget(tokens=2_000_000) or Budget(requests=10_000)"
    if budget is None:
        return []
    if not isinstance(budget, Budget):
        return [Problem(None, "budget", f"is {budget!r}", right)]
    given = {each.name: getattr(budget, each.name) for each in fields(budget)}
    if all(value is None for value in given.values()):
        return [Problem(None, "budget", "limits nothing", right)]
    return [
        Problem(None, "budget", f"{name} must be {_kind(name)} of at least 0, got {value!r}", right)
        for name, value in given.items()
        if value is not None and not _is_amount(name, value)
    ]


def _kind(name: str) -> str:
    return "a number" if name == "usd" else "a whole number"


def _is_amount(name: str, value: object) -> bool:
    kinds = (int, float) if name == "usd" else (int,)
    return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def amount_text(dimension: str, value: float) -> str:
    """A part of a budget for people: `$5.00`, `2,000,000 tokens`, `1 request`."""
    if dimension == "usd":
        return dollars(value)
    return f"{value:,} {dimension[:-1] if value == 1 else dimension}"


def dollars(usd: float) -> str:
    """Money for people: cents, or as many places more as two digits of it need."""
    if usd >= 1 or usd < 1e-12:
        return f"${usd:,.2f}"
    text = f"{usd:.{max(4, 1 - math.floor(math.log10(usd)))}f}".rstrip("0")
    whole, _, places = text.partition(".")
    return f"${whole}.{places:0<2}"
