"""Functions as stages: where they run and what they are given."""

from __future__ import annotations

import threading

import pytest

from pipeline import DefinitionError, Pipeline, Visit
from pipeline.config.description import load_text
from pipeline.core.words import Word
from stages import filter, map
from stages.function import FILTER_WORD, MAP_WORD, FilterStage, MapStage
from tests.engine import computing

WORDS: dict[str, Word] = {"map": MAP_WORD, "filter": FILTER_WORD}


def told(value: str, visit: Visit) -> tuple[str, bool, bool]:
    away = threading.current_thread() is not threading.main_thread()
    return value, visit.names()["prompt"] == value, away


def long(value: str, visit: Visit) -> bool:
    return len(value) > len("x") and visit.names()["prompt"] == value


async def test_a_blocking_function_of_two_parameters_is_given_the_visit() -> None:
    (record,) = await Pipeline(map(told, blocking=True)).collect(["x"])
    assert (record.status, record.output) == ("ok", ("x", True, True))
    (passed,) = await Pipeline(filter(long, blocking=True)).collect(["x", "yy"])
    assert passed.output == "yy"


def test_a_pipeline_file_says_where_a_function_runs_and_how_long() -> None:
    text = (
        "version: 1\nstages:\n"
        "  - {map: twice, call: 'tests.engine.computing:double', cpu: true, concurrency: 4, timeout: 90s}\n"
        "  - {filter: even, when: {call: 'tests.engine.computing:is_even'}, blocking: true, timeout: 250ms}\n"
    )
    stages = load_text(text, allow_import=["tests"], words=WORDS).stages
    assert stages.parts() == (
        MapStage("twice", 4, None, computing.double, cpu=True, timeout=90.0),
        FilterStage("even", 1, None, computing.is_even, blocking=True, timeout=0.25),
    )


def test_an_expression_runs_nowhere_else_and_never_waits() -> None:
    text = "version: 1\nstages: [{map: a, value: '{{ prompt }}', cpu: true, timeout: 1s}]\n"
    description = load_text(text, words=WORDS)
    with pytest.raises(DefinitionError) as caught:
        Pipeline(description.stages)
    assert [str(problem) for problem in caught.value.problems] == [
        f"stage 'a', {option}: has no effect on an expression, which never waits (leave it out)"
        for option in ("cpu", "timeout")
    ]


async def doubled(value: str) -> str:
    return value * 2


def careless(value: str) -> object:
    return doubled(value)


async def test_a_function_that_returns_a_coroutine_fails_its_item_instead_of_passing_it_on() -> None:
    for stage in (map(careless, name="m"), filter(careless, name="m")):
        (record,) = await Pipeline(stage).collect(["x"])
        assert record.error is not None
        assert (record.error.type, record.error.message) == (
            "coroutine_returned",
            "the function returned the coroutine doubled(…), not its result; declare it with async def",
        )
