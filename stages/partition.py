"""One at a time for each key, in order of arrival: for whatever must not overtake itself, such as the turns of a chat.

A later item of a busy key parks, with its credit, until the one before it has left the body; other keys go by. Keys are
found as they come, so a slow one holds up nobody but itself, and there are never more than the window has roots.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Never, TypeAlias

from pipeline.core.asking import ask
from pipeline.core.composite import Composite, CompositeRun, member
from pipeline.core.decisions import decision_problems, read_decision
from pipeline.core.errors import DefinitionError, ItemError, Problem
from pipeline.core.groups import Group
from pipeline.core.item import Frame, Item
from pipeline.core.names import Fields
from pipeline.core.remains import Remains
from pipeline.core.stage import Body, OnError, Stage, Template, as_stage
from pipeline.core.templates import Expression
from pipeline.core.visit import template_names
from pipeline.core.words import Field, Word
from stages.parallel import last_fields

if TYPE_CHECKING:
    from pipeline.core.scope import Scope

Key: TypeAlias = Callable[[object], object] | Expression

_BODY = "body"


class Keyed(Group):
    """One item in the body, or parked in front of it. What can change beyond a group's: `inside`."""

    __slots__ = ("inside", "key", "lines")

    def __init__(self, run: CompositeRun, item: Item, key: Hashable, lines: Lines) -> None:
        super().__init__(run.joiner, item)
        self.key = key
        self.lines = lines
        self.inside = False

    def enter(self) -> Item:
        """Open the body to this item: what is to be sent in."""
        self.inside = True
        frame = self.add(_BODY)
        frame.keeper = Remains(frame.keeper, self.leave)
        self.finish_adding()
        return member(self.item, frame)

    def leave(self) -> None:
        """Nothing of the item is left in the body."""
        self.lines.next_after(self)

    def waits_for(self) -> tuple[str, Frame] | None:
        """What parks this item, for `Run.wait_chain`: the one of the same key that is in the body."""
        first = self.lines.first(self.key)
        if self.inside or first is None or first is self:
            return None
        return "the item of its key that is in the body has left it", first.item.frame

    def revoke(self) -> None:
        super().revoke()
        if not self.inside:
            self.lines.unpark(self)


class Lines:
    """The items of each busy key in one run: the first is in the body, the others are parked in order of arrival."""

    def __init__(self, run: CompositeRun) -> None:
        self._run = run
        self._busy: dict[Hashable, dict[Keyed, None]] = {}

    @property
    def parked(self) -> int:
        """How many wait for the one before them."""
        return sum(len(line) - 1 for line in self._busy.values())

    def join(self, group: Keyed) -> bool:
        """Stand in line. True when it is this item's turn already."""
        line = self._busy.setdefault(group.key, {})
        line[group] = None
        return len(line) == 1

    def first(self, key: Hashable) -> Keyed | None:
        """The item of a key whose turn it is."""
        return next(iter(self._busy.get(key, ())), None)

    def unpark(self, group: Keyed) -> None:
        """Leave the line from wherever it stands."""
        self._busy[group.key].pop(group, None)

    def next_after(self, group: Keyed) -> None:
        """`group` has left the body: let in the next of its key, or forget the key."""
        line = self._busy[group.key]
        del line[group]
        if line:
            following = next(iter(line))
            self._run.feedback.put(_BODY, following.enter(), following)
        else:
            del self._busy[group.key]


class PartitionRun(CompositeRun):
    """A partition in one run."""

    stage: PartitionStage

    def __init__(self, stage: PartitionStage, scope: Scope) -> None:
        super().__init__(stage, scope)
        self.lines = Lines(self)

    @property
    def parked(self) -> int:
        return super().parked + self.lines.parked

    async def fan_out(self, item: Item) -> None:
        key = await key_of(self.stage.key, item, self.stage.name)
        if item.frame.revoked:  # while its key was waited for
            item.frame.drop()
            return
        group = Keyed(self, item, key, self.lines)
        if self.lines.join(group):
            await self.send(group, [(_BODY, group.enter())])


@dataclass(frozen=True)
class PartitionStage(Composite):
    """Sends items through its body, those of equal keys one at a time and in order of arrival."""

    body: Stage
    key: Key
    on_error: OnError | None = None

    functions: ClassVar[tuple[str, ...]] = ("key",)

    @property
    def feeds_back(self) -> bool:
        return True

    @property
    def thins(self) -> bool:
        return True

    def bodies(self) -> Mapping[str, Body]:
        return {_BODY: Body(self.body, role="line")}

    def templates(self) -> Mapping[str, Template]:
        return {"key": self.key} if isinstance(self.key, Expression) else {}

    def failing(self) -> OnError | None:
        return self.on_error

    def problems(self, *, in_body: bool) -> tuple[Problem, ...]:
        return tuple(decision_problems(self.name, "key", self.key))

    def produces(self) -> Mapping[str, Fields | None]:
        return {self.name: last_fields(self.body)}

    def in_run(self, scope: Scope) -> CompositeRun:
        return PartitionRun(self, scope)


async def key_of(key: Key, item: Item, stage: str) -> Hashable:
    """What `key` says of an item. Raises `ItemError` for what cannot be a key."""
    found = key.evaluate(template_names(item)) if isinstance(key, Expression) else await ask(key, item, stage, "key")
    try:
        hash(found)
    except TypeError:
        text = f"the key of {stage!r} has to be text, a number or the like, got {type(found).__name__}"
        raise ItemError(text, type="BadKey") from None
    return found


def partition_by(
    key: Callable[..., object] | Expression | str,
    body: object,
    /,
    *misplaced: Never,
    name: str = "partition",
    on_error: OnError | None = None,
) -> PartitionStage:
    """One item of a key in `body` at a time, in order of arrival: `partition_by("{{ input.user }}", agent(...))`.

    `key` is a function of the payload alone, which may be async, or an expression. Items of other keys go by, as many
    at once as the body's stages allow. They come out in order of arrival for each key.
    """
    if misplaced:
        text = "begins with its key and its body, and takes its name as name="
        raise DefinitionError(Problem(None, "partition_by", text, 'partition_by(key, body, name="turns")'))
    return PartitionStage(name, as_stage(body), read_decision(key), on_error)


def _from_file(name: str, *, key: Key, body: Stage, **values: object) -> PartitionStage:
    return partition_by(key, body, name=name, **values)  # pyright: ignore[reportArgumentType]


WORD = Word(
    "partition_by",
    {
        "key": Field("decision", required=True, help="an expression, or {call: …}"),
        "body": Field("body", required=True, help="stages that see one item of a key at a time"),
        "on_error": Field("choice", choices=("dead_letter", "skip", "fail"), help="when the body fails"),
    },
    _from_file,
    "keeps the items of a key in order, one at a time",
)
