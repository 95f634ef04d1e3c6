"""Agents: one small interface, whatever is behind it."""

from __future__ import annotations

import threading

import anyio
import pytest

from pipeline.core.agent import stage_of_agent
from pipeline.core.errors import DefinitionError
from pipeline.core.pipeline import Pipeline
from pipeline.core.record import Input
from pipeline.core.state import ConversationState, Message
from pipeline.core.streams import open_edge
from pipeline.core.visit import Visit
from stages import filter, map, parallel
from tests.engine.schedules import in_virtual_time


class Shouter:
    name = "shout"

    async def process(self, prompt: str, state: ConversationState) -> str:
        await anyio.sleep(1)
        return prompt.upper()


class Blocking:
    name = "blocking"

    def __init__(self) -> None:
        self.threads: set[int] = set()

    def process(self, prompt: str, state: ConversationState) -> str:
        self.threads.add(threading.get_ident())
        return prompt + "!"


async def reverse(prompt: str, state: ConversationState) -> str:
    return prompt[::-1]


async def where(prompt: str, state: ConversationState, visit: Visit) -> str:
    return "/".join(visit.path)


async def structured(prompt: str, state: ConversationState) -> object:
    return {"text": prompt, "n": [1, 2]}


async def echo(prompt: str, state: ConversationState) -> str:
    return prompt


@in_virtual_time
async def test_classes_functions_and_blocking_ones_are_agents_and_any_agent_is_a_stage() -> None:
    blocking = Blocking()
    (record,) = await Pipeline(map(str, name="text") | Shouter() | reverse | blocking).collect(["abc"])
    assert record.output == "CBA!"
    assert list(record.outputs) == ["text", "shout", "reverse", "blocking"]
    assert threading.get_ident() not in blocking.threads


@in_virtual_time
async def test_an_agent_gets_the_template_else_the_output_before_it_else_the_records_prompt() -> None:
    templated = stage_of_agent(echo, prompt="Say {{ prompt }} after {{ reverse }}", name="templated")
    (record,) = await Pipeline(stage_of_agent(reverse) | templated).collect(["abc"])
    assert record.outputs["reverse"] == "cba"
    assert record.output == "Say abc after cba"
    (record,) = await Pipeline(stage_of_agent(structured) | stage_of_agent(echo)).collect(["abc"])
    assert record.output == '{"text":"abc","n":[1,2]}'


@in_virtual_time
async def test_a_record_without_a_prompt_fails_saying_what_to_give() -> None:
    (record,) = await Pipeline(stage_of_agent(echo)).collect([{"title": "x"}])
    assert record.error is not None
    assert record.error.message == (
        "the record has no prompt; give stage 'echo' a prompt template, or the record a field `prompt`"
    )


@in_virtual_time
async def test_an_agent_that_returns_nothing_fails_its_item() -> None:
    async def silent(prompt: str, state: ConversationState) -> None: ...

    (record,) = await Pipeline(stage_of_agent(silent)).collect(["x"])
    assert record.error is not None
    assert record.error.message == "agent 'silent' returned None; it has to return text, a reply or a value"


@in_virtual_time
async def test_question_and_answer_join_the_conversation_that_the_record_started() -> None:
    seen: list[ConversationState] = []

    async def listen(prompt: str, state: ConversationState) -> str:
        seen.append(state)
        return "ok"

    start = (Message("system", "be brief"),)
    await Pipeline(stage_of_agent(reverse) | listen).collect([Input("abc", prompt="abc", messages=start)])
    assert seen[0].messages == (*start, Message("user", "abc"), Message("assistant", "cba", "reverse"))


@in_virtual_time
async def test_a_visit_knows_its_path_from_the_root_inwards() -> None:
    (record,) = await Pipeline(parallel("views", left=where)).collect(["x"])
    assert record.output == {"left": "views/left/where"}


def refused(build: object) -> str:
    with pytest.raises(DefinitionError) as caught:
        build()  # type: ignore[operator]
    return str(caught.value)


def test_definition_errors_say_where_what_and_what_would_be_right() -> None:
    async def same(value: object) -> object:
        return value

    assert refused(lambda: Pipeline(map(same) | map(same))) == (
        "stage 'same': there is already a stage named 'same' (names are unique in a pipeline)"
    )
    assert refused(lambda: Pipeline(map(same, concurrency=0))) == (
        "stage 'same', concurrency: must be a whole number of at least 1, got 0"
    )
    assert refused(lambda: Pipeline(map(same), max_in_flight=0, buffer_size=-1)) == (
        "pipeline, max_in_flight: must be a whole number of at least 1, got 0\n"
        "pipeline, buffer_size: must be a whole number of at least 0, got -1"
    )
    assert refused(lambda: Pipeline(parallel("p"))) == (
        "stage 'p', branches: has no branch (give at least one, as label=stages)"
    )
    assert refused(lambda: map(same) | 5) == (
        "pipeline: 'int' is neither a stage nor an agent (a stage is made by agent(…), map(…), parallel(…) and the "
        "like; an agent has a name and process(prompt, state))"
    )
    assert refused(lambda: Pipeline([map(same)])) == (  # type: ignore[arg-type]
        "pipeline: 'list' is neither a stage nor an agent (stages are joined with |, as in a | b)"
    )
    assert refused(lambda: map(same) | len) == (
        "pipeline: 'len' is neither a stage nor an agent (an agent has a name and process(prompt, state); "
        "a plain function goes into map(len))"
    )
    assert refused(lambda: Pipeline(map(same, name="input"))) == (
        "stage 'input': a stage cannot be named 'input' (templates use that name for the record)"
    )
    assert "templated" in refused(lambda: Pipeline(stage_of_agent(echo, prompt="{{ nothing }}", name="templated")))


def test_every_problem_of_a_definition_is_told_at_once() -> None:
    with pytest.raises(DefinitionError) as caught:
        Pipeline(map(str, name="a", concurrency=0) | filter(str, name="a"), on_error="explode")  # type: ignore[arg-type]
    assert len(caught.value.problems) == 3


def test_a_pipeline_is_a_value() -> None:
    def make() -> Pipeline:
        return Pipeline(map(len, name="n") | parallel("p", a=map(str, name="s")), max_in_flight=3)

    assert make() == make()
    assert str(make()) == "n | p: at most 3 roots, at most 6 items alive"


@in_virtual_time
async def test_an_edge_without_a_bound_is_refused() -> None:
    for bad in (float("inf"), -1, None, 1.5, True):
        with pytest.raises(ValueError, match="needs a bounded capacity of 0 or more items, got"):
            open_edge("stage", bad)  # type: ignore[arg-type]
