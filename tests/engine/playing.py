"""Playing one random history, held to every law that can be seen from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import anyio

from pipeline.core.errors import DefinitionError, RunClosed, RunStopped
from pipeline.core.events import BatchFlushed, Event, RunStalled
from pipeline.core.joins import Join
from pipeline.core.pipeline import Pipeline
from pipeline.core.record import Record
from pipeline.core.run import Run
from pipeline.core.statistics import Statistics
from pipeline.core.topology import walk
from stages.batch import BatchRun, BatchStage
from tests.engine.building import Builder
from tests.engine.gauges import Gauge
from tests.engine.networks import TICK, Bracket, Collapsed, Net
from tests.engine.plans import Ask, Ending, Plan
from tests.engine.topologies import nothing_is_left

#: seconds that a run may take to leave: visits that are cancelled leave late, all at once
LEAVING = TICK / 4
#: far behind everything that a pipeline has to wait for
LATER = 10_000.0


class SourceBroke(Exception):
    """What a source raises here."""


class HostBroke(Exception):
    """What a host raises in the middle of its block."""


@dataclass
class Played:
    """What came of a plan."""

    records: list[Record] = field(default_factory=list[Record])
    replies: list[tuple[Ask, Record]] = field(default_factory=list[tuple[Ask, Record]])
    given: int = 0  #: records that the source gave
    at_end: Statistics | None = None

    @property
    def end(self) -> Statistics:
        assert self.at_end is not None
        return self.at_end


def pipeline_of(plan: Plan, builder: Builder) -> Pipeline:
    """The pipeline of a plan. Batches may wait for ever only where `Pipeline` says that they may."""
    try:
        return _pipeline_of(plan, plan.net, builder)
    except DefinitionError as error:
        if "could wait for ever" not in str(error):
            raise
    builder.count = 0
    return _pipeline_of(plan, in_time(plan.net), builder)


def _pipeline_of(plan: Plan, net: Net, builder: Builder) -> Pipeline:
    return Pipeline(
        builder.chain(net),
        max_in_flight=plan.max_in_flight,
        ordered=plan.ordered,
        buffer_size=plan.buffer_size,
        item_timeout=plan.item_timeout,
        stall_timeout=plan.stall_timeout,
        on_error=plan.on_error,  # type: ignore[arg-type]
        max_failures=plan.max_failures,
    )


def in_time(value: Any) -> Any:
    """A network in which every batch has a `within`."""
    if isinstance(value, tuple):
        return tuple(map(in_time, value))
    if not is_dataclass(value) or isinstance(value, Join):
        return value
    if isinstance(value, Bracket | Collapsed) and value.within is None:
        value = replace(value, within=1.5)
    return replace(value, **{one.name: in_time(getattr(value, one.name)) for one in fields(value)})


class Player:
    """The host of one run."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.gauge = Gauge()
        self.builder = Builder(self.gauge)
        self.pipe = pipeline_of(plan, self.builder)
        self.bounds = self.pipe.bounds
        self.played = Played()
        self.sizes = {stage.name: stage.size for stage in walk(self.pipe.stage) if isinstance(stage, BatchStage)}
        self.source_ended = False
        self.source_broke = False
        self.widened = False
        self.run: Run | None = None

    async def play(self) -> Played:
        tasks = len(anyio.get_running_tasks())
        try:
            await self._leave_as_planned()
        except (HostBroke, SourceBroke, RunStopped) as error:
            self._was_to_be_raised(error)
        else:
            assert not self.source_broke or not self._reads_to_the_end()
        ending = self.plan.ending
        assert ending is None or anyio.current_time() <= ending.at + LEAVING
        run = self.run
        assert run is not None
        nothing_is_left(run)
        self.gauge.nothing_is_left()
        self._resources_are_closed()
        assert len(anyio.get_running_tasks()) == tasks
        self.played.at_end = run.statistics()
        assert not self.played.end.listener_errors
        return self.played

    async def _leave_as_planned(self) -> None:
        ending = self.plan.ending
        if ending is None or ending.kind in ("raise", "abort"):
            # the clock of the stall detector never stands still, so the clock of the test does not see a stall
            with anyio.fail_after(None if self.plan.stall_timeout is None else 5 * LATER):
                await self._host()
        elif ending.kind == "native" and _is_asyncio():
            await natively_cancelled(self._host, ending.at)
        else:
            with anyio.move_on_after(ending.at):
                await self._host()

    def _reads_to_the_end(self) -> bool:
        return self.plan.ending is None and (self.plan.take is None or self.plan.then == "block")

    def _was_to_be_raised(self, error: Exception) -> None:
        match error:
            case HostBroke():
                assert self.plan.ending is not None
            case SourceBroke():
                assert self.source_broke
            case _:
                assert self.plan.max_failures is not None

    async def _host(self) -> None:
        plan = self.plan
        try:
            async with (
                self.pipe.open(self._source(), on_event=self._hear) as run,
                anyio.create_task_group() as beside,
            ):
                self.run = run
                self.gauge.observe = self.look
                for at, act in plan.acts:
                    beside.start_soon(self._perform, at, act)
                if self.pipe.against_submit is None:
                    for ask in plan.asks:
                        beside.start_soon(self._ask, ask)
                if plan.ending is not None and plan.ending.kind in ("raise", "abort"):
                    beside.start_soon(self._break, plan.ending)
                await self._read(run)
                if not run.results.ended:
                    beside.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            expected, rest = group.split((HostBroke, SourceBroke, RunStopped))
            raise rest or next(leaves_of(expected)) from None

    async def _read(self, run: Run) -> None:
        plan, records = self.plan, self.played.records
        take = plan.take
        while take is None or len(records) < take:
            record = await self._next(run)
            if record is None:
                self._results_ended(run)
                return
            records.append(record)
            self.look()
            await anyio.sleep(plan.pace)
        if plan.then == "leave":
            return
        await anyio.sleep(LATER)  # everything has come to rest, and nobody reads
        self.look()
        async for record in run.results:
            records.append(record)
            self.look()
        self._results_ended(run)

    async def _next(self, run: Run) -> Record | None:
        reading = self.plan.reading
        if reading == "plain":
            return await anext(run.results, None)
        while anyio.current_time() < 2 * LATER:  # who tries again and again is not stalled in the eyes of the clock
            if reading == "native" and _is_asyncio():
                with suppress(TimeoutError):
                    async with asyncio.timeout(TICK / 4):
                        return await anext(run.results, None)
            else:
                with anyio.move_on_after(TICK / 4):
                    return await anext(run.results, None)
        raise AssertionError("\n".join(["the results do not end", *run.wait_chain()]))

    def _results_ended(self, run: Run) -> None:
        """Results end when the source has and all its roots are settled, or when the run was cut short."""
        machine = run._machine
        assert machine.results.ended
        assert not len(machine.results)
        if machine.over.is_set() or machine.draining:
            return
        assert self.source_ended
        assert not machine.window.unsettled

    def look(self) -> None:
        """The laws that hold at every instant."""
        assert self.run is not None
        now, plan, bounds = self.run.statistics(), self.plan, self.bounds
        window = now.window
        assert window.balanced
        assert window.in_flight <= window.max_in_flight == bounds.roots
        assert window.alive <= bounds.items == window.bound
        assert all(edge.used <= edge.capacity for edge in now.edges)
        assert plan.buffer_size is None or {edge.capacity for edge in now.edges} == {plan.buffer_size}
        if bounds.calls is not None and not self.widened:
            assert self.gauge.calling <= bounds.calls
        self._source_waits_for_the_reader(window.settled)

    def _source_waits_for_the_reader(self, settled: dict[Any, int]) -> None:
        """Whatever the network, the source is not ahead of the reader by more than the window. A source that waits for
        its record holds no credit, so a submit may have taken the one that was free."""
        plan, played = self.plan, self.played
        in_hand = 1 if plan.asks and plan.source.endswith("slow") else 0
        assert played.given <= plan.max_in_flight + sum(settled.values()) + in_hand
        if plan.joined:
            seen = len(played.records) + sum(1 for ask in plan.asks)
            assert settled["ok"] + settled["partial"] + settled["failed"] <= seen

    def _resources_are_closed(self) -> None:
        """Each once, in the reverse of the order in which they were opened."""
        opened = [number for what, number in self.builder.opened if what == "open"]
        assert len(set(opened)) == len(opened)
        closed = [("close", number) for number in reversed(opened)]
        assert self.builder.opened == [("open", number) for number in opened] + closed

    def _hear(self, event: Event) -> None:
        """What a listener is told. What it raises is counted by the run."""
        match event:
            case BatchFlushed():
                assert len(event.items) == 1 or event.weight <= self.sizes[event.stage]
            case RunStalled():
                assert not event.chain, "a run stalls that only waits for its reader"

    # -- what the host does -------------------------------------------------------------------------------------

    def _source(self) -> Any:
        plan, played = self.plan, self.played

        def values() -> Iterator[int]:
            for value in plan.values:
                played.given += 1
                yield value
            if plan.source.startswith("broken"):
                self.source_broke = True
                raise SourceBroke
            self.source_ended = True

        async def slow() -> AsyncIterator[int]:
            for value in plan.values:
                await anyio.sleep(value % 3 * TICK)
                played.given += 1
                yield value
            if plan.source.startswith("broken"):
                self.source_broke = True
                raise SourceBroke
            self.source_ended = True

        return values() if plan.source.endswith("list") else slow()

    async def _perform(self, at: float, act: str) -> None:
        run = self.run
        assert run is not None
        await anyio.sleep(at)
        match act:
            case "pause":
                run.pause()
                await anyio.sleep(TICK)
                run.resume()
            case "narrow" | "widen":
                self.widened = True
                for name in self.gauge.movable:
                    wanted = 1 if act == "narrow" else 5
                    run.set_concurrency(name, wanted)
                    self.gauge.resize(name, wanted)
            case "ask why":
                assert all(run.wait_chain())
            case "drain items":
                run.drain("items")
                batches = [one for one in run._machine.composites.values() if isinstance(one, BatchRun)]
                assert not any(one.filling for one in batches)
            case "drain calls":
                run.drain("calls")
            case _:
                run.abort()

    async def _break(self, ending: Ending) -> None:
        assert self.run is not None
        await anyio.sleep(ending.at)
        if ending.kind == "raise":
            raise HostBroke
        self.run.abort()

    async def _ask(self, ask: Ask) -> None:
        assert self.run is not None
        await anyio.sleep(ask.at)
        with anyio.move_on_after(ask.patience), suppress(RunClosed, anyio.WouldBlock):
            self.played.replies.append((ask, await self.run.submit(ask.value, wait=ask.wait)))


async def play(plan: Plan) -> Played:
    """Play `plan` to its end and return what came of it."""
    return await Player(plan).play()


def leaves_of(error: Any) -> Iterator[Exception]:
    """The exceptions in a group, however deep."""
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from leaves_of(one)
    else:
        yield error


async def natively_cancelled(body: Callable[[], Awaitable[None]], after: float) -> None:
    """Run `body` in a task of asyncio's own, which is cancelled by asyncio's own means."""
    task = asyncio.ensure_future(body())
    timer = asyncio.get_running_loop().call_later(after, task.cancel)
    try:
        with suppress(asyncio.CancelledError):
            await task
    finally:
        timer.cancel()


def _is_asyncio() -> bool:
    with suppress(RuntimeError):
        return asyncio.get_running_loop().is_running()
    return False
