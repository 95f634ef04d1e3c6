"""What a conversation is: messages and outputs that can only be extended by making a new one.

Branches of a pipeline share the prefix they started from, so no branch can see, or spoil, what another one adds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, cast

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish that a tool be called: `arguments` is JSON as the model wrote it, valid or not."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message. `name` is the agent that wrote it, if one did."""

    role: Role
    content: str
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()  #: of an assistant
    tool_call_id: str | None = None  #: of a tool's answer: which call it answers

    def as_json(self) -> dict[str, object]:
        """All of it as plain JSON, which `of_json` reads."""
        calls = [[call.id, call.name, call.arguments] for call in self.tool_calls]
        told = {"role": self.role, "content": self.content, "name": self.name, "tool_call_id": self.tool_call_id}
        return {**told, "tool_calls": calls}

    @classmethod
    def of_json(cls, written: object) -> Message:
        """Read what `as_json` gave."""
        told = cast("Mapping[str, Any]", written)
        calls = tuple(ToolCall(*call) for call in told["tool_calls"])
        return cls(told["role"], told["content"], told["name"], calls, told["tool_call_id"])


class Outputs(Mapping[str, object]):
    """An immutable mapping from stage name to output, in order of production.

    Adding makes a new one that shares everything with the old, in constant time; the plain mapping is built when it is
    first read. A stage that only adds its own output pays for nothing else.
    """

    __slots__ = ("_all", "_before", "_name", "_value")

    def __init__(self, before: Outputs | None = None, name: str = "", value: object = None) -> None:
        self._before = before
        self._name = name
        self._value = value
        self._all: dict[str, object] | None = None if before is not None else {}

    def add(self, name: str, value: object) -> Outputs:
        """Return these outputs and one more, which replaces an older one of its name."""
        return Outputs(self, name, value)

    @classmethod
    def of(cls, values: Mapping[str, object]) -> Outputs:
        """Outputs of these names and values."""
        outputs = cls()
        outputs._all = dict(values)
        return outputs

    def __reduce__(self) -> tuple[Callable[[Mapping[str, object]], Outputs], tuple[dict[str, object]]]:
        """Copied and pickled as one mapping, however many stages it came through."""
        return Outputs.of, (self._read(),)

    def _read(self) -> dict[str, object]:
        if self._all is None:
            added: list[Outputs] = []
            node: Outputs = self
            while node._all is None and node._before is not None:
                added.append(node)
                node = node._before
            values = dict(node._all or {})
            for later in reversed(added):
                values[later._name] = later._value
            self._all = values
        return self._all

    def __getitem__(self, name: str) -> object:
        return self._read()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return repr(self._read())


class ConversationState(NamedTuple):
    """An immutable conversation: `messages` in order, and the `outputs` of stages by stage name."""

    messages: tuple[Message, ...] = ()
    outputs: Outputs = Outputs()

    def add_message(self, message: Message) -> ConversationState:
        """Return a new state with `message` appended; this one stays as it is."""
        return ConversationState((*self.messages, message), self.outputs)

    def add_messages(self, messages: Iterable[Message]) -> ConversationState:
        """Return a new state with `messages` appended in their order."""
        return ConversationState((*self.messages, *messages), self.outputs)

    def add_output(self, name: str, value: object) -> ConversationState:
        """Return a new state in which the stage `name` has produced `value`."""
        return ConversationState(self.messages, Outputs(self.outputs, name, value))
