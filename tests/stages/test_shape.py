"""shape: operators around a source or results, on both backends, left at any point; and the way to aiostream."""

from __future__ import annotations

import asyncio
import builtins
import gc
import itertools
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

import anyio
import pytest
from anyio import CancelScope, create_task_group, get_current_task
from anyio.lowlevel import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from pipeline import DefinitionError, Input, Pipeline, PipelineError, Record, SourceError
from stages import map
from stages.shape import Shape, shape, to_aiostream
from stages.sources import Inputs
from tests.engine.schedules import in_virtual_time

ROOT = Path(__file__).parents[2]


def even(n: int) -> bool:
    return n % 2 == 0


async def same(value: object) -> object:
    await checkpoint()
    return value


class Closed:
    """An endless source that remembers what it gave, and in which tasks it was iterated and closed."""

    def __init__(self) -> None:
        self.given = 0
        self.tasks: list[int] = []
        self.closed_in: int | None = None

    async def numbers(self) -> AsyncGenerator[int]:
        try:
            while True:
                await checkpoint()
                self.tasks.append(get_current_task().id)
                self.given += 1
                yield self.given - 1
        finally:
            with CancelScope(shield=True):
                await checkpoint()
            self.closed_in = get_current_task().id

    @property
    def closed_by_its_reader(self) -> bool:
        return set(self.tasks) == {self.closed_in}


