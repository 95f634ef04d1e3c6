"""Many parts, one result, little memory: an item is split, a body works on each part, and the outputs are folded in one
after the other.

Unlike a scatter it keeps no output: it is folded in as soon as those before it have been, and a part is only begun when
fewer than `max_open` of them are out or wait for their turn. So ten thousand parts take no more memory than `max_open`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import aclosing
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Never, TypeAlias, cast

import anyio

from pipeline.core.composite import Composite, CompositeRun, rejoin
from pipeline.core.decisions import decision_problems, read_decision, whole
from pipeline.core.errors import DefinitionError, ItemError, Problem, is_bug
from pipeline.core.groups import Group, Joined
from pipeline.core.item import Frame, Item, Missing, Outcome
from pipeline.core.iteration import CUT
from pipeline.core.names import Fields, unknown_names
from pipeline.core.splitting import parts_of
from pipeline.core.stage import Body, OnError, Stage, Template, as_stage
from pipeline.core.templates import Expression
from pipeline.core.words import Field, Word
from stages.scatter import Split, split_of

Reduce: TypeAlias = Callable[[object, object], object] | Expression

_BODY = "each"


class Folding(Group):
    """The parts of one item. What can change beyond a group's: `total`, what is folded in so far; `folded`, how many
    parts that are; `added`; `lacks`."""

    __slots__ = ("added", "folded", "lacks", "run", "stage", "total")

    def __init__(self, stage: MapReduceStage, run: CompositeRun, item: Item) -> None:
        super().__init__(run.joiner, item)
        self.stage = stage
        self.run = run
        self.total: object = deepcopy(stage.initial)
        self.added = 0
        self.folded = 0
        self.lacks: tuple[Missing, ...] = item.missing

    @property
    def full(self) -> bool:
        """As many parts as may be are out, or wait for those before them."""
        out = self.added - self.folded if self.replay is None else self.at_work
        return out >= self.stage.max_open

    @property
    def alone(self) -> bool:
        return self.added <= 1

    @property
    def past(self) -> int:
        return self.folded

    def next_part(self, part: object) -> Frame:
        frame = self.add(str(self.added), {"part": part})
        self.added += 1
        return frame

    def finished(self) -> dict[str, Item]:
        """Nothing: what has not been folded in is not kept, whoever of the others was faster."""
        return {}

    def noted(self, outcome: Outcome) -> None:
        try:
            self._fold()
        except Exception as error:
            if is_bug(error):
                raise
            if self.replay is None:  # else it is part of what was decided
                self.run.fail(self.item, error)

    def _fold(self) -> None:
        """Fold in what has ended, up to the first part that has not; one that failed stays, to end the group."""
        while (outcome := self.outcomes.get(str(self.folded))) is not None:
            if outcome.status in ("failed", "cancelled"):
                return
            del self.outcomes[str(self.folded)], self.members[str(self.folded)]
            self.folded += 1
            if outcome.item is not None and outcome.status != "skipped":
                self.lacks += tuple(lack for lack in outcome.item.missing if lack not in self.lacks)
                self.total = self.stage.reduced(self.total, outcome.item.value)


@dataclass(frozen=True)
class MapReduceStage(Composite):
    """Splits an item, works on the parts, and folds their outputs into one value, in the order of the parts."""

    split: Split
    each: Stage
    reduce: Reduce
    initial: object = field(hash=False)
    max_open: int = 64
    max_children: int = 100_000
    on_error: OnError | None = None

    functions: ClassVar[tuple[str, ...]] = ("split",)  # what `reduce` changes is its own

    def bodies(self) -> Mapping[str, Body]:
        most = whole(self.max_children)
        copies = min(whole(self.max_open), most)
        return {_BODY: Body(self.each, frozenset({"part"}), copies, most, role="part")}

    def templates(self) -> Mapping[str, Template]:
        return {"split": self.split} if isinstance(self.split, Expression) else {}

    def failing(self) -> OnError | None:
        return self.on_error

    def produces(self) -> Mapping[str, Fields | None]:
        return {self.name: None}

    def problems(self, *, in_body: bool) -> tuple[Problem, ...]:
        found = [*decision_problems(self.name, "split", self.split)]
        given = "the total and an output"
        found += decision_problems(self.name, "reduce", self.reduce, given=given, count=2, at_once=True)
        try:
            deepcopy(self.initial)
        except Exception as error:
            text = f"is copied for each item, and this one cannot be: {error}"
            found.append(Problem(self.name, "initial", text))
        if in_body:
            text = "map_reduce can stand on the top-level chain only"
            found.append(Problem(self.name, None, text, "use scatter here, whose gather sees all outputs at once"))
        for option, value in (("max_open", self.max_open), ("max_children", self.max_children)):
            if type(value) is not int or value < 1:
                found.append(Problem(self.name, option, f"must be a whole number of at least 1, got {value!r}"))
        if isinstance(self.reduce, Expression):
            found += (
                Problem(self.name, "reduce", misuse.message, misuse.hint)
                for misuse in unknown_names(self.reduce, {"total": None, "value": None})
            )
        return tuple(found)

    def reduced(self, total: object, value: object) -> object:
        """The total with one more output folded in."""
        if isinstance(self.reduce, Expression):
            return self.reduce.evaluate({"total": total, "value": value})
        return self.reduce(total, value)

    async def fan_out(self, item: Item, run: CompositeRun) -> None:
        await run.start_sender(Folding(self, run, item), self._send_parts)

    async def _send_parts(self, group: Folding, run: CompositeRun) -> None:
        try:
            give, pure = partial(split_of, self.split, group.item), isinstance(self.split, Expression)
            async with aclosing(await parts_of(give, group.item, self.name, "split", pure=pure)) as parts:
                await group.wait_as_before()
                while pulled := await run.scope.machine.pulls.next(parts, group):
                    await self._send_part(group, run, pulled[0])
                    if group.closed:
                        return
                    await group.wait_as_before()
        except Exception as error:
            if is_bug(error):
                raise
            if not group.closed:
                run.fail(group.item, error)
            return
        if pulled is None:
            group.shortened = run.scope.machine.leaves_open
            group.lacks += (Missing(f"{self.name}.rest", CUT),)
        group.finish_adding()

    async def _send_part(self, group: Folding, run: CompositeRun, part: object) -> None:
        if group.added >= self.max_children:
            text = f"split gave more than max_children {self.max_children} parts; raise it"
            raise ItemError(text, type="TooManyChildren")
        while group.full and not group.closed:
            group.room = anyio.Event()
            await group.room.wait()
        if not group.closed:
            item = group.item
            await run.send(group, [(_BODY, Item(part, item.state, group.next_part(part), item.missing))])

    def combine(self, group: Group, joined: Joined) -> Item | None:
        folded = cast("Folding", group)
        item = rejoin(folded, self.name, folded.total, {}, complete=True)
        return item._replace(missing=folded.lacks)


def map_reduce(
    each: object,
    /,
    *misplaced: Never,
    split: Callable[..., object] | Expression | str,
    reduce: Callable[[Any, Any], object] | Expression | str,
    initial: object,
    name: str = "map_reduce",
    max_open: int = 64,
    max_children: int = 100_000,
    on_error: OnError | None = None,
) -> MapReduceStage:
    """Work on many parts of an item and fold the outputs into one: a book, its chapters, one summary.

    `map_reduce(agent("chapter", ...), split=chapters, reduce="{{ total + [value] }}", initial=[])`

    `split`, a function of the payload alone or an expression, gives the parts, as a list or an iterator, which may be
    async and is paused while `max_open` of them are out or wait to be folded in. `reduce(total, value)` is a plain
    function, or an expression over those two names, and gets the outputs in the order of the parts, whatever the
    timing; `initial` is what it begins with, copied for each item. A part that fails fails the item; one that is
    skipped (`on_error="skip"` in the body) is left out. The messages of the parts are not kept.
    """
    if misplaced or isinstance(each, str):
        text = "begins with its body, and takes its name as name="
        right = 'map_reduce(each, split=…, reduce=…, initial=…, name="notes")'
        raise DefinitionError(Problem(None, "map_reduce", text, right))
    return MapReduceStage(
        name,
        read_decision(split),
        as_stage(each),
        read_decision(reduce),
        initial,
        max_open,
        max_children,
        on_error,
    )


def _from_file(name: str, *, each: Stage, **values: object) -> MapReduceStage:
    return map_reduce(each, name=name, **values)  # pyright: ignore[reportArgumentType]


WORD = Word(
    "map_reduce",
    {
        "split": Field("decision", required=True, help="an expression that gives a list, or {call: …}"),
        "each": Field("body", required=True, help="stages that work on one part"),
        "reduce": Field("decision", required=True, help="an expression over `total` and `value`, or {call: …}"),
        "initial": Field("any", required=True, help="the total that the first output is folded into"),
        "max_open": Field("count", help="most parts out, or waiting to be folded in, an item"),
        "max_children": Field("count", help="most parts an item may have"),
        "on_error": Field("choice", choices=("dead_letter", "skip", "fail"), help="when a part fails"),
    },
    _from_file,
    "splits an item into many parts and folds their outputs into one value",
)
