"""What the run of a stage may use: edges, meters, open resources, and the ways in which an item can end badly."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar, cast

from anyio import create_task_group

from pipeline.core.budget import BudgetSpent
from pipeline.core.errors import CallsClosed, Failure, RunStopped, Skip
from pipeline.core.item import Item, Outcome
from pipeline.core.mutation import watched_stage
from pipeline.core.ports import Resource
from pipeline.core.replay import note_failure
from pipeline.core.stage import ERROR_ACTIONS, ErrorAction, OnError, Stage
from pipeline.core.statistics import Meter
from pipeline.core.streams import Edge, Inbox, Outbox, drain_inbox, open_edge
from pipeline.core.topology import fuse

if TYPE_CHECKING:
    from pipeline.core.machine import Machine

T = TypeVar("T")


class Scope:
    """The surroundings of every stage of one run."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    # -- wiring -------------------------------------------------------------------------------------------------

    def open_edge(self, into: Stage) -> Edge:
        """Open the edge that leads into `into`, with its `buffer_size` or the pipeline's."""
        wanted = self.machine.pipeline.buffer_size
        edge = open_edge(into.name, into.buffer_size if wanted is None else wanted)
        self.machine.edges.append(edge)
        return edge

    def meter(self, name: str, concurrency: int) -> Meter:
        """The counters and slots of the leaf stage `name`."""
        meter = Meter(name, self.machine.concurrency.get(name, concurrency))
        self.machine.meters[name] = meter
        return meter

    async def run_stage(self, stage: Stage, inbox: Inbox, outbox: Outbox) -> None:
        """Run `stage` between its ends and close both, whatever happens. What it left in its inbox is cancelled."""
        if self.machine.pipeline.debug:
            stage = watched_stage(stage, self.machine)
        try:
            await stage.run(inbox, outbox, self)
        finally:
            drain_inbox(inbox)
            inbox.close()
            outbox.close()

    async def run_chain(self, stages: Sequence[Stage], inbox: Inbox, outbox: Outbox) -> None:
        """Run `stages` one after the other, each in a task of its own with an edge in front of it."""
        stages = fuse(stages)
        async with create_task_group() as tg:
            for stage, following in pairwise(stages):
                edge = self.open_edge(following)
                tg.start_soon(self.run_stage, stage, inbox, edge.outbox, name=f"penstock {stage.name}")
                inbox = edge.inbox
            tg.start_soon(self.run_stage, stages[-1], inbox, outbox, name=f"penstock {stages[-1].name}")

    def resource(self, definition: Resource[T]) -> T:
        """What was opened for `definition` when the run began."""
        return cast(T, self.machine.opened(definition))

    # -- failing ------------------------------------------------------------------------------------------------

    def fail(self, item: Item, error: Exception, stage: str, on_error: OnError | None) -> None:
        """End `item` because `error` was raised while `stage` had it."""
        if isinstance(error, Skip):
            item.frame.resolve(Outcome("skipped", item))
        elif isinstance(error, CallsClosed):
            item.frame.resolve(Outcome("cancelled", item))
        elif isinstance(error, BudgetSpent):
            self.machine.stop(RunStopped(error.message, cause_kind="budget"))
            item.frame.resolve(Outcome("cancelled", item))
        else:
            self.conclude(item, Failure.of(error, stage), stage, on_error)

    def conclude(self, item: Item, failure: Failure, stage: str, on_error: OnError | None) -> None:
        """End `item` at `stage` as `failure` and the policy say: a dead letter, a skip, or the end of the run.

        The pipeline's own policy is for what leaves the pipeline: a member that fails is its join's to judge.
        """
        if on_error is None and item.frame.group.judges:
            on_error = "dead_letter"
        action = self._action(failure, on_error or self.machine.pipeline.on_error)
        cause = failure.cause
        if getattr(cause, "stops_run", False):
            self.machine.stop(RunStopped(failure.message, cause_kind="refused"))
            if item.frame.root.page is not None:  # a resume, with another key, will have it answered
                item.frame.resolve(Outcome("cancelled", item))
                return
        elif getattr(cause, "parks", False) and item.frame.root.page is not None:
            self.machine.parked(failure)
            item.frame.resolve(Outcome("cancelled", item))
            return
        elif action == "fail":
            self.machine.stop(RunStopped(f"stage {failure.stage!r}: {failure.message}", cause_kind="failures"))
        if action != "skip" and failure.stage == stage:
            note_failure(item, failure)
        item.frame.resolve(Outcome("skipped" if action == "skip" else "failed", item, failure))

    def _action(self, failure: Failure, on_error: OnError) -> ErrorAction:
        """What the policy says; one that raises, or says what is no action, ends the run."""
        if not callable(on_error):
            return on_error
        try:
            action = on_error(failure)
        except Exception as error:
            text = f"on_error raised {type(error).__name__}: {error}"
        else:
            if action in ERROR_ACTIONS:
                return action
            text = f"on_error returned {action!r}, the actions are {', '.join(ERROR_ACTIONS)}"
        self.machine.stop(RunStopped(f"{text} (for {failure.message!r} of stage {failure.stage!r})"))
        return "dead_letter"
