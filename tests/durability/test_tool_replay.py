"""Tools are not run again, and which call of theirs is which does not depend on who was faster."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
import pytest

from pipeline.core.errors import ItemError
from pipeline.core.pipeline import Pipeline
from pipeline.core.state import Message, ToolCall
from pipeline.core.visit import Visit
from stages import agent
from stages.models.simulated import SimulatedModel
from stages.tools import tool
from tests.durability.prefixes import Memory, played, prefixes
from tests.engine.schedules import run_in
from tests.stages.tool_models import ToolModel, Turn

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
EVEN = SimulatedModel(model="echo", latency=0.2)

made: list[str] = []


async def look(word: str, seconds: float, visit: Visit) -> str:
    """Look a word up."""
    await anyio.sleep(seconds)
    reply = await visit.call(EVEN, [Message("user", f"what is {word}")])
    made.append(word)
    if word == "nothing":
        raise ItemError("there is no such word")
    return reply.text


def two_rounds(messages: Sequence[Message]) -> Turn:
    """Three words at once, the first of them slow; then one more; then what was found."""
    found = [message for message in messages if message.role == "tool"]
    if not found:
        asked = [("a", "slow", 0.5), ("b", "quick", 0.0), ("c", "nothing", 0.1)]
        return tuple(ToolCall(id, "look", f'{{"word": "{word}", "seconds": {time}}}') for id, word, time in asked)
    if len(found) == 3:
        return (ToolCall("d", "look", '{"word": "more", "seconds": 0.2}'),)
    return " / ".join(message.content for message in found)


def lead() -> Pipeline:
    asks = agent("lead", model=ToolModel(two_rounds), tools=[tool(look)])
    return Pipeline(asks | agent("after", model=EVEN, prompt="{{ lead }}"))


@BACKENDS
def test_a_tool_that_was_run_is_not_run_again(backend: str) -> None:
    made.clear()
    first = run_in(backend, 0, played, lead(), ["go"], Memory())
    (line,) = first.lines().values()
    assert b'"lead":"what is slow / what is quick / error: ItemError: there is no such word / what is more"' in line
    assert made == ["quick", "nothing", "slow", "more"]
    for length in prefixes(first.sequence):
        made.clear()
        memory = run_in(backend, 0, played, lead(), ["go"], Memory(tuple(first.sequence[:length])))
        assert memory.lines() == first.lines(), length
        known = [entry for entry in memory.past if entry.kind == "fact" and entry.name[1] == "tool"]
        settled = 1 in {entry.root for entry in memory.past if entry.kind == "settled"}
        assert len(made) == (0 if settled else 4 - len(known)), length


@BACKENDS
def test_calls_that_tools_make_are_counted_for_each_of_them(backend: str) -> None:
    first = run_in(backend, 0, played, lead(), ["go"], Memory())
    calls = [name for _, name in first.named("begun")]
    assert [path for path, _, _ in calls] == [
        '["lead","tool","1"]',
        '["lead","tool","2"]',
        '["lead","tool","0"]',
        '["lead","tool","3"]',
        '["after"]',
    ]
    assert {ordinal for _, _, ordinal in calls} == {0}
