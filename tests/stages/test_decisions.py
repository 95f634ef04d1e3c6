"""Functions and expressions that people give to stages: what is neither is refused before the run, and so is a function
that cannot be called as it would be."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest

from pipeline import DefinitionError, Pipeline, Visit
from pipeline.cli.definition import Changes, read_text
from pipeline.config.problems import ConfigError
from pipeline.core.joins import Join, JoinLike
from pipeline.core.stage import Stage
from pipeline.core.templates import Expression
from stages import (
    agent,
    batch,
    filter,
    flat_map,
    loop,
    majority,
    map,
    map_reduce,
    parallel,
    partition_by,
    quorum,
    route,
    scatter,
    tap,
    vote,
)
from tests.stages.models import ScriptedModel

Make = Callable[[Any], Stage]


def body(name: str = "m") -> Stage:
    return map(str, name=name)


def mapped(given: Any) -> Stage:
    return map(given, name="s")


def filtered(given: Any) -> Stage:
    return filter(given, name="s")


def expanded(given: Any) -> Stage:
    return flat_map(given, name="s")


def tapped(given: Any) -> Stage:
    return tap(given, name="s")


def until(given: Any) -> Stage:
    return loop(body(), until=given, max_rounds=2, name="s")


def by(given: Any) -> Stage:
    return route({"x": body()}, by=given, name="s")


def partition_key(given: Any) -> Stage:
    return partition_by(given, body(), name="s")


def batch_key(given: Any) -> Stage:
    return batch(size=2, key=given, name="s")


def weight(given: Any) -> Stage:
    return batch(size=2, weight=given, name="s")


def scatter_split(given: Any) -> Stage:
    return scatter("s", split=given, each=body())


def fold_split(given: Any) -> Stage:
    return map_reduce(body(), split=given, reduce=operator.add, initial=0, name="s")


def fold(given: Any) -> Stage:
    return map_reduce(body(), split=list, reduce=given, initial=0, name="s")


def vote_key(given: Any) -> Stage:
    return vote("s", body(), samples=3, key=given)


def majority_key(given: Any) -> Stage:
    return parallel("s", a=body(), join=majority(given))


def joined(given: Any) -> Stage:
    return parallel("s", a=body(), join=given)


def reduced(given: Any) -> Stage:
    branches = {name: agent(name, model=ScriptedModel(), output_key="a_b") for name in "ab"}
    return parallel("s", branches=branches, reducers={"a_b": given})


def problems(make: Callable[[], object]) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        Pipeline(make())  # type: ignore[arg-type]
    return [str(problem) for problem in caught.value.problems]


FUNCTIONS: list[tuple[Make, str]] = [(mapped, ""), (filtered, ""), (expanded, "")]
OPTIONS: list[tuple[Make, str]] = [
    (until, ", until"),
    (partition_key, ", key"),
    (batch_key, ", key"),
    (weight, ", weight"),
    (scatter_split, ", split"),
    (fold_split, ", split"),
    (fold, ", reduce"),
    (vote_key, ", key"),
    (majority_key, ", join"),
]


# -- what is no function --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [3, ["x"]])
def test_what_is_neither_a_function_nor_an_expression_is_refused(wrong: object) -> None:
    for make, where in FUNCTIONS:
        told = f"stage 's'{where}: needs a function or an expression, got {wrong!r}"
        assert problems(lambda make=make: make(wrong)) == [told]  # type: ignore[misc]
    for make, where in OPTIONS:
        told = f"stage 's'{where}: must be a function or an expression, got {wrong!r}"
        assert problems(lambda make=make: make(wrong)) == [told]  # type: ignore[misc]
    assert problems(lambda: by(wrong))[0].startswith("stage 's', by: must be a function, an agent or an expression")


@pytest.mark.parametrize("wrong", ["print", None, 3, Expression("{{ prompt }}")])
def test_a_tap_takes_functions_alone(wrong: object) -> None:
    assert problems(lambda: tapped(wrong)) == [f"stage 's': needs a function, got {wrong!r:.60}"]
    assert Pipeline(tapped(print))


def test_without_a_name_it_cannot_be_told_where() -> None:
    assert problems(lambda: map(3)) == ["pipeline, map: needs a function, got 3"]  # type: ignore[arg-type]
    assert problems(lambda: filter(None)) == ["pipeline, filter: needs a function, got None"]  # type: ignore[arg-type]
    assert problems(lambda: tap("print")) == ["pipeline, tap: needs a function, got 'print'"]  # type: ignore[arg-type]


NO_EXPRESSION = "this must be exactly one expression, written {{ … }}, with nothing around it"


def test_text_is_read_as_an_expression_everywhere() -> None:
    for make, _ in FUNCTIONS:
        assert make("{{ input.x }}") == make(Expression("{{ input.x }}"))
        assert Pipeline(make("{{ input.x }}"))
    for make, where in [*OPTIONS, (by, ", by")]:
        right = "{{ total }}" if make is fold else "{{ answer.x }}" if "vote" in str(make) else "{{ prompt }}"
        if make is not majority_key:
            assert make(right) == make(Expression(right))
            assert Pipeline(make(right))
        told = f"stage 's'{where}: {NO_EXPRESSION}; got 'm > 3' (write '{{{{ m > 3 }}}}')"
        assert problems(lambda make=make: make("m > 3")) == [told]  # type: ignore[misc]


async def test_a_map_and_a_filter_of_code_evaluate_their_expressions() -> None:
    pipe = Pipeline(filter("{{ prompt != 'b' }}", name="kept") | map("{{ [prompt, 1] }}", name="pair"), ordered=True)
    assert [record.output for record in await pipe.collect(["a", "b", "c"])] == [["a", 1], ["c", 1]]
    words = Pipeline(flat_map("{{ prompt.split() }}", name="words"), ordered=True)
    assert [record.output for record in await words.collect(["x y"])] == ["x", "y"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("user", f"{NO_EXPRESSION}; got 'user' (write '{{{{ user }}}}')"),
        ("a b", f"{NO_EXPRESSION}; got 'a b'"),
        ("{{ a }} and b", f"{NO_EXPRESSION}; got '{{{{ a }}}} and b'"),
        ("{{ a b }}", "expected token 'end of print statement', got 'b'; got '{{ a b }}'"),
        ("{{ a|uper }}", "No filter named 'uper'; got '{{ a|uper }}' (did you mean 'upper'?)"),
    ],
)
def test_text_that_is_no_expression_is_told_with_what_would_be_one(text: str, told: str) -> None:
    assert problems(lambda: until(text)) == [f"stage 's', until: {told}"]
    assert problems(lambda: mapped(text)) == [f"stage 's': {told}"]
    assert problems(lambda: filter(text)) == [f"pipeline, filter: {told}"]


def test_what_cannot_be_read_is_told_with_all_else() -> None:
    stages = loop(body("a"), until="a > 3", max_rounds=0) | parallel("p", b=map(len), join="most")  # type: ignore[arg-type]
    stages |= scatter("s", split="prompt", each=body("c"), max_children="4", max_open=2)  # type: ignore[arg-type]
    assert problems(lambda: stages) == [
        f"stage 'loop', until: {NO_EXPRESSION}; got 'a > 3' (write '{{{{ a > 3 }}}}')",
        "stage 'loop', max_rounds: must be a whole number of at least 1, got 0",
        "stage 'p', join: must be 'all', 'any', 'majority', first(k), quorum(k) or a function, got 'most'",
        f"stage 's', split: {NO_EXPRESSION}; got 'prompt' (write '{{{{ prompt }}}}')",
        "stage 's', max_children: must be a whole number of at least 1, got '4'",
    ]


@pytest.mark.parametrize("option", ["prompt", "system"])
def test_a_template_of_an_agent_is_told_with_its_place(option: str) -> None:
    def make(text: str) -> Stage:
        return agent("a", model=ScriptedModel(), **{option: text})

    told = f"stage 'a', {option}: expected token 'end of print statement', got 'y'; got '{{{{ x y }}}}'"
    assert problems(lambda: make("{{ x y }}")) == [told]
    assert Pipeline(make("{{ prompt }}"))


# -- joins ----------------------------------------------------------------------------------------------------------


async def waits(members: object) -> str: ...


@pytest.mark.parametrize(
    ("join", "told"),
    [
        ("most", "must be 'all', 'any', 'majority', first(k), quorum(k) or a function, got 'most'"),
        (None, "must be 'all', 'any', 'majority', first(k), quorum(k) or a function, got None"),
        (
            "majorty",
            (
                "must be 'all', 'any', 'majority', first(k), quorum(k) or a function, got 'majorty' "
                "(did you mean 'majority'?)"
            ),
        ),
        (waits, "a join is decided at once, by a plain function; 'waits' is async"),
        (lambda: "ok", "is called with the members so far, and this one takes no argument"),
        (lambda a, b: "ok", "is called with the members so far, and this one takes 2 arguments"),
    ],
)  # fmt: skip
def test_what_is_no_join_is_told_with_the_stage(join: JoinLike, told: str) -> None:
    assert problems(lambda: joined(join)) == [f"stage 's', join: {told}"]
    each = scatter("s", split=list, each=body(), join=join)
    assert problems(lambda: each) == [f"stage 's', join: {told}"]


@pytest.mark.parametrize(
    "join", ["all", "any", "majority", quorum(1), Join("first", 1), lambda members: "ok", majority(len)]
)
def test_joins_are_joins(join: JoinLike) -> None:
    assert Pipeline(joined(join))
    assert Pipeline(scatter("s", split=list, each=body(), join=join))


# -- how many arguments ---------------------------------------------------------------------------------------------


def none() -> object: ...
def one(a: object) -> object: ...
def two(a: object, b: object) -> object: ...
def three(a: object, b: object, c: object) -> object: ...
def any_number(*a: object) -> object: ...
def keyword(a: object, *, k: object) -> object: ...
def with_visit(a: object, visit: Visit) -> object: ...


GIVEN = {until: "the output of a round", vote_key: "an answer", majority_key: "an answer"}


@pytest.mark.parametrize("make", [mapped, filtered, until, by])
def test_functions_that_may_take_the_visit(make: Make) -> None:
    subject = {mapped: "stage 's': its function is", filtered: "stage 's': its function is"}.get(make)
    option = {until: "until", by: "by"}.get(make)
    called = f"{subject or f'stage {chr(39)}s{chr(39)}, {option}: is'} called with {GIVEN.get(make, 'the payload')}"
    for wrong, takes in [(none, "no argument"), (three, "3 arguments"), (keyword, "the keyword 'k'")]:
        told = f"{called}, or with that and the visit, and this one takes {takes}"
        assert problems(lambda wrong=wrong: make(wrong)) == [told]  # type: ignore[misc]
    assert all(Pipeline(make(right)) for right in (one, two, any_number, with_visit, bool))


@pytest.mark.parametrize(
    ("make", "called"),
    [
        (expanded, ": its function is called with the payload"),
        (tapped, ": its function is called with the payload"),
        (partition_key, ", key: is called with the payload"),
        (batch_key, ", key: is called with the payload"),
        (weight, ", weight: is called with the payload"),
        (scatter_split, ", split: is called with the payload"),
        (fold_split, ", split: is called with the payload"),
        (vote_key, ", key: is called with an answer"),
        (majority_key, ", join: is called with an answer"),
    ],
)
def test_functions_that_are_not_given_the_visit(make: Make, called: str) -> None:
    assert problems(lambda: make(none)) == [f"stage 's'{called}, and this one takes no argument"]
    hint = " (it is not given the visit)" if called.endswith("the payload") else ""
    told = f"stage 's'{called}, and this one takes 2 arguments{hint}"
    assert problems(lambda: make(with_visit)) == [told]
    assert all(Pipeline(make(right)) for right in (one, any_number, bool))


def test_functions_of_two() -> None:
    total = "stage 's', reduce: is called with the total and an output"
    assert problems(lambda: fold(lambda x: x)) == [f"{total}, and this one takes 1 argument"]
    assert problems(lambda: fold(three)) == [f"{total}, and this one takes 3 arguments"]
    soon = "stage 's', reducers: of 'a_b' is called with what has been reduced so far and one more output"
    assert problems(lambda: reduced(one)) == [f"{soon}, and this one takes 1 argument"]
    assert problems(lambda: reduced(list)) == [f"{soon}, and this one takes at most 1 argument (did you mean 'list'?)"]

    async def later(a: object, b: object) -> object: ...

    once = "is called at once, and this one is async (make it a plain function)"
    assert problems(lambda: reduced(later)) == [f"stage 's', reducers: of 'a_b' {once}"]
    assert problems(lambda: fold(later)) == [f"stage 's', reduce: {once}"]
    assert all(Pipeline(make(right)) for make in (fold, reduced) for right in (two, any_number, operator.add, max))
    assert Pipeline(reduced("list"))


def test_what_is_asked_about_a_failure_takes_it() -> None:
    told = "on_error: is called with the failure, and this one takes no argument"
    assert problems(lambda: map(str, on_error=none)) == [f"stage 'str', {told}"]  # type: ignore[arg-type]
    assert problems(lambda: parallel("p", a=body(), on_error=none)) == [f"stage 'p', {told}"]  # type: ignore[arg-type]
    with pytest.raises(DefinitionError) as caught:
        Pipeline(body(), on_error=none)  # type: ignore[arg-type]
    assert str(caught.value) == f"pipeline, {told}"
    with pytest.raises(DefinitionError, match="must be one of dead_letter, skip, fail, or a function, got None"):
        Pipeline(body(), on_error=None)  # type: ignore[arg-type]
    (said,) = problems(lambda: map(str, on_error=later))  # type: ignore[arg-type]
    assert said == "stage 'str', on_error: is called at once, and this one is async (make it a plain function)"
    assert Pipeline(map(str, on_error=one), on_error=lambda failure: "skip")  # type: ignore[arg-type]


def test_a_function_of_the_visit_has_no_place_in_a_process() -> None:
    (said,) = problems(lambda: map(with_visit, cpu=True))
    assert said.startswith("stage 'with_visit', cpu: its function takes the visit")


# -- names, and what has no effect ----------------------------------------------------------------------------------


def test_the_name_of_a_function_s_stage_is_told_with_what_it_is_for() -> None:
    output = "has no name (pass name='…', so that its output can be found)"
    counts = "has no name (pass name='…', by which its counts can be found)"
    for make in (map, flat_map):
        assert problems(lambda make=make: make(lambda x: x)) == [f"pipeline, name: a lambda {output}"]  # type: ignore[misc]
        assert problems(lambda make=make: make("{{ x }}")) == [f"pipeline, name: an expression {output}"]  # type: ignore[misc]
    for looks in (filter, tap):
        assert problems(lambda looks=looks: looks(lambda x: x)) == [f"pipeline, name: a lambda {counts}"]  # type: ignore[misc]
    assert map(str.upper).name == "upper"


async def later(value: object) -> object: ...


@pytest.mark.parametrize("make", [map, filter])
def test_several_slots_are_for_functions_that_wait(make: Callable[..., Stage]) -> None:
    text = "has no effect on a plain function, which never waits (leave it out, or run it with blocking or cpu)"
    assert problems(lambda: make(str, concurrency=8)) == [f"stage 'str', concurrency: {text}"]
    assert Pipeline(make(str, concurrency=1))
    assert Pipeline(make(str, concurrency=8, blocking=True))
    assert Pipeline(make(str, concurrency=8, cpu=True))
    assert Pipeline(make(later, concurrency=8))
    assert Pipeline(make(with_visit, concurrency=8))  # what it returns is awaited if it can be


def test_in_a_file_it_is_told_with_its_place() -> None:
    head = "version: 1\nmodels: {fake: {use: sim/echo}}\nstages:\n"
    stages = (
        "  - {map: a, call: 'operator:add', concurrency: 2}\n"
        "  - {loop: b, body: [{agent: c}], until: {call: 'operator:setitem'}, max_rounds: 2}\n"
        "  - {parallel: d, join: {call: 'operator:add'}, branches: {x: [{agent: e}]}}\n"
        "  - {map: f, call: 'operator:setitem'}\n"
        "  - {map: g, call: 'operator:truth', concurrency: 8}\n"
    )
    with pytest.raises(ConfigError) as caught:
        read_text(head + stages, "p.yaml", Changes((), {}, ("operator",)))
    takes = "or with that and the visit, and this one takes 3 arguments"
    assert [f"{p.mark.line}:{p.mark.column} {p.code} {p.message}" for p in caught.value.problems] == [
        f"5:42 E110 'until' of stage 'b': is called with the output of a round, {takes}",
        "6:25 E110 'join' of stage 'd': is called with the members so far, and this one takes 2 arguments",
        f"7:11 E110 stage 'f': its function is called with the payload, {takes}",
        "8:51 E110 'concurrency' of stage 'g': has no effect on a plain function, which never waits",
    ]
