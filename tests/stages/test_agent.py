"""Agents: what they are asked, what becomes of their answers, and what is refused before any call."""

from __future__ import annotations

import threading

import pytest
from pydantic import BaseModel

from pipeline import ConversationState, DefinitionError, Input, Message, Pipeline, Visit
from stages import agent, map, resolve
from tests.stages.models import ScriptedModel


def shout(prompt: str) -> str:
    return prompt.upper()


async def test_the_prompt_is_the_record_s_when_there_is_no_template() -> None:
    model = ScriptedModel(shout)
    (record,) = await Pipeline(agent("a", model=model)).collect(["hello"])
    assert record.output == "HELLO"
    assert model.asked == [(Message("user", "hello"),)]


async def test_the_prompt_is_the_rendered_template() -> None:
    (record,) = await Pipeline(agent("a", model=ScriptedModel(), prompt="Say {{ prompt }}!")).collect(["hello"])
    assert record.output == "Say hello!"


async def test_the_prompt_of_a_later_agent_is_the_output_before_it() -> None:
    (record,) = await Pipeline(agent("a", model=ScriptedModel(shout)) | agent("b", model=ScriptedModel())).collect(
        ["hi"]
    )
    assert record.outputs == {"a": "HI", "b": "HI"}


async def test_a_structured_output_before_it_is_given_as_json() -> None:
    pipe = Pipeline(map(lambda text: {"n": [1, text]}, name="m") | agent("b", model=ScriptedModel()))
    (record,) = await pipe.collect(["hi"])
    assert record.output == '{"n":[1,"hi"]}'


async def test_a_record_without_a_prompt_fails_with_what_to_do() -> None:
    (record,) = await Pipeline(agent("a", model=ScriptedModel())).collect([{"n": 1}])
    assert record.status == "failed"
    assert record.error is not None
    assert record.error.type == "NoPrompt"
    assert record.error.message == (
        "the record has no prompt; give stage 'a' a prompt template, or the record a field `prompt`"
    )


async def test_the_system_text_comes_first_and_may_be_a_template() -> None:
    model = ScriptedModel()
    pipe = Pipeline(agent("a", model=model, system="You like {{ input.topic }}."))
    await pipe.collect([{"prompt": "go", "topic": "herons"}])
    assert model.asked == [(Message("system", "You like herons."), Message("user", "go"))]


async def test_question_and_answer_join_the_conversation() -> None:
    seen: list[ConversationState] = []

    async def look(prompt: str, state: ConversationState) -> str:
        seen.append(state)
        return prompt

    await Pipeline(agent("a", model=ScriptedModel(shout)) | look).collect(["hi"])
    assert seen[0].messages == (Message("user", "hi"), Message("assistant", "HI", "a"))


async def test_the_conversation_is_sent_only_when_it_is_wanted() -> None:
    without, wanted = ScriptedModel(), ScriptedModel()
    first = agent("a", model=ScriptedModel(shout))
    await Pipeline(first | agent("b", model=without, prompt="next")).collect(["hi"])
    await Pipeline(first | agent("b", model=wanted, prompt="next", conversation=True)).collect(["hi"])
    assert without.asked == [(Message("user", "next"),)]
    assert wanted.asked == [(Message("user", "hi"), Message("assistant", "HI", "a"), Message("user", "next"))]


async def test_the_messages_of_a_record_start_its_conversation() -> None:
    model = ScriptedModel()
    history = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    await Pipeline(agent("a", model=model)).collect([{"messages": [*history, {"role": "user", "content": "three"}]}])
    assert model.asked == [(Message("user", "one"), Message("assistant", "two"), Message("user", "three"))]


async def test_a_record_that_ends_with_an_answer_is_continued_as_it_is() -> None:
    model = ScriptedModel()
    messages = (Message("user", "one"), Message("assistant", "two"))
    await Pipeline(agent("a", model=model)).collect([Input({"n": 1}, messages=messages)])
    assert model.asked == [messages]


async def test_parameters_reach_the_call() -> None:
    model = ScriptedModel()
    await Pipeline(agent("a", model=model, temperature=0.5, stop=["x"])).collect(["hi"])
    assert model.params == [{"schema": None, "temperature": 0.5, "stop": ["x"]}]


class Plan(BaseModel):
    questions: list[str]


async def test_a_structured_answer_is_the_output() -> None:
    pipe = Pipeline(agent("plan", model=resolve("sim/default"), output=Plan))
    (record,) = await pipe.collect(["herons"])
    assert isinstance(record.output, Plan)
    assert all("herons" in question for question in record.output.questions)


async def test_later_templates_see_the_fields_of_a_structured_answer() -> None:
    plan = agent("plan", model=ScriptedModel(lambda _: Plan(questions=["q1", "q2"])), output=Plan)
    pipe = Pipeline(plan | agent("b", model=ScriptedModel(), prompt="{{ plan.questions[1] }}"))
    (record,) = await pipe.collect(["x"])
    assert record.output == "q2"


def test_a_template_that_asks_for_an_unknown_field_is_refused_before_any_call() -> None:
    plan = agent("plan", model=ScriptedModel(), output={"questions": ["string"]})
    with pytest.raises(DefinitionError) as caught:
        Pipeline(plan | agent("b", model=ScriptedModel(), prompt="{{ plan.quesions }}"))
    assert str(caught.value) == (
        "stage 'b', prompt: uses 'plan.quesions'; 'plan' has: questions (did you mean 'questions'?)"
    )


