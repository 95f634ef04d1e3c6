"""What can be said of a pipeline before it runs: its stages, what is wrong with them, and the most that can be alive.

Everything here is a pure function of the frozen definition.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import cast

from pipeline.core.clashes import COMMON_NAMES, clashes, owner_of, placed
from pipeline.core.decisions import function_problems
from pipeline.core.errors import Problem
from pipeline.core.fused import FusedStage
from pipeline.core.leaf import LeafStage
from pipeline.core.names import Fields, unknown_names
from pipeline.core.stage import ERROR_ACTIONS, Stage, Standing


def fuse(parts: Sequence[Stage]) -> tuple[Stage, ...]:
    """Join adjacent plain functions into one stage; each keeps its name and its counters."""
    fused: list[Stage] = []
    for key, run in groupby(parts, key=_fusible):
        members = tuple(run)
        if key is None or len(members) == 1:
            fused += members
        else:
            fused.append(FusedStage.of(members))
    return tuple(fused)


def _fusible(stage: Stage) -> tuple[object, ...] | None:
    """Stages with equal keys may be fused; None for those that may not."""
    if isinstance(stage, LeafStage) and stage.concurrency == 1 and stage.plain() is not None:
        return ("plain", stage.on_error)
    return None


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most that can be alive at any instant of a run."""

    roots: int
    items: int
    calls: int | None  #: visits of agents at work at once; None when there is no agent

    def __str__(self) -> str:
        calls = "" if self.calls is None else f", at most {self.calls} calls"
        return f"at most {self.roots} roots, at most {self.items} items alive{calls}"


def bounds(stage: Stage, max_in_flight: int) -> Bounds:
    """Compute the bounds of a pipeline with an admission window of `max_in_flight`."""
    items = max_in_flight * Alive().multiplicity(stage)
    calls = most_calls(stage)
    return Bounds(max_in_flight, items, None if calls is None else min(items, calls))


def most_calls(stage: Stage) -> int | None:
    """The most visits of agents that can be at work at once: their slots, and over all agents of one model no more than
    its `max_concurrency`. None when there is no agent."""
    slots: list[tuple[tuple[object, ...], int]] = []
    for leaf in leaves(stage):
        if leaf.calls:
            asked = leaf.resources()
            before = next((total for known, total in slots if known == asked), 0) if asked else 0
            slots = [entry for entry in slots if not asked or entry[0] != asked]
            slots.append((asked, before + leaf.concurrency))
    return sum(_within_limit(asked, total) for asked, total in slots) if slots else None


def _within_limit(asked: tuple[object, ...], total: int) -> int:
    """No more than the one model that is asked allows, if it sets a limit."""
    limit = getattr(asked[0], "max_concurrency", None) if len(asked) == 1 else None
    return min(total, limit) if isinstance(limit, int) else total


class Alive:
    """Counts how many items one item can be alive as.

    Each body is counted once, known by the names of its stages, which are unique in a pipeline: the ways to ask for a
    body that is nested deep are many.
    """

    def __init__(self) -> None:
        self._most: dict[tuple[str, ...], int] = {}
        self._left: dict[tuple[str, ...], int] = {}

    def multiplicity(self, stage: Stage) -> int:
        """The most items that one entering item can be alive as, itself included, in `stage`.

        It is in one stage of a chain at a time; in a composite it is held while its members are out. Members that a
        join did not wait for may be on their way out, in a visit that takes its time to end, while the item is further
        on.
        """
        parts = stage.parts()
        names = tuple(part.name for part in parts)
        if names not in self._most:
            self._most[names] = self._most_in(parts)
        return self._most[names]

    def _most_in(self, parts: Sequence[Stage]) -> int:
        most, held, factor = 1, 0, 1
        for part in parts:
            most = max(most, held + factor * part.multiplicity(self.multiplicity, self.left_behind))
            held += factor * self._left_by(part, in_body=False)
            if part.keeps:
                held += factor  # each entering item is held while what it became is out
                factor *= part.children
                most = max(most, held + factor)
        return most

    def left_behind(self, body: Stage) -> int:
        """The most items that a finished member can leave behind in `body`."""
        parts = body.parts()
        names = tuple(part.name for part in parts)
        if names not in self._left:
            self._left[names] = sum(self._left_by(part, in_body=True) for part in parts)
        return self._left[names]

    def _left_by(self, part: Stage, *, in_body: bool) -> int:
        """What an item can leave behind in one stage. At the top an item goes on only if it was joined; in a body one
        whose join failed early is a member that has ended, and what is around it goes on."""
        everything = part.multiplicity(self.multiplicity, self.left_behind) - 1
        several = everything > 1
        if part.leaves_behind or (in_body and several):
            return everything
        return part.multiplicity(self.left_behind, self.left_behind) - 1


