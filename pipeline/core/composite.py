"""Stages that own an inner network: each item in opens one group, and gives one item or one outcome.

A composite takes items in one at a time, sends the members of each out to its bodies, and goes on to the next item
while the groups are joined; it takes none in while joined items wait for room, so a slow stage still blocks its
producers. It holds no slot.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from anyio import (
    BrokenResourceError,
    CancelScope,
    CapacityLimiter,
    ClosedResourceError,
    EndOfStream,
    WouldBlock,
    create_task_group,
)

from pipeline.core.errors import CallsClosed, Failure, Skip, is_bug
from pipeline.core.events import JoinDecided
from pipeline.core.feedback import Feedback
from pipeline.core.groups import Group, Joined
from pipeline.core.item import Frame, Item, Outcome
from pipeline.core.joiner import GroupStatistics, Joiner, Rules
from pipeline.core.stage import Body, OnError, Stage
from pipeline.core.streams import Exit, Inbox, Outbox, hand_over
from pipeline.core.topology import fuse

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from pipeline.core.scope import Scope


G = TypeVar("G", bound=Group)

#: items whose members are being sent out by tasks of their own, so that one that waits does not hold up the others
SENDERS = 16


@dataclass(frozen=True)
class Composite(Stage):
    """A stage made of stages. Subclasses say how an item fans out and how its members are joined."""

    async def run(self, inbox: Inbox, outbox: Outbox, scope: Scope) -> None:
        await self.in_run(scope).run(inbox, outbox)

    def in_run(self, scope: Scope) -> CompositeRun:
        """What this composite is in one run."""
        return CompositeRun(self, scope)

    @property
    def feeds_back(self) -> bool:
        """Whether items go into a body that did not just come in; see `CompositeRun.feedback`."""
        return False

    def rules(self) -> Rules:
        """When a group is done. The default waits for all."""
        return Rules()

    def failing(self) -> OnError | None:
        """What happens to an item whose group fails; None: what the pipeline says."""
        return None

    def gather(self, items: Mapping[str, Item]) -> object:
        """Make one value of the finished members, by slot: a mapping from label to output."""
        return {label: item.value for label, item in items.items()}

    async def fan_out(self, item: Item, run: CompositeRun) -> None:
        """Open a group for `item` and send its members out, unless `CompositeRun.fan_out` does. Raising fails the
        item."""
        raise NotImplementedError

    def combine(self, group: Group, joined: Joined) -> Item | None:
        """Make the item that goes on from a group that is ok or partial; None if it is skipped. The default is for
        groups of one: its output is the composite's."""
        items = group.finished()
        for item in items.values():
            return rejoin(group, self.name, item.value, items, complete=False)
        return None