def test_a_template_that_uses_an_unknown_name_is_refused_with_the_names_in_view() -> None:
    with pytest.raises(DefinitionError) as caught:
        Pipeline(agent("draft", model=ScriptedModel()) | agent("b", model=ScriptedModel(), prompt="{{ drfat }}"))
    assert str(caught.value) == (
        "stage 'b', prompt: uses 'drfat'; available here: input, prompt, vars, draft (did you mean 'draft'?)"
    )


async def test_an_output_key_is_the_name_of_the_output() -> None:
    first = agent("a", model=ScriptedModel(shout), output_key="loud")
    (record,) = await Pipeline(first | agent("b", model=ScriptedModel(), prompt="{{ loud }}?")).collect(["hi"])
    assert record.outputs == {"loud": "HI", "b": "HI?"}


async def test_a_model_is_opened_once_a_run_and_closed_after_it() -> None:
    model = ScriptedModel()
    pipe = Pipeline(agent("a", model=model) | agent("b", model=model))
    await pipe.collect(["1", "2"])
    await pipe.collect(["3"])
    assert model.opened == ["opened", "closed", "opened", "closed"]


class Reverser:
    name = "reverser"

    async def process(self, prompt: str, state: ConversationState) -> str:
        return prompt[::-1]


async def greet(prompt: str, state: ConversationState) -> str:
    return f"hello {prompt}"


def block(prompt: str, state: ConversationState) -> str:
    return f"{prompt} off the loop: {threading.current_thread() is not threading.main_thread()}"


async def test_a_class_an_async_function_and_a_blocking_function_are_agents() -> None:
    (record,) = await Pipeline(Reverser() | agent(greet) | block).collect(["abc"])
    assert record.output == "hello cba off the loop: True"
    assert list(record.outputs) == ["reverser", "greet", "block"]


async def test_an_agent_may_ask_for_the_visit_and_call_a_model_through_it() -> None:
    model = ScriptedModel(shout)

    class Asking:
        name = "asking"

        def resources(self) -> tuple[ScriptedModel, ...]:
            return (model,)

        async def process(self, prompt: str, state: ConversationState, visit: Visit) -> str:
            reply = await visit.call(model, [Message("user", prompt)])
            return f"{visit.stage} {visit.item_id} {reply.text}"

    (record,) = await Pipeline(agent(Asking())).collect(["hi"])
    assert record.output == "asking 0 HI"


async def test_an_agent_that_returns_nothing_fails_its_item() -> None:
    async def silent(prompt: str, state: ConversationState) -> None:
        return None

    (record,) = await Pipeline(agent(silent)).collect(["hi"])
    assert record.status == "failed"
    assert record.error is not None
    assert record.error.message == "agent 'silent' returned None; it has to return text, a reply or a value"


def test_an_agent_without_a_model_says_what_to_give() -> None:
    with pytest.raises(DefinitionError, match=r"stage 'a', model: is missing \(give a model, as model="):
        agent("a")


def test_an_option_that_would_be_ignored_is_refused() -> None:
    with pytest.raises(DefinitionError, match="is for agents that ask a model; this one answers by itself"):
        agent(greet, system="You are ignored")


def test_what_is_no_agent_is_refused_beside_the_bar() -> None:
    with pytest.raises(DefinitionError, match=r"'len' is neither a stage nor an agent"):
        agent("a", model=ScriptedModel()) | len


def test_an_unknown_parameter_is_refused_where_it_is_written() -> None:
    with pytest.raises(DefinitionError, match=r"is not an option of an agent \(did you mean 'temperature'\?\)"):
        agent("a", model=ScriptedModel(), temprature=1)


def test_equal_agents_are_equal_values() -> None:
    assert agent("a", model="sim/default", prompt="x") == agent("a", model="sim/default", prompt="x")
    assert agent("a", model="sim/default", prompt="x") != agent("a", model="sim/default", prompt="y")


def test_the_bound_on_calls_knows_the_limit_that_agents_of_one_model_share() -> None:
    shared, free = resolve("sim/default", max_concurrency=3), resolve("sim/echo")
    pipe = Pipeline(agent("a", model=shared) | agent("b", model=shared) | agent("c", model=free, concurrency=5) | greet)
    assert pipe.bounds.calls == 3 + 5 + 16


def test_where_an_agent_runs_and_how_long_is_for_those_that_answer_by_themselves() -> None:
    with pytest.raises(DefinitionError) as caught:
        agent("a", model=ScriptedModel(), cpu=True)
    assert str(caught.value) == "stage 'a', cpu: is for agents that compute; this one asks a model (leave it out)"
    with pytest.raises(DefinitionError) as caught:
        agent("a", model=ScriptedModel(), timeout=30)
    assert str(caught.value) == (
        "stage 'a', timeout: is for agents that answer by themselves; this one asks a model, whose attempts have a time"
        " each (set it there, as resolve('provider/model', timeout=30); item_timeout is for all attempts)"
    )


def test_a_flag_of_an_agent_is_true_or_false_and_not_a_word() -> None:
    with pytest.raises(DefinitionError, match=r"stage 'a', stream: is 'no' \(give True or False\)"):
        agent("a", model="sim/default", stream="no")  # type: ignore[arg-type]
