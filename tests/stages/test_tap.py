"""A tap looks on: nothing that it does, or fails to do, is noticed by the items."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from pipeline import DefinitionError, Pipeline, Record, Visit
from pipeline.config.description import load_text
from pipeline.core.statistics import TapStatistics
from pipeline.core.threads import BlockingStatistics
from stages import map, parallel
from stages.tap import GRACE_SECONDS, WORD, tap
from tests.engine.schedules import in_virtual_time, run_in


class Looker:
    """An async function that takes its time for each payload."""

    def __init__(self, seconds: float = 0) -> None:
        self.seconds = seconds
        self.seen: list[object] = []

    async def __call__(self, value: object) -> None:
        await anyio.sleep(self.seconds)
        self.seen.append(value)


async def ended(pipe: Pipeline, values: object) -> tuple[list[Record], tuple[TapStatistics, ...], float]:
    """The records, what the taps say, and when the last record was there."""
    async with pipe.open(values) as run:  # type: ignore[arg-type]
        records = [record async for record in run.results]
        done = anyio.current_time()
    return records, run.statistics().taps, done


@in_virtual_time
async def test_every_item_passes_as_it_is_and_its_payload_is_shown() -> None:
    seen: list[object] = []
    pipe = Pipeline(map(str, name="text") | tap(seen.append, name="look") | map(len, name="length"), ordered=True)
    records, taps, _ = await ended(pipe, [1, 22, 333])
    assert [(record.output, dict(record.outputs)) for record in records] == [
        (1, {"text": "1", "length": 1}),
        (2, {"text": "22", "length": 2}),
        (3, {"text": "333", "length": 3}),
    ]
    assert seen == ["1", "22", "333"]
    assert taps == (TapStatistics("look", 3, 0, 0, 0, None),)


@in_virtual_time
async def test_a_slow_one_holds_nothing_up_and_drops_what_is_newest() -> None:
    look = Looker(10)
    records, taps, done = await ended(Pipeline(tap(look, name="look", buffer=2)), range(10))
    assert (len(records), done) == (10, 0)
    assert (look.seen, taps[0].dropped) == ([], 10)
    assert anyio.current_time() == GRACE_SECONDS


@pytest.mark.parametrize(("on_full", "expected"), [("drop_newest", [0, 1, 2]), ("drop_oldest", [0, 8, 9])])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_waits_is_the_first_or_the_last(backend: str, on_full: str, expected: list[int]) -> None:
    async def main() -> None:
        async def slowly() -> object:
            for number in range(10):
                yield number
                await anyio.sleep(1 if number == 0 else 0.01)

        look = Looker(2)
        pipe = Pipeline(tap(look, name="look", buffer=2, on_full=on_full))  # type: ignore[arg-type]
        async with pipe.open() as run:
            for number in range(10):
                await run.submit(number)
                await anyio.sleep(0.1)
            assert run.statistics().taps == (TapStatistics("look", 10, 7, 0, 3, None),)
            await anyio.sleep(10)
            assert look.seen == expected
            assert run.statistics().taps == (TapStatistics("look", 10, 7, 0, 0, None),)

    run_in(backend, 0, main)


@in_virtual_time
async def test_what_it_raises_is_counted_and_changes_nothing() -> None:
    def fails(value: int) -> None:
        if value % 2:
            raise ValueError(f"{value} is odd")

    async with Pipeline(tap(fails)).open(range(4)) as run:
        records = [record async for record in run.results]
    assert [record.status for record in records] == ["ok"] * 4
    now = run.statistics()
    assert now.taps == (TapStatistics("fails", 4, 0, 2, 0, "ValueError: 3 is odd"),)
    assert "tap     fails: 4 seen, 0 dropped, 2 failed, last: ValueError: 3 is odd" in now.lines()


@in_virtual_time
async def test_at_the_end_of_the_input_it_may_finish_what_it_holds_within_a_short_grace() -> None:
    quick, slow = Looker(0.3), Looker(0.4)
    pipe = Pipeline(tap(quick, name="quick") | map(str) | tap(slow, name="slow"))
    records, taps, done = await ended(pipe, range(3))
    assert (len(records), done) == (3, 0)
    assert (quick.seen, slow.seen) == ([0, 1, 2], ["0", "1"])
    assert taps == (TapStatistics("quick", 3, 0, 0, 0, None), TapStatistics("slow", 3, 1, 0, 0, None))


@in_virtual_time
async def test_the_grace_of_one_is_not_waited_for_by_the_stages_after_it() -> None:
    pipe = Pipeline(tap(Looker(5), name="a") | tap(Looker(5), name="b") | tap(Looker(5), name="c"))
    await ended(pipe, range(3))
    assert anyio.current_time() == GRACE_SECONDS


@in_virtual_time
async def test_cancelled_it_ends_at_once() -> None:
    look = Looker(10)
    async with Pipeline(tap(look, name="look") | map(anyio.sleep)).open([1000, 1000]) as run:
        await anyio.sleep(1)
        run.abort()
    assert (anyio.current_time(), look.seen) == (1, [])
    assert run.statistics().taps == (TapStatistics("look", 2, 2, 0, 0, None),)


async def test_one_that_blocks_runs_in_a_thread_and_is_left_there() -> None:
    release, here = threading.Event(), threading.get_ident()
    seen: list[object] = []

    def blocks(value: object) -> None:
        seen.append((value, threading.get_ident() != here))
        release.wait(20)

    try:
        async with Pipeline(tap(blocks, name="look", blocking=True)).open(["x", "y"]) as run:
            assert [record.output async for record in run.results] == ["x", "y"]
            with anyio.fail_after(10):
                while not seen:  # noqa: ASYNC110 - it is a thread that sees
                    await anyio.sleep(0.001)
            run.abort()
        assert run.statistics().taps == (TapStatistics("look", 2, 2, 0, 0, None),)
        assert run.statistics().blocking == (BlockingStatistics("look", 1, 1),)
    finally:
        release.set()
    assert seen == [("x", True)]


@in_virtual_time
async def test_in_debug_mode_one_that_changes_what_it_sees_is_counted_and_changes_nothing() -> None:
    value = {"list": [1]}
    look: Callable[[dict[str, list[int]]], None] = lambda v: v["list"].append(2)  # noqa: E731
    async with Pipeline(tap(look, name="look"), debug=True).open([value]) as run:
        (record,) = [record async for record in run.results]
    assert (record.status, record.output) == ("ok", {"list": [1]})
    (counts,) = run.statistics().taps
    assert counts.failed == 1
    assert str(counts.error).startswith("MutatedInput: stage 'look' changed what it was given, at value['list'][1]; ")


@in_virtual_time
async def test_it_stands_in_a_body_as_well() -> None:
    seen: list[object] = []
    pipe = Pipeline(parallel("both", a=tap(seen.append, name="look") | map(str), b=map(repr)))
    (record,) = await pipe.collect([1])
    assert (record.output, seen) == ({"a": "1", "b": "1"}, [1])


def told(stage: object) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        Pipeline(stage)  # type: ignore[arg-type]
    return [str(problem) for problem in caught.value.problems]


def test_what_cannot_be_a_tap_is_refused() -> None:
    def sees(value: object, visit: Visit) -> None: ...

    async def waits(value: object) -> None: ...

    assert told(tap(repr, buffer=0)) == ["stage 'repr', buffer: must be a whole number of at least 1, got 0"]
    (said,) = told(tap(repr, on_full="block"))  # type: ignore[arg-type]
    assert said == (
        "stage 'repr', on_full: must be drop_newest or drop_oldest, got 'block' "
        "(a tap never blocks; use map for what must not be lost)"
    )
    (said,) = told(tap(sees))
    assert said == (
        "stage 'sees': its function is called with the payload, and this one takes 2 arguments "
        "(it is not given the visit)"
    )
    (said,) = told(tap(waits, blocking=True))
    assert said == (
        "stage 'waits', blocking: has no effect on an async function, which runs on the event loop "
        "(leave it out, or make it a plain function)"
    )


def test_a_pipeline_file_can_have_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lookers.py").write_text("def look(value): pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    text = "version: 1\nstages: [{tap: a, call: 'lookers:look', buffer: 8, on_full: drop_oldest, blocking: true}]\n"
    stage = load_text(text, allow_import=["lookers"], words={"tap": WORD}).stages.parts()[0]
    (record,) = Pipeline(stage).run_sync(["x"])
    assert (stage.name, record.output) == ("a", "x")
    assert repr(stage).endswith("buffer=8, on_full='drop_oldest', blocking=True)")
