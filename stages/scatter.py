"""Dynamic fan-out: a lead has planned, subagents work on the parts in parallel, a synthesis may follow.

A scatter is one or two stages in a row: the children, joined into a list of their outputs, and `gather`, a body over
that list.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

import anyio

from pipeline.core.composite import Composite, CompositeRun, rejoin
from pipeline.core.decisions import decision_problems, read_decision, whole
from pipeline.core.errors import Failure, ItemError, Problem, is_bug
from pipeline.core.groups import Group, Joined
from pipeline.core.item import Item
from pipeline.core.iteration import CUT
from pipeline.core.joiner import Rules
from pipeline.core.joins import Join, JoinLike, OnTimeout, join_problems
from pipeline.core.names import Fields
from pipeline.core.splitting import parts_of
from pipeline.core.stage import Body, OnError, Stage, Template, as_stage
from pipeline.core.streams import Inbox, Outbox
from pipeline.core.templates import Expression
from pipeline.core.visit import template_names
from pipeline.core.words import Field, Word

if TYPE_CHECKING:
    from pipeline.core.scope import Scope

Split: TypeAlias = Callable[[object], object] | Expression
OnExcess: TypeAlias = Literal["fail", "truncate"]


@dataclass(frozen=True)
class ScatterStage(Stage):
    """Splits an item into parts, each a member of its group. The value is `gather`'s output, or the list of outputs."""

    split: Split
    each: Stage
    gather: Stage | None = None
    join: Join = Join()
    timeout: float | None = None
    on_timeout: OnTimeout | None = None
    max_children: int = 64
    max_open: int | None = None
    on_excess: OnExcess = "fail"
    on_error: OnError | None = None

    def parts(self) -> tuple[Stage, ...]:
        children = ChildrenStage(self.name, self)
        return (
            (children,)
            if self.gather is None
            else (children, GatherStage(f"{self.name}.gather", self.gather, self.on_error, self.name))
        )

    def produces(self) -> Mapping[str, Fields | None]:
        return {self.name: None}

    async def run(self, inbox: Inbox, outbox: Outbox, scope: Scope) -> None:
        await scope.run_chain(self.parts(), inbox, outbox)


@dataclass(frozen=True)
class ChildrenStage(Composite):
    """The fan-out of a scatter: one member a part, in order; the value is the list of outputs, less the missing."""

    options: ScatterStage

    def watched(self, watch: Callable[[Stage, object], object]) -> Stage:
        join = self.options.join.watched(lambda function: watch(self, function))
        return replace(self, options=replace(self.options, split=watch(self, self.options.split), join=join))

    def bodies(self) -> Mapping[str, Body]:
        most = whole(self.options.max_children)
        copies = min(whole(self.options.max_open, most), most)
        return {"each": Body(self.options.each, frozenset({"part"}), copies, most, role="part")}

    def rules(self) -> Rules:
        return Rules(self.options.join, self.options.timeout, self.options.on_timeout)

    @property
    def leaves_behind(self) -> bool:
        return self.options.join.leaves_members or self.options.timeout is not None

    def failing(self) -> OnError | None:
        return self.options.on_error

    def templates(self) -> Mapping[str, Template]:
        return {"split": self.options.split} if isinstance(self.options.split, Expression) else {}

    def problems(self, *, in_body: bool) -> tuple[Problem, ...]:
        options = self.options
        found = [*decision_problems(self.name, "split", options.split)]
        for option, value in (("max_children", options.max_children), ("max_open", options.max_open)):
            if value is not None and (type(value) is not int or value < 1):
                found.append(Problem(self.name, option, f"must be a whole number of at least 1, got {value!r}"))
        if options.on_excess not in ("fail", "truncate"):
            found.append(Problem(self.name, "on_excess", f"must be fail or truncate, got {options.on_excess!r}"))
        most = whole(options.max_children, options.join.k)  # what is told already has no echo here
        found += join_problems(self.name, options.join, most, options.timeout, options.on_timeout)
        return tuple(found)

    def gather(self, items: Mapping[str, Item]) -> object:
        """The outputs of the children, in their order."""
        return [item.value for item in items.values()]

    async def fan_out(self, item: Item, run: CompositeRun) -> None:
        group = Group(run.joiner, item)
        await run.start_sender(group, self._send_children)

    async def _send_children(self, group: Group, run: CompositeRun) -> None:
        """Split the item of `group` and send the children out, as room allows."""
        options = self.options
        truncated = False
        try:
            async with aclosing(await self._parts(group.item)) as parts:
                await group.wait_as_before()
                while pulled := await run.scope.machine.pulls.next(parts, group):
                    if group.closed:
                        return
                    if len(group.members) >= options.max_children:
                        truncated = True
                        break
                    await self._send_child(group, run, pulled[0])
                    await group.wait_as_before()
        except Exception as error:
            if is_bug(error):
                raise
            if not group.closed:
                run.fail(group.item, error)
            return
        if truncated and options.on_excess == "fail":
            text = (
                f"split gave more than max_children {options.max_children} parts; raise it, or set on_excess: truncate"
            )
            group.fail(Failure.of(ItemError(text, type="TooManyChildren"), self.name))
            return
        if truncated:
            group.lack("rest", f"split gave more than max_children {options.max_children} parts")
        elif pulled is None and not group.closed:
            group.shortened = run.scope.machine.leaves_open
            group.lack("rest", CUT)
        group.finish_adding()

    async def _parts(self, item: Item) -> AsyncGenerator[object]:
        split = self.options.split
        give = partial(split_of, split, item)
        return await parts_of(give, item, self.name, "split", pure=isinstance(split, Expression))

    async def _send_child(self, group: Group, run: CompositeRun, part: object) -> None:
        most = self.options.max_open
        while most is not None and group.at_work >= most and not group.closed:
            group.room = anyio.Event()
            await group.room.wait()
        if group.closed:  # its credit may be gone, so nothing of it may come to life any more
            return
        item = group.item
        frame = group.add(str(len(group.members)), {"part": part})
        await run.send(group, [("each", Item(part, item.state, frame, item.missing))])

    def combine(self, group: Group, joined: Joined) -> Item | None:
        items = group.finished()
        complete = joined.verdict == "ok" and self.options.join.leaves_members
        return rejoin(group, self.name, self.gather(items), items, complete=complete)


