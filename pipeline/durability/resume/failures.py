"""What roots that failed hold no more when they are opened again: what failed, and what a failure was made of.

A stage can fail with an answer that was good as far as its call was concerned: one that fits no schema, that was cut,
or that code after it refused. Asked with that answer again it fails again, so the answers of the visit that failed are
taken back, with all that was made of them within the root. What stages before it have said stays; of a loop the rounds
before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Final, NamedTuple, TypeAlias, cast

from pipeline.core.codec import decode
from pipeline.core.pipeline import Pipeline
from pipeline.core.replay import FAILED_AT
from pipeline.durability.disk.store import Store
from pipeline.durability.resume.downstream import BATCH, Downstream, downstream

Path: TypeAlias = tuple[str, ...]

#: What a group fails with because of its members, each of which has a failure of its own.
_OF_MEMBERS: Final = ("JoinFailed",)

_ROOTS: Final = "SELECT root FROM settled WHERE status = 'failed'"
#: that fail when the root is run again, whatever else is done
_ENDED_BADLY: Final = (
    "(kind = 'join' OR"
    " (kind = 'call' AND json_type(CAST(value AS TEXT), '$.error') IS NOT NULL) OR"
    " (kind = 'batched' AND json_extract(CAST(value AS TEXT), '$.status') = 'failed'))"
)
_FACTS: Final = (
    f"SELECT root, path, kind, ordinal, {_ENDED_BADLY}, CASE kind WHEN '{FAILED_AT}' THEN value END FROM fact"
    f" WHERE root IN ({_ROOTS}) ORDER BY root, path, kind, ordinal"
)


class Fact(NamedTuple):
    """One fact of a root that failed."""

    root: int
    text: str  #: its path, as it is written
    kind: str
    ordinal: int
    bad: bool  #: whether it is taken back for what it is
    failed_as: bytes | None  #: of the note of a failure: its type

    @property
    def path(self) -> Path:
        return tuple(cast("list[str]", decode(self.text.encode())))


def taken_back(store: Store, pipeline: Pipeline) -> Iterator[Fact]:
    """The facts that roots that failed hold no more."""

    @cache
    def found(name: str) -> Downstream:
        return downstream(pipeline, name) or Downstream(frozenset({name}))

    facts: list[Fact] = []
    for row in store.read(_FACTS):
        fact = Fact(*cast("tuple[int, str, str, int, bool, bytes | None]", row))
        if facts and facts[-1].root != fact.root:
            yield from _of_root(facts, found)
            facts = []
        facts.append(fact)
    yield from _of_root(facts, found)


def _of_root(facts: Sequence[Fact], found: Callable[[str], Downstream]) -> Iterator[Fact]:
    failures = list(_failures(facts, found))
    for fact in facts:
        if fact.bad or fact.kind == FAILED_AT or any(failure.spoils(fact.path, fact.kind) for failure in failures):
            yield fact


def _failures(facts: Sequence[Fact], found: Callable[[str], Downstream]) -> Iterator[Failed]:
    """The failures of which answers are to blame: not those whose last call failed, which is asked again by itself."""
    last = {fact.text: fact for fact in facts if fact.kind == "call"}
    for fact in facts:
        if fact.failed_as is None or decode(fact.failed_as) in _OF_MEMBERS:
            continue
        call = last.get(fact.text)
        if call is None or not call.bad:
            path = fact.path
            rounds = [each.path[len(path)] for each in facts if _is_round(each.path, path)]
            yield Failed(path, found(path[-1]), max(map(int, rounds), default=0))


def _is_round(path: Path, loop: Path) -> bool:
    return len(path) > len(loop) and path[: len(loop)] == loop and path[len(loop)].isdecimal()


@dataclass(frozen=True, slots=True)
class Failed:
    """A visit that failed: `path` as facts have it, composite and slot of every fold and then the stage."""

    path: Path
    after: Downstream  #: of the stage
    last_round: int = 0  #: if it is a loop that has used up its rounds

    def spoils(self, path: Path, kind: str) -> bool:
        """Whether what was written at `path` depends on what failed. Other members of its groups do not."""
        if BATCH in (path[:1] + self.path[:1]):
            return self.after.has(path, kind)
        for (name, slot), (own, failed) in zip(_steps(path), _steps(self.path), strict=False):
            if name != own:
                break
            if slot != failed:
                return name in self.after.loops and _later(slot, failed)
        own = len(self.path)
        if self.last_round and path[:own] == self.path and len(path) > own:
            return not path[own].isdecimal() or int(path[own]) >= self.last_round
        return replace(self.after, loops=frozenset()).has(path, kind)


def _steps(path: Path) -> Iterator[tuple[str, str]]:
    return (pair for number, pair in enumerate(pairwise(path)) if number % 2 == 0)


def _later(slot: str, failed: str) -> bool:
    return slot.isdecimal() and failed.isdecimal() and int(slot) > int(failed)