class CompositeRun:
    """One composite in one run."""

    def __init__(self, stage: Composite, scope: Scope) -> None:
        self.stage = stage
        self.scope = scope
        tell = self._tell if scope.machine.listening else None
        self.joiner = Joiner(stage.name, stage.rules(), stage.combine, self._reject, stage.gather, tell)
        self.entries: dict[str, Outbox] = {}
        self.task_group = create_task_group()
        self.feedback = Feedback(stage.name, self._hand_over)
        self._senders = CapacityLimiter(SENDERS)
        scope.machine.composites[stage.name] = self

    @property
    def parked(self) -> int:
        """Items that wait here for others: in line in front of a body, and whatever else a composite holds back."""
        return len(self.feedback)

    def statistics(self) -> GroupStatistics:
        """The groups of this composite as they are now."""
        return self.joiner.statistics(self.parked)

    async def fan_out(self, item: Item) -> None:
        """Do with an item that came in what the composite does."""
        await self.stage.fan_out(item, self)

    async def run(self, inbox: Inbox, outbox: Outbox) -> None:
        """Take items in until the inbox ends, and return when all of them have left."""
        try:
            async with self.task_group as tg:
                for label, body in self.stage.bodies().items():
                    self._start_body(label, body)
                tg.start_soon(self.joiner.run_clock)
                tg.start_soon(self._emit, outbox)
                if self.stage.feeds_back:
                    tg.start_soon(self.feedback.run, self.entries)
                self.start(tg)
                try:
                    await self._take_in(inbox)
                    self.input_ended()
                    await self.joiner.finish()
                finally:
                    self.feedback.close()
                    self.end()
                    for entry in self.entries.values():
                        entry.close()
        finally:
            self.joiner.leave()

    def start(self, tasks: TaskGroup) -> None:
        """Start more tasks, of a composite that has some. They return after `end`."""

    def input_ended(self) -> None:
        """Nothing more comes in; what is held in wait of more is to be let go of."""

    def end(self) -> None:
        """Every item has left, or is about to be cancelled: let the tasks return."""

    def _start_body(self, label: str, body: Body) -> None:
        edge = self.scope.open_edge(fuse(body.stage.parts())[0])
        self.entries[label] = edge.outbox
        self.task_group.start_soon(self.scope.run_stage, body.stage, edge.inbox, Exit())

    async def _emit(self, outbox: Outbox) -> None:
        try:
            await self.joiner.run_emitter(outbox)
        except BrokenResourceError:  # downstream has left: nothing that is joined here has a place to go
            self.task_group.cancel_scope.cancel()

    async def _take_in(self, inbox: Inbox) -> None:
        while True:
            if self.joiner.congested:
                await self.joiner.wait_clear()
            if self.feedback.pending:
                await self.feedback.wait_clear()
            try:
                item = await inbox.receive()
            except EndOfStream:
                return
            item.frame.hops += 1
            item.frame.item = item
            if item.frame.revoked:
                item.frame.drop()
            else:
                await self._fan_out(item)

    async def _fan_out(self, item: Item) -> None:
        try:
            await self.fan_out(item)
        except Exception as error:
            if is_bug(error):
                raise
            self.fail(item, error)

    # -- for subclasses -----------------------------------------------------------------------------------------

    def fail(self, item: Item, error: Exception) -> None:
        """Fail `item`, whose fan-out raised."""
        group = item.frame.inner
        if isinstance(group, Group) and not isinstance(error, (Skip, CallsClosed)):
            group.fail(Failure.of(error, self.stage.name))
            return
        if group is not None:
            group.revoke()
        if item.frame.revoked:
            item.frame.drop()
        else:
            self.scope.fail(item, error, self.stage.name, self.stage.failing())

    def _reject(self, item: Item, failure: Failure) -> None:
        self.scope.conclude(item, failure, self.stage.name, self.stage.failing())

    def _tell(self, group: Group, joined: Joined) -> None:
        """Let the listener know how `group` was decided, and by what."""
        frame, name = group.item.frame, self.stage.name
        ended = group.outcomes
        slots = {slot: ended[slot].status if slot in ended else "open" for slot in group.members}
        self.scope.machine.emit(
            JoinDecided(frame.root.id, (*frame.path(), name), name, joined.verdict, joined.late, slots, group.complete)
        )

    async def send(self, group: Group, sends: Sequence[tuple[str, Item]]) -> None:
        """Send members out to the bodies named by their labels, all at once; what a closed group has not sent is
        abandoned, so one full branch does not hold up the others or the next item."""
        blocked: list[tuple[Outbox, Item]] = []
        for label, item in sends:
            outbox = self.entries[label]
            if item.frame.revoked:
                item.frame.retire()
                continue
            try:
                outbox.send_nowait(item)
            except WouldBlock:
                blocked.append((outbox, item))
            except (BrokenResourceError, ClosedResourceError):  # the body or its entry has gone: this is torn down
                item.frame.resolve(Outcome("cancelled", item))
                self.task_group.cancel_scope.cancel()
        if blocked:
            await self._send_blocked(group, blocked)

    async def start_sender(self, group: G, send: Callable[[G, CompositeRun], Awaitable[None]]) -> None:
        """Let `send` send the members of `group` out in a task of its own, which ends when the group closes. Waits
        while `SENDERS` of them are at it."""
        await self._senders.acquire_on_behalf_of(group)
        self.task_group.start_soon(self._run_sender, group, send)

    async def _run_sender(self, group: G, send: Callable[[G, CompositeRun], Awaitable[None]]) -> None:
        try:
            with CancelScope() as scope:
                group.scope = scope
                if group.closed:
                    return
                await send(group, self)
        except (BrokenResourceError, ClosedResourceError):  # the body or its entry has gone: this is torn down
            self.task_group.cancel_scope.cancel()
        finally:
            self._senders.release_on_behalf_of(group)

    async def _hand_over(self, outbox: Outbox, item: Item) -> None:
        try:
            await hand_over(outbox, item)
        except (BrokenResourceError, ClosedResourceError):  # the body or its entry has gone: this is torn down
            self.task_group.cancel_scope.cancel()

    async def _send_blocked(self, group: Group, blocked: Sequence[tuple[Outbox, Item]]) -> None:
        outer = group.scope
        with CancelScope() as scope:
            group.scope = scope
            if group.closed:
                scope.cancel()
            async with create_task_group() as tg:
                for outbox, item in blocked:
                    tg.start_soon(self._hand_over, outbox, item)
        group.scope = outer


def rejoin(group: Group, name: str, value: object, items: Mapping[str, Item], *, complete: bool) -> Item:
    """The item that goes on: what entered, with the members' messages in slot order and `value` as output of `name`.

    `complete` says that members which did not end were not needed; what finished members lacked is kept either way.
    """
    entered = group.item
    state = entered.state
    shared = len(state.messages)
    for item in items.values():
        state = state.add_messages(item.state.messages[shared:])
    missing = group.missing(among=items if complete else group.members)
    return Item(value, state.add_output(name, value), entered.frame, entered.missing + missing)


def member(item: Item, frame: Frame) -> Item:
    """The item as a member of a group."""
    return Item(item.value, item.state, frame, item.missing)
