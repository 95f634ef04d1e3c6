"""Agents with tools: what a model is told, what it may do with that, and what it is told of what it did."""

from __future__ import annotations

import datetime
import enum
import functools
import threading
from collections.abc import Callable
from typing import Annotated, Any, Literal

import anyio
import pytest
from pydantic import BaseModel, Field

from pipeline import (
    ConversationState,
    DefinitionError,
    Input,
    ItemError,
    Message,
    Pipeline,
    Record,
    RunStopped,
    Skip,
    Visit,
)
from pipeline.config.description import load_text
from pipeline.config.problems import ConfigError
from pipeline.core.stage import Stage
from pipeline.core.state import ToolCall
from pipeline.core.threads import BlockingStatistics
from stages import agent
from stages.tool_rounds import MOST_CALLS
from stages.tools import ToolFunction, tool
from tests.engine.schedules import in_virtual_time, run_in
from tests.stages.tool_models import ToolModel, call, results, turns


async def add(a: int, b: int = 2) -> int:
    """The sum of two numbers."""
    return a + b


def where(city: str) -> str:
    """Where a city lies."""
    return f"{city} lies off the loop: {threading.current_thread() is not threading.main_thread()}"


async def answered(model: ToolModel, *tools: ToolFunction, **options: Any) -> Record:
    (record,) = await Pipeline(agent("lead", model=model, tools=tools, **options)).collect(["go"])
    return record


async def told(given: ToolCall, *tools: ToolFunction) -> str:
    """What a model is told of one call."""
    model = turns((given,), "done")
    record = await answered(model, *tools)
    assert record.output == "done"
    (result,) = results(model)
    return result


# -- what a model is told ---------------------------------------------------------------------------------------------


class Colour(enum.Enum):
    RED = "red"


class Place(BaseModel):
    city: str
    zip: int = 0


def plain(text: str) -> None: ...
def defaulted(n: int = 3, *, odd: object = object()) -> None: ...
def chosen(c: Colour, kind: Literal["a", "b"]) -> None: ...
def nested(places: list[Place]) -> None: ...
def dated(day: datetime.date, note: str | None = None) -> None: ...
def described(n: Annotated[int, Field(description="how many", ge=1)]) -> None: ...
def named_as_pydantic(json: str, copy: bool, model_dump: float, _hidden: int) -> None: ...
def visited(n: int, visit: Visit) -> None: ...
def nothing() -> None: ...


INTEGER, STRING = {"type": "integer"}, {"type": "string"}


