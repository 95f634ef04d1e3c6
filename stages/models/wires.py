"""The two APIs that a model can be asked through, as one thing each: where to send, what to send, how to read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol, TypeAlias

from pipeline.calls.answer import Answer, Terms
from pipeline.calls.call import Request
from pipeline.calls.envelope import read_answer
from pipeline.calls.responses import read_response
from pipeline.calls.responses_streamed import ResponsePieces
from pipeline.calls.streamed import ChatPieces, Pieces
from stages.models.body import chat_body
from stages.models.responses import responses_body

if TYPE_CHECKING:
    from stages.models.openai import OpenAIModel

Api: TypeAlias = Literal["chat", "responses"]


class Wire(Protocol):
    """One API."""

    path: ClassVar[str]

    def body(self, request: Request) -> dict[str, object]:
        """Return the body of the request."""
        ...

    def read(self, document: Mapping[str, object], request: Request) -> Answer:
        """Read an answer. Raises `CallError`."""
        ...

    def pieces(self) -> Pieces:
        """Return what puts one stream together."""
        ...


@dataclass(frozen=True, slots=True)
class ChatWire:
    """Chat completions, which every server has."""

    definition: OpenAIModel
    path: ClassVar[str] = "/chat/completions"

    def body(self, request: Request) -> dict[str, object]:
        asked = self.definition
        return chat_body(request, asked.model, asked.token_field, asked.schema_mode, asked.stream_usage)

    def read(self, document: Mapping[str, object], request: Request) -> Answer:
        return read_answer(document, Terms(bool(request.tools), self.definition.finish_optional))

    def pieces(self) -> Pieces:
        return ChatPieces(self.definition.finish_optional)


@dataclass(frozen=True, slots=True)
class ResponsesWire:
    """Responses, where a server has them. There is no way from one API to the other but the definition."""

    definition: OpenAIModel
    path: ClassVar[str] = "/responses"

    def body(self, request: Request) -> dict[str, object]:
        return responses_body(request, self.definition.model, self.definition.schema_mode)

    def read(self, document: Mapping[str, object], request: Request) -> Answer:
        return read_response(document, Terms(bool(request.tools)))

    def pieces(self) -> Pieces:
        return ResponsePieces()


def wire_of(definition: OpenAIModel) -> Wire:
    """Return the API that a definition names."""
    return ChatWire(definition) if definition.api == "chat" else ResponsesWire(definition)