def walk(stage: Stage) -> Iterator[Stage]:
    """Every stage of a pipeline that is wired, outermost first, in declaration order."""
    for part in stage.parts():
        yield part
        for body in part.bodies().values():
            yield from walk(body.stage)


def leaves(stage: Stage) -> Iterator[LeafStage]:
    """Every stage that has slots."""
    return (part for part in walk(stage) if isinstance(part, LeafStage))


def problems(stage: Stage, variables: Mapping[str, object] | None = None) -> tuple[Problem, ...]:
    """Find everything that keeps this pipeline from running with `variables`; None: they are not known."""
    names = {**COMMON_NAMES, "vars": _known(variables)}
    return (*clashes(stage), *_policies(stage), *_wrong(stage, names, in_body=False))


def _known(value: object) -> Fields | None:
    """What is known of the fields of a variable."""
    if not isinstance(value, Mapping):
        return None
    return {str(key): _known(inner) for key, inner in cast("Mapping[object, object]", value).items()}


def _policies(stage: Stage) -> Iterator[Problem]:
    """What is no `on_error`."""
    for written, _ in placed(stage):
        for part in written.parts():
            failing = getattr(part, "failing", None)
            policy = part.on_error if isinstance(part, LeafStage) else failing() if failing is not None else None
            wrong = [] if policy is None else list(policy_problems(written.name, policy))
            if wrong:
                yield from wrong
                break


def policy_problems(stage: str | None, policy: object) -> Iterator[Problem]:
    """What is wrong with an `on_error`."""
    if callable(policy):
        yield from function_problems(stage, "on_error", policy, given="the failure", at_once=True)
    elif policy not in ERROR_ACTIONS:
        right = ", ".join(ERROR_ACTIONS)
        yield Problem(stage, "on_error", f"must be one of {right}, or a function, got {policy!r}")


def _wrong(stage: Stage, available: Mapping[str, Fields | None], *, in_body: bool) -> Iterator[Problem]:
    """Check each part where it stands: its own options, its templates against the names in view, then its bodies."""
    names = dict(available)
    for part in stage.parts():
        yield from part.problems(in_body=in_body)
        for option, template in part.templates().items():
            for misuse in unknown_names(template, names):
                yield Problem(owner_of(part), option, misuse.message, misuse.hint)
        for body in part.bodies().values():
            seen = {"vars": names["vars"]} if body.alone else names
            yield from _wrong(body.stage, {**seen, **dict.fromkeys(sorted(body.names))}, in_body=True)
        if part.forgets:
            names = {"vars": names["vars"]}
        names.update(part.produces())


def stalls(stage: Stage, max_in_flight: int, ordered: bool) -> tuple[Problem, ...]:
    """Find where a run of this pipeline could wait for ever."""
    standing = Standing(False, (), max_in_flight, ordered, max_in_flight)
    return tuple(problem for part, at in _standing(stage, standing) for problem in part.stalls(at))


def doubts(stage: Stage, max_in_flight: int, ordered: bool) -> tuple[Problem, ...]:
    """Find what is legal and surely not meant."""
    standing = Standing(False, (), max_in_flight, ordered, max_in_flight)
    return tuple(problem for part, at in _standing(stage, standing) for problem in part.doubts(at))


def _standing(stage: Stage, at: Standing) -> Iterator[tuple[Stage, Standing]]:
    """Every stage that is wired, with where it stands."""
    for part in stage.parts():
        yield part, at
        for body in part.bodies().values():
            yield from _standing(body.stage, at._replace(in_body=True, most=at.most * body.copies))
        at = at._replace(before=(*at.before, part), most=at.most * part.children)
