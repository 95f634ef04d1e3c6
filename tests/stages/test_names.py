"""Names of stages: text, in their place, and each problem with one told once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline import DefinitionError, Pipeline
from stages import (
    agent,
    batch,
    filter,
    flat_map,
    loop,
    map,
    map_reduce,
    parallel,
    partition_by,
    route,
    scatter,
    tap,
    vote,
)
from tests.stages.models import ScriptedModel

UNIQUE = "(names are unique in a pipeline)"
a, b = map(str, name="a"), map(str, name="b")
asks: Any = agent("asks", model=ScriptedModel())


def problems(make: Callable[[], object]) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        Pipeline(make())  # type: ignore[arg-type]
    return [str(problem) for problem in caught.value.problems]


def folded(*given: Any, **options: Any) -> object:
    return map_reduce(*given, split=list, reduce=max, initial=0, **options)


BY_LABEL = "begins with its name, and takes its branches by label"
BY_NAME = "and takes its name as name="


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: parallel(a, b), f'parallel: {BY_LABEL} (parallel("views", a=…, b=…))'),
        (lambda: parallel(asks), f'parallel: {BY_LABEL} (parallel("views", a=…, b=…))'),
        (lambda: parallel("p", a, b), f'parallel: {BY_LABEL} (parallel("views", a=…, b=…))'),
        (lambda: parallel("p", a, b=b), f'parallel: {BY_LABEL} (parallel("views", a=…, b=…))'),
        (lambda: vote(asks, samples=3), f'vote: {BY_LABEL} (vote("sum", a=…, b=…), or vote("sum", body, samples=5))'),
        (lambda: vote("v", a, b), f'vote: {BY_LABEL} (vote("sum", a=…, b=…), or vote("sum", body, samples=5))'),
        (
            lambda: loop("polish", a, until=bool, max_rounds=2),
            f'loop: begins with its body, {BY_NAME} (loop(body, until=…, max_rounds=…, name="polish"))',
        ),
        (
            lambda: loop("polish", until=bool, max_rounds=2),
            f'loop: begins with its body, {BY_NAME} (loop(body, until=…, max_rounds=…, name="polish"))',
        ),
        (
            lambda: loop(a, "polish", until=bool, max_rounds=2),
            f'loop: begins with its body, {BY_NAME} (loop(body, until=…, max_rounds=…, name="polish"))',
        ),
        (
            lambda: folded("notes", a),
            (
                f"map_reduce: begins with its body, {BY_NAME} "
                '(map_reduce(each, split=…, reduce=…, initial=…, name="notes"))'
            ),
        ),
        (
            lambda: batch("scores", a, size=2),
            f'batch: begins with its body, if it has one, {BY_NAME} (batch(body, size=…, name="scores"))',
        ),
        (
            lambda: partition_by("turns", str, a),
            f'partition_by: begins with its key and its body, {BY_NAME} (partition_by(key, body, name="turns"))',
        ),
        (
            lambda: route("kind", {"a": a}, by=str),
            (
                f"route: begins with its cases, a mapping from label to stages, {BY_NAME} "
                '(route({"code": …, "prose": …}, by=…, name="kind"))'
            ),
        ),
    ],
)  # fmt: skip
def test_a_name_in_the_wrong_place_is_answered_with_the_right_line(make: Callable[[], object], told: str) -> None:
    assert problems(make) == [f"pipeline, {told}"]


def test_what_stands_in_its_place_is_taken() -> None:
    assert Pipeline(parallel(x=a) | parallel("q", x=b))
    assert Pipeline(vote("v", a, samples=3) | vote("w", x=b))
    assert Pipeline(loop(a, until=bool, max_rounds=2, name="polish") | folded(b, name="notes"))
    assert Pipeline(batch(a, size=2, name="scores") | partition_by(str, b, name="turns") | batch(size=2))
    assert Pipeline(route({"a": a}, by=str, name="kind"))


@pytest.mark.parametrize(
    "make",
    [
        lambda name: map(str, name=name),
        lambda name: filter(str, name=name),
        lambda name: flat_map(list, name=name),
        lambda name: tap(print, name=name),
        lambda name: scatter(name, split=list, each=a),
        lambda name: loop(a, until=bool, max_rounds=2, name=name),
        lambda name: route({"x": a}, by=str, name=name),
    ],
)
def test_a_name_is_text(make: Callable[[Any], object]) -> None:
    assert problems(lambda: make(5)) == ["pipeline, name: the name of a stage is text, got 5"]
    assert problems(lambda: make(asks)) == ["pipeline, name: the name of a stage is text, got a stage"]
    assert Pipeline(make("s"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda body: loop(body, until=bool, max_rounds=2),
        lambda body: route({"x": body}, by=str),
        lambda body: folded(body),
        lambda body: vote("same", x=body),
        lambda body: scatter("same", split=list, each=body, gather=map(len, name=f"{body.name}_all")),
    ],
)
def test_two_stages_of_one_name_are_one_mistake(make: Callable[[object], Any]) -> None:
    first, second = make(a), make(b)
    assert problems(lambda: first | second) == [
        f"stage {first.name!r}: there is already a stage named {first.name!r} {UNIQUE}"
    ]
    third = make(map(str, name="c"))
    assert len(problems(lambda: first | second | third)) == 2


def test_a_name_made_of_another_one_is_a_mistake_of_its_own() -> None:
    looped = loop(a, until=bool, max_rounds=2)
    assert problems(lambda: looped | map(str, name="loop_rounds") | map(str, name="loop_exhausted")) == [
        f"stage 'loop_rounds': there is already an output named 'loop_rounds' {UNIQUE}",
        f"stage 'loop_exhausted': there is already an output named 'loop_exhausted' {UNIQUE}",
    ]


def test_a_stage_of_one_s_own_is_told_apart_from_what_a_loop_makes() -> None:
    looped = loop(a, until=bool, max_rounds=2)
    text = f"stage 'loop.until': there is already a stage named 'loop.until' {UNIQUE}"
    for stages in (looped | map(len, name="loop.until"), map(len, name="loop.until") | looped):
        assert problems(lambda stages=stages: stages) == [text]  # type: ignore[misc]
