"""The same item to several branches at once, joined by identity: the pattern of agents that work side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.core.composite import Composite, CompositeRun, member, rejoin
from pipeline.core.errors import DefinitionError, Problem
from pipeline.core.groups import Group, Joined
from pipeline.core.item import Item
from pipeline.core.joiner import Rules
from pipeline.core.joins import Join, OnTimeout, join_problems
from pipeline.core.names import Fields
from pipeline.core.stage import Body, OnError, Stage, as_bodies
from pipeline.core.words import Field, Word


@dataclass(frozen=True)
class ParallelStage(Composite):
    """Every branch gets the item; its value is a mapping from label to output, in declaration order, without the
    missing; with `any` it is the winner's output."""

    branches: tuple[tuple[str, Stage], ...]
    join: Join = Join()
    timeout: float | None = None
    on_timeout: OnTimeout | None = None
    on_error: OnError | None = None

    def bodies(self) -> Mapping[str, Body]:
        return {label: Body(stage) for label, stage in self.branches}

    def rules(self) -> Rules:
        return Rules(self.join, self.timeout, self.on_timeout)

    @property
    def leaves_behind(self) -> bool:
        return self.join.rule == "first" or self.timeout is not None

    def failing(self) -> OnError | None:
        return self.on_error

    def produces(self) -> Mapping[str, Fields | None]:
        if self.join == Join("first", 1):
            return {self.name: None}
        return {self.name: {label: last_fields(stage) for label, stage in self.branches}}

    def problems(self, *, in_body: bool) -> tuple[Problem, ...]:
        found: list[Problem] = []
        if not self.branches:
            found.append(Problem(self.name, "branches", "has no branch", "give at least one, as label=stages"))
        found += join_problems(self.name, self.join, len(self.branches), self.timeout, self.on_timeout)
        return tuple(found)

    async def fan_out(self, item: Item, run: CompositeRun) -> None:
        group = Group(run.joiner, item)
        sends = [(label, member(item, group.add(label))) for label, _ in self.branches]
        group.finish_adding()
        await run.send(group, sends)

    def combine(self, group: Group, joined: Joined) -> Item | None:
        items = group.finished()
        if self.join == Join("first", 1):
            winner = next(iter(items.values()))
            return rejoin(group, self.name, winner.value, items, complete=True)
        return rejoin(
            group, self.name, self.gather(items), items, complete=joined.verdict == "ok" and self.join.rule == "first"
        )


def last_fields(stage: Stage) -> Fields | None:
    """What is known of the fields of the last output of `stage`."""
    produced = list(stage.produces().values())
    return produced[-1] if produced else None


def parallel(
    name: str = "parallel",
    /,
    *,
    join: Join | str = "all",
    timeout: float | None = None,
    on_timeout: OnTimeout | None = None,
    on_error: OnError | None = None,
    branches: Mapping[str, object] | None = None,
    **more: object,
) -> ParallelStage:
    """Send each item to every branch: `parallel("review", facts=agent(...), style=agent(...) | agent(...))`.

    `join` is "all", "any", `first(k)` or `quorum(k)`; `timeout` seconds run from the first visit of the item in a
    branch, and `on_timeout` says whether what is done by then is enough. Branches whose label is no Python name, or is
    one of the options, go into `branches`.
    """
    twice = sorted(set(branches or {}) & set(more))
    if twice:
        raise DefinitionError(Problem(name, "branches", f"{', '.join(twice)} given twice"))
    cases = as_bodies({**(branches or {}), **more})
    return ParallelStage(name, cases, Join.of(join), timeout, on_timeout, on_error)


def _from_file(name: str, *, join: tuple[str, int | None] = ("all", None), **values: object) -> ParallelStage:
    rule, k = join
    return parallel(name, join=Join(rule, k or 0), **values)  # pyright: ignore[reportArgumentType]


WORD = Word(
    "parallel",
    {
        "branches": Field("bodies", required=True, help="label to list of stages; every one gets the item"),
        "join": Field("join", help="all, any, {first: k} or {quorum: k}"),
        "timeout": Field("duration", help="from the first visit of the item in a branch"),
        "on_timeout": Field("choice", choices=("fail", "partial"), help="whether what is done by then is enough"),
        "on_error": Field("choice", choices=("dead_letter", "skip", "fail"), help="when the join fails"),
    },
    _from_file,
    "sends each item to several branches at once",
)
