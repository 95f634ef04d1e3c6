"""Routes: one body an item, chosen over a declared label set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline import ConversationState, DefinitionError, Pipeline, Visit
from stages import agent, filter, map, resolve, route
from tests.stages.models import ScriptedModel


def double(n: int) -> int:
    return n * 2


def negate(n: int) -> int:
    return -n


def parity(n: int) -> str:
    return "even" if n % 2 == 0 else "odd"


async def test_each_item_takes_the_case_of_its_label() -> None:
    pipe = Pipeline(route({"even": map(double), "odd": map(negate)}, by=parity), ordered=True)
    assert [record.output for record in await pipe.collect(range(4))] == [0, -1, 4, -3]


async def test_outside_only_the_route_s_own_names_exist() -> None:
    pipe = Pipeline(route({"even": map(double), "odd": map(negate)}, by=parity, name="kind"))
    (record,) = await pipe.collect([3])
    assert record.outputs == {"kind_label": "odd", "kind": -3}


async def test_an_expression_chooses_by_the_record() -> None:
    cases = {"a": agent("one", model=ScriptedModel(), prompt="1"), "b": agent("two", model=ScriptedModel(), prompt="2")}
    pipe = Pipeline(route(cases, by="{{ input.kind }}"), ordered=True)
    records = await pipe.collect([{"kind": "b"}, {"kind": "a"}])
    assert [record.output for record in records] == ["2", "1"]


async def test_an_agent_is_asked_for_one_of_the_labels() -> None:
    by = agent("triage", model=resolve("sim/default", seed=3), prompt="which? {{ prompt }}")
    pipe = Pipeline(route({"x": map(str, name="sx"), "y": map(str, name="sy")}, by=by))
    records = await pipe.collect([f"prompt {n}" for n in range(20)])
    assert {record.outputs["route_label"] for record in records} == {"x", "y"}
    assert {record.usage.requests for record in records} == {1}


async def test_the_text_of_an_agent_of_one_s_own_is_the_label() -> None:
    async def triage(prompt: str, state: object) -> str:
        return prompt[0]

    pipe = Pipeline(route({"x": map(str, name="sx"), "y": map(str, name="sy")}, by=agent(triage)), ordered=True)
    records = await pipe.collect(["yes", "xes"])
    assert [record.outputs["route_label"] for record in records] == ["y", "x"]


async def test_an_unknown_label_goes_to_the_default() -> None:
    pipe = Pipeline(route({"even": map(double)}, by=parity, default=map(negate)))
    (record,) = await pipe.collect([3])
    assert (record.output, record.outputs["route_label"]) == (-3, "odd")


async def test_an_unknown_label_without_a_default_fails_the_item_and_names_the_cases() -> None:
    (record,) = await Pipeline(route({"even": map(double)}, by=parity)).collect([3])
    assert record.status == "failed"
    assert record.error is not None
    assert (record.error.type, record.error.message) == (
        "UnknownLabel",
        "label 'odd' has no case and there is no default; cases: 'even'",
    )


def broken(n: int) -> str:
    raise ValueError(f"no label for {n}")


async def test_a_failing_choice_fails_the_item() -> None:
    (record,) = await Pipeline(route({"a": map(double)}, by=broken, default=map(negate))).collect([3])
    assert record.status == "failed"
    assert record.error is not None
    assert (record.error.stage, record.error.message) == ("route_by", "no label for 3")


async def test_a_failing_choice_goes_to_the_default_when_that_is_said() -> None:
    pipe = Pipeline(route({"a": map(double)}, by=broken, default=map(negate), on_error="default"))
    (record,) = await pipe.collect([3])
    assert (record.status, record.output) == ("ok", -3)


async def test_a_failing_agent_goes_to_the_default_when_that_is_said() -> None:
    by = agent("triage", model=resolve("sim/default", fail_when="poison"))
    pipe = Pipeline(route({"a": map(str)}, by=by, default=map(repr), on_error="default"))
    (record,) = await pipe.collect(["poison"])
    assert (record.status, record.output) == ("ok", "'poison'")


def test_on_error_default_needs_a_default() -> None:
    with pytest.raises(DefinitionError, match="is 'default', but there is no default"):
        route({"a": map(double)}, by=parity, on_error="default")


async def test_an_item_that_is_skipped_in_a_case_is_skipped() -> None:
    pipe = Pipeline(route({"even": filter(lambda n: n > 2, name="big"), "odd": map(negate)}, by=parity), ordered=True)
    async with pipe.open(range(6)) as run:
        records = [record async for record in run.results]
    assert [(record.index, record.output) for record in records] == [(1, -1), (3, -3), (4, 4), (5, -5)]
    assert run.statistics().window.settled["skipped"] == 2


async def test_a_failure_in_a_case_fails_the_item_with_the_stage_s_name() -> None:
    def explode(n: int) -> int:
        raise ValueError("boom")

    (record,) = await Pipeline(route({"odd": map(explode)}, by=parity)).collect([1])
    assert record.error is not None
    assert (record.status, record.error.stage, record.error.message) == ("failed", "explode", "boom")


def test_a_route_without_cases_is_refused() -> None:
    with pytest.raises(DefinitionError, match="has no case"):
        Pipeline(route({}, by=parity))


def test_an_item_is_alive_twice_in_a_route_however_many_cases_there_are() -> None:
    pipe = Pipeline(route({"even": map(double), "odd": map(negate), "x": map(str)}, by=parity), max_in_flight=5)
    assert pipe.bounds.items == 10


@pytest.mark.parametrize(
    ("by", "values", "outputs"),
    [
        (lambda value: value > 1, [1, 2], ["no", "yes"]),
        (lambda value: {"label": value}, [1, 2], ["one", "two and a half"]),
        (lambda value: value + 0.5, [2], ["two and a half"]),
    ],
)
async def test_a_boolean_or_a_number_is_the_label_that_reads_like_it(
    by: Callable[[int], object], values: list[int], outputs: list[str]
) -> None:
    words = {"true": "yes", "false": "no", "1": "one", "2": "two and a half", "2.5": "two and a half"}
    cases = {label: map(lambda value, word=word: word, name=f"m{n}") for n, (label, word) in enumerate(words.items())}
    records = await Pipeline(route(cases, by=by), ordered=True).collect(values)
    assert [record.output for record in records] == outputs


async def test_an_expression_may_give_a_boolean_or_a_number() -> None:
    cases = {"true": map(lambda value: "yes", name="yes"), "3": map(lambda value: "three", name="three")}
    pipe = Pipeline(route(cases, by="{{ prompt == 'x' or prompt | length }}"), ordered=True)
    assert [record.output for record in await pipe.collect(["x", "yyy"])] == ["yes", "three"]


class Triage:
    name = "triage"

    async def process(self, prompt: str, state: object) -> str:
        return prompt[0]


async def by_state(prompt: str, state: ConversationState) -> str:
    return f"{prompt[0]}" if isinstance(state, ConversationState) else "?"


def by_visit(value: str, context: Visit) -> str:
    return value[0] if isinstance(context, Visit) else "?"


@pytest.mark.parametrize(("by", "stage"), [(Triage(), "triage"), (by_state, "by_state"), (by_visit, "route_by")])
async def test_an_agent_may_choose_as_it_is_and_a_function_of_two_is_given_the_visit(by: Any, stage: str) -> None:
    pipe = Pipeline(route({"x": map(str, name="sx"), "y": map(str, name="sy")}, by=by), ordered=True)
    assert [record.outputs["route_label"] for record in await pipe.collect(["yes", "xes"])] == ["y", "x"]
    assert str(pipe).startswith(f"{stage} | route: ")
