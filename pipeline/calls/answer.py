"""What makes something that was said an answer, whichever API it came through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, cast

from pipeline.calls.counts import read_usage
from pipeline.calls.errors import CallError, FaultClass
from pipeline.calls.server_errors import whole_text
from pipeline.calls.strict_json import object_of
from pipeline.core.state import ToolCall
from pipeline.core.usage import Usage


@dataclass(frozen=True, slots=True)
class Terms:
    """What may be in an answer to this request, from this server."""

    tools: bool = False  #: tools were offered
    finish_optional: bool = False  #: this server may leave out why it finished


@dataclass(frozen=True, slots=True)
class Said:
    """What a model said, as far as its types are right; whether that is an answer is not decided yet."""

    content: str | None
    refusal: str | None = None
    calls: tuple[ToolCall, ...] = ()
    finish: str | None = None  #: stop, length, content_filter, tool_calls


@dataclass(frozen=True, slots=True)
class Answer:
    """The parts of one answer that count."""

    text: str
    finish_reason: str | None  #: stop, length, refusal, tool_calls; None where the server may leave it out
    model: str | None
    usage: Usage | None  #: None when the server counted nothing, or nothing believable
    tool_calls: tuple[ToolCall, ...] = ()
    counts: object = None  #: what the server gave as its count


NO_TERMS: Final = Terms()

_BESIDE: Final = ("thinking", "reasoning", "reference")  #: parts of a message that are not what is said


def answered(document: Mapping[str, object], said_in: Callable[[Mapping[str, object]], Said], terms: Terms) -> Answer:
    """Return the answer that `said_in` finds in a document. Raises `CallError`, with the usage when it was given."""
    counts, model = document.get("usage"), document.get("model")
    usage = read_usage(counts)
    try:
        said = said_in(document)
        text, finish = judged(said, usage, terms)
    except CallError as error:
        error.usage = usage or error.usage
        raise
    calls = said.calls if finish == "tool_calls" else ()
    return Answer(text, finish, model if isinstance(model, str) else None, usage, calls, counts)


def judged(said: Said, usage: Usage | None, terms: Terms) -> tuple[str, str | None]:
    """Return text and finish reason of an answer; raise `CallError` when it is none. Numbered as it is decided."""
    if said.finish == "content_filter":  # 1. the provider took the answer away
        raise wrong("the provider's content filter withheld the answer", "filtered")
    if said.finish is None and not terms.finish_optional:  # 2. it may go on, for all that is known
        text = "the answer does not say why it ends, so it may be cut off; a server that never says: finish_optional"
        raise wrong(text, "unfinished", "ambiguous")
    if said.refusal and not said.content:  # 3. the model said no, in words
        return whole_text(said.refusal), "refusal"
    if said.finish == "tool_calls" and not terms.tools:  # 4. nothing to call was offered
        raise wrong("the model called a tool where none was offered", "bad_envelope")
    if said.finish == "tool_calls" and not said.calls:  # 5. a call without a call
        raise wrong("the answer ends with tool calls and has none", "bad_envelope")
    if said.calls and terms.tools:  # 6. the model wants a tool called; several servers say "stop" with it
        if said.finish == "length":
            raise wrong("the answer was cut at the token limit in a tool call; raise max_output_tokens", "truncated")
        return whole_text(said.content or ""), "tool_calls"
    if not said.content or not said.content.strip():  # 7. nothing was said
        raise _silent(said.finish, usage)
    return whole_text(said.content), said.finish


def wrong(message: str, type: str, fault: FaultClass = "fail") -> CallError:
    """An answer under a 200 that is none."""
    return CallError(message, fault=fault, type=type, http_status=200)


def content_text(content: object) -> str | None:
    """Return the text of a message, which is a text, nothing, or (where a model thinks aloud) a list of typed parts.

    Raises `CallError` for anything else.
    """
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise wrong(f"content is {kind(content)} where a text was asked for", "bad_envelope")
    texts: list[str] = []
    for part in cast("list[object]", content):
        fields = object_of(part)
        text = fields.get("text")
        if fields.get("type") == "text" and isinstance(text, str):
            texts.append(text)
        elif fields.get("type") not in _BESIDE:
            raise wrong(f"content holds {kind(part)} where a part of a text was asked for", "bad_envelope")
    return "".join(texts)


def kind(value: object) -> str:
    """Name the type of a JSON value, for people."""
    return "missing or null" if value is None else f"a {type(value).__name__}"


def _silent(finish: str | None, usage: Usage | None) -> CallError:
    if finish == "length" or (usage and usage.reasoning_tokens and usage.reasoning_tokens == usage.output_tokens):
        return wrong("the model used all its tokens before it wrote anything; raise max_output_tokens", "no_output")
    return wrong("the answer is empty", "empty", "ambiguous")
