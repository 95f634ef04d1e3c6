"""A disk that does not answer keeps nobody for ever who has cancelled the run, and one that is slow loses nothing."""

from __future__ import annotations

import threading
from pathlib import Path

import anyio
import pytest

from pipeline import Pipeline
from pipeline.core.errors import JournalLocked, WriteError
from pipeline.durability.disk import writer
from pipeline.durability.disk.marks import left
from pipeline.durability.journal import MARKS, Journal
from stages import agent, map
from stages.models import resolve
from tests.durability.lives import asked, live

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])

PIPE = Pipeline(agent("say", model=resolve("sim/default", latency=0)), max_in_flight=2)


class Hang:
    """Keeps the thread that comes to a point once it is `armed`, until it is let go."""

    def __init__(self, point: str, *, armed: bool = True) -> None:
        self._point = point
        self.armed = armed
        self._free = threading.Event()
        self.reached = threading.Event()

    def __call__(self, point: str) -> None:
        if self.armed and point == self._point and not self._free.is_set():
            self.reached.set()
            self._free.wait(30)

    def let_go(self) -> None:
        self._free.set()


@both_backends
@pytest.mark.parametrize("point", ["commit:last", "output:write", "fold:before"])
def test_a_disk_that_hangs_does_not_keep_an_abort(
    backend: str, point: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "LAST", 0.2)
    hang = Hang(point, armed=point != "fold:before")  # which is passed once before, when the journal is made
    journal = Journal(tmp_path / "run", output=tmp_path / "out.jsonl", probe=hang)

    async def main() -> None:
        with pytest.raises(WriteError, match=r"the journal: .*has not answered within 0.2 s of the end"):
            await aborted()
        with pytest.raises(JournalLocked):  # its thread may still write
            await live(PIPE, ["a", "b"], Journal(journal.directory, output=journal.output))
        hang.let_go()

    async def aborted() -> None:
        async with PIPE.open(["a", "b"], journal=journal) as run:
            if hang.armed:
                await anyio.to_thread.run_sync(hang.reached.wait)
            hang.armed = True
            run.abort()

    anyio.run(main, backend=backend)


@both_backends
def test_a_disk_that_hangs_does_not_keep_a_host_that_is_cancelled(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "LAST", 0.2)
    hang = Hang("commit:last")

    async def main() -> None:
        with anyio.CancelScope() as scope:
            async with PIPE.open(["a"], journal=Journal(tmp_path, probe=hang)) as run:
                await anyio.to_thread.run_sync(hang.reached.wait)
                scope.cancel()
                async for _ in run.results:
                    raise AssertionError("nothing is durable")
        assert scope.cancelled_caught
        hang.let_go()

    anyio.run(main, backend=backend)


@both_backends
def test_a_run_that_ends_by_itself_waits_for_the_disk(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "LAST", 0.01)
    hang = Hang("fold:before")
    journal = Journal(tmp_path, probe=hang)

    async def main() -> None:
        async with anyio.create_task_group() as tg:
            tg.start_soon(let_go)
            assert len((await live(PIPE, ["a", "b"], journal)).records) == 2

    async def let_go() -> None:
        await anyio.to_thread.run_sync(hang.reached.wait)
        await anyio.sleep(0.05)
        hang.let_go()

    anyio.run(main, backend=backend)


@both_backends
@pytest.mark.parametrize("error", [MemoryError("none left"), RuntimeError("a bug")])
def test_whatever_fails_in_the_writer_ends_the_run_and_a_resume_makes_it_right(
    backend: str, error: Exception, tmp_path: Path
) -> None:
    passed = 0

    def strike(point: str) -> None:
        nonlocal passed
        passed += point == "commit:row"
        if passed == 5:
            raise error

    async def main() -> None:
        with pytest.raises(WriteError, match=f"^the journal: {type(error).__name__}: {error}$") as told:
            await live(PIPE, ["a", "b", "c"], Journal(tmp_path, probe=strike))
        assert told.value.__cause__ is error
        await live(PIPE, ["a", "b", "c"], Journal(tmp_path))
        assert asked(Journal(tmp_path), "SELECT status, count(*) FROM settled GROUP BY status") == [("ok", 3)]

    anyio.run(main, backend=backend)


@both_backends
def test_nobody_is_to_blame_for_a_kill_that_was_announced(backend: str, tmp_path: Path) -> None:
    began, free = threading.Event(), threading.Event()

    def slow(value: object) -> object:
        began.set()
        free.wait(30)
        return value

    async def main(end: str) -> None:
        directory = tmp_path / end
        async with Pipeline(map(slow, name="slow", blocking=True)).open(["a"], journal=Journal(directory)) as run:
            await anyio.to_thread.run_sync(began.wait)
            before = left(directory / MARKS)
            assert before is not None
            assert before.roots == {1}
            if end == "drain":
                run.drain("calls")
            else:
                run.abort()
            assert left(directory / MARKS) is None
            free.set()

    for end in ("drain", "abort"):
        began.clear()
        free.clear()
        anyio.run(main, end, backend=backend)