@pytest.mark.parametrize(
    ("function", "properties", "required"),
    [
        (plain, {"text": STRING}, ["text"]),
        (defaulted, {"n": {"type": "integer", "default": 3}, "odd": {}}, None),
        (
            chosen,
            {"c": {"$ref": "#/$defs/Colour"}, "kind": {"type": "string", "enum": ["a", "b"]}},
            ["c", "kind"],
        ),
        (nested, {"places": {"type": "array", "items": {"$ref": "#/$defs/Place"}}}, ["places"]),
        (
            dated,
            {
                "day": {"type": "string", "format": "date"},
                "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            },
            ["day"],
        ),
        (described, {"n": {"type": "integer", "minimum": 1, "description": "how many"}}, ["n"]),
        (
            named_as_pydantic,
            {"json": STRING, "copy": {"type": "boolean"}, "model_dump": {"type": "number"}, "_hidden": INTEGER},
            ["json", "copy", "model_dump", "_hidden"],
        ),
        (visited, {"n": INTEGER}, ["n"]),
        (nothing, {}, None),
        (functools.partial(plain), {"text": STRING}, ["text"]),
    ],
)
def test_a_model_is_told_of_the_arguments_as_the_signature_has_them(
    function: Callable[..., object], properties: dict[str, object], required: list[str] | None
) -> None:
    parameters = dict(tool(function, name="f").told.parameters)
    parameters.pop("$defs", None)
    expected: dict[str, object] = {"type": "object", "properties": properties, "additionalProperties": False}
    assert parameters == {**expected, **({} if required is None else {"required": required})}


async def test_a_model_is_told_the_name_and_the_docstring_of_each_tool_at_every_turn() -> None:
    model = turns((call("add", '{"a": 1}'),), "3")
    await answered(model, add, tool(where, name="locate", description="Finds cities."))
    assert [
        [(each.name, each.description) for each in params["tools"]]  # type: ignore[attr-defined]
        for params in model.params
    ] == [[("add", "The sum of two numbers."), ("locate", "Finds cities.")]] * 2


def test_a_tool_is_still_the_function_that_it_was() -> None:
    @tool
    def double(n: int) -> int:
        return 2 * n

    @tool(name="thrice", timeout=5)
    def triple(n: int) -> int:
        return 3 * n

    assert (double(2), double.name, triple(2), triple.name, triple.timeout) == (4, "double", 6, "thrice", 5)


def unannotated(a, b: int) -> None: ...  # type: ignore[no-untyped-def]
def any_number(*args: int) -> None: ...
def any_name(**kwargs: int) -> None: ...
def by_place(a: int, /) -> None: ...
def unknown(a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def unwritable(a: threading.Thread) -> None: ...
def unspeakable(a: Callable[[], int]) -> None: ...


class Silent:
    def __call__(self, n: int) -> int:
        return n


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            unannotated,
            (
                "'unannotated': parameter 'a' has no type, so nothing can be told of it and nothing checked "
                "(annotate it, as a: str)"
            ),
        ),
        (
            any_number,
            (
                "'any_number': *args stands for any number of arguments, and a model is told each by its name "
                "(name each parameter)"
            ),
        ),
        (
            any_name,
            (
                "'any_name': **kwargs stands for arguments of any name, and a model is told each by its name "
                "(name each parameter)"
            ),
        ),
        (
            by_place,
            "'by_place': a is given by position alone, and a model names its arguments (name each parameter)",
        ),
        (
            unknown,
            (
                "the annotations of 'unknown' cannot be read: name 'Nowhere' is not defined "
                "(name types that its module has when it runs, not only under TYPE_CHECKING)"
            ),
        ),
        (
            unwritable,
            (
                "'unwritable' takes what JSON has not: Unable to generate pydantic-core schema for "
                "<class 'threading.Thread'> (take what JSON has, or a pydantic class)"
            ),
        ),
        (
            unspeakable,
            (
                "'unspeakable' takes what JSON has not: Cannot generate a JsonSchema for core_schema.CallableSchema "
                "(take what JSON has, or a pydantic class)"
            ),
        ),
        (
            lambda: 1,
            (
                "'<lambda>' is not a name that a model can call: letters, digits, _ and -, at most 64 "
                "(give one, as tool(function, name='search'))"
            ),
        ),
        ("search", "'search' is not a function (give functions, or tool(function, …))"),
    ],
)
def test_what_no_model_can_be_offered_is_refused_with_the_stage(given: Any, text: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        agent("lead", model=turns("x"), tools=[given])
    assert str(caught.value) == f"stage 'lead', tools: {text}"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"tools": [add, add]}, None),
        (
            {"tools": [add, tool(where, name="add")]},
            "tools: two are called 'add' (name one, as tool(function, name='…'))",
        ),
        ({"tools": "add"}, "tools: is 'add' (give a list of functions, as [search])"),
        ({"tools": add}, None),
        ({"tools": [add], "max_hops": 0}, "max_hops: must be a whole number of at least 1, got 0 (the default is 8)"),
        (
            {"tools": [add], "max_hops": True},
            "max_hops: must be a whole number of at least 1, got True (the default is 8)",
        ),
        ({"max_hops": 3}, "max_hops: is for agents with tools (give tools, or leave it out)"),
        ({"on_truncated": "retry"}, "on_truncated: must be 'accept' or 'fail', got 'retry'"),
        ({"on_refused": "skip"}, "on_refused: must be 'accept' or 'fail', got 'skip'"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], text: str | None) -> None:
    with pytest.raises(DefinitionError) as caught:
        agent("lead", model=turns("x"), **options)
    if text is not None:
        assert str(caught.value) == f"stage 'lead', {text}"


