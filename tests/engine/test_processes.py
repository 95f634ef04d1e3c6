"""CPU-bound functions: in processes of their own, which a visit that ends early takes with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import anyio.to_process
import pytest
from anyio.abc import Process

from pipeline import ConversationState, DefinitionError, Pipeline, Record, RunStopped, Visit
from pipeline.core import processes
from pipeline.core.agent import stage_of_agent
from pipeline.core.anyio_private import call_in_process
from pipeline.core.processes import START_SECONDS
from pipeline.core.virtual import virtual
from pipeline.core.worker_process import Answer
from stages import agent, filter, map, parallel, route
from tests.engine import computing

ROOT = Path(__file__).parents[2]


def ends(records: list[Record]) -> list[tuple[str, str | None]]:
    return [(record.status, record.error.type if record.error else None) for record in records]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def told_in(path: str) -> str | None:
    """What a process has written there."""
    return Path(path).read_text() if os.path.exists(path) else None


async def until(so: Callable[[], object]) -> None:
    """Wait for what another process does."""
    with anyio.fail_after(10):
        while not so():  # noqa: ASYNC110 - nothing here could set an event
            await anyio.sleep(0.005)


async def gone(path: str) -> None:
    """Wait until the process that has written its number there is no more."""
    pid = int(told_in(path) or 0)
    await until(lambda: not alive(pid))


async def test_maps_filters_and_agents_compute_in_processes() -> None:
    here = map(lambda value: os.getpid(), name="here")
    stages = (
        filter(computing.is_even, cpu=True)
        | map(computing.double, cpu=True, concurrency=2)
        | here
        | map(lambda value: "7", name="seven")
        | agent(computing.Elsewhere(6), cpu=True)
    )
    records = await Pipeline(stages, ordered=True).collect(range(4))
    assert [record.outputs["double"] for record in records] == [0, 4]
    assert [record.output for record in records] == [{"product": 42, "there": True}] * 2


async def test_processes_are_as_many_as_the_concurrency_and_are_kept_for_the_next_call() -> None:
    records = await Pipeline(map(computing.where, cpu=True, concurrency=2)).collect(range(12))
    pids = {record.output for record in records}
    assert 1 <= len(pids) <= 2
    assert os.getpid() not in pids


async def test_whatever_a_function_does_in_its_process_ends_its_own_item_only() -> None:
    words = ["x", "raise", "odd", "item error", "skip", "sys.exit", "os._exit", "kill", "stdout", "generator", "y"]
    pipe = Pipeline(map(computing.misbehaves, cpu=True), ordered=True)
    records = await pipe.collect(words)
    assert ends(records) == [
        ("ok", None),
        ("failed", "KeyError"),
        ("failed", "Odd"),
        ("failed", "Purpose"),
        ("failed", "SystemExit"),
        ("failed", "WorkerDied"),
        ("failed", "WorkerDied"),
        ("failed", "WorkerDied"),
        ("failed", "TypeError"),
        ("ok", None),
    ]
    told = {record.error.type: record.error for record in records if record.error}
    assert (told["Odd"].message, told["SystemExit"].message) == ("this and that", "leaving")
    assert told["Purpose"].retryable
    assert told["WorkerDied"].message == (
        "a worker process of stage 'misbehaves' ended while it worked on this item (killed, out of memory, crashed or "
        "left by os._exit), or the function wrote to file descriptor 1"
    )
    cause = told["KeyError"].cause
    assert cause is not None
    assert 'raise KeyError("no such key")' in "".join(cause.__notes__)


async def test_on_error_holds_for_what_fails_in_a_process() -> None:
    async with Pipeline(map(computing.misbehaves, cpu=True, on_error="skip")).open(["raise", "os._exit"]) as run:
        assert [record async for record in run.results] == []
    assert run.statistics().window.settled["skipped"] == 2


async def test_what_cannot_travel_fails_its_item_saying_so() -> None:
    pipe = Pipeline(map(lambda value: lambda: value, name="given") | map(computing.where, cpu=True))
    (record,) = await pipe.collect(["x"])
    assert record.error is not None
    assert record.error.type == "NotPicklable"
    assert record.error.message.startswith("what stage 'where' was given cannot be sent to a worker process: ")


async def test_a_function_that_computes_does_not_hold_up_the_event_loop(tmp_path: Path) -> None:
    async def write(path: str) -> int:
        await anyio.lowlevel.checkpoint()
        return Path(path).write_text("go")  # noqa: ASYNC240

    spin = map(computing.busy_until, cpu=True)
    (record,) = await Pipeline(parallel("both", spin=spin, write=map(write))).collect([str(tmp_path / "go")])
    assert record.status == "ok"


async def test_a_visit_whose_time_is_up_kills_its_process_and_the_next_one_has_another(tmp_path: Path) -> None:
    tell = str(tmp_path / "pid")
    pipe = Pipeline(map(computing.forever, cpu=True, timeout=0.3) | map(computing.double))
    (record,) = await pipe.collect([{"tell": tell}])
    assert record.error is not None
    assert (record.error.type, record.error.retryable) == ("VisitTimeout", True)
    assert record.error.message == "stage 'forever' did not end within 0.3 s"
    await gone(tell)
    (record,) = await Pipeline(map(computing.double, cpu=True, timeout=20)).collect([4])
    assert record.output == 8


async def test_a_loser_and_what_an_abort_ends_are_killed(tmp_path: Path) -> None:
    async def started(value: dict[str, str]) -> str:
        await until(lambda: told_in(value["tell"]))
        return "first"

    race = parallel("race", join="any", a=map(computing.forever, cpu=True), b=map(started))
    (record,) = await Pipeline(race).collect([{"tell": str(tmp_path / "loser")}])
    assert record.output == "first"
    await gone(str(tmp_path / "loser"))
    payload = {"tell": str(tmp_path / "aborted")}
    async with Pipeline(map(computing.forever, cpu=True)).open([payload]) as run:
        await started(payload)
        run.abort()
    await gone(payload["tell"])


async def test_a_run_that_is_left_while_a_process_starts_leaves_none_behind() -> None:
    async with Pipeline(map(computing.double, cpu=True, concurrency=2)).open([1, 2]) as run:
        while not any(stage.slots.borrowed for stage in run.statistics().stages):
            await anyio.lowlevel.checkpoint()
    assert run.statistics().window.settled["cancelled"] == 2


@pytest.mark.skipif(os.name != "posix", reason="signals")
async def test_a_process_that_was_interrupted_while_it_was_idle_gives_no_item_the_answer_of_another(
    tmp_path: Path,
) -> None:
    """It answers the interrupt, and so every request with the answer to the one before; here one that the host had
    started for itself. (Both answers may come at once, and the second be lost with the first: then it is in step.)"""
    interrupted = tmp_path / "interrupted"
    other = await anyio.to_process.run_sync(computing.telling_of_interrupts, str(interrupted))
    os.kill(other, signal.SIGINT)
    await until(interrupted.exists)
    records = await Pipeline(map(computing.double, cpu=True, concurrency=1), ordered=True).collect([1, 2])
    assert [record.output for record in records] == [2, 4]


async def test_a_process_that_answers_another_request_is_not_believed_and_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As an interrupted one does."""
    asked: list[int] = []

    async def answers_another(function: Callable[..., Answer], mark: bytes, *rest: object, **options: Any) -> Answer:
        answer = await call_in_process(function, mark if asked else b"another", *rest, **options)
        asked.append(answer.pid)
        return answer

    monkeypatch.setattr(processes, "call_in_process", answers_another)
    records = await Pipeline(map(computing.where, cpu=True, concurrency=1)).collect(["x", "y"])
    other, *trusted = asked
    assert [record.output for record in records] == trusted[1:]
    assert other not in trusted
    await until(lambda: not alive(other))


