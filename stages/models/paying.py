"""Whether calls of a model can be paid from a budget: its prices are known, and so is the longest answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from pipeline.calls.parameters import Parameters
from pipeline.calls.pricing import Tariff
from pipeline.calls.upper_bound import unbounded
from pipeline.core.budget import Budget, Payable
from pipeline.core.errors import Problem
from pipeline.core.ports import OpenModel, Resource


class Priced(Protocol):
    """A definition of a model that says what it costs."""

    @property
    def name(self) -> str: ...

    @property
    def parameters(self) -> Parameters: ...

    @property
    def fallback(self) -> tuple[Resource[OpenModel], ...]: ...

    def tariff(self) -> Tariff: ...


def against_budget(model: Priced, budget: Budget, asked: Mapping[str, object] | None) -> list[Problem]:
    """As `Payable.against_budget`, of `model` and of those that it falls back to."""
    parameters = None if asked is None else model.parameters.updated(asked)
    found = unbounded(model.name, model.tariff(), budget, parameters)
    for other in model.fallback:
        if isinstance(other, Payable):
            found += other.against_budget(budget, asked)
    return found