@dataclass(frozen=True)
class GatherStage(Composite):
    """The synthesis of a scatter: a body over the list of outputs, which its templates see as `parts`."""

    body: Stage
    on_error: OnError | None
    output_key: str

    def produces(self) -> Mapping[str, Fields | None]:
        return {self.output_key: None}

    def bodies(self) -> Mapping[str, Body]:
        return {"gather": Body(self.body, frozenset({"parts"}), role="gather")}

    def failing(self) -> OnError | None:
        return self.on_error

    async def fan_out(self, item: Item, run: CompositeRun) -> None:
        group = Group(run.joiner, item)
        frame = group.add("gather", {"parts": item.value})
        group.finish_adding()
        await run.send(group, [("gather", Item(item.value, item.state, frame, item.missing))])

    def combine(self, group: Group, joined: Joined) -> Item | None:
        items = group.finished()
        for item in items.values():
            return rejoin(group, self.output_key, item.value, items, complete=False)
        return None


def split_of(split: Split, item: Item) -> object:
    """What `split` gives for an item; it may have to be awaited."""
    return split.evaluate(template_names(item)) if isinstance(split, Expression) else split(item.value)


def scatter(
    name: str,
    *,
    split: Callable[..., object] | Expression | str,
    each: object,
    gather: object | None = None,
    join: JoinLike = "all",
    timeout: float | None = None,
    on_timeout: OnTimeout | None = None,
    max_children: int = 64,
    max_open: int | None = None,
    on_excess: OnExcess = "fail",
    on_error: OnError | None = None,
) -> ScatterStage:
    """Split each item into parts and work on them in parallel.

    `scatter("dig", split="{{ plan.questions }}", each=agent("worker", ...))`

    `split` is a function of the payload alone or an expression; it gives a list, or an iterator, which may be async and
    is paused while `max_open` children are alive. `max_children` is the most that an item may have: more fails it,
    unless `on_excess="truncate"`, then it is partial. `join`, `timeout` and `on_timeout` are those of `parallel`.
    `gather` is a body over the children's outputs, `parts` in its templates.
    """
    return ScatterStage(
        name,
        read_decision(split),
        as_stage(each),
        None if gather is None else as_stage(gather),
        Join.read(name, join),
        timeout,
        on_timeout,
        max_children,
        max_open,
        on_excess,
        on_error,
    )


def _from_file(name: str, **values: object) -> ScatterStage:
    return scatter(name, **values)  # pyright: ignore[reportArgumentType]


WORD = Word(
    "scatter",
    {
        "split": Field("decision", required=True, help="an expression that gives a list, or {call: …}"),
        "each": Field("body", required=True, help="stages that work on one part"),
        "gather": Field("body", help="stages over the list of outputs, `parts`"),
        "join": Field("join", help="all, any, majority, {majority: key}, {first: k}, {quorum: k} or {call: …}"),
        "timeout": Field("duration", help="from the first visit of a child"),
        "on_timeout": Field("choice", choices=("fail", "partial"), help="whether what is done by then is enough"),
        "max_children": Field("count", help="most parts an item may have"),
        "max_open": Field("count", help="most parts at work at once, an item"),
        "on_excess": Field("choice", choices=("fail", "truncate"), help="when there are more"),
        "on_error": Field("choice", choices=("dead_letter", "skip", "fail"), help="when the join fails"),
    },
    _from_file,
    "splits an item into parts that are worked on in parallel",
)