def test_options_of_a_tool_that_cannot_be_are_refused() -> None:
    for options, text in (
        ({"timeout": 0}, "timeout must be a number of seconds above 0, got 0"),
        ({"on_error": "ignore"}, "on_error must be 'tell' or 'fail', got 'ignore'"),
        ({"max_result": 0}, "max_result must be a whole number of at least 1, got 0"),
    ):
        with pytest.raises(DefinitionError) as caught:
            tool(add, **options)  # type: ignore[call-overload]
        assert str(caught.value) == f"pipeline, tools: 'add': {text}"


def test_tools_are_for_agents_that_ask_a_model() -> None:
    async def own(prompt: str, state: ConversationState) -> str:
        return prompt

    with pytest.raises(DefinitionError, match="stage 'own', tools, stream: is for agents that ask a model"):
        agent(own, tools=[add], stream=True)


def test_agents_with_equal_tools_are_equal_and_say_what_they_have() -> None:
    model = turns("x")

    def made(**options: Any) -> Stage:
        return agent("lead", model=model, tools=[tool(add, timeout=5)], **options)

    assert made() == made()
    assert made() != made(max_hops=3)
    assert made() != agent("lead", model=model, tools=[tool(add, timeout=6)])
    assert "FunctionTool(name='add', description='The sum of two numbers.'" in repr(made())


# -- in a file --------------------------------------------------------------------------------------------------------

FILE = """
version: 1
stages:
  - agent: lead
    model: sim/default
    tools: ["tests.stages.test_tools:add", "tests.stages.test_tools:where"]
    max_hops: 3
    stream: true
    on_truncated: fail
    on_refused: accept
"""


def test_tools_of_a_file_are_those_of_code_where_their_import_is_allowed() -> None:
    read = load_text(FILE, allow_import=["tests.stages"]).stages
    options: dict[str, Any] = {"max_hops": 3, "stream": True, "on_truncated": "fail", "on_refused": "accept"}
    assert read == agent("lead", model="sim/default", tools=[add, where], **options)
    one = FILE.replace(
        '["tests.stages.test_tools:add", "tests.stages.test_tools:where"]', "tests.stages.test_tools:add"
    )
    assert load_text(one, allow_import=["tests.stages"]).stages == agent(
        "lead", model="sim/default", tools=[add], **options
    )


def test_a_file_imports_no_tool_that_was_not_allowed() -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(FILE)
    assert [problem.code for problem in caught.value.problems] == ["E310", "E310"]
    assert "'tools' of stage 'lead' asks to import 'tests.stages.test_tools', which is not allowed" in str(caught.value)


def test_a_tool_of_a_file_that_no_model_can_be_offered_is_refused_with_its_line() -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(FILE.replace("test_tools:add", "test_tools:by_place"), allow_import=["tests.stages"])
    (problem,) = caught.value.problems
    assert problem.mark.line == 6
    assert problem.message.startswith("'tools' of stage 'lead': 'by_place': a is given by position alone")


# -- rounds -----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_the_model_is_told_what_the_tool_returned_and_answers() -> None:
    model = turns((call("add", '{"a": 40}', "x9"),), "It is 42.")
    record = await answered(model, add)
    assert record.output == "It is 42."
    asked = Message("assistant", "", "lead", (ToolCall("x9", "add", '{"a": 40}'),))
    assert model.asked == [
        (Message("user", "go"),),
        (Message("user", "go"), asked, Message("tool", "42", tool_call_id="x9")),
    ]
    assert model.ordinals == [0, 1]
    assert record.usage.requests == 2


@in_virtual_time
async def test_calls_and_results_stand_in_the_conversation_between_question_and_answer() -> None:
    seen: list[ConversationState] = []

    async def look(prompt: str, state: ConversationState) -> str:
        seen.append(state)
        return prompt

    lead = agent("lead", model=turns((call("add", '{"a": 1}'),), "3"), tools=[add])
    await Pipeline(lead | look).collect(["go"])
    assert seen[0].messages == (
        Message("user", "go"),
        Message("assistant", "", "lead", (call("add", '{"a": 1}'),)),
        Message("tool", "3", tool_call_id="c1"),
        Message("assistant", "3", "lead"),
    )


