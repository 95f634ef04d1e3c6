"""Conversations never change; what they share they share safely."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable

import pytest

from pipeline.core.state import ConversationState, Message, Outputs


def test_adding_makes_a_new_state_and_leaves_the_old_one_as_it_was() -> None:
    empty = ConversationState()
    asked = empty.add_message(Message("user", "hello"))
    answered = asked.add_messages([Message("assistant", "hi", "bot")]).add_output("bot", "hi")
    assert (empty.messages, dict(empty.outputs)) == ((), {})
    assert [message.content for message in asked.messages] == ["hello"]
    assert [message.content for message in answered.messages] == ["hello", "hi"]
    assert (dict(asked.outputs), dict(answered.outputs)) == ({}, {"bot": "hi"})


def test_branches_share_their_prefix_and_nothing_else() -> None:
    prefix = ConversationState().add_message(Message("user", "hello")).add_output("plan", 1)
    left, right = prefix.add_output("left", 2), prefix.add_output("right", 3)
    assert dict(left.outputs) == {"plan": 1, "left": 2}
    assert dict(right.outputs) == {"plan": 1, "right": 3}
    assert left.messages is right.messages is prefix.messages


def test_nothing_of_a_state_can_be_assigned() -> None:
    state = ConversationState().add_message(Message("user", "hello")).add_output("plan", 1)
    with pytest.raises(AttributeError):
        state.messages = ()  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.messages[0].content = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        state.outputs["plan"] = 2  # type: ignore[index]


def test_outputs_keep_their_order_and_the_last_of_a_name() -> None:
    outputs = Outputs().add("a", 1).add("b", 2).add("a", 3)
    assert list(outputs.items()) == [("a", 3), ("b", 2)]
    assert outputs == {"a": 3, "b": 2}
    assert len(outputs) == 2
    assert "c" not in outputs


def test_outputs_of_very_long_chains_are_read_without_recursion() -> None:
    outputs = Outputs()
    for number in range(50_000):
        outputs = outputs.add(str(number % 7), number)
    assert len(outputs) == 7


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda outputs: pickle.loads(pickle.dumps(outputs))])
def test_outputs_of_very_long_chains_are_copied_without_recursion(copied: Callable[[Outputs], Outputs]) -> None:
    inner = [1]
    outputs = Outputs().add("inner", inner)
    for number in range(5_000):
        outputs = outputs.add(str(number), number)
    other = copied(outputs)
    assert other == outputs
    assert other["inner"] is not inner
    assert list(other.add("last", 1))[-1] == "last"
