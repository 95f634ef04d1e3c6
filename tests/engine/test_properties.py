"""Random networks under random histories keep the laws of the engine, on both backends, in virtual time.

2,000 of them by default. 50,000, in as many processes as `-n` says, each time others:

    HYPOTHESIS_PROFILE=deep pytest -n 2 tests/engine/test_properties.py
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, seed, settings

from pipeline.core.record import Record
from tests.engine.drawing import RARELY_IN_THREADS, tops
from tests.engine.networks import (
    Again,
    Bracket,
    Choice,
    Collapsed,
    Expand,
    Fan,
    Fold,
    Lines,
    Par,
    Poll,
    Sieve,
    Spy,
    Work,
    has,
    nodes,
)
from tests.engine.oracle import Course, End, Oracle
from tests.engine.plans import Ending, Plan, plans, plans_of, quiet
from tests.engine.playing import Played, play
from tests.engine.schedules import run_in

#: of all tests here together; a profile says how many it wants of one
EXAMPLES = max(2_000, 5 * settings().max_examples // 2)
SHARDS = 10
BACKENDS = ["asyncio", "trio"]


def examples(number: int, share: float) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """So many of all examples; the shards of the default profile draw others, and the same ones each time."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        test = settings(max_examples=round(EXAMPLES * share))(test)
        return seed(number)(test) if settings().derandomize else test

    return decorate


@pytest.mark.parametrize("shard", range(SHARDS))
@pytest.mark.parametrize("backend", BACKENDS)
def test_random_networks_keep_the_laws(backend: str, shard: int) -> None:
    @examples(shard if backend == "asyncio" else shard + SHARDS, share=1 / (2 * SHARDS))
    @given(plan=plans)
    def keep_the_laws(plan: Plan) -> None:
        played = run_in(backend, plan.seed, play, plan)
        each_root_has_one_outcome(plan, played)
        records_are_in_order(plan, played)
        if plan.predictable:
            outcomes_are_those_of_the_oracle(plan, played)

    keep_the_laws()


def each_root_has_one_outcome(plan: Plan, played: Played) -> None:
    records, window = played.records, played.end.window
    assert len({record.id for record in records}) == len(records)
    assert window.admitted == sum(window.settled.values())
    if not plan.joined:
        return
    assert len({record.index for record in records}) == len(records)
    seen = Counter(record.status for record in (*records, *(record for _, record in played.replies)))
    taken_by_nobody = sum(ask.patience is not None or not plan.undisturbed for ask in plan.asks)
    for status in ("ok", "partial", "failed"):
        assert seen[status] <= window.settled[status] <= seen[status] + taken_by_nobody


def records_are_in_order(plan: Plan, played: Played) -> None:
    if plan.ordered:
        order = [record.index for record in played.records]
        assert order == sorted(order)


def outcomes_are_those_of_the_oracle(plan: Plan, played: Played) -> None:
    oracle = Oracle(plan.net, plan.on_error)
    course = oracle.course([(str(place), value) for place, value in enumerate(plan.values)])
    expected = {track.id: track.end for track in course.records}
    in_time = [record for record in played.records if not was_late(record)]
    for record in in_time:
        if not record.inputs and (record.parent is None or record.parent.isdigit()):  # else a batch is behind it
            is_that_of_the_oracle(record, expected.pop(record.id))
    if plan.undisturbed:
        assert not expected
    if not has(course.behind, Collapsed):
        each_item_is_in_one_batch(plan, played, oracle, course)
    for ask, record in played.replies:
        if record.status != "cancelled" and not was_late(record):
            is_that_of_the_oracle(record, oracle.root(ask.value))


def each_item_is_in_one_batch(plan: Plan, played: Played, oracle: Oracle, course: Course) -> None:
    gathered = [record for record in played.records if record.inputs]
    batches = {record.parent or record.id: record.inputs for record in gathered}  # children of one all name its members
    batched = [id for inputs in batches.values() for id in inputs]
    unseen = Counter(track.id for track in course.gathered)
    unseen.subtract(batched)
    assert set(unseen.values()) <= {0, 1}
    if has(course.behind, Expand):  # what is behind leaves records of its own
        return
    for record in gathered:
        is_that_of_the_oracle(record, oracle.record_of_batch(course, record.inputs))
    if plan.undisturbed and not plan.asks and not has(plan.net, Expand):
        skipped_before = sum(track.end.status == "skipped" for track in course.ended)
        assert played.end.window.settled["skipped"] == skipped_before + unseen.total()