@in_virtual_time
async def test_an_agent_that_calls_no_tool_answers_as_one_without() -> None:
    model = turns("at once")
    record = await answered(model, add)
    assert (record.output, len(model.asked)) == ("at once", 1)


@in_virtual_time
async def test_a_conversation_that_ends_with_the_result_of_a_tool_is_continued() -> None:
    model = ToolModel(lambda messages: f"it was {messages[-1].content}")
    said = (
        Message("user", "1 + 1?"),
        Message("assistant", "", None, (call("add"),)),
        Message("tool", "2", tool_call_id="c1"),
    )
    (record,) = await Pipeline(agent("lead", model=model, tools=[add])).collect([Input({"n": 1}, messages=said)])
    assert (record.output, model.asked) == ("it was 2", [said])


@in_virtual_time
async def test_the_final_answer_fits_the_schema_and_the_rounds_before_it_need_not() -> None:
    model = turns((call("add", '{"a": 1}'),), '{"sum": 3}')
    record = await answered(model, add, output={"sum": "integer"})
    assert record.output == {"sum": 3}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("most", [1, 3])
def test_a_model_that_only_wants_more_calls_fails_its_item_at_the_limit(most: int, backend: str) -> None:
    model = ToolModel(lambda messages: (call("add", '{"a": 1}'),))

    async def body() -> None:
        record = await answered(model, add, max_hops=most)
        times = "once" if most == 1 else "3 times in a row"
        text = f"the model asked for tools {times} and then for more ('add'); max_hops is {most}"
        assert record.error is not None
        assert (record.error.type, record.error.message) == ("max_hops", text)
        assert len(model.asked) == most + 1
        assert record.usage.requests == most + 1

    run_in(backend, 0, body)


@in_virtual_time
async def test_exactly_as_many_rounds_as_allowed_are_an_answer() -> None:
    model = turns((call("add", '{"a": 1}'),), (call("add", '{"a": 2}'),), "done")
    record = await answered(model, add, max_hops=2)
    assert record.output == "done"


@in_virtual_time
async def test_calls_of_one_answer_run_at_once_and_come_back_in_their_order() -> None:
    ended: list[float] = []

    async def wait(seconds: float) -> float:
        await anyio.sleep(seconds)
        ended.append(seconds)
        return seconds

    calls = tuple(call("wait", f'{{"seconds": {4 - n}.5}}', f"c{n}") for n in range(4))
    model = turns(calls, "done")
    await answered(model, wait)
    assert results(model) == ["4.5", "3.5", "2.5", "1.5"]
    assert ended == [1.5, 2.5, 3.5, 4.5]
    assert anyio.current_time() < 5


@in_virtual_time
async def test_only_so_many_calls_of_one_answer_are_made_and_eight_at_a_time() -> None:
    running, most, made = 0, 0, 0

    async def slow() -> None:
        nonlocal running, most, made
        running, made = running + 1, made + 1
        most = max(most, running)
        await anyio.sleep(1)
        running -= 1

    model = turns(tuple(call("slow", "", f"c{n}") for n in range(MOST_CALLS + 2)), "done")
    await answered(model, slow)
    assert (made, most) == (MOST_CALLS, 8)
    refusal = f"error: not called: one answer may ask for at most {MOST_CALLS} calls"
    assert results(model) == ["null"] * MOST_CALLS + [refusal] * 2


@in_virtual_time
async def test_a_plain_function_runs_in_a_thread_and_an_async_one_on_the_loop() -> None:
    assert await told(call("where", '{"city": "Rome"}'), where) == "Rome lies off the loop: True"

    async def here() -> bool:
        return threading.current_thread() is threading.main_thread()

    assert await told(call("here"), here) == "true"


@in_virtual_time
async def test_a_parameter_that_is_the_visit_gets_it_whatever_the_model_says() -> None:
    async def who(n: int, visit: Visit) -> str:
        return f"{n} {visit.stage} {visit.item_id}"

    assert await told(call("who", '{"n": 1}'), who) == "1 lead 0"
    said = "error: 'who' was not called: visit: Extra inputs are not permitted"
    assert await told(call("who", '{"n": 1, "visit": "mine"}'), who) == said


