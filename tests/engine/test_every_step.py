"""Cancelled at any step whatsoever, a run leaves nothing behind and its accounts balance.

Each test repeats one small run as often as it has steps, and strikes before another step each time, on one schedule of
the scheduler's choices. Where there are several ways to strike they take turns, and a drain strikes every other step
only. More schedules, over which the turns rotate:

    PENSTOCK_SCHEDULES=20 pytest tests/engine/test_every_step.py
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Awaitable, Callable
from functools import cache
from itertools import count
from time import sleep

import anyio
import pytest

from pipeline.core.run import Run
from tests.engine.schedules import run_in
from tests.engine.steps import Steps, run_stepwise
from tests.engine.topologies import TOPOLOGIES, Host, nothing_is_left

SCHEDULES = range(int(os.environ.get("PENSTOCK_SCHEDULES", "1")))

#: what is done to a run: arms the steps, and returns when the run is over
Strike = Callable[[Host, Steps], Awaitable[None]]
#: what else has to hold of a run that was struck
Law = Callable[[Host], None]

ASKED = [name for name, topology in TOPOLOGIES.items() if topology.asks]
#: those whose reading differs: in order, children, slowly, quickly
READ = ["nested", "flat", "flat twice", "submit beside a source", "ordered, slow reader", "loop"]

every_topology = pytest.mark.parametrize("topology", TOPOLOGIES)
both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def at_every_step(backend: str, topology: str, *strikes: Strike, law: Law | None = None, stride: int = 1) -> None:
    """Strike before each step in turn, until the run ends before it is struck. Several ways to strike take turns, which
    the schedule shifts, as it does the first step of a stride."""
    gc.collect()  # what tests before this one have left is not to go meanwhile: descriptors are counted
    for schedule in SCHEDULES:
        for at in count((schedule + (backend == "trio")) % stride, stride):
            steps = Steps(at)
            one_run(backend, topology, strikes[(at + schedule) % len(strikes)], law, steps, schedule)
            if not steps.acted:
                break
    gc.collect()  # what was not closed warns when it goes, and warnings are errors


def one_run(backend: str, topology: str, strike: Strike, law: Law | None, steps: Steps, schedule: int) -> None:
    host = Host(TOPOLOGIES[topology])

    async def main() -> None:
        tasks, files = len(anyio.get_running_tasks()), descriptors()
        await strike(host, steps)
        steps.disarm()
        assert len(anyio.get_running_tasks()) == tasks
        assert descriptors() == files
        if host.run is not None:
            nothing_is_left(host.run)
            host.nothing_is_lost()
            only_counted_threads_are_left(host)
            if law is not None:
                law(host)
        host.code.gate.set()

    try:
        run_stepwise(backend, steps, main, schedule)
    except BaseException as error:
        error.add_note(f"{strike.__name__} before step {steps.at} of {topology!r}, {backend}, schedule {schedule}")
        raise
    finally:
        host.code.gate.set()


def descriptors() -> int:
    """Files and sockets that this process has open."""
    return len(os.listdir("/dev/fd"))


def only_counted_threads_are_left(host: Host) -> None:
    """Blocking calls that were abandoned are out until they come back; the run has counted each by its stage."""
    for _ in range(5000):
        blocking = host.machine.statistics().blocking
        assert all(stage.stage == "blocks" and stage.running == stage.abandoned for stage in blocking)
        out = sum(stage.abandoned for stage in blocking)
        if host.code.inside == out:  # one may have been started that is not in its function yet, or may just come back
            return
        sleep(0.001)
    raise AssertionError(f"{out} threads are counted, {host.code.inside} are at work")


# -- all of it is cancelled -----------------------------------------------------------------------------------------


async def cancel_the_scope(host: Host, steps: Steps) -> None:
    with anyio.CancelScope() as scope:
        steps.arm(host.holding_threads(scope.cancel))
        await host()


async def cancel_the_task(host: Host, steps: Steps) -> None:
    task = asyncio.ensure_future(host())
    late = False

    def cancel() -> None:
        nonlocal late
        late = not task.cancel()

    steps.arm(host.holding_threads(cancel))
    await asyncio.wait([task])
    assert task.cancelled() == (steps.acted and not late), "the cancellation was swallowed"
    if not task.cancelled():
        task.result()


async def cancel_the_task_again_and_again(host: Host, steps: Steps) -> None:
    """What an impatient host does: the run is cancelled while it is being torn down, too."""
    task = asyncio.ensure_future(host())

    def cancel(more: int = 3) -> None:
        task.cancel()
        if more:
            asyncio.get_running_loop().call_soon(cancel, more - 1)

    steps.arm(host.holding_threads(cancel))
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def time_out(host: Host, steps: Steps) -> None:
    """`asyncio.timeout`, whose time is up at the step."""
    try:
        async with asyncio.timeout(None) as timeout:
            steps.arm(host.holding_threads(lambda: timeout.reschedule(0)))
            await host()
    except TimeoutError:
        assert steps.acted


async def abort(host: Host, steps: Steps) -> None:
    host.on_start = lambda run: steps.arm(host.holding_threads(run.abort))
    await host()


async def leave_the_block(host: Host, steps: Steps) -> None:
    host.on_start = lambda run: steps.arm(host.holding_threads(host.leave))
    await host()


async def leave_by_an_error(host: Host, steps: Steps) -> None:
    host.on_start = lambda run: steps.arm(host.holding_threads(lambda: host.leave(KeyError("mine"))))
    try:
        await host()
    except KeyError:
        assert steps.acted


async def drain_items(host: Host, steps: Steps) -> None:
    host.on_start = lambda run: steps.arm(run.drain)
    await host()
    assert host.machine.statistics().window.settled["cancelled"] == 0


async def drain_calls(host: Host, steps: Steps) -> None:
    host.on_start = lambda run: steps.arm(lambda: run.drain("calls"))
    await host()


@every_topology
@both_backends
def test_an_anyio_scope_can_be_cancelled_at_every_step(backend: str, topology: str) -> None:
    at_every_step(backend, topology, cancel_the_scope)


@every_topology
def test_the_asyncio_task_of_the_host_can_be_cancelled_at_every_step(topology: str) -> None:
    at_every_step("asyncio", topology, cancel_the_task)


@pytest.mark.parametrize("topology", ["busy entrance", "nested", "blocking threads"])
def test_a_host_that_is_cancelled_again_and_again_leaves_nothing_behind(topology: str) -> None:
    at_every_step("asyncio", topology, cancel_the_task_again_and_again)


@pytest.mark.parametrize("topology", ["line", "nested", "into a sink"])
def test_asyncio_timeouts_around_a_run_end_it_at_every_step(topology: str) -> None:
    at_every_step("asyncio", topology, time_out)


@every_topology
@both_backends
def test_a_run_can_be_ended_at_every_step(backend: str, topology: str) -> None:
    leaving = () if TOPOLOGIES[topology].to_sink else (leave_the_block, leave_by_an_error)
    at_every_step(backend, topology, abort, drain_calls, *leaving)


@every_topology
@both_backends
def test_a_run_that_drains_at_any_step_finishes_what_it_has_admitted(backend: str, topology: str) -> None:
    at_every_step(backend, topology, drain_items, stride=2)


# -- a part of it is cancelled --------------------------------------------------------------------------------------

Outcomes = dict[str, list[tuple[str, str, object]]]


def outcomes(host: Host) -> Outcomes:
    """What came of each root that left a record, by its id."""
    found: Outcomes = {}
    for record in (*host.records, *host.replies, *host.code.written):
        found.setdefault(record.parent or record.id, []).append((record.id, record.status, record.output))
    return {root: sorted(records, key=lambda record: record[0]) for root, records in found.items()}


@cache
def undisturbed(backend: str, topology: str) -> Outcomes:
    host = Host(TOPOLOGIES[topology])
    run_in(backend, 0, host)
    return outcomes(host)


async def cancel_the_reader(host: Host, steps: Steps) -> None:
    """Cancel who reads the results, and read on."""

    async def read(run: Run) -> None:
        with anyio.CancelScope() as scope:
            steps.arm(scope.cancel)
            await host.read(run)
        await host.read(run)

    host.reading = read
    await host()


async def cancel_the_task_that_reads(host: Host, steps: Steps) -> None:
    async def read(run: Run) -> None:
        task = asyncio.ensure_future(host.read(run))
        steps.arm(task.cancel)
        await asyncio.wait([task])
        await host.read(run)

    host.reading = read
    await host()


async def cancel_a_submitter(host: Host, steps: Steps) -> None:
    async def ask(run: Run, value: object) -> None:
        with anyio.CancelScope() as scope:
            if value == host.topology.asks[-1]:
                steps.arm(scope.cancel)
            await host.ask(run, value)

    host.asking = ask
    await host()


async def cancel_a_task_that_submits(host: Host, steps: Steps) -> None:
    async def ask(run: Run, value: object) -> None:
        task = asyncio.ensure_future(host.ask(run, value))
        if value == host.topology.asks[-1]:
            steps.arm(task.cancel)
        await asyncio.wait([task])

    host.asking = ask
    await host()


@pytest.mark.parametrize("topology", READ)
@both_backends
def test_whoever_reads_on_after_being_cancelled_at_any_step_has_missed_nothing(backend: str, topology: str) -> None:
    expected = undisturbed(backend, topology)

    def nothing_is_missed(host: Host) -> None:
        assert outcomes(host) == expected

    strike = cancel_the_task_that_reads if backend == "asyncio" else cancel_the_reader
    at_every_step(backend, topology, strike, law=nothing_is_missed)


@pytest.mark.parametrize("topology", ASKED)
@both_backends
def test_a_submitter_can_be_cancelled_at_every_step_and_harms_nobody(backend: str, topology: str) -> None:
    expected = undisturbed(backend, topology)

    def others_are_ok(host: Host) -> None:
        of_the_source = {root: records for root, records in outcomes(host).items() if not root.startswith("submit-")}
        assert of_the_source == {root: expected[root] for root in expected if not root.startswith("submit-")}
        assert len(host.replies) >= len(host.topology.asks) - 1

    strike = cancel_a_task_that_submits if backend == "asyncio" else cancel_a_submitter
    at_every_step(backend, topology, strike, law=others_are_ok)
