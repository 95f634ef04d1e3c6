"""Batches that could wait for ever are refused with what to change; with a time to wait they go in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import anyio
import pytest

from pipeline import DefinitionError, Pipeline
from pipeline.core import pipeline as pipelines
from pipeline.core.stage import Stage
from stages import batch, filter, flat_map, loop, map, map_reduce, parallel, partition_by, route, scatter
from tests.engine.schedules import run_in
from tests.engine.topologies import nothing_is_left

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def judged(values: list[int]) -> list[int]:
    return [value + 1 for value in values]


def fails_but_for_0(value: int) -> int:
    if value:
        raise ValueError("not 0")
    return value


def judge(within: float | None, size: int = 2, **options: object) -> Stage:
    return batch(map(judged), size=size, within=within, name="judge", **options)  # type: ignore[arg-type]


def larger_than_the_window(within: float | None) -> Pipeline:
    return Pipeline(judge(within, size=10), max_in_flight=4)


def ordered_behind_a_route(within: float | None) -> Pipeline:
    """What the route's body fails waits for its turn and fills the window."""
    kinds = route({"even": map(fails_but_for_0)}, by=lambda value: "even", name="kind")
    return Pipeline(kinds | judge(within), max_in_flight=4, ordered=True)


def inside_a_loop(within: float | None) -> Pipeline:
    """The others have left, and the last one waits for company."""
    return Pipeline(loop(judge(within), until=lambda value: value >= 5, max_rounds=9), max_in_flight=4)


def keyed_with_many_keys(within: float | None) -> Pipeline:
    return Pipeline(judge(within, key=lambda value: value), max_in_flight=4)


@dataclass(frozen=True)
class Case:
    make: Callable[[float | None], Pipeline]
    reason: str
    statuses: tuple[str, ...]  #: of the records of 0 to 8, in their order
    times: tuple[float, ...]  #: when they come, if a batch waits a second


CASES = [
    Case(
        larger_than_the_window,
        "size 10 is more than max_in_flight 4 lets in",
        ("ok",) * 9,
        (1, 1, 1, 1, 2, 2, 2, 2, 3),
    ),
    Case(
        ordered_behind_a_route,
        "'kind' before it may keep or drop the items that it waits for",
        ("ok", *["failed"] * 8),
        (1,) * 9,
    ),
    Case(
        inside_a_loop,
        "the body of another stage may hold the items that it waits for",
        ("ok",) * 9,
        (0,) * 8 + (1,),
    ),
    Case(
        keyed_with_many_keys,
        "with `key` there can be more batches that are not full than the window has items",
        ("ok",) * 9,
        (1, 1, 1, 1, 2, 2, 2, 2, 3),
    ),
]

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.make.__name__)


@every_case
def test_what_could_wait_for_ever_is_refused_with_what_to_change(case: Case) -> None:
    with pytest.raises(DefinitionError) as caught:
        case.make(None)
    advice = "say how long an item may wait at most"
    text = f"without a time it could wait for ever: {case.reason} ({advice})"
    assert str(caught.value) == f"stage 'judge', within: {text}"


@BACKENDS
@every_case
def test_it_would_wait_for_ever(backend: str, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines, "stalls", lambda *_: ())
    pipe = case.make(None)

    async def main() -> bool:
        async with pipe.open(range(9)) as run:
            with anyio.move_on_after(1_000_000):
                assert len([record async for record in run.results]) < 9
                return False
        nothing_is_left(run)
        return True

    assert run_in(backend, 0, main)


@BACKENDS
@every_case
def test_with_a_time_to_wait_it_goes_in_it(backend: str, case: Case) -> None:
    async def main() -> list[tuple[float, int, str]]:
        async with case.make(1).open(range(9)) as run:
            came = [(anyio.current_time(), record.index, record.status) async for record in run.results]
        nothing_is_left(run)
        return came

    came = run_in(backend, 0, main)
    assert tuple(time for time, _, _ in came) == case.times
    assert tuple(status for _, _, status in sorted(came, key=lambda one: one[1])) == case.statuses


