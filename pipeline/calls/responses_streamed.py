"""Follows the events of a streamed response to the last one, which holds the whole answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from pipeline.calls.answer import kind, wrong
from pipeline.calls.server_errors import inner_error, whole_text
from pipeline.calls.sse import SentEvent
from pipeline.calls.streamed import DONE, ERROR_INSIDE, read_chunk, unfinished

_LAST: Final = ("response.completed", "response.incomplete", "response.failed")
_TEXTS: Final = ("response.output_text.delta", "response.refusal.delta")


class ResponsePieces:
    """The events of one response. Satisfies `streamed.Pieces`. What can change: everything, until it is whole.

    The answer is what the last event says it is; the text before it is only told. Events have numbers, so one that
    comes twice or out of its turn is noticed.
    """

    def __init__(self) -> None:
        self.over = False
        self.begun = False
        self.counts: object = None  #: stands in the last event only
        self._texts: list[str] = []
        self._number = -1
        self._response: Mapping[str, object] | None = None

    @property
    def text(self) -> str:
        return whole_text("".join(self._texts))

    def take(self, event: SentEvent) -> str:
        """See `Pieces.take`."""
        if self.over or not event.data or event.data.strip() == DONE:
            return ""
        fields = read_chunk(event)
        name = fields.get("type")
        if name == "error":
            raise inner_error({"error": fields.get("error") or {**fields, "type": None}}, ERROR_INSIDE)
        self._in_turn(fields.get("sequence_number"))
        self.begun = True
        if name in _LAST:
            self._end(fields.get("response"))
        if name not in _TEXTS:
            return ""
        delta = fields.get("delta")
        if not isinstance(delta, str):
            raise wrong(f"delta is {kind(delta)} where a text was asked for", "bad_envelope")
        self._texts.append(delta)
        return whole_text(delta)

    def whole(self, rest: str | None) -> Mapping[str, object]:
        """See `Pieces.whole`."""
        if self._response is None:
            raise unfinished("before the answer did" if rest is None else "in the middle of an event")
        return self._response

    def _in_turn(self, number: object) -> None:
        if not isinstance(number, int) or isinstance(number, bool):  # a server that does not number
            return
        if number <= self._number:
            raise wrong(f"event {number} of the stream came after event {self._number}", "bad_envelope")
        self._number = number

    def _end(self, response: object) -> None:
        if not isinstance(response, dict):
            raise wrong(f"response is {kind(response)} where an object was asked for", "bad_envelope")
        self._response = cast("dict[str, object]", response)
        self.over = True
