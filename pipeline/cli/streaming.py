"""`--stream`: which agent's answer is shown as it comes, and where; what that cannot be done for is refused."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from pipeline.cli.exits import UsageError
from pipeline.core.agent import AgentStage
from pipeline.core.record import Input
from pipeline.core.stage import Stage
from pipeline.core.topology import walk


@dataclass(frozen=True, slots=True)
class Streamed:
    """What is shown as it comes."""

    stage: str  #: the agent
    to_output: bool  #: the pieces are the output, else they go to stderr


def streamed(stage: Stage, *, raw: bool, raw_field: str | None, output: str) -> Streamed:
    """What `--stream` shows of a pipeline: its last agent that streams. With `-r` to stdout that is the output, so it
    has to be the last stage. Raises `UsageError` when there is nothing to show."""
    if raw_field is not None:
        raise UsageError("--raw-field is taken from the record when it is whole; with --stream give -r, or neither")
    agents = [each for each in walk(stage) if isinstance(each, AgentStage) and getattr(each.agent, "stream", False)]
    if not agents:
        raise UsageError("--stream shows the answer of an agent as it comes, and no agent here streams; leave it out")
    last = stage.parts()[-1]
    if raw and output == "-" and last is not agents[-1]:
        raise UsageError(
            f"--stream with -r writes the answer of the last stage as it comes, and {last.name!r} is no agent that "
            f"streams; without -r the answer of {agents[-1].name!r} is shown on stderr"
        )
    return Streamed(agents[-1].name, raw and output == "-")


async def only(records: AsyncIterator[Input]) -> AsyncIterator[Input]:
    """The record of an input that has one, or none. Raises `UsageError` if there is a second one."""
    found: list[Input] = []
    async for record in records:
        found.append(record)
        if len(found) > 1:
            raise UsageError("--stream is for one prompt, and the input has more; give one, or take the first: -n 1")
    return _given(found)


async def _given(records: list[Input]) -> AsyncGenerator[Input]:
    for record in records:
        yield record
