"""One record in, many out: `flat_map`, on the top-level chain only."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, ClassVar, cast

import anyio
from anyio import BrokenResourceError, EndOfStream

from pipeline.core.decisions import decision_problems, read_decision
from pipeline.core.errors import CallsClosed, InvariantError, Problem, Skip
from pipeline.core.flat import FlatGroup
from pipeline.core.item import Item
from pipeline.core.splitting import parts_of
from pipeline.core.stage import Stage, Template
from pipeline.core.streams import Inbox, Outbox, hand_over
from pipeline.core.templates import Expression
from pipeline.core.visit import template_names
from pipeline.core.words import Field, Word
from stages.function import OUTPUT, Function, name_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from pipeline.core.machine import Machine
    from pipeline.core.scope import Scope


@dataclass(frozen=True)
class FlatMapStage(Stage):
    """Expands each item into children, pulled one at a time as the edge has room; at most `max_children` of an item
    are alive at once. Each child leaves a record `id#k` with its `parent`."""

    function: Function | Expression = list
    max_children: int = 1000

    functions: ClassVar[tuple[str, ...]] = ("function",)

    @property
    def children(self) -> int:
        return self.max_children

    @property
    def keeps(self) -> bool:
        return True

    @property
    def thins(self) -> bool:
        return True

    @property
    def against_submit(self) -> str | None:
        return f"{self.name!r} makes several records of one"

    def templates(self) -> Mapping[str, Template]:
        return {"value": self.function} if isinstance(self.function, Expression) else {}

    def problems(self, *, in_body: bool) -> tuple[Problem, ...]:
        found: list[Problem] = []
        if in_body:
            found.append(Problem(self.name, None, "flat_map can stand on the top-level chain only", "use scatter here"))
        if type(self.max_children) is not int or self.max_children < 1:
            text = f"must be a whole number of at least 1, got {self.max_children!r}"
            found.append(Problem(self.name, "max_children", text))
        return (*found, *decision_problems(self.name, None, self.function))

    async def run(self, inbox: Inbox, outbox: Outbox, scope: Scope) -> None:
        meter = scope.meter(self.name, 1)
        while True:
            asked = monotonic()
            try:
                item = await inbox.receive()
            except EndOfStream:
                return
            meter.waiting += monotonic() - asked
            item.frame.hops += 1
            if item.frame.revoked:
                item.frame.drop()
                continue
            meter.received += 1
            group = FlatGroup(self.name, item)
            try:
                await self._take(group, outbox, scope)
            except InvariantError:
                raise
            except BrokenResourceError:
                group.cut_short()
                return
            except BaseException:
                group.cut_short()
                raise

    async def _take(self, group: FlatGroup, outbox: Outbox, scope: Scope) -> None:
        """Expand one item. What its function raises leaves the children that are out, and one more that says it."""
        try:
            scope.machine.meters[self.name].emitted += await self._expand(group, outbox, scope.machine)
        except (InvariantError, BrokenResourceError):
            raise
        except Exception as error:
            await self._make_room(group)
            self._failed(group, error, scope)
        if not group.closed:
            group.finish_adding()

    def _failed(self, group: FlatGroup, error: Exception, scope: Scope) -> None:
        if group.closed:
            return
        meter, item = scope.machine.meters[self.name], group.item
        if isinstance(error, Skip):
            meter.skipped += 1
        elif not isinstance(error, CallsClosed):
            meter.failed += 1
        scope.fail(Item(item.value, item.state, group.add(), item.missing), error, self.name, None)

    async def _expand(self, group: FlatGroup, outbox: Outbox, machine: Machine) -> int:
        """Send the children out, and return how many there were."""
        item = group.item
        opened: AsyncGenerator[object] | None = None
        with anyio.CancelScope() as group.pulling:
            pure = isinstance(self.function, Expression)
            opened = await parts_of(partial(self._result, item), item, self.name, self.name, pure=pure)
        if group.closed or opened is None:  # its root ended early, perhaps while the function was waited for
            return 0
        group.pulling = None
        async with aclosing(opened) as parts:
            pulled: tuple[object, ...] | None = ()
            while not group.closed and (pulled := await machine.pulls.next(parts, group)):
                await self._make_room(group)
                if group.closed:
                    break
                (part,) = pulled
                await hand_over(outbox, Item(part, item.state.add_output(self.name, part), group.add(), item.missing))
        if pulled is None and machine.leaves_open:
            group.leave_open()
        return group.added

    async def _make_room(self, group: FlatGroup) -> None:
        """Wait until one more child may be alive, or none any more."""
        while group.alive >= self.max_children and not group.closed:
            group.room = anyio.Event()
            await group.room.wait()

    def _result(self, item: Item) -> object:
        function = self.function
        return function.evaluate(template_names(item)) if isinstance(function, Expression) else function(item.value)


def flat_map(
    function: Callable[..., object] | Expression | str, *, name: str | None = None, max_children: int = 1000
) -> FlatMapStage:
    """Expand each item into the members of what `function` gives for its payload, or an expression, which needs a
    `name`: a list, or an iterator, which may be async. Inside a composite use `scatter`, which joins its children
    again."""
    read = read_decision(function)
    return FlatMapStage(name or name_of("flat_map", read, OUTPUT), read, max_children)


def _from_file(name: str, *, value: Expression, max_children: int = 1000) -> FlatMapStage:
    return FlatMapStage(name, value, max_children)


WORD = Word(
    "flat_map",
    {
        "value": Field("decision", required=True, help='an expression that gives a list, or {call: "module:attr"}'),
        "max_children": Field("count", help="most children of an item alive at once"),
    },
    cast("Callable[..., object]", _from_file),
    "expands each item into several, each with a record of its own",
)
