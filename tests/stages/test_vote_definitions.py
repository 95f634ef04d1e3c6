"""Votes as definitions: bounds, pictures, files, and every mistake in them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import anyio
import pytest

from pipeline import DefinitionError, Pipeline, Record
from pipeline.config.description import load_text
from pipeline.config.problems import ConfigError
from pipeline.core.visit import Visit
from pipeline.observe.graph import draw, mermaid
from stages import map, parallel
from stages.agent import WORD as AGENT
from stages.models.provider import PROVIDER
from stages.vote import WORD as VOTE
from stages.vote import vote
from tests.engine.schedules import run_in


def problems(make: Callable[[], object]) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        Pipeline(make())  # type: ignore[arg-type]
    return [str(problem) for problem in caught.value.problems]


def test_bounds_count_every_answer() -> None:
    def items(stage: object) -> int:
        return Pipeline(stage, max_in_flight=10).bounds.items  # type: ignore[arg-type]

    assert items(vote("v", a=map(str, name="a"), b=map(str, name="b"))) == 10 * 3
    assert items(vote("v", map(str), samples=5)) == 10 * 6
    assert items(vote("v", parallel("p", a=map(str, name="a"), b=map(repr)), samples=2)) == 10 * (1 + 2 * 3)
    two = vote("v", map(str), samples=3) | vote("w", map(repr), samples=3)
    assert items(two) == 10 * (1 + 3 + 3)  # losers of the first may be on their way out
    assert items(vote("v", map(str), samples=3, needed="plurality") | map(repr)) == 10 * 4


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("needed", ["majority", "plurality", 2])
def test_losers_that_are_slow_to_leave_stay_within_the_bounds(backend: str, needed: Any) -> None:
    async def stubborn(value: int, visit: Visit) -> int:
        chance = Random(f"{value} {visit.path}")
        try:
            await anyio.sleep(chance.random())
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(2)
        return value

    async def main() -> list[Record]:
        first = vote("v", map(stubborn, name="s", concurrency=3), samples=4, needed=needed)
        then = vote("w", a=map(stubborn, name="a"), b=map(stubborn, name="b"), needed=1 if needed == 2 else needed)
        return await Pipeline(first | then, max_in_flight=2).collect(range(8))

    assert [record.status for record in run_in(backend, 3, main)] == ["ok"] * 8


def test_a_vote_in_a_picture() -> None:
    sample = vote("sum", map(str, name="solver"), samples=5) | map(repr, name="end")
    assert draw(sample) == "input ─▶ sum ×5 ═╡ solver ╞═▶ end ─▶ output"
    assert 'subgraph s_sum_each["sum: each sample, at most 5 at once"]' in mermaid(sample)


def test_a_vote_is_a_value() -> None:
    make = lambda: vote("v", map(str), samples=3, key="{{ answer.x }}")  # noqa: E731
    assert make() == make()
    assert "samples=3" in repr(make())
    assert str(make().rules().join) == "majority"


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (
            lambda: vote("v"),
            "stage 'v', branches: has no branch (give at least one, as label=stages, or a body and samples)",
        ),
        (
            lambda: vote("v", samples=3),
            "stage 'v', samples: is for one body that answers several times (give the body)",
        ),
        (
            lambda: vote("v", map(str)),
            (
                "stage 'v', samples: is missing: it says how often the body answers "
                "(give it, or branches instead of a body)"
            ),
        ),
        (
            lambda: vote("v", map(str), samples=2, a=map(repr)),
            (
                "stage 'v', body: has no effect beside branches, which answer once each "
                "(give either branches, or a body and samples)"
            ),
        ),
        (lambda: vote("v", branches={"a": map(str)}, a=map(repr)), "stage 'v', branches: a given twice"),
        (lambda: vote("v", map(str), samples=0), "stage 'v', samples: must be a whole number of at least 1, got 0"),
        (
            lambda: vote("v", map(str), samples=True),
            "stage 'v', samples: must be a whole number of at least 1, got True",
        ),
        (
            lambda: vote("v", map(str), samples=3, needed="majorty"),  # type: ignore[arg-type]
            (
                "stage 'v', needed: must be majority, plurality or a whole number of at least 1, got 'majorty' "
                "(did you mean 'majority'?)"
            ),
        ),
        (
            lambda: vote("v", map(str), samples=3, needed=0),
            "stage 'v', needed: must be majority, plurality or a whole number of at least 1, got 0",
        ),
        (
            lambda: vote("v", map(str), samples=3, needed=4),
            "stage 'v', needed: 4 votes cannot be reached with 3 answers (at most 3)",
        ),
        (
            lambda: vote("v", map(str), samples=3, on_tie="first"),
            (
                "stage 'v', on_tie: has no effect, because no two answers can both have more than half of the votes "
                "(leave it out, or set needed: plurality)"
            ),
        ),
        (
            lambda: vote("v", map(str), samples=3, needed=2, on_tie="fail"),
            (
                "stage 'v', on_tie: has no effect, because no two answers can both have more than half of the votes "
                "(leave it out, or set needed: plurality)"
            ),
        ),
        (
            lambda: vote("v", map(str), samples=3, needed="plurality", on_tie="last"),  # type: ignore[arg-type]
            "stage 'v', on_tie: must be first or fail, got 'last'",
        ),
        (
            lambda: vote("v", map(str), samples=3, key="{{ anser.label }}"),
            "stage 'v', key: uses 'anser'; available here: answer (did you mean 'answer'?)",
        ),
        (
            lambda: vote("v", map(str), samples=3, key=3),  # type: ignore[arg-type]
            "stage 'v', key: must be a function or an expression, got 3",
        ),
        (
            lambda: vote("v", map(str), samples=3, timeout=0),
            "stage 'v', timeout: must be a number of seconds above 0, got 0",
        ),
        (
            lambda: vote("v", map(str), samples=3, on_timeout="partial"),
            "stage 'v', on_timeout: has no effect without a timeout (add timeout)",
        ),
        (
            lambda: map(str, name="v_votes") | vote("v", map(repr), samples=3),
            "stage 'v': there is already a stage named 'v_votes' (names are unique in a pipeline)",
        ),
        (
            lambda: map(str, name="sample"),
            "stage 'sample': a stage cannot be named 'sample' (templates use that name inside a body)",
        ),
    ],
)
def test_what_a_vote_cannot_be_is_told(make: Callable[[], object], told: str) -> None:
    assert problems(make) == [told]


# -- in a file ------------------------------------------------------------------------------------------------------


def read(stages: str, **options: Any) -> Pipeline:
    words = {"vote": VOTE, "agent": AGENT}
    text = f"version: 1\nmodels: {{fake: {{use: sim/echo}}}}\nstages:\n{stages}"
    described = load_text(text, words=words, models=PROVIDER, **options)
    return Pipeline(described.stages)


def told(stages: str) -> list[str]:
    with pytest.raises((ConfigError, DefinitionError)) as caught:
        read(stages)
    return [problem.message for problem in caught.value.problems]


async def test_branches_vote_in_a_file() -> None:
    stages = """
  - vote: answer
    branches:
      a: [{agent: one, prompt: "yes"}]
      b: [{agent: two, prompt: "no"}]
      c: [{agent: three, prompt: "yes"}]
    key: "{{ 'yes' in answer }}"
  - {agent: end, prompt: "{{ answer }} {{ answer_votes }}"}
