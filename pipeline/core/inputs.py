"""What a record's prompt is: text is its own prompt, and of fields the one that is named, or the likeliest, is.

Sources and the engine share this, so that a mapping given by code and a line of JSON mean the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast, get_args

from pipeline.core.codec import encode
from pipeline.core.errors import ItemError
from pipeline.core.record import Input
from pipeline.core.state import Message, Role, ToolCall

#: Where a prompt is looked for, the likeliest first.
PROMPT_FIELDS = ("prompt", "text", "input", "question", "instruction", "messages")

_ROLES: tuple[str, ...] = get_args(Role)


def input_of_text(text: str, *, id: str | None = None) -> Input:
    """Return the record whose prompt is `text`."""
    return Input(text, id, text, {"prompt": text})


def input_of_fields(fields: Mapping[str, object], field: str | None = None, *, id: str | None = None) -> Input:
    """Return the record that has `fields`, its prompt taken from `field`, or else from the first of `PROMPT_FIELDS`.

    A conversation in `messages` starts the record's own; when no other field gives a prompt, its last message, if it is
    the user's, is the prompt and the ones before it start the conversation. Fields that nobody named and that hold no
    text are not a prompt; a record may have none. A named field that is missing or no text, and a conversation that is
    malformed, is a `defect`.
    """
    try:
        prompt, messages = _prompt_and_messages(fields, field)
    except ItemError as error:
        return Input(fields, id, None, fields, (), error)
    return Input(fields, id, prompt, fields, messages)


def guess_field(fields: Mapping[str, object]) -> str | None:
    """Return the name of the field that holds the prompt, if one of `PROMPT_FIELDS` does."""
    for name in PROMPT_FIELDS:
        value = fields.get(name)
        if isinstance(value, str) or (name == "messages" and _is_conversation(value)):
            return name
    return None


def why_no_prompt(fields: Mapping[str, object]) -> str:
    """Return why `guess_field` finds none in `fields`, and what helps, as a sentence for people."""
    for name in PROMPT_FIELDS:
        value = fields.get(name)
        if value is not None and name != "messages":
            return f"the field {name!r} is {_kind(value)}, a prompt is text"
    have = ", ".join(list(fields)[:12]) or "no fields"
    return f"no field looks like a prompt; it has {have}: --field names the one"


def _prompt_and_messages(fields: Mapping[str, object], field: str | None) -> tuple[str | None, tuple[Message, ...]]:
    name = field or guess_field(fields)
    if name == "messages" and not isinstance(fields.get(name), str):
        messages = _messages(_named(fields, name))
        if messages and messages[-1].role == "user":
            return messages[-1].content, messages[:-1]
        return None, messages
    prompt = None if name is None else _text(_named(fields, name), name)
    conversation = fields.get("messages")
    return prompt, _messages(conversation) if _is_conversation(conversation) else ()


def _named(fields: Mapping[str, object], name: str) -> object:
    try:
        return fields[name]
    except KeyError:
        have = ", ".join(list(fields)[:12]) or "no fields"
        raise _defect(f"field {name!r} is missing; the record has {have}") from None


def _text(value: object, name: str) -> str:
    if isinstance(value, str):
        return value
    raise _defect(f"field {name!r} holds {_kind(value)}; a prompt is text")


def _is_conversation(value: object) -> bool:
    if not isinstance(value, (list, tuple)) or not value:
        return False
    first = cast(Sequence[object], value)[0]
    return isinstance(first, Message) or (isinstance(first, Mapping) and "role" in first)


def _messages(value: object) -> tuple[Message, ...]:
    if not isinstance(value, (list, tuple)):
        raise _defect(f"field 'messages' holds {_kind(value)}; it is a list of objects with role and content")
    return tuple(_message(member, i) for i, member in enumerate(cast(Sequence[object], value)))


def _message(value: object, position: int) -> Message:
    where = f"messages[{position}]"
    if isinstance(value, Message):
        return value
    if not isinstance(value, Mapping):
        raise _defect(f"{where} is {_kind(value)}; a message is an object with role and content")
    message = cast(Mapping[str, object], value)
    role, name = message.get("role"), message.get("name")
    if role not in _ROLES:
        raise _defect(f"{where}.role is {role!r:.60}; roles are {', '.join(_ROLES)}")
    if name is not None and not isinstance(name, str):
        raise _defect(f"{where}.name is {_kind(name)}; a name is text")
    calls = _tool_calls(message.get("tool_calls"), f"{where}.tool_calls") if role == "assistant" else ()
    answered = message.get("tool_call_id") if role == "tool" else None
    if role == "tool" and not isinstance(answered, str):
        raise _defect(f"{where}.tool_call_id is {_kind(answered)}; a tool's message names the call that it answers")
    content = message.get("content")
    text = "" if content is None and calls else _content(content, f"{where}.content")
    return Message(cast(Role, role), text, name, calls, cast("str | None", answered))


def _tool_calls(value: object, where: str) -> tuple[ToolCall, ...]:
    """Return the calls that an assistant asked for, in the form that providers have them."""
    if value is None:
        return ()
    if not isinstance(value, (list, tuple)):
        raise _defect(f"{where} is {_kind(value)}; it is a list of objects with id and function")
    return tuple(_tool_call(member, f"{where}[{i}]") for i, member in enumerate(cast(Sequence[object], value)))


def _tool_call(value: object, where: str) -> ToolCall:
    if isinstance(value, ToolCall):
        return value
    call = _object(value)
    called = _object(call.get("function"))
    id, name, arguments = call.get("id"), called.get("name"), called.get("arguments")
    if not isinstance(id, str) or not isinstance(name, str):
        raise _defect(f"{where} has no id or no function.name; it is an object with id and function")
    if isinstance(arguments, Mapping):
        arguments = encode(cast(object, arguments)).decode()
    if not isinstance(arguments, str):
        raise _defect(f"{where}.function.arguments is {_kind(arguments)}; arguments are JSON as text")
    return ToolCall(id, name, arguments)


def _object(value: object) -> Mapping[str, object]:
    """Return `value` if it is an object, else an empty one."""
    return cast(Mapping[str, object], value) if isinstance(value, Mapping) else {}


def _content(value: object, where: str) -> str:
    """Return the text of a message: itself, or its text parts put together."""
    if isinstance(value, str):
        return value
    if not isinstance(value, (list, tuple)):
        raise _defect(f"{where} is {_kind(value)}; content is text, or a list of text parts")
    texts: list[str] = []
    for position, part in enumerate(cast(Sequence[object], value)):
        text = cast(Mapping[str, object], part).get("text") if isinstance(part, Mapping) else None
        if not isinstance(text, str):
            raise _defect(f"{where}[{position}] has no text; only text parts can be sent on")
        texts.append(text)
    return "".join(texts)


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value!r:.40}"
        case str():
            return "text"
        case Mapping():
            return "an object"
        case list() | tuple():
            return "a list"
        case _:
            return f"a {type(value).__name__}"


def _defect(reason: str) -> ItemError:
    return ItemError(reason, type="InvalidInput")
