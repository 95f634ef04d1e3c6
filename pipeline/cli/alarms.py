"""What is said while a run goes on and something is wrong with it: a stage that blocks the event loop, a stall."""

from __future__ import annotations

import os

from pipeline.cli.voice import Voice
from pipeline.core.agent import AgentStage
from pipeline.core.events import Event, LoopBlocked, RunStalled
from pipeline.core.pipeline import Pipeline
from pipeline.core.stage import Stage
from pipeline.core.topology import walk

_THREADS = "make it a plain def with blocking: true, then it runs in worker threads"
_PROCESSES = f"{_THREADS} (cpu: true: in processes)"
_EXPRESSION = "an expression cannot run anywhere else: let it do less, or a map before it, with blocking: true"
_AGENT = "make its process a plain def, then it runs in worker threads"
_ELSEWHERE = "let it wait with await, or run in a thread"


class Alarms:
    """A listener of a run's events. What changes: whose blocking was told, because once is enough."""

    def __init__(self, pipeline: Pipeline, voice: Voice) -> None:
        self._right = {stage.name: _right_for(stage) for stage in walk(pipeline.stage)}
        self._voice = voice
        self._told: set[str] = set()

    def hear(self, event: Event) -> None:
        """Say what a person has to know of `event`."""
        match event:
            case LoopBlocked():
                if event.culprit not in self._told:
                    self._told.add(event.culprit)
                    self._voice.note(self._blocked(event))
            case RunStalled():
                self._voice.note("\n  ".join([f"warning: nothing has moved for {event.seconds:g} s", *event.chain]))
            case _:
                pass

    def lasting(self, event: LoopBlocked) -> None:
        """Say what goes on while nothing else does. Called in the watchdog's thread."""
        self._voice.note(
            f"warning: {event.culprit} has kept the event loop for {event.seconds:.0f} s and still does, at "
            f"{_shown(event.where)}; nothing else goes on meanwhile, not even Ctrl-C"
        )

    def _blocked(self, event: LoopBlocked) -> str:
        what = f"{event.culprit} blocks the event loop, on which all else waits: {event.seconds:.2f} s"
        right = self._right.get(event.stage or "", _ELSEWHERE)
        return f"warning: {what} at {_shown(event.where)}; {right}"


def _right_for(stage: Stage) -> str:
    """What a stage that blocks can do, as far as its kind has options for it."""
    if isinstance(stage, AgentStage):
        return _AGENT
    if stage.templates() and not any(callable(getattr(stage, option)) for option in stage.functions):
        return _EXPRESSION
    return _PROCESSES if hasattr(stage, "cpu") else _THREADS if hasattr(stage, "blocking") else _ELSEWHERE


def _shown(where: str) -> str:
    """A place as a person would name it from the current directory."""
    here = os.path.join(os.getcwd(), "")
    return where.removeprefix(here)
