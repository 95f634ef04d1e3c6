"""flat_map: each child a record of its own, the root settled with the worst of them."""

from __future__ import annotations

from collections.abc import Iterator

import anyio
import pytest

from pipeline import DefinitionError, Pipeline, Record
from stages import filter, flat_map, map, parallel
from tests.engine.schedules import run_in


def numbers(n: int) -> Iterator[int]:
    yield from range(n)


def refuse_two(n: int) -> int:
    if n == 2:
        raise ValueError("two")
    return n


def shown(records: list[Record]) -> list[tuple[str, str, object, str | None]]:
    return [(record.id, record.status, record.output, record.parent) for record in records]


async def test_children_have_ids_of_their_own_and_name_their_parent() -> None:
    records = await Pipeline(flat_map(numbers), ordered=True).collect([2, 1])
    assert shown(records) == [("0#0", "ok", 0, "0"), ("0#1", "ok", 1, "0"), ("1#0", "ok", 0, "1")]


async def test_a_root_settles_with_the_worst_of_its_children() -> None:
    async with Pipeline(flat_map(numbers) | map(refuse_two), ordered=True).open([2, 3, 0]) as run:
        records = [record async for record in run.results]
    assert [record.status for record in records] == ["ok", "ok", "ok", "ok", "failed"]
    settled = run.statistics().window.settled
    assert (settled["ok"], settled["failed"], settled["skipped"]) == (1, 1, 1)


async def test_more_children_than_may_be_alive_come_one_after_the_other() -> None:
    pipe = Pipeline(flat_map(numbers, max_children=3) | map(str), max_in_flight=1)
    async with pipe.open([100]) as run:
        records = [record async for record in run.results]
    assert len(records) == 100
    assert run.statistics().window.peak <= pipe.bounds.items == 4


async def test_under_ordered_children_stand_in_the_order_of_making() -> None:
    pipe = Pipeline(flat_map(numbers, max_children=2) | map(str), ordered=True, max_in_flight=2)
    records = await pipe.collect([5, 3])
    assert [record.id for record in records] == ["0#0", "0#1", "0#2", "0#3", "0#4", "1#0", "1#1", "1#2"]


async def test_children_of_children_are_numbered_further() -> None:
    pipe = Pipeline(flat_map(numbers) | flat_map(lambda n: [n] * n, name="again"), ordered=True)
    records = await pipe.collect([3])
    assert shown(records) == [("0#1#0", "ok", 1, "0"), ("0#2#0", "ok", 2, "0"), ("0#2#1", "ok", 2, "0")]


async def test_a_child_that_is_filtered_leaves_no_record() -> None:
    pipe = Pipeline(flat_map(numbers) | filter(lambda n: n != 1, name="not_one"), ordered=True)
    assert [record.id for record in await pipe.collect([3])] == ["0#0", "0#2"]


async def test_a_function_that_raises_midway_leaves_the_children_and_one_failed_record() -> None:
    def breaks(n: int) -> Iterator[int]:
        yield 7
        raise ValueError("midway")

    records = await Pipeline(flat_map(breaks), ordered=True).collect([1])
    assert shown(records) == [("0#0", "ok", 7, "0"), ("0#1", "failed", None, "0")]
    assert records[1].error is not None
    assert records[1].error.message == "midway"


async def test_what_is_no_list_fails_the_root() -> None:
    (record,) = await Pipeline(flat_map(lambda n: n, name="same")).collect([1])
    assert record.status == "failed"


def test_inside_a_composite_it_is_refused_with_what_to_use_instead() -> None:
    with pytest.raises(DefinitionError, match=r"flat_map can stand on the top-level chain only \(use scatter here\)"):
        Pipeline(parallel(a=flat_map(numbers)))


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_child_has_its_place_until_nothing_of_it_is_left(backend: str, ordered: bool) -> None:
    async def quick(n: int) -> int:
        await anyio.sleep(1)
        return n

    async def stubborn(n: int) -> int:
        try:
            await anyio.sleep(100)
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(9)
        return n

    async def main() -> None:
        race = parallel("race", join="any", a=map(quick, concurrency=9), b=map(stubborn, concurrency=9))
        pipe = Pipeline(flat_map(numbers, max_children=2) | race, max_in_flight=1, ordered=ordered)
        async with pipe.open([6]) as run:
            assert len([record async for record in run.results]) == 6
            assert anyio.current_time() == 30  # two at a time, each of them for ten seconds
        assert run.statistics().window.peak == pipe.bounds.items == 1 + 2 * 3

    run_in(backend, 0, main)


async def test_leaving_early_leaves_nothing_behind() -> None:
    async with Pipeline(flat_map(numbers, max_children=2) | map(str)).open([1000] * 10) as run:
        async for _ in run.results:
            break
    assert run.statistics().window.balanced
    assert run.statistics().window.alive == 0
