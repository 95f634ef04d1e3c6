"""What is said while a run goes on and something is wrong with it: a stage that blocks the event loop, a stall, a
server that does not answer or a model that another one stands in for."""

from __future__ import annotations

import os

from pipeline.cli.voice import Voice
from pipeline.core.agent import AgentStage
from pipeline.core.events import EndpointChanged, Event, LoopBlocked, ModelReplaced, RunStalled
from pipeline.core.pipeline import Pipeline
from pipeline.core.stage import Stage
from pipeline.core.topology import walk

_THREADS = "make it a plain def with blocking: true, then it runs in worker threads"
_PROCESSES = f"{_THREADS} (cpu: true: in processes)"
_EXPRESSION = "an expression cannot run anywhere else: let it do less, or a map before it, with blocking: true"
_AGENT = "make its process a plain def, then it runs in worker threads"
_LONGEST = 400  #: characters of what a server said
_ELSEWHERE = "let it wait with await, or run in a thread"


class Alarms:
    """A listener of a run's events. What changes: what was told, because once is enough."""

    def __init__(self, pipeline: Pipeline, voice: Voice) -> None:
        self._right = {stage.name: _right_for(stage) for stage in walk(pipeline.stage)}
        self._voice = voice
        self._told: set[tuple[str, ...]] = set()

    def hear(self, event: Event) -> None:
        """Say what a person has to know of `event`."""
        match event:
            case LoopBlocked():
                self._once(self._blocked(event), (event.culprit,))
            case RunStalled():
                self._voice.note("\n  ".join([f"warning: nothing has moved for {event.seconds:g} s", *event.chain]))
            case EndpointChanged(state="down"):
                self._voice.note(_down(event))
            case EndpointChanged():
                self._voice.note(f"{event.endpoint} answers again")
            case ModelReplaced():
                self._once(f"warning: {event.why[:_LONGEST]}; its calls go to {event.by}", (event.model, event.by))
            case _:
                pass

    def lasting(self, event: LoopBlocked) -> None:
        """Say what goes on while nothing else does. Called in the watchdog's thread."""
        self._voice.note(
            f"warning: {event.culprit} has kept the event loop for {event.seconds:.0f} s and still does, at "
            f"{_shown(event.where)}; nothing else goes on meanwhile, not even Ctrl-C"
        )

    def _once(self, text: str, about: tuple[str, ...]) -> None:
        if about not in self._told:
            self._told.add(about)
            self._voice.note(text)

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


def _down(event: EndpointChanged) -> str:
    why = event.why
    for known in (f"{event.model}: ", f"no connection to {event.endpoint}: ", f"{event.endpoint}: "):
        why = why.removeprefix(known)
    wait = "its calls wait" if event.waiting == 0 else f"{event.waiting:,} calls wait"
    meanwhile = wait if event.patient else "its calls go to another model"
    what = f"{event.endpoint} does not answer ({why[:_LONGEST]})"
    return f"warning: {what}; {meanwhile}, a probe goes out every few seconds"


def _shown(where: str) -> str:
    """A place as a person would name it from the current directory."""
    here = os.path.join(os.getcwd(), "")
    return where.removeprefix(here)