@pytest.mark.skipif(os.name != "posix", reason="signals")
async def test_a_signal_to_every_process_of_the_terminal_leaves_no_answer_for_the_next_request() -> None:
    pipe = Pipeline(map(computing.where, cpu=True) | map(str))
    async with pipe.open() as run:
        first = await run.submit("x")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(int(str(first.output)), number)
        await anyio.sleep(0.05)
        later = [await run.submit("y") for _ in range(2)]
    assert [record.output for record in later] == [first.output] * 2


# -- the pool of the event loop, which all stages and runs share ----------------------------------------------------


class Started(NamedTuple):
    """A process that was started."""

    process: Process
    seconds: float  #: that its start might take


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Started]:
    made: list[Started] = []
    real = anyio.to_process.open_process

    async def open_process(*args: object, **options: object) -> Process:
        seconds = anyio.current_effective_deadline() - anyio.current_time()
        process = await real(*args, **options)  # type: ignore[arg-type]
        made.append(Started(process, seconds))
        return process

    monkeypatch.setattr(anyio.to_process, "open_process", open_process)
    return made


def assert_started(started: list[Started], number: int) -> None:
    """So many were, all by a step of its own, and they have ended with their loop."""
    assert [each.seconds <= START_SECONDS for each in started] == [True] * number
    assert [each.process.returncode is None for each in started] == [False] * number


