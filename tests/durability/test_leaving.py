"""A run with a journal can be left at any step: the journal is whole, nothing is held, and the next run finishes.

Each test repeats one small run, strikes before another step each time, and then runs again with the same journal until
the end. CI strikes at every so manieth step; all of them:

    PENSTOCK_EVERY_STEP=1 pytest tests/durability/test_leaving.py
"""

from __future__ import annotations

import gc
import os
import sqlite3
import threading
from collections import Counter
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from time import sleep

import anyio
import pytest
from trio.testing import active_thread_count

from pipeline.core.run import Run
from pipeline.durability.disk.lock import locked
from pipeline.durability.journal import FILE, LOCK, Journal
from tests.engine import test_every_step as steps_of
from tests.engine.schedules import run_in
from tests.engine.steps import Steps, run_stepwise
from tests.engine.topologies import TOPOLOGIES, Host, Topology, nothing_is_left

EVERY_STEP = bool(os.environ.get("PENSTOCK_EVERY_STEP"))
STRIDE = 1 if EVERY_STEP else 23

#: in which the task of a host is cancelled
WAYS = (steps_of.cancel_the_task, steps_of.time_out, steps_of.cancel_the_task_again_and_again)

#: every kind of wait in front of a journal: for the source, a slot, a member, the end of a batch, the reader, a sink
STRUCK = [
    "line", "nested", "fanned", "flat", "ordered, slow reader", "batch", "map_reduce", "model calls", "into a sink",
]  # fmt: skip

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Life(Host):
    """A host that keeps its run in a journal, and submits nothing to it."""

    def __init__(self, topology: Topology, journal: Journal) -> None:
        super().__init__(replace(topology, asks=()))
        self.journal = journal

    async def __call__(self) -> None:
        if self.topology.to_sink:
            await self.pipe.run(self.source(), self.code, watch=self._start, journal=self.journal)
            return
        async with self.pipe.open(self.source(), journal=self.journal) as run:
            self._start(run)
            with anyio.CancelScope() as self._stay:
                await self.use(run)
            if self._error is not None:
                raise self._error


def left_at_every_step(
    backend: str, topology: str, place: Path, *strikes: steps_of.Strike, stride: int = STRIDE
) -> None:
    """Strike before each step in turn, until the run ends before it is struck; several ways to strike take turns."""
    gc.collect()  # what tests before this one have left is not to go meanwhile: descriptors are counted
    for turn, at in enumerate(count((backend == "trio") * stride // 2, stride)):
        steps, strike = Steps(at), strikes[turn % len(strikes)]
        try:
            one_case(backend, topology, Journal(place / f"{turn}", "process"), strike, steps)
        except BaseException as error:
            error.add_note(f"{strike.__name__} before step {at} of {topology!r}, {backend}")
            raise
        if not steps.acted:
            break
    gc.collect()  # what was not closed warns when it goes, and warnings are errors


def one_case(backend: str, topology: str, journal: Journal, strike: steps_of.Strike, steps: Steps) -> None:
    threads = threading.active_count()
    first = Life(TOPOLOGIES[topology], journal)

    async def struck() -> None:
        tasks, files = len(anyio.get_running_tasks()), steps_of.descriptors()
        await strike(first, steps)
        steps.disarm()
        assert len(anyio.get_running_tasks()) == tasks
        assert steps_of.descriptors() == files
        if first.run is not None:
            nothing_is_left(first.run)
        assert backend == "asyncio" or not active_thread_count()
        is_free(journal)
        is_whole(journal)

    run_stepwise(backend, steps, struck)
    if backend == "asyncio":  # trio keeps threads that are idle, for whichever run comes next
        no_more_threads_than(threads)
    second = Life(TOPOLOGIES[topology], journal)
    run_in(backend, 0, second)
    is_finished(journal, second)


def is_free(journal: Journal) -> None:
    """Another process could take the lock now."""
    if (path := Path(journal.directory) / LOCK).exists():
        with locked(path):
            pass


def is_whole(journal: Journal) -> None:
    if (path := Path(journal.directory) / FILE).exists():
        with closing(sqlite3.connect(path)) as file:
            assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def no_more_threads_than(before: int) -> None:
    """What the loop had has ended with it. A thread may still be on its way out."""
    for _ in range(2000):
        if threading.active_count() <= before:
            return
        sleep(0.001)
    raise AssertionError(f"{threading.active_count()} threads, {before} before: {threading.enumerate()}")


def is_finished(journal: Journal, last: Life) -> None:
    """Every record of the input has one root, which is settled; no part of one has left two lines."""
    with closing(sqlite3.connect(Path(journal.directory) / FILE)) as file:
        places = [place for (place,) in file.execute("SELECT place FROM root ORDER BY place")]
        assert places == list(range(len(last.topology.values)))
        roots = Counter(root for (root,) in file.execute("SELECT seq FROM root"))
        assert Counter(root for (root,) in file.execute("SELECT root FROM settled")) == roots
        statuses = {status for (status,) in file.execute("SELECT status FROM settled")}
        assert statuses <= {"ok", "partial", "failed", "skipped"}
        lines = file.execute("SELECT root, part FROM line").fetchall()
        assert len(set(lines)) == len(lines)
        if last.topology.joined:
            unskipped = file.execute("SELECT root FROM settled WHERE status != 'skipped'").fetchall()
            assert Counter(root for root, _ in lines) == Counter(root for (root,) in unskipped)


async def finish_calls(host: Host, steps: Steps) -> None:
    """What a consumer that fails does."""
    host.on_start = lambda run: steps.arm(lambda: run.drain("calls"))
    read = host.reading

    async def then_finish(run: Run) -> None:
        await read(run)
        await run.finish_calls()

    host.reading = then_finish
    await host()


@pytest.mark.parametrize("topology", STRUCK)
@both_backends
def test_a_scope_around_a_run_with_a_journal_can_be_cancelled_at_any_step(
    backend: str, topology: str, tmp_path: Path
) -> None:
    left_at_every_step(backend, topology, tmp_path, steps_of.cancel_the_scope)


@pytest.mark.parametrize("topology", STRUCK)
def test_the_asyncio_task_of_the_host_can_be_cancelled_at_any_step(topology: str, tmp_path: Path) -> None:
    left_at_every_step("asyncio", topology, tmp_path, *WAYS)


@pytest.mark.parametrize("topology", STRUCK)
@both_backends
def test_a_run_with_a_journal_can_be_ended_at_any_step(backend: str, topology: str, tmp_path: Path) -> None:
    leaving: tuple[steps_of.Strike, ...] = ()
    if not TOPOLOGIES[topology].to_sink:
        leaving = (steps_of.leave_the_block, steps_of.leave_by_an_error, finish_calls)
    left_at_every_step(backend, topology, tmp_path, steps_of.drain_calls, steps_of.abort, *leaving)


@pytest.mark.parametrize("strikes", [(way,) for way in WAYS] if EVERY_STEP else [WAYS])
def test_the_task_of_the_host_can_be_cancelled_at_each_step_of_opening_and_closing(
    strikes: tuple[steps_of.Strike, ...], tmp_path: Path
) -> None:
    """A run without records is opening and closing, and nothing else."""
    TOPOLOGIES["nothing"] = replace(TOPOLOGIES["line"], values=(), arriving=False)
    try:
        left_at_every_step("asyncio", "nothing", tmp_path, *strikes, stride=1)
    finally:
        del TOPOLOGIES["nothing"]
