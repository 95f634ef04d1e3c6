"""What is taken from anyio without its leave: each of these fails when a release has moved what it relies on."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import anyio
import anyio.to_process
import pytest
from anyio import RunFinishedError
from anyio.abc import Process
from anyio.lowlevel import EventLoopToken, current_token

from pipeline.core.anyio_private import (
    NoneReady,
    call_in_process,
    call_soon,
    in_transit,
    is_told_by_process,
    worker_processes,
)

PACKAGES = [Path(__file__).parents[2] / name for name in ("pipeline", "stages")]


def test_private_names_of_anyio_stand_in_one_module_and_in_virtual_time() -> None:
    names = ("backend_class", "waiting_senders", "_process_pool", "_run_vars", "send_raw_command")
    files = [file for package in PACKAGES for file in package.rglob("*.py")]
    told = {file.name for file in files if any(name in file.read_text() for name in names)}
    assert told == {"anyio_private.py", "virtual.py"}


async def test_a_thread_has_the_loop_call_something_without_waiting_for_it() -> None:
    loop, here = current_token(), threading.get_ident()
    came, called = anyio.Event(), list[object]()

    def call(word: str) -> None:
        called.append((word, threading.get_ident() == here))
        came.set()

    thread = threading.Thread(target=call_soon, args=(loop, call, "soon"))
    thread.start()
    thread.join()  # on the loop, which can call nothing meanwhile
    assert called == []
    await came.wait()
    assert called == [("soon", True)]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_loop_that_has_ended_calls_nothing_and_says_so(backend: str) -> None:
    async def token() -> EventLoopToken:
        return current_token()

    with pytest.raises(RunFinishedError):
        call_soon(anyio.run(token, backend=backend), print)


async def test_what_lies_in_a_stream_and_what_waits_for_room_are_seen() -> None:
    send, receive = anyio.create_memory_object_stream[str](2)
    async with anyio.create_task_group() as tg:
        for each in "abcd":
            tg.start_soon(send.send, each)
            await anyio.wait_all_tasks_blocked()
        assert in_transit(receive) == (("a", "b"), ("c", "d"))
        assert [await receive.receive() for _ in range(4)] == ["a", "b", "c", "d"]
    assert in_transit(receive) == ((), ())
    send.close()
    receive.close()


# -- worker processes -----------------------------------------------------------------------------------------------


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Process]:
    """The processes that anyio starts."""
    processes: list[Process] = []
    real = anyio.to_process.open_process

    async def open_process(*args: object, **options: object) -> Process:
        processes.append(await real(*args, **options))  # type: ignore[arg-type]
        return processes[-1]

    monkeypatch.setattr(anyio.to_process, "open_process", open_process)
    return processes


async def test_a_call_uses_none_but_the_processes_that_it_may_and_starts_none(started: list[Process]) -> None:
    with pytest.raises(NoneReady):
        await call_in_process(os.getpid, only=())
    assert (len(started), worker_processes()) == (0, frozenset())
    pid = await call_in_process(os.getpid)
    assert (worker_processes(), len(started)) == ({pid}, 1)
    assert await call_in_process(os.getpid, only={pid}) == pid
    with pytest.raises(NoneReady):
        await call_in_process(os.getpid, only={pid + 1})
    assert await anyio.to_process.run_sync(os.getpid) == pid
    assert len(started) == 1


async def test_a_call_looks_at_the_pool_in_the_instant_in_which_it_is_served(started: list[Process]) -> None:
    pid = await call_in_process(os.getpid)
    told: list[object] = []

    async def call() -> None:
        try:
            told.append(await call_in_process(os.getpid, only={pid}))
        except NoneReady:
            told.append("none")

    async with anyio.create_task_group() as tg:
        for _ in range(3):
            tg.start_soon(call)
    assert (told, len(started)) == (["none", "none", pid], 1)


async def test_a_call_that_is_cancelled_while_its_process_starts_ends_it(started: list[Process]) -> None:
    async with anyio.create_task_group() as tg:
        tg.start_soon(call_in_process, os.getpid)
        with anyio.fail_after(10):
            while not started:
                await anyio.lowlevel.checkpoint()
        tg.cancel_scope.cancel()
    assert [process.returncode is None for process in started] == [False]
    assert worker_processes() == frozenset()


def interrupts() -> None:
    raise KeyboardInterrupt


async def test_what_was_raised_in_a_process_is_told_from_what_is_raised_here() -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        await call_in_process(interrupts)
    assert is_told_by_process(caught.value)
    assert len(worker_processes()) == 1  # it has answered, and may do so again
    with pytest.raises(KeyboardInterrupt) as caught:
        interrupts()
    assert not is_told_by_process(caught.value)
