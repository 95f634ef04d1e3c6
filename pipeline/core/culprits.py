"""Who keeps the event loop: read off the stack of the loop's thread, from the innermost frame outwards.

The engine's frames say for whom they work: a stage's method has the stage as `self`, a worker its crew, and functions
that are fused have the meter of the one that is at work. What users call their locals is not looked at.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import FrameType
from typing import NamedTuple

from pipeline.core.composite import CompositeRun
from pipeline.core.groups import Group
from pipeline.core.joiner import Joiner
from pipeline.core.places import is_ours, is_users
from pipeline.core.stage import Stage
from pipeline.core.statistics import Meter
from pipeline.core.workers import Worker

_OUTSIDE = "code outside the stages"
_PARTS = {("pipeline.core.feeder", ""): "the source", ("pipeline.core.pipeline", "_written"): "the sink"}

#: local variables that workers and the feeder renew with every item, or with every wait
_CLOCKS = ("now", "since")


class Culprit(NamedTuple):
    """Whose code runs, and where in it."""

    name: str  #: for people: `stage 'fetch'`, `the source`, `the sink`, `code outside the stages`
    stage: str | None  #: the stage's name, if it is one
    where: str  #: the innermost line of the user's code, or of whoever's there is: `file:line in function`


def culprit_of(frame: FrameType) -> Culprit:
    """Say on whose behalf the innermost `frame` of a stack runs."""
    where = _where(frame)
    ours = (outer for outer in _outwards(frame) if is_ours(_module(outer)))  # others' locals are none of our business
    for outer in ours:
        stage = _stage_of(outer)
        if stage:
            return Culprit(f"stage {stage!r}", stage, where)
        part = _part_of(outer)
        if part is not None:
            return Culprit(part, None, where)
    return Culprit(_OUTSIDE, None, where)


def step_of(frame: FrameType) -> object:
    """What is equal for as long as the loop is in the same step: the frame of the task, or the innermost one of a plain
    callback, and by the clocks of the engine's own loops which of their turns it is."""
    task, turns = frame, list[object]()
    for outer in _outwards(frame):
        if outer.f_code.co_flags & inspect.CO_COROUTINE:
            task = outer
            if is_ours(_module(outer)):
                turns += (outer.f_locals.get(clock) for clock in _CLOCKS)
    return task, turns


def _outwards(frame: FrameType) -> Iterator[FrameType]:
    outer: FrameType | None = frame
    while outer is not None:
        yield outer
        outer = outer.f_back


def _stage_of(frame: FrameType) -> str | None:
    """The stage that a frame of the engine works for."""
    names = frame.f_locals
    match names.get("self"):
        case Stage() as stage:
            return stage.name
        case Worker() as worker:
            return worker.crew.name
        case CompositeRun() as run:
            return run.stage.name
        case Group() | Joiner() as join:
            return join.label
        case _:
            meter = names.get("meter")
            return meter.name if isinstance(meter, Meter) else None


def _part_of(frame: FrameType) -> str | None:
    module, function = _module(frame), frame.f_code.co_name
    return _PARTS.get((module, function)) or _PARTS.get((module, ""))


def _where(frame: FrameType) -> str:
    users = (outer for outer in _outwards(frame) if is_users(_module(outer), outer.f_code.co_filename))
    place = next(users, frame)
    return f"{place.f_code.co_filename}:{place.f_lineno} in {place.f_code.co_name}"


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))
