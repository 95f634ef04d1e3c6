"""A model that asks for tools as a test writes down: each turn is a text, or the calls that it wants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field

from pipeline.calls.schema import Schema
from pipeline.core.ports import Visit
from pipeline.core.state import Message, ToolCall
from pipeline.core.usage import Usage

Turn = str | tuple[ToolCall, ...]


@dataclass(frozen=True)
class ToolModelReply:
    text: str
    parsed: object = None
    tool_calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True)
class ToolModel:
    """Answers with `turn(messages)`; what it was asked, and with what, is in `asked` and `params`."""

    turn: Callable[[Sequence[Message]], Turn]
    name: str = "toolish"
    asked: list[tuple[Message, ...]] = field(default_factory=list, compare=False)
    params: list[Mapping[str, object]] = field(default_factory=list, compare=False)
    ordinals: list[int] = field(default_factory=list, compare=False)

    def open(self) -> AbstractAsyncContextManager[ToolModel]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[ToolModel]:
        yield self

    async def call(self, visit: Visit, messages: Sequence[Message], **params: object) -> ToolModelReply:
        visit.admit_call()
        self.ordinals.append(visit.next_ordinal())
        self.asked.append(tuple(messages))
        self.params.append(params)
        visit.charge(Usage(requests=1), None)
        turn = self.turn(messages)
        if not isinstance(turn, str):
            return ToolModelReply("", None, turn)
        schema = params.get("schema")
        return ToolModelReply(turn, schema.validate(turn) if isinstance(schema, Schema) else None)


def turns(*given: Turn) -> ToolModel:
    """A model that takes these turns in each conversation, whose place is seen from the answers in it."""
    return ToolModel(lambda messages: given[sum(message.role == "assistant" for message in messages)])


def call(name: str, arguments: str = "{}", id: str = "c1") -> ToolCall:
    return ToolCall(id, name, arguments)


def results(model: ToolModel) -> list[str]:
    """What the model was told of its calls, as it saw it in its last turn."""
    return [message.content for message in model.asked[-1] if message.role == "tool"]
