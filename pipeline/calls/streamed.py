"""Puts the chunks of a streamed chat completion together to the answer that would have come in one piece.

What is put together is read by the same reader as a plain answer, so both are held to the same terms.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final, Protocol, cast

from pipeline.calls.answer import content_text, kind, wrong
from pipeline.calls.errors import CallError
from pipeline.calls.server_errors import inner_error, whole_text
from pipeline.calls.sse import SentEvent

DONE: Final = "[DONE]"
ERROR_INSIDE: Final = "the server ended its stream with an error"


class Pieces(Protocol):
    """A stream of one API that is put together event by event."""

    @property
    def over(self) -> bool:
        """Nothing more is expected."""
        ...

    @property
    def begun(self) -> bool:
        """The model has been at work: something of an answer came."""
        ...

    @property
    def text(self) -> str:
        """The text so far."""
        ...

    @property
    def counts(self) -> object:
        """What the server counted so far."""
        ...

    def take(self, event: SentEvent) -> str:
        """Take one event and return the text that it adds. Raises `CallError`."""
        ...

    def whole(self, rest: str | None) -> Mapping[str, object]:
        """Return the document of the plain answer when the stream has ended with a half event `rest`, or between two.

        Raises `CallError` of type `unfinished`, which may be tried again, when the answer is not known to be complete.
        """
        ...


class ChatPieces:
    """The chunks of one chat completion. What can change: everything, until it is whole."""

    def __init__(self, finish_optional: bool = False) -> None:
        self.over = False
        self.begun = False
        self.counts: object = None
        self._finish_optional = finish_optional
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._half = ""  #: the first half of a character whose second half comes in the next chunk
        self._calls: list[_Call] = []
        self._finish: object = None
        self._choice = False
        self._model: object = None

    @property
    def text(self) -> str:
        return whole_text("".join(self._texts))

    def take(self, event: SentEvent) -> str:
        """See `Pieces.take`."""
        if self.over or not event.data:
            return ""
        if event.data.strip() == DONE:
            self.over = True
            return ""
        chunk = read_chunk(event)
        self._model = self._model or chunk.get("model")
        if chunk.get("usage") is not None:
            self.counts = chunk["usage"]  # some servers count in every chunk; the last count is the whole one
        choice = _only_choice(chunk)
        return "" if choice is None else self._delta(choice)

    def whole(self, rest: str | None) -> Mapping[str, object]:
        """See `Pieces.whole`."""
        if rest is not None and rest.strip() == DONE:  # some servers forget the empty line after it
            self.over = True
        elif rest is not None:
            raise unfinished("in the middle of an event")
        if self._finish is None and not (self._finish_optional and self._choice):
            raise unfinished("before the answer did")
        message: dict[str, object] = {"content": "".join(self._texts), "refusal": "".join(self._refusals) or None}
        if self._calls:
            message["tool_calls"] = [call.document() for call in self._calls]
        return {
            "choices": [{"message": message, "finish_reason": self._finish}],
            "usage": self.counts,
            "model": self._model,
        }

    def _delta(self, choice: Mapping[str, object]) -> str:
        self._choice = self.begun = True
        self.counts = self.counts if choice.get("usage") is None else choice["usage"]  # where one server counts
        found, finish = choice.get("delta"), choice.get("finish_reason")
        if found is not None and not isinstance(found, dict):
            raise wrong(f"delta is {kind(found)} where an object was asked for", "bad_envelope")
        delta = cast("Mapping[str, object]", found or {})
        content, refusal = content_text(delta.get("content")) or "", _text(delta, "refusal")
        calls: object = delta.get("tool_calls") or None
        if self._finish is not None and (content or refusal or calls or finish not in (None, self._finish)):
            raise wrong("the stream goes on after it said why it ends", "bad_envelope")
        self._texts.append(content)
        self._refusals.append(refusal)
        if calls:
            self._take_calls(calls)
        self._finish = self._finish if finish is None else finish
        return self._shown(content or refusal)

    def _take_calls(self, calls: object) -> None:
        if not isinstance(calls, list):
            raise wrong(f"tool_calls is {kind(calls)} where a list was asked for", "bad_envelope")
        for each in cast("list[object]", calls):
            if not isinstance(each, dict):
                raise wrong(f"a tool call is {kind(each)} where an object was asked for", "bad_envelope")
            self._take_call(cast("dict[str, object]", each))

    def _take_call(self, piece: Mapping[str, object]) -> None:
        """Calls are told apart by their index; a server that gives none opens each with its id."""
        index, id = piece.get("index"), piece.get("id")
        last = len(self._calls) - 1
        if index is None:
            index = last + 1 if id or last < 0 else last
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index <= last + 1:
            raise wrong(f"a tool call has the index {str(index)[:20]} after {last + 1} calls", "bad_envelope")
        if index > last:
            self._calls.append(_Call(id))
        elif id and id != self._calls[index].id:
            raise wrong(f"two tool calls have the index {index}", "bad_envelope")
        self._calls[index].take(piece.get("function"))

    def _shown(self, piece: str) -> str:
        """Hold back half of a character until its other half has come."""
        text, self._half = self._half + piece, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return whole_text(text)


class _Call:
    """One call of a tool that comes in pieces."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self, id: object) -> None:
        self.id = id
        self.name = ""
        self.arguments: list[str] = []

    def take(self, function: object) -> None:
        if function is not None and not isinstance(function, dict):
            raise wrong(f"the function of a tool call is {kind(function)}", "bad_envelope")
        fields = cast("Mapping[str, object]", function or {})
        self.name = self.name or _text(fields, "name")
        self.arguments.append(_text(fields, "arguments"))

    def document(self) -> dict[str, object]:
        return {"id": self.id, "function": {"name": self.name, "arguments": "".join(self.arguments)}}


def read_chunk(event: SentEvent) -> Mapping[str, object]:
    """Return the object of an event. Raises `CallError`, with the class of the error that it tells if it is one."""
    try:
        chunk: object = json.loads(event.data)
    except (ValueError, RecursionError) as error:
        raise wrong("the stream holds JSON that is broken", "broken_stream", "ambiguous") from error
    if not isinstance(chunk, dict):
        raise wrong(f"the stream holds a JSON {type(chunk).__name__}, not an object", "bad_envelope")
    fields = cast("dict[str, object]", chunk)
    if event.name == "error" or fields.get("error"):
        raise inner_error(fields, ERROR_INSIDE)
    return fields


def unfinished(where: str) -> CallError:
    """The error of a stream that ends too early."""
    return wrong(f"the stream ended {where}", "unfinished", "ambiguous")


def _only_choice(chunk: Mapping[str, object]) -> Mapping[str, object] | None:
    """Return the choice that a chunk adds to; None for one that only counts or says nothing."""
    choices = chunk.get("choices")
    if choices is None or choices == []:
        return None
    if not isinstance(choices, list):
        raise wrong(f"choices is {kind(choices)} where a list was asked for", "bad_envelope")
    found = cast("list[object]", choices)
    if len(found) > 1 or not isinstance(found[0], dict):
        raise wrong(f"a chunk has {len(found)} choices where one object was asked for", "bad_envelope")
    choice = cast("dict[str, object]", found[0])
    if choice.get("index") not in (None, 0):
        raise wrong("the stream holds a second choice where one was asked for", "bad_envelope")
    return choice


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise wrong(f"{name} is {kind(value)} where a text was asked for", "bad_envelope")
    return value
