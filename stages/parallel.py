"""The same item to several branches at once, joined by identity: the pattern of agents that work side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Never, cast

from pipeline.core.composite import Composite, CompositeRun, member, rejoin
from pipeline.core.decisions import function_problems
from pipeline.core.errors import DefinitionError, Problem
from pipeline.core.groups import Group, Joined
from pipeline.core.item import Item
from pipeline.core.joiner import Rules
from pipeline.core.joins import Join, JoinLike, OnTimeout, join_problems
from pipeline.core.names import Fields, join_names, suggestion
from pipeline.core.stage import Body, OnError, Stage, as_bodies
from pipeline.core.words import Field, Word
from stages.reducers import REDUCERS, Reducer, reduced

_TWO = "what has been reduced so far and one more output"


@dataclass(frozen=True)
class ParallelStage(Composite):
    """Every branch gets the item; its value is a mapping from label to output, in declaration order, without the
    missing; with `any` it is the winner's output. What branches write under a name that has a reducer comes out as one
    value of that name."""

    branches: tuple[tuple[str, Stage], ...]
    join: Join = Join()
    timeout: float | None = None
    on_timeout: OnTimeout | None = None
    on_error: OnError | None = None
    reducers: tuple[tuple[str, Reducer], ...] = ()

    def watched(self, watch: Callable[[Stage, object], object]) -> Stage:
        reducers = tuple((key, cast(Reducer, watch(self, reducer))) for key, reducer in self.reducers)
        return replace(self, join=self.join.watched(lambda function: watch(self, function)), reducers=reducers)

    def bodies(self) -> Mapping[str, Body]:
        shared = frozenset(key for key, _ in self.reducers)
        return {label: Body(stage, shared=shared) for label, stage in self.branches}

    def rules(self) -> Rules:
        return Rules(self.join, self.timeout, self.on_timeout)

    @property
    def leaves_behind(self) -> bool:
        return self.join.leaves_members or self.timeout is not None

    def failing(self) -> OnError | None:
        return self.on_error

    def produces(self) -> Mapping[str, Fields | None]:
        keys: dict[str, Fields | None] = dict.fromkeys(key for key, _ in self.reducers)
        if self.join == Join("first", 1):
            return {**keys, self.name: None}
        return {**keys, self.name: {label: last_fields(stage) for label, stage in self.branches}}

    def problems(self, *, in_body: bool) -> tuple[Problem, ...]:
        found: list[Problem] = []
        if not self.branches:
            found.append(Problem(self.name, "branches", "has no branch", "give at least one, as label=stages"))
        found += join_problems(self.name, self.join, len(self.branches), self.timeout, self.on_timeout)
        found += self._reducer_problems()
        return tuple(found)

    def _reducer_problems(self) -> Iterator[Problem]:
        outputs = [name for _, stage in self.branches for name in stage.produces()]
        for key, reducer in self.reducers:
            if callable(reducer):
                for wrong in function_problems(self.name, "reducers", reducer, given=_TWO, count=2, at_once=True):
                    yield replace(wrong, message=f"of {key!r} {wrong.message}", hint=_word_for(reducer) or wrong.hint)
            elif reducer not in REDUCERS:
                text = f"of {key!r} must be one of {', '.join(REDUCERS)}, or a function, got {reducer!r}"
                yield Problem(self.name, "reducers", text, suggestion(str(reducer), REDUCERS))
            if key not in outputs:
                text = f"no branch writes {key!r}; branches write: {join_names(dict.fromkeys(outputs))}"
                yield Problem(self.name, "reducers", text, suggestion(key, outputs))

    async def fan_out(self, item: Item, run: CompositeRun) -> None:
        group = Group(run.joiner, item)
        sends = [(label, member(item, group.add(label))) for label, _ in self.branches]
        group.finish_adding()
        await run.send(group, sends)

    def combine(self, group: Group, joined: Joined) -> Item | None:
        items = group.finished()
        if self.join == Join("first", 1):
            winner = next(iter(items.values()))
            return self._with_reduced(rejoin(group, self.name, winner.value, items, complete=True), items)
        complete = joined.verdict == "ok" and self.join.leaves_members
        return self._with_reduced(rejoin(group, self.name, self.gather(items), items, complete=complete), items)

    def _with_reduced(self, item: Item, items: Mapping[str, Item]) -> Item:
        """The joined item, with one value of what its branches wrote for each reducer."""
        state = item.state
        for key, reducer in self.reducers:
            writers = [label for label, stage in self.branches if label in items and key in stage.produces()]
            outputs = {label: items[label].state.outputs for label in writers}
            written = {label: found[key] for label, found in outputs.items() if key in found}
            state = state.add_output(key, reduced(key, reducer, written))
        return Item(item.value, state, item.frame, item.missing)


def _word_for(reducer: Callable[..., object]) -> str | None:
    """What was meant by a builtin that is called as one of the words is."""
    name = getattr(reducer, "__name__", "")
    return f"did you mean {name!r}?" if name in REDUCERS else None


def last_fields(stage: Stage) -> Fields | None:
    """What is known of the fields of the last output of `stage`."""
    produced = list(stage.produces().values())
    return produced[-1] if produced else None


def parallel(
    name: str = "parallel",
    /,
    *unlabelled: Never,
    join: JoinLike = "all",
    timeout: float | None = None,
    on_timeout: OnTimeout | None = None,
    on_error: OnError | None = None,
    reducers: Mapping[str, Reducer] | None = None,
    branches: Mapping[str, object] | None = None,
    **more: object,
) -> ParallelStage:
    """Send each item to every branch: `parallel("review", facts=agent(...), style=agent(...) | agent(...))`.

    `join` is "all", "any", `first(k)`, `quorum(k)`, `majority()`, or a pure function of the `Members` so far that
    returns "ok", "partial", "failed", or None for not yet. `timeout` seconds run from the first visit of the item in a
    branch, and `on_timeout` says whether what is done by then is enough. Branches whose label is no Python name, or is
    one of the options, go into `branches`.

    `reducers` names the outputs that several branches write, each with how they become one, in declaration order:
    `list`, `concat` (texts with a blank line between them, or lists), `merge` (mappings), `sum`, `first`, `last`, or a
    function of two. Branches that are missing are left out.
    """
    if unlabelled or not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        text = "begins with its name, and takes its branches by label"
        raise DefinitionError(Problem(None, "parallel", text, 'parallel("views", a=…, b=…)'))
    twice = sorted(set(branches or {}) & set(more))
    if twice:
        raise DefinitionError(Problem(name, "branches", f"{', '.join(twice)} given twice"))
    cases = as_bodies({**(branches or {}), **more})
    kept = tuple((reducers or {}).items())
    return ParallelStage(name, cases, Join.read(name, join), timeout, on_timeout, on_error, kept)


def _from_file(name: str, **values: object) -> ParallelStage:
    return parallel(name, **values)  # pyright: ignore[reportArgumentType]


WORD = Word(
    "parallel",
    {
        "branches": Field("bodies", required=True, help="label to list of stages; every one gets the item"),
        "join": Field("join", help="all, any, majority, {majority: key}, {first: k}, {quorum: k} or {call: …}"),
        "timeout": Field("duration", help="from the first visit of the item in a branch"),
        "on_timeout": Field("choice", choices=("fail", "partial"), help="whether what is done by then is enough"),
        "on_error": Field("choice", choices=("dead_letter", "skip", "fail"), help="when the join fails"),
        "reducers": Field("reducers", choices=REDUCERS, help="outputs that several branches write, and how they join"),
    },
    _from_file,
    "sends each item to several branches at once",
)
