"""Which facts of a root depend on what a stage does: those of the stage and of everything after it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pipeline.core.pipeline import Pipeline
from pipeline.core.stage import Chain, Stage

#: What a composite decides before its members begin, so that it does not depend on what they do.
_BEFORE: Final = frozenset({"split", "part", "label", "key", "weight", "batch"})

_FIRST_ROUND: Final = "1"

#: What paths begin with that are written for a whole batch: in them the names stand anywhere.
BATCH: Final = "batch"


@dataclass(frozen=True, slots=True)
class Downstream:
    """Facts by where they were written. The name of a stage is unique in its pipeline, and every second step of a path
    is one."""

    stages: frozenset[str] = frozenset()  #: all that is written at or inside them
    around: frozenset[str] = frozenset()  #: composites around the stage: what they decide of their members
    loops: frozenset[str] = frozenset()  #: those of them whose later rounds see what the stage has done

    def __or__(self, other: Downstream) -> Downstream:
        return Downstream(self.stages | other.stages, self.around | other.around, self.loops | other.loops)

    def has(self, path: tuple[str, ...], kind: str) -> bool:
        """Whether the fact of this kind at `path` depends on the stage."""
        step = 1 if path[:1] == (BATCH,) else 2
        if not self.stages.isdisjoint(path[::step]):
            return True
        if path and (len(path) - 1) % step == 0 and path[-1] in self.around and kind not in _BEFORE:
            return True
        rounds = zip(path[::step], path[1::step], strict=False)
        return any(name in self.loops and slot != _FIRST_ROUND for name, slot in rounds)


def names_of(pipeline: Pipeline) -> tuple[str, ...]:
    """The stages of a pipeline that facts can be asked of, inner ones included, in their order."""
    return tuple(dict.fromkeys(_names(pipeline.stage)))


def downstream(pipeline: Pipeline, name: str) -> Downstream | None:
    """The facts that depend on the stage `name`; None if there is no such stage."""
    return _after(pipeline.stage, name)


def _after(chain: Stage, name: str) -> Downstream | None:
    stages = list(_definitions(chain))
    for number, stage in enumerate(stages):
        rest = frozenset(_wired(stages[number + 1 :]))
        if stage.name == name:
            return Downstream(rest | frozenset(_wired([stage])))
        found = _within(stage, name)
        if found is not None:
            return found | Downstream(rest)
    return None


def _within(stage: Stage, name: str) -> Downstream | None:
    """The stage is a part of `stage`, or stands in one of its bodies."""
    parts = stage.parts()
    for number, part in enumerate(parts):
        rest = frozenset(each.name for each in parts[number + 1 :])
        if part.name == name:
            return Downstream(rest | {name})
        for body in part.bodies().values():
            found = _after(body.stage, name)
            if found is not None:
                loops = frozenset({part.name} if body.role == "round" else ())
                return found | Downstream(rest, frozenset({part.name}), loops)
    return None


def _definitions(stage: Stage) -> Iterator[Stage]:
    """The stages of a chain as they were written, not as they are wired."""
    if isinstance(stage, Chain):
        for each in stage.stages:
            yield from _definitions(each)
    else:
        yield stage


def _wired(stages: list[Stage]) -> Iterator[str]:
    for stage in stages:
        yield stage.name
        yield from (part.name for part in stage.parts())


def _names(chain: Stage) -> Iterator[str]:
    for stage in _definitions(chain):
        yield stage.name
        for part in stage.parts():
            yield part.name
            for body in part.bodies().values():
                yield from _names(body.stage)
