"""The handle of one execution: what a host can see and ask while a pipeline runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from anyio import WouldBlock

from pipeline.core.errors import PipelineError, RunClosed, RunStopped
from pipeline.core.events import LoopBlocked
from pipeline.core.feeder import as_input
from pipeline.core.item import Outcome
from pipeline.core.machine import DrainMode, Machine
from pipeline.core.ports import Resource
from pipeline.core.record import Record
from pipeline.core.recovered import Recovered
from pipeline.core.results import Results
from pipeline.core.root import Reply, Root
from pipeline.core.slots import check_slots
from pipeline.core.statistics import Statistics
from pipeline.core.topology import leaves
from pipeline.core.waits import wait_chain

T = TypeVar("T")


class Run:
    """One open run of a pipeline. Made by `Pipeline.open`; all methods but `submit` are synchronous."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    @property
    def results(self) -> Results:
        """The records of the source, for one consumer. Cancelled and skipped roots leave none."""
        return self._machine.results

    @property
    def stopped(self) -> RunStopped | None:
        """Why the run ended by a rule of its own; None if it did not."""
        return self._machine.stopped

    @property
    def parked(self) -> int:
        """Items that wait for what comes later than a run waits, such as a daily quota. With a journal a resume has
        them done; without one none is."""
        return sum(self._machine.parked_by.values())

    @property
    def calls_in_flight(self) -> int:
        """Attempts of model calls that were sent and have not ended; counted in runs with a journal."""
        journal = self._machine.journal
        return 0 if journal is None else journal.in_flight

    @property
    def recovered(self) -> Recovered | None:
        """What earlier runs with the same journal have left; None without one, and in the first run with it."""
        journal = self._machine.journal
        return None if journal is None else journal.recovered

    def opened(self, definition: Resource[T]) -> T:
        """What was opened for `definition`, which is one of the pipeline's resources or the sink of this run."""
        return cast(T, self._machine.opened(definition))

    def statistics(self) -> Statistics:
        """Edges, slots, window and groups as they are now. Costs nothing while nobody asks."""
        return self._machine.statistics()

    def wait_chain(self) -> tuple[str, ...]:
        """What the oldest open root waits for, what that waits for, and so on, in words: a line each."""
        return wait_chain(self._machine)

    def while_blocked(self, alarm: Callable[[LoopBlocked], object]) -> None:
        """Let `alarm` hear of each blockage of the loop that lasts for 5 seconds, while it lasts: in a thread, because
        nothing on the loop can. Without a `watchdog` it never does."""
        if self._machine.watchdog is not None:
            self._machine.watchdog.alarm = alarm

    def drain(self, mode: DrainMode = "items") -> None:
        """Admit nothing more. `items`: every admitted root settles. `calls`: only model calls in flight are finished,
        the roots that would need another one are cancelled. Results end when that is done."""
        self._machine.end_asked()
        self._machine.drain(mode)

    async def finish_calls(self) -> None:
        """In a run with a journal: `drain("calls")`, and wait until what was in flight is finished, so that a consumer
        that fails leaves no call half paid. Without a journal it returns at once."""
        await self._machine.finish_calls()

    def stop(self, reason: str, *, cause_kind: str = "stopped") -> None:
        """End the run by a rule of the host, as those of the pipeline do: only calls in flight are finished, and
        `RunStopped` is raised at its end with this reason."""
        self._machine.stop(RunStopped(reason, cause_kind=cause_kind))

    def abort(self) -> None:
        """Cancel everything now; `results` ends, open roots settle as cancelled."""
        self._machine.abort()

    def pause(self) -> None:
        """Admit no new root until `resume`; work in flight goes on."""
        self._machine.window.pause()

    def resume(self) -> None:
        """Admit again."""
        self._machine.window.resume()

    def set_concurrency(self, stage: str, concurrency: int) -> None:
        """Change the slots of a leaf stage. Raises `PipelineError` for a name that has none."""
        known = [leaf.name for leaf in leaves(self._machine.pipeline.stage)]
        if stage not in known:
            raise PipelineError(f"no stage {stage!r} with slots in this run; there are: {', '.join(known)}")
        check_slots(concurrency)
        meter = self._machine.meters.get(stage)
        if meter is None:  # its tasks have not started yet
            self._machine.concurrency[stage] = concurrency
            return
        meter.slots.resize(concurrency)
        if meter.staff is not None:
            meter.staff()

    async def submit(self, value: object, *, wait: bool = True) -> Record:
        """Send one record in and return its outcome, whatever the status.

        Takes its turn for a credit, first come, first served; with `wait=False` raises `WouldBlock` when there is none
        at once. Raises `RunClosed` when the run takes nothing more, and `PipelineError` when no one record would be its
        answer (`flat_map`, a `batch` without a body). When the caller is cancelled, so is the root.
        """
        machine = self._machine
        against = machine.pipeline.against_submit
        if against is not None:
            raise PipelineError(f"this pipeline takes no submit: {against}; give it a source and read `results`")
        self._refuse_if_closed()
        if not wait and not machine.window.free:
            raise WouldBlock
        if not machine.window.free:
            await machine.window.wait_free()
            self._refuse_if_closed()
        reply = Reply()
        root = machine.window.admit_submitted(as_input(value), reply)
        machine.submitted.append(root)
        machine.intake_changed.set()
        return await self._reply_to(root, reply)

    def _refuse_if_closed(self) -> None:
        if self._machine.window.closed:
            raise RunClosed("the run takes no new records: it drains, or it is over")

    async def _reply_to(self, root: Root, reply: Reply) -> Record:
        try:
            await reply.arrived.wait()
        except BaseException:
            self._machine.window.end_early(root, Outcome("cancelled"))
            raise
        if reply.record is None:
            raise RunClosed("the run ended before the record was done")
        return reply.record
