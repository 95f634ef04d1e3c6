"""A record's prompt is the named field, or the likeliest one; what was named and is not there is a defect."""

from __future__ import annotations

import pytest

from pipeline.core.inputs import guess_field, input_of_fields, input_of_text
from pipeline.core.record import Input
from pipeline.core.state import Message, ToolCall


def test_text_is_its_own_prompt() -> None:
    assert input_of_text("hi", id="x") == Input("hi", "x", "hi", {"prompt": "hi"})


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"text": "t", "prompt": "p"}, "prompt"),
        ({"question": "q", "text": "t"}, "text"),
        ({"input": {"no": "text"}, "question": "q"}, "question"),
        ({"instruction": "i", "messages": [{"role": "user", "content": "m"}]}, "instruction"),
        ({"messages": [{"role": "user", "content": "m"}]}, "messages"),
        ({"messages": "three"}, "messages"),
        ({"messages": 3}, None),
        ({"messages": []}, None),
        ({"other": "x"}, None),
    ],
)
def test_the_likeliest_field_is_the_prompt(fields: dict[str, object], name: str | None) -> None:
    assert guess_field(fields) == name
    if name and name != "messages":
        assert input_of_fields(fields).prompt == fields[name]


def test_a_record_without_a_likely_field_has_no_prompt_and_no_defect() -> None:
    assert input_of_fields({"a": 1}, id="x") == Input({"a": 1}, "x", None, {"a": 1})


def test_the_last_message_of_the_user_is_the_prompt_and_the_others_start_the_conversation() -> None:
    system, user = {"role": "system", "content": "be brief"}, {"role": "user", "content": "hi", "name": "ann"}
    record = input_of_fields({"messages": [system, user]})
    assert (record.prompt, record.messages) == ("hi", (Message("system", "be brief"),))
    record = input_of_fields({"messages": [user, {"role": "assistant", "content": "hello"}]})
    assert record.prompt is None
    assert record.messages == (Message("user", "hi", "ann"), Message("assistant", "hello"))


def test_a_prompt_beside_messages_leaves_all_of_them_to_the_conversation() -> None:
    record = input_of_fields({"prompt": "p", "messages": [Message("user", "m")]})
    assert (record.prompt, record.messages) == ("p", (Message("user", "m"),))


def test_text_parts_of_a_message_are_put_together() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert input_of_fields({"messages": [{"role": "user", "content": parts}]}).prompt == "ab"


@pytest.mark.parametrize(
    ("fields", "field", "text"),
    [
        ({"a": 1, "b": 2}, "q", "field 'q' is missing; the record has a, b"),
        ({}, "q", "field 'q' is missing; the record has no fields"),
        ({"q": 3}, "q", "field 'q' holds the number 3; a prompt is text"),
        ({"q": None}, "q", "field 'q' holds null; a prompt is text"),
        (
            {"messages": 3},
            "messages",
            "field 'messages' holds the number 3; it is a list of objects with role and content",
        ),
        ({"messages": ["x"]}, "messages", "messages[0] is text; a message is an object with role and content"),
        (
            {"messages": [{"role": "bot", "content": ""}]},
            None,
            "messages[0].role is 'bot'; roles are system, user, assistant, tool",
        ),
        (
            {"prompt": "p", "messages": [{"role": "user", "content": "x"}, {"role": "user"}]},
            None,
            "messages[1].content is null; content is text, or a list of text parts",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            None,
            "messages[0].content[0] has no text; only text parts can be sent on",
        ),
        (
            {"messages": [{"role": "user", "content": "", "name": 1}]},
            None,
            "messages[0].name is the number 1; a name is text",
        ),
        (
            {"messages": [{"role": "tool", "content": "4"}]},
            None,
            "messages[0].tool_call_id is null; a tool's message names the call that it answers",
        ),
        (
            {"messages": [{"role": "assistant", "content": None, "tool_calls": {}}]},
            None,
            "messages[0].tool_calls is an object; it is a list of objects with id and function",
        ),
        (
            {"messages": [{"role": "assistant", "content": None, "tool_calls": [{"id": "c1"}]}]},
            None,
            "messages[0].tool_calls[0] has no id or no function.name; it is an object with id and function",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "add"}}]}]},
            None,
            "messages[0].tool_calls[0].function.arguments is null; arguments are JSON as text",
        ),
        (
            {"messages": [{"role": "assistant", "content": None, "tool_calls": []}]},
            None,
            "messages[0].content is null; content is text, or a list of text parts",
        ),
    ],
)
def test_a_named_field_or_a_conversation_that_is_wrong_is_a_defect(
    fields: dict[str, object], field: str | None, text: str
) -> None:
    record = input_of_fields(fields, field)
    assert record.defect is not None
    assert (record.defect.message, record.defect.type) == (text, "InvalidInput")
    assert (record.value, record.prompt, record.messages) == (fields, None, ())


def test_a_conversation_with_tools_keeps_what_was_called_and_what_came_back() -> None:
    function = {"name": "add", "arguments": '{"a": 1}'}
    said = [
        {"role": "user", "content": "1 + 1?", "tool_call_id": "no tool, no answer"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "c1", "content": "2"},
    ]
    record = input_of_fields({"messages": said})
    call = ToolCall("c1", "add", '{"a": 1}')
    assert (record.prompt, record.defect) == (None, None)
    assert record.messages == (
        Message("user", "1 + 1?"),
        Message("assistant", "", tool_calls=(call,)),
        Message("tool", "2", tool_call_id="c1"),
    )
    said[1]["tool_calls"] = [{"id": "c1", "function": {"name": "add", "arguments": {"a": 1}}}]
    assert input_of_fields({"messages": said}).messages[1].tool_calls == (ToolCall("c1", "add", '{"a":1}'),)
    said[1]["tool_calls"] = [call]
    assert input_of_fields({"messages": said}).messages[1].tool_calls == (call,)