Call = Callable[[dict[str, str]], Awaitable[object]]


async def at_once(first: Call, second: Call, gate: Path) -> None:
    """Have `second` called while `first` computes."""
    tell = gate.with_suffix(".came")
    async with anyio.create_task_group() as tg:
        tg.start_soon(first, {"tell": str(tell), "gate": str(gate)})
        await until(tell.exists)
        await second({})
        gate.write_text("go")  # noqa: ASYNC240


async def two_stages_compute_at_once(gate: Path, started: list[Started]) -> None:
    stages = map(computing.same, cpu=True, timeout=1000) | map(computing.passes, cpu=True, timeout=1000, concurrency=2)
    async with Pipeline(stages).open() as run:
        await run.submit({})  # by one process in both stages
        await at_once(run.submit, run.submit, gate)


async def two_runs_compute_at_once(gate: Path, started: list[Started]) -> None:
    pipe = Pipeline(map(computing.passes, cpu=True, timeout=1000))
    async with pipe.open() as run, pipe.open() as other:
        for each in (run, other):
            await each.submit({})
        await at_once(run.submit, other.submit, gate)


async def the_host_computes_as_well(gate: Path, started: list[Started]) -> None:
    async with Pipeline(map(computing.same, cpu=True, timeout=1000)).open() as run:
        await run.submit({})
        await at_once(partial(anyio.to_process.run_sync, computing.passes), run.submit, gate)


async def an_idle_process_dies(gate: Path, started: list[Started]) -> None:
    async with Pipeline(map(computing.where, cpu=True, timeout=1000)).open() as run:
        pid = int(str((await run.submit({})).output))
        os.kill(pid, signal.SIGKILL)
        await until(lambda: started[0].process.returncode is not None)
        assert (await run.submit({})).status == "ok"


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    "scene",
    [two_stages_compute_at_once, two_runs_compute_at_once, the_host_computes_as_well, an_idle_process_dies],
)
def test_whoever_took_the_idle_process_no_call_starts_one_in_its_own_time(
    backend: str, scene: Callable[..., Awaitable[None]], tmp_path: Path, started: list[Started]
) -> None:
    anyio.run(scene, tmp_path / "gate", started, backend=backend)
    assert_started(started, 2)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_two_stages_in_two_runs_never_have_more_processes_than_calls(backend: str, started: list[Started]) -> None:
    pipe = Pipeline(map(computing.double, cpu=True, timeout=5) | map(computing.where, cpu=True, timeout=5))

    async def collect() -> None:
        records = await pipe.collect(range(12))
        assert [record.status for record in records] == ["ok"] * 12

    async def main() -> None:
        async with anyio.create_task_group() as tg:
            tg.start_soon(collect)
            tg.start_soon(collect)

    anyio.run(main, **virtual(backend))
    assert 1 <= len(started) <= 4
    assert_started(started, len(started))


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
async def test_a_process_that_takes_too_long_to_start_is_ended_and_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: list[Started]
) -> None:
    slow = tmp_path / "slow"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(slow))
    monkeypatch.setattr(processes, "START_SECONDS", 1)
    with pytest.raises(RunStopped) as caught:
        await Pipeline(map(computing.double, cpu=True)).collect([1])
    assert str(caught.value) == "a worker process of stage 'double' did not start: not within 1 s"
    assert_started(started, 1)


# -- beside the run -------------------------------------------------------------------------------------------------


