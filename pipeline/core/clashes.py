"""Names that are taken: of stages and outputs, by another one or by what templates see.

Names are unique in a pipeline, with one exception: branches may write the same output where the composite around them
makes one value of what they wrote.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import NamedTuple, TypeAlias

from pipeline.core.errors import Problem
from pipeline.core.names import Fields
from pipeline.core.stage import Chain, Stage

#: names that templates see everywhere
COMMON_NAMES: Mapping[str, Fields | None] = {"input": None, "prompt": None, "vars": None}

#: what no stage and no output may be called: also what templates see in the bodies of composites
RESERVED_NAMES = frozenset({*COMMON_NAMES, "part", "parts", "round", "sample"})


class Step(NamedTuple):
    """One step of the way from the top into a body."""

    composite: str
    label: str
    shared: frozenset[str] | None  #: see `Body.shared`


Way: TypeAlias = tuple[Step, ...]


class Claim(NamedTuple):
    """A name and where it was taken."""

    what: str  #: a stage, or an output
    stage: str
    way: Way


def clashes(stage: Stage) -> Iterator[Problem]:
    """Find the names of stages and outputs that are taken."""
    taken: dict[str, list[Claim]] = {}
    for written, way in placed(stage):
        wired, whose = [part.name for part in written.parts()], owner_of(written)
        for name, owner in _claims(written).items():
            is_stage = name == written.name or name in wired
            claim = Claim("a stage" if is_stage else "an output", whose, way)
            option = None if is_stage else _option(written, name)
            before = taken.setdefault(name, [])
            rivals = [earlier for earlier in before if _judged(name, earlier, claim)]
            if name != whose:  # what two stages of one name make of it is no other mistake
                rivals = [earlier for earlier in rivals if earlier.stage != whose]
            found = next((f for earlier in rivals if (f := _clash(name, earlier, claim)) is not None), None)
            if found is None and wired.count(name) > 1:
                found = _taken("a stage", name)
            if found is not None:
                yield Problem(owner, option, *found)
            elif name in RESERVED_NAMES:
                text = f"{claim.what} cannot be named {name!r}"
                yield Problem(owner, option, text, f"templates use that name {_use(name)}")
            before.append(claim)


def _judged(name: str, earlier: Claim, later: Claim) -> bool:
    """Whether the two are to be compared. What an output is reduced to has been compared with what is outside."""
    *outer, last = later.way or (None,)
    if later.what != "an output" or last is None or name not in (last.shared or ()):
        return True
    depth = len(outer)
    inside = list(earlier.way[:depth]) == outer and len(earlier.way) > depth
    return inside and earlier.way[depth].composite == last.composite


def _clash(name: str, earlier: Claim, later: Claim) -> tuple[str, str] | None:
    """What is wrong with `name` being taken twice, and what would be right; None where it may be."""
    fork = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(earlier.way, later.way, strict=False)))
    up, down = earlier.way[fork:], later.way[fork:]
    if earlier.what != "an output" or later.what != "an output" or not down:
        return _taken(earlier.what, name)
    apart = bool(up) and up[0].composite == down[0].composite  # in two bodies of one composite
    inside = not up and down[0].composite == earlier.stage  # in a body of what passes it on
    if not (apart or inside) or any(step.shared is None for step in (*up, *down)):
        return _taken(earlier.what, name)
    lacking = [step.composite for step in (*down, *up) if step.shared is not None and name not in step.shared]
    if not lacking:
        return None
    where = " and ".join(repr(composite) for composite in dict.fromkeys(lacking))
    hint = f"give {where} a reducer for it, as reducers: {{{name}: list}}"
    if inside:
        return f"{name!r} does not come out of {lacking[-1]!r}, so it cannot reach {earlier.stage!r}", hint
    return f"branches {up[0].label!r} and {down[0].label!r} of {up[0].composite!r} both write {name!r}", hint


def _taken(what: str, name: str) -> tuple[str, str]:
    return f"there is already {what} named {name!r}", "names are unique in a pipeline"


def _option(written: Stage, name: str) -> str | None:
    """The option that an output's name was given in, where that can be told."""
    if name == getattr(written, "output_key", None):
        return "output_key"
    reduces = any(name in (body.shared or ()) for body in written.bodies().values())
    return "reducers" if reduces else None


def _use(name: str) -> str:
    return "for the record" if name in COMMON_NAMES else "inside a body"


def _claims(written: Stage) -> Mapping[str, str]:
    """The names that a stage takes in templates and in counts, its wired parts included, each with its owner."""
    claims = dict.fromkeys((written.name, *written.produces()), written.name)
    for part in written.parts():
        for name in (part.name, *part.produces()):
            claims.setdefault(name, owner_of(part))
    return claims


def placed(stage: Stage, way: Way = ()) -> Iterator[tuple[Stage, Way]]:
    """Every stage as its author wrote it, outermost first, in declaration order, with the way to it."""
    for written in stage.stages if isinstance(stage, Chain) else (stage,):
        yield written, way
        for part in written.parts():
            for label, body in part.bodies().items():
                yield from placed(body.stage, (*way, Step(part.name, label, body.shared)))


def owner_of(part: Stage) -> str:
    """The name of the stage that its author wrote: that of the composite, for a part that it makes itself."""
    return str(getattr(part, "owner", "") or part.name)
