"""What a conversation is: messages and outputs that can only be extended by making a new one.

Branches of a pipeline share the prefix they started from, so no branch can see, or spoil, what another one adds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

Role: TypeAlias = Literal["system", "user", "assistant", "tool"]

_EMPTY: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message. `name` is the agent that wrote it, if one did."""

    role: Role
    content: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class ConversationState:
    """An immutable conversation: `messages` in order, and the `outputs` of stages by stage name."""

    messages: tuple[Message, ...] = ()
    outputs: Mapping[str, object] = field(default_factory=lambda: _EMPTY)

    def add_message(self, message: Message) -> ConversationState:
        """Return a new state with `message` appended; this one stays as it is."""
        return ConversationState((*self.messages, message), self.outputs)

    def add_messages(self, messages: Iterable[Message]) -> ConversationState:
        """Return a new state with `messages` appended in their order."""
        return ConversationState((*self.messages, *messages), self.outputs)

    def add_output(self, name: str, value: object) -> ConversationState:
        """Return a new state in which the stage `name` has produced `value`."""
        return ConversationState(self.messages, MappingProxyType({**self.outputs, name: value}))

    def add_outputs(self, values: Mapping[str, object]) -> ConversationState:
        """Return a new state with several outputs added at once, in their order."""
        return ConversationState(self.messages, MappingProxyType({**self.outputs, **values}))