"""
    (record,) = await read(stages).collect(["x"])
    assert record.status == "ok"
    assert record.outputs["answer_votes"] in ({"true": 2}, {"true": 2, "false": 1})


async def test_one_body_votes_in_a_file() -> None:
    stages = (
        "  - vote: answer\n    body: [{agent: one, prompt: '{{ sample }}'}]\n    samples: 3\n    needed: plurality\n"
    )
    stages += "    key: {call: 'operator:length_hint'}\n    on_tie: first\n    timeout: 30s\n    on_timeout: partial\n"
    (record,) = await read(stages, allow_import=["operator"]).collect(["x"])
    assert (record.status, sum(record.outputs["answer_votes"].values())) == ("ok", 3)  # type: ignore[attr-defined]
    assert read(stages.replace("plurality", "1"), allow_import=["operator"])


def test_mistakes_in_a_file_are_told_once() -> None:
    body = "    body: [{agent: one}]\n"
    assert told(f"  - vote: v\n{body}    samples: 3\n    needed: most\n") == [
        "must be majority, plurality or a whole number of at least 1, got 'most'"
    ]
    unread = f"  - vote: v\n{body}    sample: 3\n    key: '{{{{ answer.x }}}}'\n"
    unread += "  - {agent: end, prompt: '{{ v_votes }}'}\n"
    (only,) = told(unread)
    assert only.startswith("unknown key 'sample' in stage 'v'")
    (missing,) = told(f"  - vote: v\n{body}")
    assert missing == "'samples' of stage 'v': is missing: it says how often the body answers"