# -- what goes back to the model --------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("{", "the arguments are not valid JSON: "),
        ('{"a": 1, "a": 2}', "the arguments are not valid JSON: the key 'a' comes twice"),
        ('{"a": NaN}', "the arguments are not valid JSON: NaN is not JSON"),
        ("[1]", "the arguments: Input should be an object"),
        ("", "a: Field required"),
        ('{"a": "1"}', "a: Input should be a valid integer"),
        ('{"a": true}', "a: Input should be a valid integer"),
        ('{"a": 1, "c": 2}', "c: Extra inputs are not permitted"),
        ('{"a": 1, "a0": 2}', "a0: Extra inputs are not permitted"),
    ],
)
def test_arguments_that_do_not_fit_are_told_to_the_model(arguments: str, text: str, backend: str) -> None:
    said = run_in(backend, 0, told, call("add", arguments), add)
    assert said.startswith(f"error: 'add' was not called: {text}")


@in_virtual_time
async def test_nested_arguments_are_read_as_strictly_and_given_as_their_types() -> None:
    async def visit_all(places: list[Place], day: datetime.date, c: Colour) -> str:
        return f"{places[0].city} {places[0].zip} {day.year} {c.name}"

    good = '{"places": [{"city": "Rome"}], "day": "2026-01-02", "c": "red"}'
    assert await told(call("visit_all", good), visit_all) == "Rome 0 2026 RED"
    bad = good.replace('"Rome"', '"Rome", "zip": "5"')
    text = "error: 'visit_all' was not called: places.0.zip: Input should be a valid integer"
    assert await told(call("visit_all", bad), visit_all) == text


@in_virtual_time
async def test_a_tool_that_was_not_offered_is_not_called_even_if_another_stage_has_it() -> None:
    called: list[str] = []

    async def delete(path: str) -> None:
        called.append(path)

    model = turns((call("delete", '{"path": "/"}'), call("ad", '{"a": 1}', "c2")), "done")
    other = agent("other", model=turns("other"), tools=[delete])
    (record,) = await Pipeline(other | agent("lead", model=model, tools=[add, where])).collect(["go"])
    assert (record.output, called) == ("done", [])
    assert results(model) == [
        "error: there is no tool 'delete' (there are: add, where)",
        "error: there is no tool 'ad' (did you mean 'add'?)",
    ]


@in_virtual_time
async def test_what_a_tool_raises_is_told_without_a_traceback() -> None:
    async def broken(secret: str) -> None:
        raise ValueError("no such city")

    async def wordless() -> None:
        raise KeyError

    async def wordy() -> None:
        raise ValueError("x" * 5000)

    async def typed() -> None:
        raise ItemError("it is shut", type="Closed")

    assert await told(call("broken", '{"secret": "s"}'), broken) == "error: ValueError: no such city"
    assert await told(call("wordless"), wordless) == "error: KeyError"
    assert await told(call("wordy"), wordy) == f"error: ValueError: {'x' * 1988}…"
    assert await told(call("typed"), typed) == "error: Closed: it is shut"


@in_virtual_time
async def test_calls_of_tools_that_failed_are_counted_and_those_that_did_not_are_not() -> None:
    async def broken() -> None:
        raise ValueError("no such city")

    asked = (call("add", '{"a": 1}'), call("add", "{}", "c2"), call("nothing", "", "c3"), call("broken", "", "c4"))
    pipe = Pipeline(agent("lead", model=turns(asked, "done"), tools=(add, broken)))
    async with pipe.open(["go"]) as run:
        assert [record.output async for record in run.results] == ["done"]
    assert run.statistics().remarks == {"tool_failed": 3}


@in_virtual_time
async def test_a_tool_that_is_to_fail_its_item_does_and_the_others_are_cancelled() -> None:
    left: list[str] = []

    async def slow() -> None:
        try:
            await anyio.sleep(3600)
        finally:
            left.append("slow")

    async def broken() -> None:
        await anyio.sleep(1)
        raise ValueError("no such city")

    model = turns((call("slow"), call("broken", "", "c2")), "never")
    record = await answered(model, slow, tool(broken, on_error="fail"))
    assert record.error is not None
    assert (record.error.type, record.error.stage) == ("ToolError", "lead")
    assert record.error.message == "tool 'broken' failed: ValueError: no such city"
    assert isinstance(record.error.cause, ItemError)
    assert (left, anyio.current_time() < 2) == (["slow"], True)


