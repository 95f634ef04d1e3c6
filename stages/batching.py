"""A batch stage in one run: the batches that fill, those that are made again after a crash, and how members go on."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import TYPE_CHECKING

from pipeline.core.asking import ask
from pipeline.core.batches import Batch, Member, id_of, yielding
from pipeline.core.collapse import Collapse, end_with
from pipeline.core.composite import CompositeRun
from pipeline.core.deadlines import Deadlines
from pipeline.core.errors import Failure, ItemError
from pipeline.core.events import BatchFlushed, Trigger
from pipeline.core.item import Frame, Item, Missing, Outcome
from pipeline.core.replay import NOT_KEPT
from pipeline.core.reunion import Ending, Membership, end_before, keep_end, membership_before
from pipeline.core.templates import Expression
from pipeline.core.visit import template_names
from stages.partition import key_of

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from pipeline.core.scope import Scope
    from stages.batch import BatchStage, Weight

BODY = "body"

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
            self.feedback.put(BODY, item, batch)
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
        self.scope.conclude(item, failure, self.stage.name, self.stage.failing())

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


async def weight_of(weight: Weight, item: Item, stage: str) -> float:
    """What an item weighs. Raises `ItemError` for what is no weight."""
    is_expression = isinstance(weight, Expression)
    found = weight.evaluate(template_names(item)) if is_expression else await ask(weight, item, stage, "weight")
    if not isinstance(found, int | float) or isinstance(found, bool) or not 0 <= found < math.inf:
        text = f"the weight of an item in {stage!r} has to be a number of at least 0, got {found!r:.60}"
        raise ItemError(text, type="BadWeight")
    return float(found)
