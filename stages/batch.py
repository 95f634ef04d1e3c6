"""Several items at once: for what is cheaper by the dozen, such as one call that judges twenty answers.

With a body it is a bracket: the items go in as one list, the body gives one result each, and every item goes on under
its own lineage. Without one it collapses them: the list goes on as one item, and leaves one record.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Never, TypeAlias

from pipeline.core.asking import ask
from pipeline.core.batches import Batch, Member, id_of, yielding
from pipeline.core.collapse import Collapse, end_with
from pipeline.core.composite import Composite, CompositeRun
from pipeline.core.deadlines import Deadlines
from pipeline.core.decisions import decision_problems, read_decision
from pipeline.core.errors import DefinitionError, Failure, ItemError, Problem
from pipeline.core.events import BatchFlushed, Trigger
from pipeline.core.item import Frame, Item, Missing, Outcome
from pipeline.core.replay import NOT_KEPT
from pipeline.core.reunion import Ending, Membership, end_before, keep_end, membership_before
from pipeline.core.stage import Body, OnError, Stage, Standing, Template, as_stage
from pipeline.core.templates import Expression
from pipeline.core.time_limit import is_duration
from pipeline.core.visit import template_names
from pipeline.core.words import Field, Word
from stages.partition import Key, key_of

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from pipeline.core.scope import Scope

Weight: TypeAlias = Callable[[object], object] | Expression

_BODY = "body"

#: seconds that the members of a batch wait for each other at least when it is made again after a crash
REUNION_SECONDS = 5.0


class Bracket(Batch):
    """A batch whose members go on by themselves, each with its result."""

    __slots__ = ("run",)

    def __init__(self, run: BatchRun, key: Hashable) -> None:
        super().__init__(run.stage.name, key, run.forget)
        self.run = run

    def resolved(self, frame: Frame, outcome: Outcome) -> None:
        if self.closed:
            return
        members = self.conclude()
        self.run.joiner.closed(self)
        shares = self._share_out(frame)
        ends = self._ends(members, outcome)
        for member, end in zip(members, ends, strict=True):  # all of them before anybody goes on
            self.run.keep(member.item, end, shares[member])
        for member, end in zip(members, ends, strict=True):
            self.run.go_on(member.item, end)

    def _share_out(self, frame: Frame) -> dict[Member, object]:
        """Charge what was used for the batch to its members in equal parts; the remainders go to the first ones. One
        that has left has a part too, which is in no record: when it left changes nothing for the others. Returns what
        the journal says of each part."""
        shares: dict[Member, object] = {}
        for place, member in enumerate(self.places):
            share = frame.account.share(place, len(self.places))
            shares[member] = share.stored()
            share.hand_over(member.item.frame.account)
        return shares

    def missing(self) -> tuple[Missing, ...]:
        """Nothing: what a member had to do without before is its own, and not that of the others."""
        return ()

    def _ends(self, members: list[Member], outcome: Outcome) -> list[Ending]:
        """How each member ends: with its result, or as the batch did."""
        if outcome.status not in ("ok", "partial") or outcome.item is None:
            return [Ending(outcome.status, failure=outcome.failure)] * len(members)
        item = outcome.item
        results, count = item.value, len(self.places)
        if not isinstance(results, list | tuple) or len(results) != count:  # pyright: ignore[reportUnknownArgumentType]
            given = f"{len(results)}" if isinstance(results, list | tuple) else f"one {type(results).__name__}"  # pyright: ignore[reportUnknownArgumentType]
            text = f"the body has to give a list of {count} results, got {given}; a map at its end can make the list"
            error = ItemError(text, type="WrongResults")
            return [Ending("failed", failure=Failure.of(error, self.label))] * len(members)
        place = {member: number for number, member in enumerate(self.places)}
        return [Ending("ok", results[place[member]], item.missing) for member in members]  # pyright: ignore[reportUnknownArgumentType]


class BatchRun(CompositeRun):
    """A batch stage in one run. What can change: `filling`, the batches that take items in, one a key."""

    stage: BatchStage

    def __init__(self, stage: BatchStage, scope: Scope) -> None:
        super().__init__(stage, scope)
        self.filling: dict[Hashable, Batch] = {}
        self.reunions: dict[Membership, Batch] = {}
        self._flushed = 0
        self._clock: Deadlines[Batch] | None = None
        if stage.within is not None:
            self._clock = Deadlines(stage.within, lambda batch: self.flush(batch, "time"))
        self._patience: Deadlines[Batch] | None = None
        if scope.machine.journal is not None:
            longest = max(REUNION_SECONDS, stage.within or 0.0)
            self._patience = Deadlines(longest, lambda batch: self.flush(batch, "time"))

    @property
    def parked(self) -> int:
        return super().parked + sum(len(batch.members) for batch in self._waiting())

    def _waiting(self) -> tuple[Batch, ...]:
        return (*self.filling.values(), *self.reunions.values())

    async def fan_out(self, item: Item) -> None:
        stage = self.stage
        if (end := end_before(item, stage.name)) is not None:
            self._end_as_before(item, end)
            return
        key = None if stage.key is None else await key_of(stage.key, item, stage.name)
        weight = 1.0 if stage.weight is None else await weight_of(stage.weight, item, stage.name)
        if item.frame.revoked:  # while its key or weight was waited for
            item.frame.drop()
        elif (before := membership_before(item, stage.name)) is not None:
            self._reunite(item, before, weight)
        else:
            self.add(item, key, weight)

    def _end_as_before(self, item: Item, end: Ending) -> None:
        """Let an item go on that had its result in an earlier run."""
        if self.stage.body is not None:
            self.go_on(item, end)
            return
        yielding(item.frame).no_more(item.frame)
        end_with(item.frame, end.status)

    def _reunite(self, item: Item, before: Membership, weight: float) -> None:
        """Put `item` into the batch that it was in before. It goes when all are there, or, without those who cannot
        come any more, when it has waited long enough."""
        batch = self.reunions.get(before)
        if batch is None:
            batch = self.reunions[before] = self._make(before)
            batch.before = before
            if self._patience is not None:
                self._patience.start(batch)
        batch.add(item, weight)
        if batch.reunited:
            self.flush(batch, "size")

    def keep(self, item: Item, end: Ending, used: object) -> None:
        """Write how a member ends, for a run that comes to it when the others are not there any more."""
        if (
            item.frame.root.page is not None
            and end.status != "cancelled"
            and not keep_end(item, self.stage.name, end, used)
        ):
            remarks = self.scope.machine.remarks
            remarks[NOT_KEPT] = remarks.get(NOT_KEPT, 0) + 1

    def go_on(self, item: Item, end: Ending) -> None:
        """Send a member on with its result, or end it."""
        if end.status == "ok":
            lacks = tuple(lack for lack in end.missing if lack not in item.missing)
            self.joiner.emit(item.output(self.stage.name, end.value)._replace(missing=item.missing + lacks))
        elif end.status == "failed" and end.failure is not None:
            self.reject(item, end.failure)
        else:
            item.frame.resolve(Outcome(end.status, item))

    def start(self, tasks: TaskGroup) -> None:
        if self._clock is not None:
            tasks.start_soon(self._clock.run)
        if self._patience is not None:
            tasks.start_soon(self._patience.run)
        self.scope.machine.at_drain.append(self._flush_for_drain)

    def input_ended(self) -> None:
        self._flush_all("end")

    def end(self) -> None:
        self.scope.machine.at_drain.remove(self._flush_for_drain)
        if self._clock is not None:
            self._clock.close()
        if self._patience is not None:
            self._patience.close()

    def add(self, item: Item, key: Hashable, weight: float) -> None:
        """Put `item` into the batch of its key. One that would become too heavy by it goes first."""
        size, batch = self.stage.size, self.filling.get(key)
        if batch is not None and batch.weight + weight > size:
            self.flush(batch, "size")
            batch = None
        if batch is None:
            batch = self.filling[key] = self._make(key)
            if self._clock is not None:
                self._clock.start(batch)
        batch.add(item, weight)
        if batch.weight >= size:
            self.flush(batch, "size")

    def _make(self, key: Hashable) -> Batch:
        batch = Bracket(self, key) if self.stage.body is not None else Collapse(self.stage.name, key, self.forget)
        self.joiner.opened(batch)
        return batch

    def flush(self, batch: Batch, trigger: Trigger) -> None:
        """Send a batch on, full or not."""
        self._close(batch)
        if self.scope.machine.listening:
            ids = tuple(id_of(member.item.frame) for member in batch.members)
            event = BatchFlushed(batch.label, ids, batch.weight, trigger)
            self.scope.machine.emit(event)
        item = batch.seal(self._flushed)
        self._flushed += 1
        if isinstance(batch, Bracket):
            self.feedback.put(_BODY, item, batch)
        else:
            self.joiner.closed(batch)
            self.joiner.emit(item)

    def forget(self, batch: Batch) -> None:
        """A batch has vanished: all its members have left, or it is torn down."""
        self._close(batch)
        if batch in self.joiner.groups:
            self.joiner.closed(batch)

    def reject(self, item: Item, failure: Failure) -> None:
        """Fail one member."""
        self.scope.conclude(item, failure, self.stage.failing())

    def _close(self, batch: Batch) -> None:
        if self.filling.get(batch.key) is batch:
            del self.filling[batch.key]
        if batch.before is not None:
            self.reunions.pop(batch.before, None)
        clock = self._clock if batch.before is None else self._patience
        if clock is not None:
            clock.stop(batch)

    def _flush_all(self, trigger: Trigger) -> None:
        """Send on what is not full; what a resume will do is left to it, so that it fills as if nothing had been."""
        for batch in self._waiting():
            if self.scope.machine.leaves_open:
                batch.abandon()
            else:
                self.flush(batch, trigger)

    def _flush_for_drain(self) -> None:
        self._flush_all("drain")


@dataclass(frozen=True)
class BatchStage(Composite):
    """Gathers items until they are `size`, or weigh that much, or the first of them has waited `within` seconds."""

    body: Stage | None
    size: int
    within: float | None = 1.0
    weight: Weight | None = None
    key: Key | None = None
    on_error: OnError | None = None

    functions: ClassVar[tuple[str, ...]] = ("weight", "key")

    @property
    def feeds_back(self) -> bool:
        return self.body is not None

    @property
    def keeps(self) -> bool:
        return self.body is None

    @property
    def forgets(self) -> bool:
        return self.body is None

    @property
    def thins(self) -> bool:
        return True

    @property
    def against_submit(self) -> str | None:
        if self.body is None:
            return f"{self.name!r} makes one record of several"
        return f"{self.name!r} has no `within`, so it may wait for ever for more" if self.within is None else None

    def bodies(self) -> Mapping[str, Body]:
        return {} if self.body is None else {_BODY: Body(self.body, frozenset({"parts"}), alone=True, role="batch")}

    def templates(self) -> Mapping[str, Template]:
        options = {"weight": self.weight, "key": self.key}
        return {option: value for option, value in options.items() if isinstance(value, Expression)}

    def failing(self) -> OnError | None:
        return self.on_error

    def in_run(self, scope: Scope) -> CompositeRun:
        return BatchRun(self, scope)

    # -- what is wrong with it ----------------------------------------------------------------------------------

    def problems(self, *, in_body: bool) -> tuple[Problem, ...]:
        found: list[Problem] = []
        if type(self.size) is not int or self.size < 1:
            found.append(Problem(self.name, "size", f"must be a whole number of at least 1, got {self.size!r}"))
        if self.within is not None and not is_duration(self.within):
            found.append(Problem(self.name, "within", f"must be a number of seconds above 0, got {self.within!r}"))
        for option, decision in (("weight", self.weight), ("key", self.key)):
            if decision is not None:
                found += decision_problems(self.name, option, decision)
        if in_body and self.body is None:
            text = "a batch without a body can stand on the top-level chain only"
            found.append(Problem(self.name, None, text, "give it a body, which returns one result for each item"))
        return tuple(found)

    def stalls(self, standing: Standing) -> Iterator[Problem]:
        if self.within is None and (reason := self._endless(standing)) is not None:
            text = f"without a time it could wait for ever: {reason}"
            yield Problem(self.name, "within", text, "say how long an item may wait at most")

    def _endless(self, standing: Standing) -> str | None:
        """Why a batch that waits until it is full might never be."""
        before = next((stage.name for stage in standing.before if stage.thins), None)
        if self.key is not None:
            return "with `key` there can be more batches that are not full than the window has items"
        if self.weight is not None:
            return "with `weight` it may take more items than the window has"
        if standing.in_body:
            return "the body of another stage may hold the items that it waits for"
        if before is not None:
            return f"{before!r} before it may keep or drop the items that it waits for"
        if standing.ordered:
            return "with ordered results the window may be full of records that wait for their turn"
        if self.size > standing.max_in_flight:
            return f"size {self.size} is more than max_in_flight {standing.max_in_flight} lets in"
        return None

    def doubts(self, standing: Standing) -> Iterator[Problem]:
        most = standing.most
        if self.within is not None and self.weight is None and type(self.size) is int and self.size > most:
            text = f"{self.size} is never reached: at most {most} items are alive, so every batch waits for `within`"
            yield Problem(self.name, "size", text, f"lower it to {most}, or raise max_in_flight")


async def weight_of(weight: Weight, item: Item, stage: str) -> float:
    """What an item weighs. Raises `ItemError` for what is no weight."""
    is_expression = isinstance(weight, Expression)
    found = weight.evaluate(template_names(item)) if is_expression else await ask(weight, item, stage, "weight")
    if not isinstance(found, int | float) or isinstance(found, bool) or not 0 <= found < math.inf:
        text = f"the weight of an item in {stage!r} has to be a number of at least 0, got {found!r:.60}"
        raise ItemError(text, type="BadWeight")
    return float(found)


def batch(
    body: object | None = None,
    /,
    *misplaced: Never,
    size: int,
    name: str = "batch",
    within: float | None = 1.0,
    weight: Callable[..., object] | Expression | str | None = None,
    key: Callable[..., object] | Expression | str | None = None,
    on_error: OnError | None = None,
) -> BatchStage:
    """Gather items and work on them together: `batch(judge, size=20, within=2.0)`.

    `body` gets the list of payloads (`parts` in its templates, which see nothing else of the items) and has to give a
    list of as many results, in that order; each item goes on with its own. Without a body the list goes on as one item
    and leaves one record with `inputs`, the ids; that form stands on the top-level chain only.

    A batch goes when it has `size` items, when the first of them has waited `within` seconds, at the end of the input
    and when a run drains. With `weight`, a function of the payload alone or an expression, which gives a number, `size`
    is the most that a batch may weigh, checked before an item is added; one that is heavier goes alone. With `key`, the
    same kind of thing, a batch has items of one key only. `within=None` waits until it is full, and is refused where
    that could be for ever.
    """
    if misplaced or isinstance(body, str):
        text = "begins with its body, if it has one, and takes its name as name="
        raise DefinitionError(Problem(None, "batch", text, 'batch(body, size=…, name="scores")'))
    over = None if body is None else as_stage(body)
    return BatchStage(name, over, size, within, read_decision(weight), read_decision(key), on_error)


def _from_file(name: str, *, body: Stage | None = None, **values: object) -> BatchStage:
    return batch(body, name=name, **values)  # pyright: ignore[reportArgumentType]


WORD = Word(
    "batch",
    {
        "size": Field("count", required=True, help="most items in a batch, or the most that it may weigh"),
        "within": Field("duration", help="longest that an item waits for others; none: until it is full"),
        "weight": Field("decision", help="an expression that gives a number, or {call: …}"),
        "key": Field("decision", help="items of one key only: an expression, or {call: …}"),
        "body": Field("body", help="stages that give one result for each of `parts`; without it one record is left"),
        "on_error": Field("choice", choices=("dead_letter", "skip", "fail"), help="when the body fails"),
    },
    _from_file,
    "works on several items at once",
)
