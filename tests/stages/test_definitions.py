"""What a definition cannot be: every mistake is found before the run, and says where it was written."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from pipeline import DefinitionError, Pipeline
from pipeline.cli.definition import Changes, read_text
from pipeline.config.problems import ConfigError
from pipeline.core.stage import Stage
from stages import agent, flat_map, map, parallel, route, scatter, vote
from tests.stages.models import ScriptedModel


def same(value: object) -> object:
    return value


def problems(make: Callable[[], object], **options: Any) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        Pipeline(make(), **options)  # type: ignore[arg-type]
    return [str(problem) for problem in caught.value.problems]


def in_file(stages: str) -> list[str]:
    """The problems of a pipeline file with the installed kinds, each with its place."""
    text = f"version: 1\nmodels: {{fake: {{use: sim/echo}}}}\nstages:\n{stages}"
    with pytest.raises(ConfigError) as caught:
        read_text(text, "p.yaml", Changes())
    return [f"{p.mark.line}:{p.mark.column} {p.code} {p.message}" for p in caught.value.problems]


@pytest.mark.parametrize("name", ["part", "parts", "round"])
def test_the_names_that_bodies_see_are_no_names_of_stages_and_outputs(name: str) -> None:
    hint = "(templates use that name inside a body)"
    assert problems(lambda: map(same, name=name)) == [f"stage {name!r}: a stage cannot be named {name!r} {hint}"]
    assert problems(lambda: agent("a", model=ScriptedModel(), output_key=name)) == [
        f"stage 'a', output_key: an output cannot be named {name!r} {hint}"
    ]


@pytest.mark.parametrize("name", ["prompt", "input", "vars"])
def test_the_names_of_the_record_are_no_names_of_outputs(name: str) -> None:
    assert problems(lambda: agent("a", model=ScriptedModel(), output_key=name)) == [
        f"stage 'a', output_key: an output cannot be named {name!r} (templates use that name for the record)"
    ]


UNIQUE = "(names are unique in a pipeline)"


def test_outputs_and_stages_share_one_set_of_names() -> None:
    model = ScriptedModel()
    first = agent("a", model=model, output_key="b")
    assert problems(lambda: first | map(same, name="b")) == [
        f"stage 'b': there is already an output named 'b' {UNIQUE}"
    ]
    assert problems(lambda: map(same, name="b") | first) == [
        f"stage 'a', output_key: there is already a stage named 'b' {UNIQUE}"
    ]
    assert problems(lambda: first | agent("c", model=model, output_key="b")) == [
        f"stage 'c', output_key: there is already an output named 'b' {UNIQUE}"
    ]
    assert problems(lambda: parallel("p", x=map(same, name="m")) | map(same, name="m")) == [
        f"stage 'm': there is already a stage named 'm' {UNIQUE}"
    ]
    assert Pipeline(agent("a", model=model, output_key="a"))


def test_the_names_that_a_route_takes_are_taken() -> None:
    def chosen(by: object = same) -> object:
        return route({"x": map(same)}, by=by, name="r")  # type: ignore[arg-type]

    assert problems(lambda: map(same, name="r_label") | chosen()) == [
        f"stage 'r': there is already a stage named 'r_label' {UNIQUE}"
    ]
    assert problems(lambda: chosen() | map(same, name="r_label")) == [
        f"stage 'r_label': there is already an output named 'r_label' {UNIQUE}"
    ]
    assert problems(lambda: map(same, name="r_by") | chosen()) == [
        f"stage 'r': there is already a stage named 'r_by' {UNIQUE}"
    ]
    asks = agent("r", model=ScriptedModel())
    assert problems(lambda: chosen(asks)) == [f"stage 'r': there is already a stage named 'r' {UNIQUE}"]


def test_a_composite_and_its_parts_may_have_one_name() -> None:
    model = ScriptedModel()
    deep = scatter("dig", split=list, each=map(same), gather=agent("sum", model=model))
    assert Pipeline(deep | route({"x": map(len)}, by=agent("triage", model=model)) | flat_map(list))


def test_a_template_of_a_route_is_told_by_the_name_of_the_route() -> None:
    assert problems(lambda: route({"x": map(same)}, by="{{ nope }}", name="r")) == [
        "stage 'r', by: uses 'nope'; available here: input, prompt, vars"
    ]
    wrong = "  - route: r\n    by: '{{ nope }}'\n    cases: {a: [{agent: a}]}\n"
    assert in_file(wrong) == ["5:9 E210 'by' of stage 'r' uses 'nope'; available here: input, prompt, vars"]


def test_a_wrong_word_is_no_policy() -> None:
    def of(**options: Any) -> list[str]:
        return problems(lambda: scatter("s", split=list, each=map(same), **options))

    right = "must be one of dead_letter, skip, fail, or a function"
    assert of(on_excess="truncat") == ["stage 's', on_excess: must be fail or truncate, got 'truncat'"]
    assert of(timeout=1, on_timeout="partal") == ["stage 's', on_timeout: must be fail or partial, got 'partal'"]
    assert of(on_error="explode") == [f"stage 's', on_error: {right}, got 'explode'"]
    assert problems(lambda: map(same, on_error="explode")) == [  # type: ignore[arg-type]
        f"stage 'same', on_error: {right}, got 'explode'"
    ]
    assert problems(lambda: route({"x": map(same)}, by=same, on_error="explode")) == [  # type: ignore[arg-type]
        f"stage 'route', on_error: {right}, got 'explode'"
    ]
    words = ("dead_letter", "skip", "fail", None)
    assert all(Pipeline(map(same, on_error=word)) for word in words)
    assert Pipeline(map(same, on_error=lambda failure: "skip"))
    assert Pipeline(route({"x": map(same)}, by=str, default=map(len), on_error="default"))


@pytest.mark.parametrize("wrong", [True, -1, 1.5, "5", float("nan")])
def test_max_failures_is_a_count_or_a_share(wrong: object) -> None:
    assert problems(lambda: map(same), max_failures=wrong) == [
        f"pipeline, max_failures: must be a count like 10, or a share from 0.0 to 1.0, got {wrong!r}"
    ]
    assert all(Pipeline(map(same), max_failures=right) for right in (0, 10, 0.0, 0.5, 1.0, None))


NO_TIMES = [True, 0, -1.0, "5", "30s", math.inf, math.nan]


@pytest.mark.parametrize("option", ["item_timeout", "watchdog", "stall_timeout"])
@pytest.mark.parametrize("wrong", NO_TIMES)
def test_a_time_of_the_pipeline_is_a_number_of_seconds(option: str, wrong: object) -> None:
    assert problems(lambda: map(same), **{option: wrong}) == [
        f"pipeline, {option}: must be a number of seconds above 0, got {wrong!r}"
    ]
    assert all(Pipeline(map(same), **{option: right}) for right in (1, 0.5, None))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        lambda **options: parallel("s", a=map(same), **options),
        lambda **options: scatter("s", split=list, each=map(same), **options),
        lambda **options: vote("s", map(same), samples=3, **options),
    ],
)
@pytest.mark.parametrize("wrong", NO_TIMES)
def test_the_time_of_a_join_is_a_number_of_seconds(make: Callable[..., Stage], wrong: object) -> None:
    assert problems(lambda: make(timeout=wrong)) == [
        f"stage 's', timeout: must be a number of seconds above 0, got {wrong!r}"
    ]
    assert all(Pipeline(make(timeout=right)) for right in (1, 0.5, None))


def test_labels_in_code_are_text() -> None:
    assert problems(lambda: route({True: map(same), "x": map(len), 2: map(str)}, by=same)) == [  # type: ignore[dict-item]
        "stage 'route', cases: the label True is not text (write 'true')",
        "stage 'route', cases: the label 2 is not text (write '2')",
    ]


def test_by_is_a_function_an_agent_or_an_expression() -> None:
    for wrong in (5, None, map(same)):
        (said,) = problems(lambda wrong=wrong: route({"x": map(same)}, by=wrong))  # type: ignore[misc]
        assert said.startswith("stage 'route', by: must be a function, an agent or an expression, got ")


def test_what_has_no_effect_on_an_expression_is_refused() -> None:
    stages = (
        "  - map: a\n    value: '{{ prompt }}'\n    blocking: true\n    concurrency: 8\n"
        "  - filter: b\n    when: '{{ prompt }}'\n    concurrency: 2\n"
    )
    text = "has no effect on an expression, which never waits"
    assert in_file(stages) == [
        f"6:15 E110 'blocking' of stage 'a': {text}",
        f"7:18 E110 'concurrency' of stage 'a': {text}",
        f"10:18 E110 'concurrency' of stage 'b': {text}",
    ]