def was_late(record: Record) -> bool:
    return record.error is not None and record.error.type == "item_timeout"


def is_that_of_the_oracle(record: Record, end: End) -> None:
    assert record.status == end.of_record
    if end.status == "ok":
        assert record.output == end.value
        assert set(record.missing) == set(end.missing)


# -- cancellation ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_kind_of_cancellation_leaves_the_same(backend: str) -> None:
    @examples(2 * SHARDS, share=0.02)
    @given(plan=plans, at=quiet)
    def leave_the_same(plan: Plan, at: float) -> None:
        calm = replace(plan, take=None, pace=0.0, reading="plain", max_failures=None, acts=(), asks=())
        kinds = ("scope", "raise", "abort", "native") if backend == "asyncio" else ("scope", "raise", "abort")
        left = [left_by(run_in(backend, plan.seed, play, replace(calm, ending=Ending(at, kind)))) for kind in kinds]
        assert all(one == left[0] for one in left)

    leave_the_same()


def left_by(played: Played) -> tuple[list[tuple[str, str]], dict[str, int]]:
    return [(record.id, record.status) for record in played.records], dict(played.end.window.settled)


# -- backends -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shard", range(2))
def test_both_backends_give_equal_records_when_timing_cannot_matter(shard: int) -> None:
    @examples(2 * SHARDS + 1 + shard, share=0.04)
    @given(plan=plans_of(tops(2)))
    def give_equal_records(plan: Plan) -> None:
        plan = replace(plan, item_timeout=None, take=None, ending=None, acts=(), asks=(), max_failures=None)
        if plan.source.startswith("broken") or not plan.predictable or has(plan.net, Collapsed):
            return
        one, other = (run_in(backend, plan.seed, play, plan).records for backend in BACKENDS)
        assert in_order(one) == in_order(other)

    give_equal_records()


def in_order(records: list[Record]) -> list[dict[str, object]]:
    """Standard records by id. The first failure closes an `all`, and which other branches were finished by then is a
    matter of scheduling even where nothing waits: what a failed record keeps of them is not compared."""
    standard = [record.standard() for record in sorted(records, key=lambda record: record.id)]
    return [{**record, "outputs": None} if record["status"] == "failed" else record for record in standard]


# -- what is drawn --------------------------------------------------------------------------------------------------


def test_what_is_drawn_is_varied_enough() -> None:
    seen: Counter[str] = Counter()

    @seed(0)
    @settings(max_examples=400, derandomize=False, database=None)
    @given(plan=plans)
    def draw(plan: Plan) -> None:
        drawn = list(nodes(plan.net))
        seen.update({type(node).__name__ for node in drawn})
        seen.update({f"work {node.kind}" for node in drawn if isinstance(node, Work)})
        seen.update({plan.source, plan.reading, *(act for _, act in plan.acts)})
        seen["is predictable"] += plan.predictable and bool(plan.values)
        seen["comes out whole"] += plan.undisturbed and bool(plan.values)
        seen["is submitted to"] += bool(plan.asks)
        seen["ends early"] += plan.ending is not None
        seen["is not read"] += plan.take is not None and plan.then == "block"

    draw()
    kinds = (Work, Sieve, Spy, Par, Poll, Choice, Fan, Again, Lines, Bracket, Collapsed, Expand, Fold)
    often = [*(kind.__name__ for kind in kinds), "is predictable", "comes out whole", "is submitted to", "ends early"]
    assert {what: seen[what] for what in often if seen[what] < 20} == {}
    acts = ("pause", "ask why", "narrow", "widen", "drain items", "drain calls", "abort")
    works = {f"work {kind}" for kind in RARELY_IN_THREADS}
    rarely = {*acts, *works, "broken list", "broken slow", "scope", "native", "is not read"}
    assert rarely - set(+seen) == set()
