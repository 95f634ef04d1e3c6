"""A pipeline: a frozen description of stages and of what bounds a run of them. Opening it makes a run.

    async with pipe.open(prompts) as run:
        async for record in run.results: ...

The context manager owns the tasks; results are an object, never a generator that holds a task group open (PEP 789).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import cast

import anyio
import anyio.lowlevel
from anyio import create_task_group

from pipeline.core.budget import Budget, budget_problems
from pipeline.core.errors import DefinitionError, Failure, ItemError, Problem
from pipeline.core.events import Listener
from pipeline.core.feeder import SourceLike, feed
from pipeline.core.limits import Limits
from pipeline.core.machine import Machine
from pipeline.core.payers import unpayable
from pipeline.core.ports import Journals, Resource, Sink
from pipeline.core.record import Record
from pipeline.core.run import Run
from pipeline.core.stage import OnError, Stage, as_stage
from pipeline.core.statistics import Statistics
from pipeline.core.time_limit import is_duration
from pipeline.core.topology import Bounds, bounds, doubts, fuse, policy_problems, problems, stalls, walk


@dataclass(frozen=True)
class Pipeline:
    """Stages and what bounds a run. A value: it can be printed, compared, and opened any number of times.

    Raises `DefinitionError` with every problem of the definition at once: names, options, templates that use what no
    stage upstream produces.
    """

    stage: Stage
    max_in_flight: int = 256  #: roots admitted and not settled: the one number that bounds memory
    ordered: bool = False  #: records in input order; one that waits for its turn keeps its credit
    buffer_size: int | None = None  #: items an edge can hold, 0 is hand to hand; None: see `Stage.buffer_size`
    on_error: OnError = "dead_letter"  #: for stages that do not say
    max_failures: int | float | None = None  #: more end the run: a count, or a share judged after 20 roots
    item_timeout: float | None = None  #: seconds from admission after which a root fails
    watchdog: float | None = None  #: seconds for which code may keep the event loop before a listener is told who did
    stall_timeout: float | None = None  #: seconds without any progress after which a listener is told what waits
    variables: Mapping[str, object] = field(default_factory=dict[str, object])  #: `vars` in templates
    budget: Budget | None = None  #: what a run may spend on model calls; then it ends
    debug: bool = False  #: a function that changes what it was given fails its item; every value is copied, which costs

    def __post_init__(self) -> None:
        object.__setattr__(self, "stage", as_stage(self.stage))
        found = (*self._option_problems(), *problems(self.stage, self.variables))
        if not found and self.budget is not None:
            found = unpayable(self.stage, self.budget)
        if not found:
            found = stalls(self.stage, self.max_in_flight, self.ordered)
        if found:
            raise DefinitionError(*found)

    @property
    def doubts(self) -> tuple[Problem, ...]:
        """What is legal in this definition and surely not meant."""
        return doubts(self.stage, self.max_in_flight, self.ordered)

    @property
    def bounds(self) -> Bounds:
        """The most roots, items and calls that can be alive at once. The run holds itself to it."""
        return bounds(self.stage, self.max_in_flight)

    def __str__(self) -> str:
        names = " | ".join(stage.name for stage in fuse(self.stage.parts()))
        return f"{names}: {self.bounds}"

    @property
    def against_submit(self) -> str | None:
        """Why a run takes no submitted records; None if it does."""
        return next((why for stage in self.stage.parts() if (why := stage.against_submit)), None)

    def resources(self) -> tuple[Resource[object], ...]:
        """What a run opens before it starts, equal definitions once each."""
        return tuple(resource for stage in walk(self.stage) for resource in stage.resources())

    # -- running ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def open(
        self,
        source: SourceLike | None = None,
        *,
        on_event: Listener | None = None,
        limits: Limits | None = None,
        journal: Journals | None = None,
    ) -> AsyncGenerator[Run]:
        """Start a run over `source`, and for `run.submit`. Enter and leave it in one task.

        With a `journal` the run survives: what an earlier run with it has finished is not done again, a call that was
        answered is not made again, and what is unfinished when this one ends, however it does, is left for the next.
        Such a run takes no submits. Raises `JournalError` before anything is begun.

        `on_event` is called with what `pipeline.core.events` lists. `limits` are shared with other runs that are given
        them: quotas, breakers, clients; without them the run has its own.

        Leaving the block early aborts the run: everything in flight is cancelled and closed before the block is left.
        Raises `RunStopped` at the end when the run ended by a rule of its own, and what the source or a sink raised.
        """
        # the input of a run that takes submits never ends, and what waits for its end would wait for ever
        intake = journal is None and (source is None or self.against_submit is None)
        if journal is not None and source is None:
            raise TypeError("a run with a journal needs a source; [] finishes what an earlier run has begun")
        async with self._execution(source, intake=intake, listener=on_event, limits=limits, journal=journal) as run:
            yield run

    async def run(
        self,
        source: SourceLike,
        sink: Sink | Resource[Sink] | None = None,
        *,
        watch: Callable[[Run], None] | None = None,
        on_event: Listener | None = None,
        limits: Limits | None = None,
        journal: Journals | None = None,
    ) -> Statistics:
        """Run over `source` and write every record to `sink`; a root is settled when its write has returned. A journal
        that has an output writes by itself, so there need be no sink then; one that is given hears of the records.

        The definition of a sink is opened for the run, after the models and before the first record is read, so that
        a run which cannot start has not touched the output.

        `watch` is given the run when it has started. Returns the final statistics. Raises as `open` does.
        """
        if sink is None and (journal is None or journal.output is None):
            raise TypeError("a run writes to a sink, or has a journal with an output; give one of them")
        if sink is not None and not isinstance(sink, Sink) and not hasattr(sink, "open"):
            what = getattr(sink, "__name__", type(sink).__name__)
            raise TypeError(f"a sink has `async def write(self, record)`, or open() that gives one; got {what}")
        opens = () if sink is None or isinstance(sink, Sink) else (sink,)
        async with self._execution(
            source, intake=False, opens=opens, listener=on_event, limits=limits, journal=journal
        ) as run:
            out = sink if sink is None or isinstance(sink, Sink) else run.opened(sink)
            if watch is not None:
                watch(run)
            results = run.results
            if out is None:
                results.forgo()
            while (delivery := await results.take()) is not None:
                try:
                    record = delivery.record if out is None else await _written(out, delivery.record)
                except Exception:
                    await run.finish_calls()
                    raise
                results.took(delivery, record)
        return run.statistics()

    async def collect(
        self, source: SourceLike, *, limits: Limits | None = None, journal: Journals | None = None
    ) -> list[Record]:
        """Run over a small `source` and return its records. Raises as `open` does."""
        async with self._execution(source, intake=False, limits=limits, journal=journal) as run:
            return [record async for record in run.results]

    def run_sync(self, source: SourceLike, *, backend: str = "asyncio") -> list[Record]:
        """`collect` for code that is not async. Where a loop is running already it works in a thread of its own and
        blocks that loop meanwhile; `await collect(…)` does not."""
        run = partial(anyio.run, partial(self.collect, source), backend=backend)
        try:
            anyio.lowlevel.current_token()
        except RuntimeError:  # no loop runs here
            return run()
        # a plain thread, not a portal: trio refuses to be waited for by a thread in which trio runs
        with ThreadPoolExecutor(max_workers=1) as thread:
            return thread.submit(run).result()

    @asynccontextmanager
    async def _execution(
        self,
        source: SourceLike | None,
        *,
        intake: bool,
        opens: Sequence[Resource[object]] = (),
        listener: Listener | None = None,
        limits: Limits | None = None,
        journal: Journals | None = None,
    ) -> AsyncGenerator[Run]:
        _check_limits(limits)
        shared = None if limits is None else limits.purse
        if shared is not None and (found := unpayable(self.stage, shared.budget)):
            raise DefinitionError(*found)
        machine = Machine(self, dict(self.variables), listener, limits)
        try:
            async with AsyncExitStack() as resources:
                if journal is not None:  # first, so that what is refused has touched nothing, and to be closed last
                    machine.attach(await resources.enter_async_context(journal.open(self, source)))
                await machine.open_resources(resources, opens)
                if machine.journal is not None:
                    await machine.journal.begin()
                try:
                    async with create_task_group() as tg:
                        lone = intake and source is None  # for submit alone
                        tg.start_soon(machine.run, None if lone else partial(feed, machine, source), intake)
                        yield Run(machine)
                        await machine.leave()
                finally:
                    machine.close()
        except BaseExceptionGroup as group:
            error = _single(group)
            if error is group:
                raise
            raise error from error.__cause__
        machine.check()
        machine.raise_for_end()

    def _option_problems(self) -> tuple[Problem, ...]:
        found: list[Problem] = []
        for option, least in (("max_in_flight", 1), ("buffer_size", 0)):
            value = getattr(self, option)
            if value is None and option == "buffer_size":
                continue
            if type(value) is not int or value < least:
                found.append(Problem(None, option, f"must be a whole number of at least {least}, got {value!r}"))
        found += budget_problems(self.budget)
        found += policy_problems(None, self.on_error)
        for option in ("item_timeout", "watchdog", "stall_timeout"):
            seconds = getattr(self, option)
            if seconds is not None and not is_duration(seconds):
                found.append(Problem(None, option, f"must be a number of seconds above 0, got {seconds!r}"))
        most = self.max_failures
        if most is not None and not (_is_number(most) and 0 <= most <= (1 if isinstance(most, float) else most)):
            text = f"must be a count like 10, or a share from 0.0 to 1.0, got {most!r}"
            found.append(Problem(None, "max_failures", text))
        return tuple(found)


def _check_limits(limits: object) -> None:
    if limits is not None and not isinstance(limits, Limits):
        raise TypeError(f"limits is {limits!r}; give Limits(), which is entered and left around the runs that share it")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


async def _written(sink: Sink, record: Record) -> Record:
    """Write `record` and return it; one that the sink cannot express is written, and returned, as failed, at last
    without its input."""
    try:
        await sink.write(record)
    except ItemError as error:
        record = replace(record, status="failed", output=None, outputs={}, error=Failure.of(error, None))
        try:
            await sink.write(record)
        except ItemError:
            record = replace(record, input=None)
            await sink.write(record)
    return record


def _single(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one exception in `group`, if it is only one; else the group, with all of them."""
    if len(group.exceptions) != 1:
        return group
    (error,) = group.exceptions
    return _single(cast("BaseExceptionGroup[BaseException]", error)) if isinstance(error, BaseExceptionGroup) else error
