"""Who in a pipeline could not be paid from its budget: found before the run, so that no money is spent first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pipeline.core.agent import AgentStage
from pipeline.core.budget import Budget, Payable, Payer
from pipeline.core.errors import Problem
from pipeline.core.stage import Stage
from pipeline.core.topology import walk


def unpayable(stage: Stage, budget: Budget) -> tuple[Problem, ...]:
    """What keeps the stages in `stage` from being paid from `budget`, each once."""
    found = [replace(problem, stage=part.name) for part in walk(stage) for problem in _of(part, budget)]
    return tuple(dict.fromkeys(found))


def _of(stage: Stage, budget: Budget) -> Iterator[Problem]:
    if isinstance(stage, AgentStage) and isinstance(stage.agent, Payer):
        yield from stage.agent.against_budget(budget)
        return
    for resource in stage.resources():
        model: object = resource
        if isinstance(model, Payable):
            yield from model.against_budget(budget, None)
