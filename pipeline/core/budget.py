"""What a run may spend, and the purse that its calls are paid from: by reservation, so that it is never overdrawn.

Before a call, the most that it can cost is reserved; after each attempt what it did cost is booked. The law, at every
instant: spent + reserved <= budget. A call that does not fit waits while anything is reserved, because reservations
are upper bounds and most of one comes back.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Budget:
    """The most that a run may spend; None leaves a dimension unlimited."""

    usd: float | None = None
    tokens: int | None = None  #: input and output together
    requests: int | None = None


@dataclass(frozen=True, slots=True)
class PurseStatistics:
    """A purse at one instant."""

    budget: Budget
    spent: Budget
    reserved: Budget
    waiting: int  #: calls that wait for reservations of others to come back


class Purse:
    """The money of one run."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget

    def statistics(self) -> PurseStatistics:
        return PurseStatistics(self.budget, Budget(), Budget(), 0)
