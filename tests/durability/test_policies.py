"""Policies of a call within a run that is kept: what a finished call went through is not gone through again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from pydantic import BaseModel, field_validator

from pipeline import Pipeline
from pipeline.core.codec import decode
from pipeline.durability.journal import Journal
from pipeline.durability.resume.reopening import Reopen
from stages import agent, tool
from stages.models.simulated import SimulatedModel
from tests.durability.lives import attempts, live, model
from tests.durability.prefixes import Memory, check_prefixes
from tests.engine.schedules import run_in

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])

PROMPTS = ("one", "two", "three")
#: slow once in a while, so that a second attempt is worth it
UNEVEN = SimulatedModel(model="echo", latency="exponential:1s", hedge="p50", price={"input": 2.5, "output": 10})


class Even(BaseModel):
    """What half of the answers are."""

    number: int

    @field_validator("number")
    @classmethod
    def is_even(cls, number: int) -> int:
        if number % 2:
            raise ValueError("it has to be even")
        return number


def two(asked: SimulatedModel) -> Pipeline:
    return Pipeline(
        agent("a", model=asked, prompt="a {{ prompt }}", max_output_tokens=20)
        | agent("b", model=asked, prompt="b {{ a }}", max_output_tokens=20)
    )


def begun(memory: Memory) -> list[tuple[int, tuple[str, str, int]]]:
    return memory.named("begun")


@both_backends
def test_a_call_that_another_model_answered_is_not_made_again(backend: str) -> None:
    asked = model(latency=0.2, errors={"500": 1.0}, attempts=1, fallback=[model(latency=0.3, seed=3)])
    first, *_ = check_prefixes(two(asked), PROMPTS, backend)
    assert len(first.named("fact", "call")) == 6
    assert len(begun(first)) == 12
    assert all(b'"status":"ok"' in line for line in first.lines().values())


@both_backends
def test_a_call_that_was_hedged_is_not_made_again(backend: str) -> None:
    prompts = [f"prompt {number}" for number in range(40)]
    first, *_ = check_prefixes(two(UNEVEN), prompts, backend, stride=29, timed=("call",))
    calls = len(first.named("fact", "call"))
    assert calls == 80
    assert len(begun(first)) > calls


@both_backends
def test_an_answer_from_the_cache_is_in_the_journal_as_any_other(backend: str, tmp_path: Path) -> None:
    pipeline = two(model(latency=0.2, cache=str(tmp_path / "cache")))
    before = run_in(backend, 0, pipeline.collect, list(PROMPTS))
    first, *_ = check_prefixes(pipeline, PROMPTS, backend)
    assert begun(first) == []
    assert len(first.named("fact", "call")) == 6
    records = cast("list[dict[str, object]]", [decode(line) for line in first.lines().values()])
    assert sorted(str(record["output"]) for record in records) == sorted(str(record.output) for record in before)


@both_backends
def test_an_answer_of_the_journal_needs_no_cache(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        journal = Journal(tmp_path / "run")
        await live(two(model(cache=str(tmp_path / "cache"))), PROMPTS, journal)
        (tmp_path / "cache").unlink()
        await live(two(model(cache=str(tmp_path / "cache"))), PROMPTS, replace(journal, reopen=Reopen(from_stage="b")))
        assert attempts(journal, 2) == {"b": 3}

    run_in(backend, 0, body)


@both_backends
def test_a_round_of_repair_is_a_call_of_its_own_and_not_made_again(backend: str) -> None:
    asks = agent("a", model=SimulatedModel(latency=0.2), prompt="a {{ prompt }}", output=Even, max_output_tokens=400)
    prompts = [f"prompt {number}" for number in range(6)]
    first, *_ = check_prefixes(Pipeline(asks | agent("b", model=model(latency=0.2), prompt="b")), prompts, backend)
    calls = {(root, ordinal) for root, (name, _, ordinal) in first.named("fact", "call") if name == '["a"]'}
    repaired = {root for root, ordinal in calls if ordinal == 1}
    ok = {root for root, status in first.settled().items() if status == b"ok"}
    assert {root for root, ordinal in calls if ordinal == 0} == {1, 2, 3, 4, 5, 6}
    assert repaired & ok
    assert ok - repaired
    assert repaired - ok


@both_backends
def test_calls_around_tools_are_not_made_again(backend: str) -> None:
    asked: list[str] = []

    async def look(word: str) -> str:
        """Look a word up."""
        asked.append(word)
        return f"about {word}"

    asks = agent("a", model=SimulatedModel(latency=0.2), prompt="a {{ prompt }}", tools=[tool(look)])
    first, *resumed = check_prefixes(Pipeline(asks), PROMPTS, backend)
    assert sorted(name[2] for _, name in first.named("fact", "call")) == [0, 0, 0, 1, 1, 1]
    assert len(first.named("fact", "tool")) == 3
    for memory in resumed:
        assert len(memory.named("fact", "tool")) == 3
    assert len(asked) == 3 + sum(entry.name[1] == "tool" for memory in resumed for entry in memory.written)