@in_virtual_time
async def test_a_tool_may_skip_its_item_and_a_refusal_that_stops_the_run_is_not_told_to_a_model() -> None:
    async def skips() -> None:
        raise Skip

    async def stops() -> None:
        error = ItemError("the key is wrong", type="auth")
        error.stops_run = True
        raise error

    assert await Pipeline(agent("lead", model=turns((call("skips"),), "x"), tools=[skips])).collect(["go"]) == []
    model = turns((call("stops"),), "x")
    with pytest.raises(RunStopped, match="the key is wrong"):
        await Pipeline(agent("lead", model=model, tools=[stops])).collect(["go"])
    assert len(model.asked) == 1


@in_virtual_time
async def test_results_are_json_and_text_stays_text() -> None:
    async def text() -> str:
        return 'say "hi"'

    async def value() -> object:
        return {"n": [1, None], "day": datetime.date(2026, 1, 2)}

    async def strange() -> object:
        return {1, 2}

    async def half() -> str:
        return "a\ud800b"

    assert await told(call("text"), text) == 'say "hi"'
    assert await told(call("value"), value) == '{"n":[1,null],"day":"2026-01-02"}'
    assert (await told(call("strange"), strange)).startswith("error: NotJson: the value: ")
    assert await told(call("half"), half) == "a?b"


@in_virtual_time
async def test_a_result_that_is_too_long_is_cut_and_the_model_is_told() -> None:
    async def long() -> str:
        return "x" * 1_000_000

    assert await told(call("long"), tool(long, max_result=10)) == "xxxxxxxxxx\n[cut: 10 of 1,000,000 characters]"
    assert len(await told(call("long"), long)) < 66_000


@in_virtual_time
async def test_a_tool_that_takes_too_long_is_told_as_that() -> None:
    async def slow() -> None:
        await anyio.sleep(3600)

    assert await told(call("slow"), tool(slow, timeout=5)) == "error: VisitTimeout: tool 'slow' did not end within 5 s"
    assert anyio.current_time() < 6


@in_virtual_time
async def test_a_hostile_model_that_calls_everything_has_no_effect_but_its_own_failure() -> None:
    names = ("add", "os.system", "__class__", "tools", "process", "", "add\x1b[2J", "x" * 100_000)
    model = ToolModel(
        lambda messages: tuple(
            call(name, '{"a": 1, "__proto__": {}, "tools": ["os.system"]}' * (n + 1), "same")
            for n, name in enumerate(names)
        )
    )
    record = await answered(model, add)
    assert record.error is not None
    assert record.error.type == "max_hops"
    assert len(record.error.message) < 1000
    assert "\x1b" not in record.error.message
    assert {text.partition(" (")[0].partition(":")[0] for text in results(model)} == {"error"}
    assert all(len(text) < 1000 for text in results(model))


# -- cancellation, threads, many at once ------------------------------------------------------------------------------


@in_virtual_time
async def test_an_item_whose_time_is_up_cancels_the_tool_that_runs() -> None:
    left: list[str] = []

    async def slow() -> None:
        try:
            await anyio.sleep(3600)
        finally:
            left.append("slow")

    pipe = Pipeline(agent("lead", model=turns((call("slow"),), "x"), tools=[slow]), item_timeout=5)
    async with pipe.open(["go"]) as run:
        (record,) = [record async for record in run.results]
    assert record.error is not None
    assert (record.error.type, left) == ("item_timeout", ["slow"])
    assert run.statistics().window.balanced


async def test_a_thread_that_does_not_return_is_left_counted_and_its_result_refused() -> None:
    gate = threading.Event()

    def stuck() -> str:
        gate.wait(20)
        return "late"

    model = turns((call("stuck"),), "x")
    pipe = Pipeline(agent("lead", model=model, tools=[stuck], concurrency=2), item_timeout=0.05)
    try:
        async with pipe.open(["go"]) as run:
            (record,) = [record async for record in run.results]
            assert record.error is not None
            assert record.error.type == "item_timeout"
            assert run.statistics().blocking == (BlockingStatistics("lead", 1, 1),)
    finally:
        gate.set()
    assert len(model.asked) == 1


