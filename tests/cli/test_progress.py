"""The one line that says how far a run is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from anyio import CancelScope

from pipeline import Pipeline, Statistics
from pipeline.calls.circuit import CircuitStatistics
from pipeline.calls.gate import GateStatistics
from pipeline.calls.turnstile import QuotaStatistics
from pipeline.core.budget import Budget
from pipeline.core.purse import PurseStatistics
from pipeline.core.usage import Cost
from pipeline.observe import progress
from stages import map
from stages.models.sockets import SocketStatistics


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


async def test_the_line_says_what_most_calls_wait_for() -> None:
    now = await finished()
    circuit = CircuitStatistics("127.0.0.1:8000", "open", 1, 0, 1256, "connection")
    quota = QuotaStatistics("a/b", (("requests", 30.0, 0.5, 1.0),), 1.0, 0, 16, 0, 0, 0.0)
    held = [
        ((), ""),
        ((replace(quota, waiting=0), "no limit of a known form"), ""),
        ((quota, replace(circuit, waiting=0)), " · 16 wait for 30 requests/min"),
        ((replace(quota, waiting=1),), " · 1 waits for 30 requests/min"),
        ((quota, circuit), " · 1,256 wait for 127.0.0.1:8000"),
    ]
    for limits, said in held:
        assert progress.progress_line(replace(now, limits=limits), 0.5) == f"2 ok · 4.0/s · 0 in flight{said}"


def test_each_limit_says_in_a_few_words_what_is_waited_for() -> None:
    rates = (("requests", 30.0, 0.9, 1.0), ("input_tokens", 1000.0, -500.0, 4.0))
    quota = QuotaStatistics("a/b", rates, 1.0, 0, 1, 0, 0, 0.0)
    gate = GateStatistics("a/b", 8, 8.5, 8.5, "hold", 1, 8, 0, None)
    assert [limit.what for limit in (quota, replace(quota, paused=3.0), replace(quota, rates=()), gate)] == [
        "1000 input tokens/min",
        "the end of a pause of a/b",
        "the end of a pause of a/b",
        "one of the 8 places at a/b",
    ]
    assert SocketStatistics(4, 1, 4, 64, 0).what == "a connection"


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