async def test_what_is_changed_in_a_process_changes_nothing_here_so_debug_has_nothing_to_say() -> None:
    payload: dict[str, list[int]] = {"numbers": []}
    (record,) = await Pipeline(map(computing.changes, cpu=True), debug=True).collect([payload])
    assert (record.output, payload) == (1, {"numbers": []})


async def test_an_agent_that_names_a_label_computes_in_a_process_as_well() -> None:
    by = stage_of_agent(computing.calculator, cpu=True, timeout=20)
    cases = route({"x": map(str)}, by=by, default=map(repr))
    (record,) = await Pipeline(map(computing.double) | cases).collect([2])
    assert record.outputs["route_label"] == f"4 after 4 elsewhere than {os.getpid()}"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_virtual_time_stands_still_while_a_process_starts_and_computes(backend: str) -> None:
    async def main() -> tuple[float, float]:
        async def waits(value: int) -> int:
            await anyio.sleep(1000)
            return value

        pipe = Pipeline(map(computing.double, cpu=True, timeout=5))
        async with pipe.open([1, 2, 3]) as run, anyio.create_task_group() as tg:
            tg.start_soon(waits, 1)
            assert [record.output async for record in run.results] == [2, 4, 6]
            done = anyio.current_time()
        return done, anyio.current_time()

    assert anyio.run(main, **virtual(backend)) == (0, 1000)


# -- definitions ----------------------------------------------------------------------------------------------------


def told(stage: object) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        Pipeline(stage)  # type: ignore[arg-type]
    return [str(problem) for problem in caught.value.problems]


def sees(value: object, visit: Visit) -> object:
    return value


def asks(prompt: str, state: ConversationState, visit: Visit) -> str:
    return prompt


async def waits(value: object) -> object:
    return value


def test_a_function_that_a_process_cannot_find_is_refused_with_what_would_be_right() -> None:
    right = "define it with def at the top level of a module that can be imported, or run it with blocking instead"

    def nested(value: object) -> object:
        return value

    for function in (nested, lambda value: value, partial(nested)):
        (said,) = told(map(function, name="f", cpu=True))
        assert said.startswith("stage 'f', cpu: its function cannot be sent to a worker process: ")
        assert said.endswith(f"({right})")
    assert told(map(computing.double, name="f", cpu=True, blocking=True)) == [
        "stage 'f', cpu: it can run in worker threads or in worker processes, not in both (leave blocking or cpu out)"
    ]


def test_a_function_that_takes_the_visit_or_waits_is_refused() -> None:
    visit = "its function takes the visit, which stays in the process of the run"
    instead = "give it what it needs in the payload, or run it with blocking instead"
    assert told(map(sees, cpu=True)) == [f"stage 'sees', cpu: {visit} ({instead})"]
    assert told(agent(asks, cpu=True)) == [f"stage 'asks', cpu: {visit} ({instead})"]
    (said,) = told(filter(waits, cpu=True))
    assert said == (
        "stage 'waits', cpu: is for functions that compute, and this one is async: it runs on the event loop "
        "(make it a plain function, or leave cpu out)"
    )


SCRIPT = """
from pipeline import Pipeline
from stages import map

def double(value):
    return 2 * value

pipe = Pipeline(map(double, cpu=True), ordered=True)
if {guard}:
    print([record.output for record in pipe.run_sync([1, 2])])
"""


def run_script(path: Path, text: str) -> subprocess.CompletedProcess[str]:
    path.write_text(text)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, str(path)], env=environment, capture_output=True, text=True, timeout=60)


def test_a_function_of_the_main_script_works_and_a_script_that_would_start_itself_again_says_so(tmp_path: Path) -> None:
    done = run_script(tmp_path / "guarded.py", SCRIPT.format(guard='__name__ == "__main__"'))
    assert (done.stdout, done.stderr) == ("[2, 4]\n", "")
    done = run_script(tmp_path / "bare.py", SCRIPT.format(guard="True"))
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == (
        "pipeline.core.errors.RunStopped: a worker process of stage 'double' did not start: DefinitionError: "
        "stage 'double', cpu: a worker process imports the main module, which would start this run again "
        "(put what starts the run under `if __name__ == '__main__':`)"
    )
