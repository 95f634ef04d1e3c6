"""Rounds of a model and its tools: it asks for calls, they are made, it is told of the results, until it answers.

What a model writes decides which of the tools it was offered are called, and with what; and nothing else. Whatever is
wrong with that is told to it, and the number of rounds is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, cast

from anyio import CapacityLimiter, create_task_group

from pipeline.calls.schema import SchemaError
from pipeline.core.errors import CallsClosed, ItemError, Skip, is_bug
from pipeline.core.holds import ToolResult
from pipeline.core.names import join_names, suggestion
from pipeline.core.ports import Reply
from pipeline.core.replay import charge_again
from pipeline.core.state import Message, ToolCall
from stages.tools import FunctionTool, ToolError

if TYPE_CHECKING:
    from pipeline.core.visit import Part, Visit

MAX_HOPS: Final = 8  #: rounds of an agent that does not say
MOST_CALLS: Final = 64  #: of one answer that are made; for each of the others the model is told that it was not
AT_ONCE: Final = 8  #: calls of one answer that run at the same time
_MOST_SAID: Final = 2_000  #: characters of an exception


class Asks(Protocol):
    """One call of a model with these messages."""

    async def __call__(self, messages: Sequence[Message], /) -> Reply: ...


@dataclass(frozen=True, slots=True)
class ToolReply:
    """A final answer, and what was said between the question and it."""

    text: str
    parsed: object
    between: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Rounds:
    """The tools of one agent, by name, and how often in a row a model may ask for some."""

    agent: str
    tools: Mapping[str, FunctionTool]
    max_hops: int = MAX_HOPS

    async def answer(self, visit: Visit, messages: Sequence[Message], ask: Asks) -> Reply | ToolReply:
        """Ask until there is an answer. Raises `ItemError` of type `max_hops` when the model only wants more calls."""
        between: tuple[Message, ...] = ()
        reply = await ask(messages)
        for _ in range(self.max_hops):
            calls = calls_of(reply)
            if not calls:
                break
            results = await self._results(calls, visit)
            between += (Message("assistant", reply.text, self.agent, calls), *results)
            reply = await ask((*messages, *between))
        if calls := calls_of(reply):
            asked = join_names(sorted({repr(call.name[:64]) for call in calls}), 5)
            times = "once" if self.max_hops == 1 else f"{self.max_hops} times in a row"
            text = f"the model asked for tools {times} and then for more ({asked}); max_hops is {self.max_hops}"
            raise ItemError(text, type="max_hops")
        return ToolReply(reply.text, reply.parsed, between) if between else reply

    async def _results(self, calls: Sequence[ToolCall], visit: Visit) -> list[Message]:
        """What the tools return, in the order of the calls, whatever the order in which they end."""
        parts = [str(visit.next_part()) for _ in calls]
        results = [f"error: not called: one answer may ask for at most {MOST_CALLS} calls"] * len(calls)
        failures: list[Exception] = []
        units = CapacityLimiter(AT_ONCE)
        async with create_task_group() as tg:

            async def run(place: int, call: ToolCall) -> None:
                async with units:
                    try:
                        results[place] = await self._known_result(call, visit.part("tool", parts[place]))
                    except Exception as error:
                        failures.append(error)
                        tg.cancel_scope.cancel()

            for place, call in enumerate(calls[:MOST_CALLS]):
                tg.start_soon(run, place, call, name=f"penstock {self.agent}")
        if failures:
            raise failures[0]
        return [Message("tool", text, tool_call_id=call.id) for call, text in zip(calls, results, strict=True)]

    async def _known_result(self, call: ToolCall, visit: Part) -> str:
        """What the model is told of one call, which is not made again if an earlier run has made it."""
        page = visit.page
        if page is None:
            return await self._result(call, visit)
        asked = [call.name, call.arguments]
        found = cast("list[object] | None", page.find("tool", visit.path))
        if found is not None and found[0] == asked:
            charge_again(visit.item.frame, page, found[2])
            return cast(str, found[1])
        result = await self._result(call, visit)
        page.write("tool", visit.path, [asked, result, visit.used.stored()])
        return result

    async def _result(self, call: ToolCall, visit: Visit) -> str:
        """What the model is told of one call. Raises what ends the visit."""
        tool = self.tools.get(call.name)
        if tool is None:
            visit.remark("tool_failed")
            near = suggestion(call.name, self.tools) or f"there are: {join_names(list(self.tools))}"
            return f"error: there is no tool {call.name[:64]!r} ({near})"
        try:
            given = tool.arguments.read(call.arguments)
        except SchemaError as error:
            visit.remark("tool_failed")
            return tool.cut(f"error: {tool.name!r} was not called: {error}")
        try:
            with visit.waiting(ToolResult(tool.name)):
                return await tool.run(given, visit)
        except Exception as error:
            if isinstance(error, CallsClosed | Skip) or is_bug(error) or getattr(error, "stops_run", False):
                raise
            visit.remark("tool_failed")
            said = _said(error)
            if tool.on_error == "fail":
                retryable = isinstance(error, ItemError) and error.retryable
                raise ToolError(f"tool {tool.name!r} failed: {said}", retryable=retryable) from error
            return tool.cut(f"error: {said}")


def calls_of(reply: Reply) -> tuple[ToolCall, ...]:
    """The calls that a reply asks for; a model that knows no tools gives replies without."""
    return tuple(getattr(reply, "tool_calls", ()))


def _said(error: Exception) -> str:
    """Class and message, no more: a traceback is nothing for a model."""
    kind = error.type if isinstance(error, ItemError) else type(error).__name__
    text = f"{kind}: {error}" if str(error) else kind
    return text if len(text) <= _MOST_SAID else f"{text[:_MOST_SAID]}…"
