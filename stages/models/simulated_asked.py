"""Reads what a client asks a simulated model: chat completions or responses, in one form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

#: the roles of both protocols; `developer` is what newer models call a system message
_ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")


class BadRequest(Exception):
    """A request that no server would take. `param` is the field that is wrong."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class Offered:
    """A tool that the model may call."""

    name: str
    parameters: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The parts of a request that an answer depends on."""

    model: str
    prompt: str  #: the last user message
    system: str
    characters: int  #: of all messages together
    schema: Mapping[str, object] | None = None
    json_wanted: bool = False
    most_tokens: int | None = None
    tools: tuple[Offered, ...] = ()  #: none if the client does not want one called
    results: tuple[str, ...] = ()  #: what tools have answered in this conversation
    stream: bool = False
    include_usage: bool = False  #: as the last piece of a stream


@dataclass(slots=True)
class _Conversation:
    """Texts by role, as they are read."""

    texts: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    results: list[str] = field(default_factory=list[str])

    def add(self, role: str, text: str) -> None:
        self.texts.append(("system" if role == "developer" else role, text))
        if role in ("tool", "function"):
            self.results.append(text)

    def parts(self) -> dict[str, object]:
        return {
            "prompt": next((text for role, text in reversed(self.texts) if role == "user"), ""),
            "system": "\n".join(text for role, text in self.texts if role == "system"),
            "characters": sum(len(text) for _, text in self.texts),
            "results": tuple(self.results),
        }


def read_chat(body: Mapping[str, object]) -> Asked:
    """Read a chat-completions request. Raises `BadRequest`."""
    found = _Conversation()
    for index, each in enumerate(_wanted_list(body, "messages")):
        _add_message(found, each, f"messages[{index}]")
    if body.get("n") not in (None, 1):
        raise BadRequest("the simulated model gives one choice; leave n out", "n")
    wanted = _mapping(body.get("response_format"))
    schema = _mapping(wanted.get("json_schema")).get("schema")
    most = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    return _asked(
        body,
        found,
        schema=_mapping(schema) if schema is not None else None,
        json_wanted=wanted.get("type") == "json_object",
        most_tokens=_whole(body, most),
        tools=_tools(body, nested=True),
        include_usage=_mapping(body.get("stream_options")).get("include_usage") is True,
    )


def read_responses(body: Mapping[str, object]) -> Asked:
    """Read a request of the Responses API. Raises `BadRequest`."""
    found = _Conversation()
    if isinstance(body.get("instructions"), str):
        found.add("system", str(body["instructions"]))
    if isinstance(body.get("input"), str):
        found.add("user", str(body["input"]))
    else:
        for index, each in enumerate(_wanted_list(body, "input")):
            _add_input(found, each, f"input[{index}]")
    wanted = _mapping(_mapping(body.get("text")).get("format"))
    return _asked(
        body,
        found,
        schema=_mapping(wanted.get("schema")) if wanted.get("type") == "json_schema" else None,
        json_wanted=wanted.get("type") == "json_object",
        most_tokens=_whole(body, "max_output_tokens"),
        tools=_tools(body, nested=False),
    )


def _asked(body: Mapping[str, object], found: _Conversation, **more: object) -> Asked:
    model, stream = body.get("model"), body.get("stream")
    if not isinstance(model, str) or not model:
        raise BadRequest("model is missing; any name will do", "model")
    if stream is not None and not isinstance(stream, bool):
        raise BadRequest("stream is not true or false", "stream")
    return Asked(model=model, stream=bool(stream), **found.parts(), **more)  # pyright: ignore[reportArgumentType]


def _add_message(found: _Conversation, message: object, where: str) -> None:
    given = _mapping(message)
    role = given.get("role")
    if role not in _ROLES:
        raise BadRequest(f"{where}.role is {role!r}; it is one of {', '.join(_ROLES)}", f"{where}.role")
    found.add(str(role), _text(given.get("content"), f"{where}.content"))


def _add_input(found: _Conversation, item: object, where: str) -> None:
    given = _mapping(item)
    match given.get("type", "message"):
        case "message":
            _add_message(found, given, where)
        case "function_call_output":
            found.add("tool", _text(given.get("output"), f"{where}.output"))
        case "function_call" | "reasoning":
            pass  # what the model itself said before
        case kind:
            raise BadRequest(f"{where}.type is {kind!r}, which the simulated model does not read", f"{where}.type")


def _text(content: object, where: str) -> str:
    """Return a text, or those of a list of parts; pictures and sounds have none."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise BadRequest(f"{where} is neither a text nor a list of parts", where)
    parts = [_mapping(each).get("text") for each in cast("list[object]", content)]
    return "".join(part for part in parts if isinstance(part, str))


def _tools(body: Mapping[str, object], *, nested: bool) -> tuple[Offered, ...]:
    """Return the tools that may be called: of a `tool_choice` that names one, that one; of `none`, none."""
    if body.get("tools") is None:
        return ()
    found: list[Offered] = []
    for index, each in enumerate(_wanted_list(body, "tools")):
        tool = _mapping(_mapping(each).get("function")) if nested else _mapping(each)
        name = tool.get("name")
        if not isinstance(name, str) or not name:
            raise BadRequest(f"tools[{index}] is no function with a name", f"tools[{index}]")
        found.append(Offered(name, _mapping(tool.get("parameters"))))
    choice = body.get("tool_choice")
    if choice == "none":
        return ()
    wanted = _mapping(choice)
    named = _mapping(wanted.get("function")).get("name") or wanted.get("name")
    return tuple(tool for tool in found if named is None or tool.name == named)


def _wanted_list(body: Mapping[str, object], name: str) -> Sequence[object]:
    value = body.get(name)
    if not isinstance(value, list) or not value:
        raise BadRequest(f"{name} is not a list with something in it", name)
    return cast("list[object]", value)


def _whole(body: Mapping[str, object], name: str) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadRequest(f"{name} is not a whole number of at least 1", name)
    return value


def _mapping(value: object) -> Mapping[str, object]:
    return cast("Mapping[str, object]", value) if isinstance(value, Mapping) else {}
