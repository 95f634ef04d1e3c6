"""An item whose code kills the process three times running is given up; who only was near is not."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import anyio
import pytest

from pipeline import Pipeline
from pipeline.core.marking import Elsewhere, Stepped, marked_call
from pipeline.core.threshold import runs_foreign_code
from pipeline.durability.disk.marks import CELLS, Left, Marks, left, open_marks
from pipeline.durability.journal import MARKS, Journal
from pipeline.durability.resume.poison import CRASHES
from pipeline.durability.resume.reopening import Reopen
from stages import map as mapped
from tests.durability.lives import asked, crashed, live, pipe
from tests.durability.poisonous import KINDS, POISON
from tests.engine.schedules import run_in
from tests.preloaded import preloaded

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def run(directory: Path, backend: str, kind: str, where: str = "later") -> tuple[int, str]:
    words = [str(directory), backend, kind, where]
    code, out, _ = preloaded().run("tests.durability.poisonous", words, b"", Path.cwd(), os.environ, 60)
    return code, out.decode()


@both_backends
@pytest.mark.parametrize("kind", KINDS)
def test_an_item_that_kills_the_process_is_given_up_after_three_times(backend: str, kind: str, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    for _ in range(CRASHES):
        assert run(directory, backend, kind)[0] == -signal.SIGKILL
    code, said = run(directory, backend, kind)
    assert code == 0
    assert f"failed poison {POISON}\n" in said
    journal = Journal(directory)
    assert asked(journal, "SELECT status, count(*) FROM settled GROUP BY status") == [("failed", 1), ("ok", 11)]
    assert asked(journal, f"SELECT count(*) FROM root WHERE crashes >= {CRASHES}") == [(1,)]
    assert not (directory / MARKS).exists()


# -- the file ---------------------------------------------------------------------------------------------------


def test_what_a_process_has_noted_is_there_for_the_next_one(tmp_path: Path) -> None:
    marks = Marks(tmp_path / MARKS, 3)
    first, second, third = (marks.enter(root) for root in (7, 8, 9))
    marks.leave(second)
    assert left(tmp_path / MARKS) == Left(3, frozenset({7, 9}))
    marks.leave(first)
    marks.leave(third)
    assert left(tmp_path / MARKS) == Left(3, frozenset())
    marks.close()
    assert left(tmp_path / MARKS) is None


def test_what_is_beyond_the_room_is_not_noted_and_does_no_harm(tmp_path: Path) -> None:
    marks = Marks(tmp_path / MARKS, 1)
    cells = [marks.enter(root) for root in range(1, CELLS + 5)]
    assert cells[CELLS - 1 :] == [0] * 5
    for cell in cells:
        marks.leave(cell)
    assert left(tmp_path / MARKS) == Left(1, frozenset())
    assert marks.enter(5) != 0
    marks.close()


def test_where_no_marks_can_be_kept_nobody_is_blamed(tmp_path: Path) -> None:
    assert open_marks(tmp_path, 1) is None
    (tmp_path / MARKS).write_bytes(b"something else")
    assert left(tmp_path / MARKS) is None


# -- noting -----------------------------------------------------------------------------------------------------


class Noting:
    """A page that notes only."""

    def __init__(self) -> None:
        self.at_work = 0
        self.times = 0
        self.turn = None

    def enter(self) -> int:
        self.at_work += 1
        self.times += 1
        return 1

    def leave(self, mark: int) -> None:
        assert mark == 1
        self.at_work -= 1


@both_backends
def test_code_is_noted_while_it_runs_and_not_while_it_waits(backend: str) -> None:
    page: Any = Noting()
    seen: list[int] = []

    async def code() -> str:
        seen.append(page.at_work)
        await anyio.sleep(1)
        seen.append(page.at_work)
        try:
            await anyio.sleep(5)
        finally:
            seen.append(page.at_work)
        return "done"

    async def watch() -> None:
        for _ in range(3):
            await anyio.sleep(0.4)
            seen.append(10 + page.at_work)

    async def body() -> None:
        async with anyio.create_task_group() as tg:
            tg.start_soon(watch)
            assert await Stepped(page, code()) == "done"
        with anyio.move_on_after(3):
            await Stepped(page, code())
        with pytest.raises(ValueError, match="no"):
            await Stepped(page, failing())

    async def failing() -> None:
        await anyio.sleep(1)
        raise ValueError("no")

    run_in(backend, 0, body)
    assert seen == [1, 10, 10, 1, 10, 1, 1, 1, 1]
    assert page.at_work == 0


def test_anything_that_can_be_awaited_can_be_noted() -> None:
    page: Any = Noting()

    class Plain:
        def __await__(self) -> Any:
            return iter(())

    class Steps:
        def __await__(self) -> Generator[str, str, str]:
            return (yield "asked") + "!"

    steps = Stepped(page, Steps()).__await__()
    assert next(steps) == "asked"
    assert page.at_work == 0
    with pytest.raises(StopIteration) as end:
        steps.send("answer")
    assert end.value.value == "answer!"
    with pytest.raises(StopIteration):
        next(Stepped(page, Plain()).__await__())
    assert page.at_work == 0


def test_what_is_elsewhere_is_noted_until_it_has_come_back() -> None:
    page: Any = Noting()

    async def code() -> None:
        elsewhere.append(Elsewhere())

    elsewhere: list[Elsewhere] = []
    outside = Elsewhere()
    with pytest.raises(StopIteration):
        next(Stepped(page, code()).__await__())
    assert page.at_work == 1
    elsewhere[0].end()
    elsewhere[0].end()
    outside.end()
    assert page.at_work == 0
    assert marked_call(page, lambda value: value + page.at_work, 1) == 2


# -- blaming ----------------------------------------------------------------------------------------------------


def crashes(journal: Journal) -> list[int]:
    return [count for (count,) in asked(journal, "SELECT crashes FROM root ORDER BY seq")]


def blame(journal: Journal, epoch: int, *roots: int) -> None:
    """Leave what a process leaves that dies while code works on these roots."""
    marks = Marks(Path(journal.directory) / MARKS, epoch)
    for root in roots:
        marks.enter(root)


@both_backends
def test_crashes_count_in_a_row_and_only_for_what_is_open(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        journal = await crashed(pipe(), ["one", "two", "three"], Journal(tmp_path / "0"), 2, tmp_path / "1")
        assert crashes(journal) == [0, 0, 0]  # they waited for a model
        blame(journal, 1, 1, 2)
        journal = await crashed(pipe(), [], journal, 0, tmp_path / "2")
        assert crashes(journal) == [1, 1, 0]
        blame(journal, 2, 2, 3, 99)
        journal = await crashed(pipe(), [], journal, 0, tmp_path / "3")
        assert crashes(journal) == [0, 2, 1]
        blame(journal, 2, 2)  # what a run before the last one has left
        journal = await crashed(pipe(), [], journal, 0, tmp_path / "4")
        assert crashes(journal) == [0, 2, 1]
        blame(journal, 4, 2)
        lived = await live(pipe(), [], journal)
        assert crashes(journal) == [0, 3, 0]
        assert lived.recovered is not None
        assert lived.recovered.poisoned == 1
        (failed,) = [record for record in lived.records if record.status == "failed"]
        assert failed.error is not None
        assert (failed.error.type, failed.error.message) == (
            "poison",
            "code that worked on it was running when the process crashed or was killed, 3 times in a row",
        )
        assert len(lived.records) == 3
        blame(journal, 5, 1, 2)
        await live(pipe(), [], journal)
        assert crashes(journal) == [0, 3, 0]

    run_in(backend, 0, body)


@both_backends
def test_of_those_that_were_at_work_at_a_crash_one_at_a_time_is_so_again(backend: str, tmp_path: Path) -> None:
    at_once: list[int] = []
    inside: list[object] = []

    async def work(value: object) -> object:
        inside.append(value)
        await anyio.sleep(1)
        at_once.append(len(inside))
        inside.remove(value)
        return value

    async def body() -> None:
        pipeline = Pipeline(mapped(work, name="own", concurrency=8))
        prompts = ["one", "two", "three", "four"]
        journal = await crashed(pipeline, prompts, Journal(tmp_path / "0"), 0.5, tmp_path / "1")
        inside.clear()
        blame(journal, 1, 2, 3)
        await live(pipeline, prompts, journal)
        assert at_once == [3, 2, 1, 1]

    run_in(backend, 0, body)


@both_backends
def test_a_run_that_ends_by_itself_blames_nobody(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        def refuses(value: object) -> object:
            raise ValueError("no")

        journal = Journal(tmp_path / "run")
        await live(Pipeline(mapped(refuses, name="own", blocking=True)), ["one"], journal)
        assert not (tmp_path / "run" / MARKS).exists()
        async with pipe().open(["one"], journal=Journal(tmp_path / "left")) as run:
            assert (tmp_path / "left" / MARKS).exists()
            run.abort()
        assert not (tmp_path / "left" / MARKS).exists()

    run_in(backend, 0, body)


@both_backends
def test_who_is_opened_again_has_crashed_nothing(backend: str, tmp_path: Path) -> None:
    async def body() -> None:
        journal = await crashed(pipe(), ["one"], Journal(tmp_path / "0"), 2, tmp_path / "1")
        for epoch in (1, 2, 3):
            blame(journal, epoch, 1)
            journal = await crashed(pipe(), [], journal, 0, tmp_path / f"{epoch + 1}")
        await live(pipe(), [], journal)
        lived = await live(pipe(), [], Journal(journal.directory, reopen=Reopen(failed=True)))
        assert [record.status for record in lived.records] == ["ok"]

    run_in(backend, 0, body)


# -- who crashes before the journal has its row -----------------------------------------------------------------


@both_backends
@pytest.mark.parametrize("kind", ["plain", "split", "async"])
def test_three_crashes_are_enough_for_code_that_comes_first(backend: str, kind: str, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    for count in range(1, CRASHES + 1):
        assert run(directory, backend, kind, "first")[0] == -signal.SIGKILL
        assert asked(Journal(directory), "SELECT sum(crashes) FROM root") == [(count - 1,)]
    code, said = run(directory, backend, kind, "first")
    assert code == 0
    assert f"failed poison {POISON}\n" in said
    assert asked(Journal(directory), "SELECT status, count(*) FROM settled GROUP BY status") == [
        ("failed", 1),
        ("ok", 11),
    ]


@both_backends
def test_roots_wait_for_the_disk_together_and_those_of_models_do_not(backend: str, tmp_path: Path) -> None:
    def groups_of(directory: Path, pipeline: Pipeline) -> int:
        """How many groups a run writes."""
        groups = 0

        def probe(point: str) -> None:
            nonlocal groups
            groups += point == "commit:after"

        async def main() -> None:
            async with pipeline.open([f"p{n}" for n in range(32)], journal=Journal(directory, probe=probe)) as run:
                async for _ in run.results:
                    pass

        run_in(backend, 0, main)
        return groups

    seen: list[tuple[object, int]] = []
    directory = tmp_path / "own"

    def own(value: object) -> object:
        seen.append((value, asked(Journal(directory), "SELECT count(*) FROM root")[0][0]))
        return value

    groups = groups_of(directory, Pipeline(mapped(own, name="own")))
    assert [value for value, _ in seen] == [f"p{n}" for n in range(32)]
    assert all(known > number for number, (_, known) in enumerate(seen))
    assert groups <= 8
    assert runs_foreign_code(Pipeline(mapped(own, name="own")).stage)
    assert not runs_foreign_code(pipe("{{ prompt }}", "{{ a }}").stage)