class Opened:
    """A `Source` that remembers whether it is open; it holds a task group, which only its opener may leave."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.log: list[str] = []

    @asynccontextmanager
    async def open(self) -> AsyncIterator[AsyncIterator[Input]]:
        async with create_task_group() as tg:
            tg.start_soon(anyio.sleep_forever)
            self.log.append("opened")
            try:
                yield self._records()
            finally:
                self.log.append("closed")
            tg.cancel_scope.cancel()

    async def _records(self) -> AsyncGenerator[Input]:
        for n in range(self.count):
            await checkpoint()
            yield Input(n)


async def values(shaped: Shape[Any]) -> list[Any]:
    return [value async for value in shaped]


# -- operators --------------------------------------------------------------------------------------------------


async def aiter_of(members: list[int]) -> AsyncGenerator[int]:
    for member in members:
        await checkpoint()
        yield member


@pytest.mark.parametrize("make", [list, tuple, iter, aiter_of])
async def test_every_operator_over_every_iterable(make: Callable[[list[int]], Any]) -> None:
    def seven() -> Shape[int]:
        return shape(make(list(range(7))))

    assert await values(seven()) == [0, 1, 2, 3, 4, 5, 6]
    assert await values(seven().take(3)) == [0, 1, 2]
    assert await values(seven().skip(5)) == [5, 6]
    assert await values(seven().filter(even)) == [0, 2, 4, 6]
    assert await values(seven().chunks(3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert await values(seven().enumerate(1).take(2)) == [(1, 0), (2, 1)]
    assert await values(seven().skip(1).filter(even).enumerate().chunks(2).take(1)) == [[(0, 2), (1, 4)]]


async def test_nothing_more_than_nothing() -> None:
    for empty in (shape(list[int]()), shape([1, 2]).take(0), shape([1, 2]).skip(2), shape([1]).filter(lambda n: 0)):
        for shaped in (empty, empty.take(1), empty.skip(0), empty.filter(even), empty.chunks(1), empty.enumerate()):
            assert await values(shaped) == []


class AsyncDecision:
    """A callable object whose call is async, which one cannot see from outside."""

    async def __call__(self, n: int) -> bool:
        await checkpoint()
        return even(n)


async def async_even(n: int) -> bool:
    await checkpoint()
    return even(n)


@pytest.mark.parametrize(
    "keep", [even, async_even, AsyncDecision(), lambda n: async_even(n), lambda n: [n] * (1 - n % 2)]
)
async def test_filter_takes_any_function_plain_or_async(keep: Callable[[int], object]) -> None:
    assert await values(shape(range(5)).filter(keep)) == [0, 2, 4]


#: each operator on a plain list, to compare with
ON_LISTS: dict[str, Callable[[list[Any], int], list[Any]]] = {
    "take": lambda given, n: given[:n],
    "skip": lambda given, n: given[n:],
    "filter": lambda given, n: [value for value in given if crc32(str(value).encode()) % 3 != n % 3],
    "chunks": lambda given, n: [given[i : i + n + 1] for i in range(0, len(given), n + 1)],
    "enumerate": lambda given, n: list(builtins.enumerate(given, n)),
}


def on_shape(shaped: Shape[Any], name: str, n: int) -> Shape[Any]:
    if name == "filter":
        return shaped.filter(lambda value: crc32(str(value).encode()) % 3 != n % 3)
    return getattr(shaped, name)(n + 1 if name == "chunks" else n)  # type: ignore[no-any-return]


@given(st.integers(0, 12), st.lists(st.tuples(st.sampled_from(sorted(ON_LISTS)), st.integers(0, 5)), max_size=5))
async def test_any_chain_of_operators_does_what_it_does_to_a_list(length: int, chain: list[tuple[str, int]]) -> None:
    expected: list[Any] = list(range(length))
    over_list, over_async = shape(expected), shape(aiter_of(expected))
    for name, n in chain:
        expected = ON_LISTS[name](expected, n)
        over_list, over_async = on_shape(over_list, name, n), on_shape(over_async, name, n)
    assert await values(over_list) == expected
    assert await values(over_async) == expected
    assert [value async for value in over_list] == expected  # a list can be read again


def test_a_shape_is_a_value() -> None:
    base = shape([1, 2])
    assert base.take(3).filter(even) == shape([1, 2]).take(3).filter(even)
    assert base.take(3) != base.take(4)
    assert base.operators == ()
    assert shape(base.take(3)) == base.take(3)
    assert repr(base.skip(1).take(3).filter(even).chunks(2).enumerate(5)) == (
        "shape([1, 2]).skip(1).take(3).filter(even).chunks(2).enumerate(5)"
    )


# -- around a source --------------------------------------------------------------------------------------------


async def test_a_run_reads_a_shaped_source() -> None:
    pipe = Pipeline(map(same), ordered=True)
    records = await pipe.collect(shape(range(100)).skip(10).filter(even).take(4))
    assert [record.output for record in records] == [10, 12, 14, 16]
    records = await pipe.collect(shape(range(5)).chunks(2))
    assert [record.output for record in records] == [[0, 1], [2, 3], [4]]


async def test_a_source_that_has_to_be_opened_is_opened_and_closed_by_the_run() -> None:
    source = Opened(100)
    records = await Pipeline(map(same), ordered=True).collect(shape(source).skip(2).take(3))
    assert [record.output for record in records] == [2, 3, 4]
    assert source.log == ["opened", "closed"]
    async with shape(source).take(2).open() as opened:
        assert [record.value async for record in opened] == [0, 1]
    assert source.log == ["opened", "closed"] * 2


async def test_the_records_of_files_are_shaped(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("".join(f"prompt {n}\n" for n in range(20)), encoding="utf-8")
    files = shape(Inputs((str(tmp_path / "prompts.txt"),))).filter(lambda record: "1" in str(record.prompt)).take(3)
    records = await Pipeline(map(same), ordered=True).collect(files)
    assert [record.input for record in records] == [{"prompt": f"prompt {n}"} for n in (1, 10, 11)]


async def test_take_ends_an_endless_source_and_the_task_that_read_it_closes_it() -> None:
    source = Closed()
    records = await Pipeline(map(same), ordered=True, max_in_flight=2).collect(shape(source.numbers()).take(5))
    assert [record.output for record in records] == [0, 1, 2, 3, 4]
    assert source.given == 5  # not one more than was taken
    assert source.closed_by_its_reader


async def test_a_plain_generator_is_closed_too() -> None:
    log: list[str] = []

    def numbers() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            log.append("closed")

    records = await Pipeline(map(same)).collect(shape(numbers()).take(2))
    assert (len(records), log) == (2, ["closed"])


@in_virtual_time
async def test_a_drain_ends_the_wait_of_a_shaped_source_and_closes_it() -> None:
    log: list[str] = []

    async def slow() -> AsyncGenerator[int]:
        try:
            for n in itertools.count():
                yield n
                await anyio.sleep(1000)
        finally:
            log.append("closed")

    for shaped in (shape(slow()).skip(0), shape(slow()).enumerate(), shape(slow()).filter(even), shape(slow())):
        log.clear()
        async with Pipeline(map(same)).open(shaped) as run:
            await anyio.sleep(1)
            run.drain()
            records = [record async for record in run.results]
        assert anyio.current_time() < 1000
        assert (len(records), log) == (1, ["closed"])


async def test_what_the_source_raises_ends_the_run_like_that_of_any_source() -> None:
    async def breaks() -> AsyncGenerator[int]:
        yield 1
        raise OSError("unplugged")

    with pytest.raises(OSError, match="unplugged"):
        await Pipeline(map(same)).collect(shape(breaks()).skip(0))


async def test_a_filter_that_lets_nothing_through_still_lets_others_run() -> None:
    async with create_task_group() as tg:
        tg.start_soon(values, shape(itertools.count()).filter(lambda n: False))
        for _ in range(3):
            await checkpoint()
        tg.cancel_scope.cancel()


# -- around results ---------------------------------------------------------------------------------------------


async def test_results_are_shaped_in_the_hosts_loop() -> None:
    async with Pipeline(map(same), ordered=True).open(range(10)) as run:
        chunks = [chunk async for chunk in shape(run.results).skip(1).filter(not_five).chunks(3)]
    assert [[record.output for record in chunk] for chunk in chunks] == [[1, 2, 3], [4, 6, 7], [8, 9]]
    assert run.statistics().window.settled["ok"] == 10


def not_five(record: Record) -> bool:
    return record.output != 5


async def test_take_leaves_the_rest_to_the_end_of_the_run() -> None:
    source = Closed()
    async with Pipeline(map(same), ordered=True, max_in_flight=4).open(source.numbers()) as run:
        taken = [record.output async for record in shape(run.results).take(3)]
    assert taken == [0, 1, 2]
    assert run.statistics().window.balanced
    assert run.statistics().window.alive == 0
    assert source.closed_by_its_reader


async def test_what_goes_by_the_place_of_a_record_needs_ordered_results() -> None:
    async with Pipeline(map(same)).open(range(4)) as run:
        results = shape(run.results)
        for name, said in (
            ("chunks", "chunks(2)"),
            ("take", "take(2)"),
            ("skip", "skip(2)"),
            ("enumerate", "enumerate(2)"),
        ):
            with pytest.raises(DefinitionError) as caught:
                getattr(results.filter(not_five), name)(2)
            assert str(caught.value) == (
                f"pipeline, ordered: shape(run.results).{said} goes by the place of records, which is chance without "
                "it (write Pipeline(…, ordered=True), or shape the source)"
            )
        assert sorted([record.output async for record in results.filter(not_five)]) == [0, 1, 2, 3]


async def test_the_results_of_one_run_are_the_source_of_another() -> None:
    async with Pipeline(map(same), ordered=True).open(range(5)) as first:
        pairs = await Pipeline(map(len, name="n"), ordered=True).collect(shape(first.results).chunks(2))
    assert [record.output for record in pairs] == [2, 2, 1]


# -- left early -------------------------------------------------------------------------------------------------

CHAINS: dict[str, Callable[[Shape[Any]], Shape[Any]]] = {
    "none": lambda shaped: shaped,
    "take": lambda shaped: shaped.take(100),
    "skip": lambda shaped: shaped.skip(1),
    "filter": lambda shaped: shaped.filter(lambda value: True),
    "chunks": lambda shaped: shaped.chunks(2),
    "enumerate": lambda shaped: shaped.enumerate(),
    "all": lambda shaped: shaped.take(100).skip(1).filter(lambda value: True).chunks(2).enumerate(),
}
each_chain = pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)


@each_chain
async def test_a_loop_over_results_that_is_left_early_leaves_nothing_to_the_event_loop(
    chain: Callable[[Shape[Any]], Shape[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    gc.collect()  # chunks of one leave operators that were never begun
    noticed: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", noticed.append)
    async with Pipeline(map(same), ordered=True).open(range(100)) as run:
        async for _ in chain(shape(run.results)):
            break
        assert open_operators() == []
    assert run.statistics().window.balanced
    assert noticed == []


def open_operators() -> list[str]:
    """The generators of aiostream that are neither finished nor closed."""
    generators: list[Any] = [found for found in gc.get_objects() if isinstance(found, AsyncGenerator)]
    return [
        found.__qualname__
        for found in generators
        if getattr(found, "ag_frame", None) is not None and "aiostream" in found.ag_code.co_filename
    ]


@each_chain
async def test_a_block_closes_a_shaped_source_that_is_left_early(chain: Callable[[Shape[Any]], Shape[Any]]) -> None:
    gc.collect()
    source = Closed()
    async with chain(shape(source.numbers())).open() as shaped:
        async for _ in shaped:
            break
        assert source.closed_in is None
    assert source.closed_by_its_reader
    assert [value async for value in shaped] == []
    assert open_operators() == []


@each_chain
@pytest.mark.parametrize("reads", [1, 2, 5])
async def test_a_wait_that_is_cancelled_closes_the_source_and_ends_the_iteration(
    chain: Callable[[Shape[Any]], Shape[Any]], reads: int
) -> None:
    gc.collect()
    source, scope = Closed(), CancelScope()

    async def cancelling() -> AsyncGenerator[int]:
        numbers = source.numbers()
        try:
            async for n in numbers:
                if n == reads:
                    scope.cancel()
                yield n
        finally:
            with CancelScope(shield=True):
                await numbers.aclose()

    shaped = aiter(chain(shape(cancelling())))
    with scope:
        async for _ in shaped:
            pass
    assert scope.cancelled_caught
    assert source.closed_by_its_reader
    assert open_operators() == []
    with pytest.raises(PipelineError, match=r"^this iteration was ended by Cancel\w+; what follows was not read$"):
        await anext(shaped)


async def test_an_error_of_a_filter_closes_the_source_and_ends_the_iteration() -> None:
    source = Closed()
    shaped = aiter(shape(source.numbers()).take(9).filter(lambda n: 1 // (3 - n)).enumerate())
    with pytest.raises(ZeroDivisionError):
        async for _ in shaped:
            pass
    assert source.closed_by_its_reader
    with pytest.raises(PipelineError) as caught:
        await anext(shaped)
    assert str(caught.value) == "this iteration was ended by ZeroDivisionError; what follows was not read"


async def test_an_iteration_that_ended_stays_ended() -> None:
    shaped = aiter(shape([1, 2, 3]).take(1))
    assert [value async for value in shaped] == [1]
    assert [value async for value in shaped] == []
    await shaped.aclose()
    unread = aiter(shape([1]))
    await unread.aclose()
    assert [value async for value in unread] == []


# -- refused ----------------------------------------------------------------------------------------------------


def test_what_has_no_members_to_shape_is_refused() -> None:
    with pytest.raises(SourceError, match="a source is an iterable of prompts, not one prompt or record"):
        shape("a prompt")
    with pytest.raises(SourceError):
        shape({"prompt": "x"})
    for wrong in (map(same), Pipeline(map(same)), 5):
        with pytest.raises(DefinitionError) as caught:
            shape(wrong)  # type: ignore[call-overload]
        assert str(caught.value) == (
            f"pipeline, shape: stands around a source or around run.results, got {type(wrong).__name__}"
        )
    with pytest.raises(DefinitionError, match="'Shape' is neither a stage nor an agent"):
        map(same) | shape([1])  # type: ignore[operator]


@pytest.mark.parametrize("wrong", [-1, True, 1.5, "2", None])
def test_counts_are_whole_numbers(wrong: Any) -> None:
    for name, least in (("take", 0), ("skip", 0), ("chunks", 1)):
        with pytest.raises(DefinitionError) as caught:
            getattr(shape([1]), name)(wrong)
        assert str(caught.value) == (
            f"pipeline, shape.{name}: must be a whole number of at least {least}, got {wrong!r}"
        )
    with pytest.raises(DefinitionError, match=r"shape.filter: must be a function, got 5"):
        shape([1]).filter(5)  # type: ignore[arg-type]
    with pytest.raises(DefinitionError):
        shape([1]).chunks(0)


async def test_a_source_that_has_to_be_opened_is_not_iterated_unopened() -> None:
    with pytest.raises(PipelineError) as caught:
        await values(shape(Opened(1)).take(1))
    assert str(caught.value) == (
        "Opened has to be opened: give the shape to pipe.open or pipe.collect, or iterate "
        "`async with shape(…).open() as records`"
    )


async def test_results_are_read_once() -> None:
    async with Pipeline(map(same), ordered=True).open([1]) as run:
        shaped = shape(run.results).take(1)
        assert len(await values(shaped)) == 1
        with pytest.raises(PipelineError, match="results can be read once"):
            await values(shaped)


def test_aiostream_is_imported_when_a_shape_is_iterated() -> None:
    code = (
        "import anyio, sys\n"
        "from stages.shape import shape\n"
        "shaped = shape([1, 2]).take(1)\n"
        "print('aiostream' in sys.modules)\n"
        "async def main(): print([value async for value in shaped], 'aiostream' in sys.modules)\n"
        "anyio.run(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\n[1] True\n", "")


# -- aiostream --------------------------------------------------------------------------------------------------

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@on_asyncio
async def test_results_go_through_a_pipeline_of_aiostream_under_asyncio() -> None:
    from aiostream import pipe, stream

    async def store(record: Record) -> object:
        await asyncio.sleep(0)
        return record.output

    async with Pipeline(map(same), ordered=True).open(range(20)) as run:
        stored = to_aiostream(run.results) | pipe.map(store, task_limit=4) | pipe.chunks(8)
        assert await stream.list(stored) == [list(range(8)), list(range(8, 16)), list(range(16, 20))]
    assert run.statistics().window.settled["ok"] == 20


@on_asyncio
async def test_a_shape_goes_to_aiostream_too() -> None:
    from aiostream import stream

    async with Pipeline(map(same), ordered=True).open(range(20)) as run:
        merged = stream.merge(to_aiostream(shape(run.results).take(3).filter(not_five)), stream.just(None))
        assert len(await stream.list(merged)) == 4


@on_asyncio
async def test_a_pipeline_of_aiostream_that_is_left_early_leaves_nothing_behind() -> None:
    from aiostream import pipe

    async def slow(record: Record) -> object:
        await asyncio.sleep(0 if record.output == 0 else 3600)
        return record.output

    source, before = Closed(), asyncio.all_tasks()
    async with Pipeline(map(same), max_in_flight=4).open(source.numbers()) as run:
        async with (to_aiostream(run.results) | pipe.map(slow, task_limit=3, ordered=False)).stream() as streamer:
            async for output in streamer:
                assert output == 0
                break
        assert not run.results.ended
        assert (await anext(run.results)).output > 0  # nobody waits for results any more
    assert run.statistics().window.balanced
    assert source.closed_by_its_reader
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_on_trio_aiostream_is_refused_with_what_to_do() -> None:
    async with Pipeline(map(same)).open([1]) as run:
        with pytest.raises(PipelineError) as caught:
            to_aiostream(run.results)
        assert str(caught.value) == (
            "aiostream runs on asyncio only; on trio, iterate run.results, or shape(run.results)"
        )
        assert [record.output async for record in run.results] == [1]


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_the_operators_alone_would_be_left_to_trio_which_warns() -> None:
    """The control of the tests above."""
    from aiostream import stream

    async def read() -> None:
        async for _ in stream.skip.raw(aiter_of([1, 2, 3]), 0):
            break

    with pytest.warns(ResourceWarning, match="was garbage collected before it had been exhausted"):
        await read()