async def test_a_thread_that_takes_too_long_is_told_to_the_model_while_it_runs_on() -> None:
    gate = threading.Event()

    def stuck() -> str:
        gate.wait(20)
        return "late"

    model = turns((call("stuck"),), "x")
    try:
        async with Pipeline(agent("lead", model=model, tools=[tool(stuck, timeout=0.05)])).open() as run:
            record = await run.submit("go")
            assert (record.output, results(model)) == (
                "x",
                ["error: VisitTimeout: tool 'stuck' did not end within 0.05 s"],
            )
            assert run.statistics().blocking == (BlockingStatistics("lead", 1, 1),)
            gate.set()
    finally:
        gate.set()


@in_virtual_time
async def test_it_can_be_seen_which_tool_a_run_waits_for() -> None:
    async def slow() -> None:
        await anyio.sleep(3600)

    async with Pipeline(agent("lead", model=turns((call("slow"),), "x"), tools=[slow])).open(["go"]) as run:
        await anyio.sleep(5)
        chain = run.wait_chain()
        run.abort()
    assert any("waits for tool 'slow'" in line for line in chain)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_hundred_agents_with_tools_at_once_keep_their_conversations_apart(backend: str, seed: int) -> None:
    async def late(n: int) -> int:
        await anyio.sleep(n % 7)
        return n * n

    def blocking(n: int) -> int:
        return n + 1

    def turn(messages: Any) -> Any:
        n = int(messages[0].content)
        came = [message.content for message in messages if message.role == "tool"]
        if len(came) == 4:
            return ",".join(came)
        return call("late", f'{{"n": {n}}}', f"{n}a"), call("blocking", f'{{"n": {n}}}', f"{n}b")

    async def body() -> None:
        lead = agent("lead", model=ToolModel(turn), tools=[late, blocking], concurrency=100)
        records = await Pipeline(lead, ordered=True).collect([str(n) for n in range(100)])
        assert [record.output for record in records] == [f"{n * n},{n + 1},{n * n},{n + 1}" for n in range(100)]
        assert [record.usage.requests for record in records] == [3] * 100

    run_in(backend, seed, body)


@in_virtual_time
async def test_an_agent_of_ones_own_may_run_a_part_of_its_visit_in_a_thread() -> None:
    async def off_the_loop(prompt: str, state: ConversationState, visit: Visit) -> str:
        return str(await visit.in_thread(where, prompt))

    (record,) = await Pipeline(agent(off_the_loop)).collect(["Rome"])
    assert record.output == "Rome lies off the loop: True"


async def test_a_part_in_a_thread_that_takes_too_long_is_named() -> None:
    gate = threading.Event()

    async def impatient(prompt: str, state: ConversationState, visit: Visit) -> object:
        return await visit.in_thread(gate.wait, 20, part="the wait", timeout=0.05)

    async with Pipeline(agent(impatient)).open() as run:
        record = await run.submit("go")
        gate.set()
    assert record.error is not None
    assert (record.error.type, record.error.message) == ("VisitTimeout", "the wait did not end within 0.05 s")


async def test_the_threads_of_a_stage_are_as_many_as_its_slots_for_all_its_visits_together() -> None:
    gate, came = threading.Event(), threading.Semaphore(0)

    def stuck(n: int) -> int:
        came.release()
        gate.wait(20)
        return n

    calls = tuple(call("stuck", f'{{"n": {n}}}', f"c{n}") for n in range(3))
    model = ToolModel(lambda messages: "done" if messages[-1].role == "tool" else calls)
    try:
        async with Pipeline(agent("lead", model=model, tools=[stuck], concurrency=2)).open(["a", "b"]) as run:
            for _ in range(2):
                assert await anyio.to_thread.run_sync(came.acquire, True, 10)
            assert run.statistics().blocking == (BlockingStatistics("lead", 2, 0),)
            gate.set()
            assert [record.output async for record in run.results] == ["done", "done"]
    finally:
        gate.set()
    assert results(model) == ["0", "1", "2"]
