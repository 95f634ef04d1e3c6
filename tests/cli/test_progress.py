"""The one line that says how far a run is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from anyio import CancelScope

from pipeline import Pipeline, Statistics
from pipeline.core.budget import Budget
from pipeline.core.purse import PurseStatistics
from pipeline.core.usage import Cost
from pipeline.observe import progress
from stages import map


async def finished() -> Statistics:
    pipe = Pipeline(map(str.upper, name="up"))
    async with pipe.open(["a", "b"]) as run:
        _ = [record async for record in run.results]
    return run.statistics()


async def test_the_line_counts_what_has_settled_and_what_is_in_flight() -> None:
    now = await finished()
    assert progress.progress_line(now, 0.5) == "2 ok · 4.0/s · 0 in flight"
    assert progress.progress_line(replace(now, cost=Cost(0.25, "x")), 0.5).endswith(" · $0.2500")
    (stage,) = now.stages
    at_work = replace(now, stages=(replace(stage, slots=replace(stage.slots, borrowed=1)),))
    assert progress.progress_line(at_work, 0.0) == "2 ok · 0.0/s · 0 in flight · up 1/1"


async def test_plain_progress_is_silent_until_there_is_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    looks = iter([None, None, await finished()])
    said: list[str] = []

    with CancelScope() as scope:

        def say(text: str) -> None:
            said.append(text)
            scope.cancel()

        await progress.plain_progress(lambda: next(looks), say)
    assert len(said) == 1
    assert said[0].startswith("2 ok · ")
    assert next(looks, "used") == "used"


async def test_the_line_says_what_is_spent_of_a_budget() -> None:
    now = await finished()
    spent = PurseStatistics(Budget(usd=5.0, requests=90), Budget(usd=0.61, requests=7), Budget(usd=0.2, requests=1), 0)
    line = progress.progress_line(replace(now, cost=Cost(0.61, "x"), budgets=(spent,)), 0.5)
    assert line == "2 ok · 4.0/s · 0 in flight · $0.61 of $5.00, 7 of 90 requests"
