"""One execution of a pipeline: the run-scoped machinery, made when a run opens and dead when it closes.

Tasks: one feeder that iterates the source, one intake for submitted items, one task a stage and worker. Everything that
decides is synchronous and lives in the window, the groups and the results; here is only who starts and ends what.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, nullcontext, suppress
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import anyio
from anyio import BrokenResourceError, CancelScope, ClosedResourceError, create_task_group

from pipeline.core.admission import Settling, Window
from pipeline.core.deadlines import Deadlines
from pipeline.core.errors import Failure, InvariantError, PipelineError, RunStopped, WriteError
from pipeline.core.events import Event, Listener
from pipeline.core.item import Outcome
from pipeline.core.iteration import Pulls
from pipeline.core.limits import Limits
from pipeline.core.ports import Resource, RunJournal, SharesLimits
from pipeline.core.purse import Purse
from pipeline.core.record import Status
from pipeline.core.results import Results
from pipeline.core.root import Root, first_item
from pipeline.core.scope import Scope
from pipeline.core.stall import StallClock
from pipeline.core.statistics import Meter, Statistics, Tapped
from pipeline.core.streams import Edge, Exit, hand_over
from pipeline.core.threads import Threads
from pipeline.core.topology import fuse, walk
from pipeline.core.watchdog import Watchdog

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from pipeline.core.composite import CompositeRun
    from pipeline.core.pipeline import Pipeline
    from pipeline.core.threshold import Threshold
    from pipeline.core.workers import Workers

DrainMode: TypeAlias = Literal["items", "calls"]

#: roots that have ended before a share of failures is judged
JUDGED_AFTER = 20


class Machine:
    """The machinery of one run. Must be made inside an event loop."""

    def __init__(
        self,
        pipeline: Pipeline,
        variables: dict[str, object],
        listener: Listener | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.pipeline = pipeline
        self.own_limits, self.limits = limits is None, limits or Limits()
        own = () if pipeline.budget is None else (Purse(pipeline.budget),)
        self.purses = own if self.limits.purse is None else (*own, self.limits.purse)
        self.listening = listener is not None
        self._listener = listener
        self.listener_errors = 0
        self.watchdog = None if pipeline.watchdog is None else Watchdog(pipeline.watchdog, self.emit)
        self.results = Results(ordered=pipeline.ordered)
        self.window = Window(
            pipeline.max_in_flight,
            pipeline.bounds.items,
            {"vars": variables},
            self.results,
            Settling(self._finished, self._ripe, self._emptied),
        )
        self.scope = Scope(self)
        self.edges: list[Edge] = []
        self.meters: dict[str, Meter] = {}
        self.concurrency: dict[str, int] = {}  #: of stages that a host changed before they started
        self.crews: dict[str, Workers] = {}  #: of leaf stages, by name
        self.composites: dict[str, CompositeRun] = {}
        self._names = tuple(stage.name for stage in walk(pipeline.stage))
        self.sleepers: set[CancelScope] = set()  #: calls of which nothing is in flight; they end when calls do
        self.pulls = Pulls()
        self.at_drain: list[Callable[[], None]] = []  #: told when nothing more is taken in
        self.threads: dict[str, Threads] = {}  #: of the stages that run functions in threads
        self.taps: dict[str, Tapped] = {}
        self.unwatched: dict[str, str] = {}  #: in debug mode, the type of what could not be copied, by stage
        self.remarks: dict[str, int] = {}  #: how often each was made
        self.calls_closed = False
        self.draining = False
        self.source_ended = False
        self.stopped: RunStopped | None = None
        self.submitted: deque[Root] = deque()
        self.intake_changed = anyio.Event()
        self.feed_scope: CancelScope | None = None
        self.entry: Edge | None = None
        self.entrances = 0
        self.over = anyio.Event()  #: set when the tasks of the run have ended
        self.source_error: Exception | None = None
        self.journal: RunJournal | None = None
        self.journal_error: WriteError | None = None
        self.threshold: Threshold | None = None  #: where roots wait until they are durable, if they have to
        self.parked_by: dict[str, int] = {}  #: items that stay open for a resume, by the message of who put them off
        self.place = 0  #: records that the source of a run with a journal has given
        self.skipped = 0  #: records of the source that an earlier run has admitted
        self._abort = CancelScope()
        self._tasks: TaskGroup | None = None
        self._resources: list[tuple[Resource[object], object]] = []
        self._deadlines: Deadlines[Root] | None = None
        timeout = pipeline.item_timeout
        if timeout is not None:
            self._deadlines = Deadlines(timeout, lambda root: self.window.expire(root, timeout))

    # -- the journal --------------------------------------------------------------------------------------------

    def attach(self, journal: RunJournal) -> None:
        """Let `journal` have what happens, and start from what earlier runs have spent."""
        self.journal = journal
        journal.trouble = self.journal_failed
        self.results.recover(journal)
        for purse in self.purses[:1] if self.pipeline.budget is not None else ():
            purse.move(spent=journal.spent)

    def journal_failed(self, error: WriteError, lost: bool) -> None:
        """The disk refuses: finish the calls in flight if what they answer can still be written, else end now."""
        self.journal_error = self.journal_error or error
        if lost:
            self.results.lose()
            self.abort()
        else:
            self.drain("calls")

    def parked(self, failure: Failure) -> None:
        """An item stays open for a resume, because its call would be answered later than anybody waits here."""
        self.parked_by[failure.message] = self.parked_by.get(failure.message, 0) + 1
        if self.results.ordered:  # no record may leave before that of the item, so the window would only fill up
            self.drain("calls")

    # -- resources ----------------------------------------------------------------------------------------------

    async def open_resources(self, stack: AsyncExitStack, more: Sequence[Resource[object]] = ()) -> None:
        """Open what the stages need, then `more`, each distinct definition once; the stack closes them in reverse."""
        if self.own_limits:
            await stack.enter_async_context(self.limits)
        for definition in (*self.pipeline.resources(), *more):
            if not any(definition == known for known, _ in self._resources):
                self._resources.append((definition, await stack.enter_async_context(self._opening(definition))))

    def _opening(self, definition: Resource[object]) -> AbstractAsyncContextManager[object]:
        shares: object = definition
        if isinstance(shares, SharesLimits):
            return cast("SharesLimits[object]", shares).open_within(self.limits)
        return definition.open()

    def opened(self, definition: Resource[object]) -> object:
        """What was opened for `definition`. Raises `PipelineError` for what no stage has named."""
        for known, resource in self._resources:
            if known == definition:
                return resource
        raise PipelineError(f"{definition!r} was not opened; a stage must name it among its resources()")

    # -- tasks --------------------------------------------------------------------------------------------------

    async def run(self, feed: Callable[[], Coroutine[object, object, None]] | None, intake: bool) -> None:
        """Run everything until the stages have seen the end of their input, or until `abort`."""
        self.entry = self.scope.open_edge(fuse(self.pipeline.stage.parts())[0])
        self.entrances = (feed is not None) + intake
        try:
            with self.watchdog or nullcontext(), self._abort:
                async with create_task_group() as tg:
                    self._tasks = tg
                    tg.start_soon(self.run_deadlines)
                    if self.pipeline.stall_timeout is not None:
                        tg.start_soon(StallClock(self, self.pipeline.stall_timeout).run)
                    if intake:
                        tg.start_soon(self.run_intake)
                    if feed is not None:
                        tg.start_soon(feed)
                    else:
                        self.source_done()
                    await self.scope.run_stage(self.pipeline.stage, self.entry.inbox, Exit())
                    tg.cancel_scope.cancel()
        finally:
            self.over.set()
            self._refuse_more()
            self.entry.outbox.close()
            self.results.end()

    def keep(self, function: Callable[..., Coroutine[object, object, None]], *args: object) -> None:
        """Start a task that lives until it ends or the run does, whoever asked for it."""
        if self._tasks is None:
            raise InvariantError("a task was started outside the run")
        self._tasks.start_soon(function, *args)

    async def leave(self) -> None:
        """The host leaves its block: finish what only has to be let go of, or abort what is still going on."""
        self.results.confirm()
        if self.source_ended and not self.window.roots:
            self.drain("items")
            await self.over.wait()
        else:
            self.abort()

    async def run_deadlines(self) -> None:
        """End roots whose time is up."""
        if self._deadlines is not None:
            await self._deadlines.run()

    async def run_intake(self) -> None:
        """Send submitted roots in. Submitters wait elsewhere, so that a host's cancellation cannot split a send."""
        try:
            while True:
                while self.submitted:
                    root = self.submitted.popleft()
                    if root.revoked:
                        root.retire()
                    else:
                        await self.enter(root)
                if self.draining:
                    return
                self.intake_changed = anyio.Event()
                await self.intake_changed.wait()
        finally:
            self._refuse_more()  # a submitter that comes now would wait for ever
            while self.submitted:
                root = self.submitted.popleft()
                root.resolve(Outcome("cancelled", first_item(root)))
            self.entrance_done()

    async def enter(self, root: Root) -> None:
        """Send a new root's item into the first stage, or end it if it could not be read. A hand-over: once it has
        returned the item is the stage's; cancelled before, the root is cancelled."""
        if self._deadlines is not None:
            root.deadline = self._deadlines.start(root)
        defect = root.record.defect
        item = first_item(root)
        if defect is not None:
            root.resolve(Outcome("failed", item, Failure.of(defect, None)))
            return
        if self.entry is None:
            raise InvariantError("a root was let in before the run began")
        try:
            self.entry.outbox.send_nowait(item)
        except anyio.WouldBlock:
            with suppress(BrokenResourceError):  # the stages have left
                await hand_over(self.entry.outbox, item)
        except (BrokenResourceError, ClosedResourceError):
            root.resolve(Outcome("cancelled", item))

    def entrance_done(self) -> None:
        """One of the tasks that send roots in has ended; after the last one the stages see the end of their input."""
        self.entrances -= 1
        if not self.entrances and self.entry is not None:
            self.entry.outbox.close()

    def emit(self, event: Event) -> None:
        """Tell the listener, if there is one. `listening` says whether making the event is worth the while."""
        if self._listener is not None:
            try:
                self._listener(event)
            except Exception:
                self.listener_errors += 1

    # -- told by the window -------------------------------------------------------------------------------------

    def _ripe(self, root: Root) -> None:
        if self._deadlines is not None:
            self._deadlines.stop(root)

    def _finished(self, root: Root, status: Status) -> None:
        self._ripe(root)
        if status == "failed":
            self._judge_failures()

    def _emptied(self) -> None:
        if self.source_ended:
            self.results.end()

    def _judge_failures(self) -> None:
        limit = self.pipeline.max_failures
        if limit is None or self.stopped is not None:
            return
        failed, ended = self.window.ended["failed"], sum(self.window.ended.values())
        if isinstance(limit, int):
            if failed > limit:
                self.stop(RunStopped(f"{failed} items failed, max_failures is {limit}", cause_kind="failures"))
        elif ended >= JUDGED_AFTER and failed / ended > limit:
            text = f"{failed} of {ended} items failed, max_failures is {limit:.1%}"
            self.stop(RunStopped(text, cause_kind="failures"))

    # -- asked from outside -------------------------------------------------------------------------------------

    def source_done(self) -> None:
        """The source has ended: results end when its roots have settled."""
        self.source_ended = True
        if not self.window.unsettled:
            self.results.end()

    @property
    def leaves_open(self) -> bool:
        """What is cut short now is left to a resume, instead of making the best of it."""
        return self.calls_closed and self.journal is not None

    def drain(self, mode: DrainMode) -> None:
        """Take nothing new in. `items`: finish what was admitted; `calls`: finish only calls in flight."""
        self._refuse_more()
        closes = mode == "calls" and not self.calls_closed
        self.calls_closed = self.calls_closed or closes
        self.pulls.close()
        for told in tuple(self.at_drain):
            told()
        if self.feed_scope is not None:
            self.feed_scope.cancel()
        for sleeper in tuple(self.sleepers) if closes else ():
            sleeper.cancel()

    async def finish_calls(self) -> None:
        """In a run with a journal, let the calls in flight end and be written, after which no task of it is left."""
        if self.journal is not None:
            self.drain("calls")
            await self.over.wait()

    def source_failed(self, error: Exception) -> None:
        """The source raised: finish what was admitted; the error is raised when the run ends."""
        self.source_error = error
        self.drain("items")

    def abort(self) -> None:
        """Cancel every task of the run now."""
        self.end_asked(at_once=True)
        self._refuse_more()
        self._abort.cancel()

    def end_asked(self, *, at_once: bool = False) -> None:
        """Let the journal know that the run is told to end, before it does."""
        if self.journal is not None:
            self.journal.end_asked(at_once=at_once)

    def _refuse_more(self) -> None:
        """From now on no root is admitted: submitters that wait for a credit are told, later ones refused."""
        self.draining = True
        self.window.close()
        self.intake_changed.set()

    def stop(self, reason: RunStopped) -> None:
        """End the run by a rule of its own; the first reason is the one that is told."""
        if self.stopped is None:
            self.stopped = reason
            self.drain("calls")

    def statistics(self) -> Statistics:
        return Statistics(
            self.window.statistics(),
            tuple(self.meters[name].statistics() for name in self._names if name in self.meters),
            tuple(edge.statistics() for edge in self.edges),
            tuple(composite.statistics() for composite in self.composites.values()),
            len(self.results),
            tuple(self.threads[name].statistics() for name in self._names if name in self.threads),
            self.window.account.usage,
            self.window.account.cost,
            self.listener_errors,
            tuple(self.taps[name].statistics() for name in self._names if name in self.taps),
            dict(self.unwatched),
            () if self.watchdog is None else self.watchdog.statistics(),
            self.limits.statistics(),
            tuple(purse.statistics() for purse in self.purses),
            dict(self.remarks),
            self.window.account.known_usd,
            self.window.account.unpriced,
        )

    def close(self) -> None:
        """Settle what nobody will take any more: records that wait for a consumer who has left."""
        self.window.sweep()
        self.results.end()

    def raise_for_end(self) -> None:
        """Raise why the run ended before its input did, if it did."""
        if self.journal_error is not None:
            raise self.journal_error
        if self.source_error is not None:
            raise self.source_error
        if self.stopped is not None:
            raise self.stopped

    def check(self) -> None:
        """The laws that hold when a run is over. Raises `InvariantError`."""
        now = self.statistics()
        window = now.window
        if not window.balanced or window.open or window.alive or window.in_flight:
            raise InvariantError(f"the run does not balance: {window}")
        for stage in now.stages:
            if stage.slots.borrowed or stage.slots.sleeping:
                raise InvariantError(f"slots are left: {stage}")
        for edge in self.edges:
            ends = edge.inbox.statistics()
            if ends.open_send_streams or ends.open_receive_streams:
                raise InvariantError(f"the edge into {edge.into!r} is left open")