@pytest.mark.parametrize(
    ("before", "named"),
    [
        (filter(bool, name="some"), "some"),
        (flat_map(lambda value: [value], name="flat"), "flat"),
        (route({"a": map(str, name="text")}, by=lambda value: "a", name="kind"), "kind"),
        (loop(map(abs), until=bool, max_rounds=2), "loop"),
        (partition_by(lambda value: value, map(abs)), "partition"),
        (batch(map(list), size=2), "batch"),
        (batch(size=2), "batch"),
    ],
)
def test_behind_what_drops_or_holds_items_it_is_refused(before: Stage, named: str) -> None:
    with pytest.raises(DefinitionError, match=f"'{named}' before it may keep or drop the items that it waits for"):
        Pipeline(before | map(abs, name="between") | judge(None))


@pytest.mark.parametrize(
    ("pipe", "reason"),
    [
        (lambda: Pipeline(judge(None), ordered=True), "with ordered results the window may be full of records"),
        (lambda: Pipeline(judge(None, weight=abs)), "with `weight` it may take more items than the window has"),
        (lambda: Pipeline(parallel("p", a=judge(None))), "the body of another stage may hold the items"),
        (lambda: Pipeline(scatter("s", split=list, each=judge(None))), "the body of another stage may hold the items"),
        (lambda: Pipeline(batch(judge(None), size=3)), "the body of another stage may hold the items"),
        (lambda: Pipeline(batch(size=300, within=None)), "size 300 is more than max_in_flight 256 lets in"),
    ],
)
def test_every_other_place_where_it_could_wait_for_ever_is_refused(pipe: Callable[[], Pipeline], reason: str) -> None:
    with pytest.raises(DefinitionError, match=reason):
        pipe()


@BACKENDS
def test_where_it_cannot_wait_for_ever_it_is_allowed_and_fills_up(backend: str) -> None:
    """At the top, unordered, with room for it in the window: whatever fails before it gives its credit to another."""
    sizes: list[int] = []

    def gauge(values: list[int]) -> list[int]:
        sizes.append(len(values))
        return values

    def odd_fails(value: int) -> int:
        if value % 2:
            raise ValueError("odd")
        return value

    async def slowly() -> AsyncIterator[int]:
        for value in range(50):
            await anyio.sleep(100)
            yield value

    async def main() -> int:
        stages = map(odd_fails) | parallel("p", a=map(abs)) | batch(map(gauge), size=4, within=None)
        records = await Pipeline(stages, max_in_flight=4).collect(slowly())
        return len(records)

    assert run_in(backend, 0, main) == 50
    assert sizes == [4] * 6 + [1]


# -- doubts ---------------------------------------------------------------------------------------------------------


def doubts(stage: Stage, **options: object) -> list[str]:
    return [str(doubt) for doubt in Pipeline(stage, **options).doubts]  # type: ignore[arg-type]


def test_a_size_that_the_window_can_never_fill_is_doubted() -> None:
    text = "stage 'judge', size: 20 is never reached: at most 8 items are alive, so every batch waits for `within`"
    assert doubts(judge(1, size=20), max_in_flight=8) == [f"{text} (lower it to 8, or raise max_in_flight)"]
    assert doubts(judge(1, size=8), max_in_flight=8) == []
    assert doubts(batch(size=20, name="judge"), max_in_flight=8) == [f"{text} (lower it to 8, or raise max_in_flight)"]


def test_children_and_parts_count_for_what_can_be_reached() -> None:
    assert doubts(flat_map(list, max_children=3) | judge(1, size=24), max_in_flight=8) == []
    assert len(doubts(flat_map(list, max_children=3) | judge(1, size=25), max_in_flight=8)) == 1
    dig = [scatter("s", split=list, each=judge(1, size=size), max_children=3) for size in (24, 25)]
    assert [len(doubts(stage, max_in_flight=8)) for stage in dig] == [0, 1]
    few = [scatter("s", split=list, each=judge(1, size=size), max_children=9, max_open=2) for size in (16, 17)]
    assert [len(doubts(stage, max_in_flight=8)) for stage in few] == [0, 1]
    fold = map_reduce(judge(1, size=16), split=list, reduce=max, initial=0, max_open=2)
    assert doubts(fold, max_in_flight=8) == []
    assert len(doubts(loop(judge(1, size=9), until=bool, max_rounds=5), max_in_flight=8)) == 1


def test_with_a_weight_nothing_is_known_of_what_can_be_reached() -> None:
    assert doubts(judge(1, size=20_000, weight=abs), max_in_flight=8) == []


def test_other_pipelines_are_not_doubted() -> None:
    assert doubts(map(str) | loop(map(abs), until=bool, max_rounds=2)) == []
