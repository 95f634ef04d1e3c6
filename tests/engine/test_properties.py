"""Random networks under random histories keep the laws of the engine, on both backends, in virtual time.

Many more examples: `HYPOTHESIS_PROFILE=deep pytest tests/engine/test_properties.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.errors import RunClosed
from pipeline.core.pipeline import Pipeline
from pipeline.core.record import Record
from pipeline.core.run import Run
from pipeline.core.statistics import Statistics
from tests.engine.networks import TICK, Builder, Gauge, Net, Oracle, Work, nets, nodes, timing_matters
from tests.engine.schedules import run_in
from tests.engine.topologies import nothing_is_left

#: per backend; the default profile asks for 100 of a test, which is too few here
EXAMPLES = max(250, settings().max_examples)


@dataclass(frozen=True)
class Ask:
    """A submit: when, what, whether it waits for a credit, and after how long its caller is cancelled."""

    at: float
    value: int
    wait: bool
    patience: float | None


@dataclass(frozen=True)
class Plan:
    """One history: a network, what bounds it, what comes in, and what the host does meanwhile."""

    net: Net
    values: tuple[int, ...]
    source: str
    max_in_flight: int
    ordered: bool
    buffer_size: int | None
    item_timeout: float | None
    take: int | None
    pace: float
    acts: tuple[tuple[float, str], ...]
    asks: tuple[Ask, ...]
    seed: int = 0

    @property
    def undisturbed(self) -> bool:
        """Whether every record of the source has to come out."""
        ends = {"drain items", "drain calls", "abort"}
        return self.take is None and not any(act in ends for _, act in self.acts)

    @property
    def predictable(self) -> bool:
        """Whether the oracle knows how each root ends."""
        return self.item_timeout is None and not timing_matters(self.net)


moments = st.integers(0, 12).map(lambda half: half * TICK / 2)
acts = st.tuples(
    moments,
    st.sampled_from(["pause", "narrow", "widen", "drain items", "drain calls", "abort"]),
)
asks = st.builds(Ask, moments, st.integers(0, 99), st.booleans(), st.one_of(st.none(), moments))
plans = st.builds(
    Plan,
    net=nets(3),
    values=st.lists(st.integers(0, 99), max_size=12).map(tuple),
    source=st.sampled_from(["list", "slow"]),
    max_in_flight=st.integers(1, 8),
    ordered=st.booleans(),
    buffer_size=st.sampled_from([None, 0, 1]),
    item_timeout=st.one_of(st.none(), st.none(), st.none(), st.sampled_from([2.0, 50.0])),
    take=st.one_of(st.none(), st.none(), st.integers(0, 5)),
    pace=st.sampled_from([0.0, 0.0, 0.7]),
    acts=st.one_of(st.just(()), st.lists(acts, max_size=2).map(tuple)),
    asks=st.one_of(st.just(()), st.lists(asks, max_size=3).map(tuple)),
    seed=st.integers(0, 9),
)


@dataclass
class Played:
    """What came of a plan."""

    records: list[Record] = field(default_factory=list[Record])
    replies: list[tuple[Ask, Record]] = field(default_factory=list[tuple[Ask, Record]])
    at_end: Statistics | None = None


async def play(plan: Plan) -> Played:
    """Run `plan` and hold it to every law that can be seen from outside."""
    gauge, played = Gauge(), Played()
    pipe = Pipeline(
        Builder(gauge).chain(plan.net),
        max_in_flight=plan.max_in_flight,
        ordered=plan.ordered,
        buffer_size=plan.buffer_size,
        item_timeout=plan.item_timeout,
    )
    tasks = len(anyio.get_running_tasks())
    async with anyio.create_task_group() as host:
        async with pipe.open(source_of(plan)) as run:
            gauge.observe = lambda: look(pipe, run)
            for at, act in plan.acts:
                host.start_soon(perform, run, gauge, at, act)
            for ask in plan.asks:
                host.start_soon(put, run, ask, played)
            if plan.take != 0:
                async for record in run.results:
                    look(pipe, run)
                    played.records.append(record)
                    if len(played.records) == plan.take:
                        break
                    if plan.pace:
                        await anyio.sleep(plan.pace)
        assert +gauge.running == Counter(), "a visit is left"
    nothing_is_left(run)
    assert len(anyio.get_running_tasks()) == tasks
    played.at_end = run.statistics()
    return played


def source_of(plan: Plan) -> Any:
    async def slow() -> AsyncIterator[int]:
        for value in plan.values:
            await anyio.sleep(value % 3 * TICK)
            yield value

    return list(plan.values) if plan.source == "list" else slow()


def look(pipe: Pipeline, run: Run) -> None:
    """The laws that hold at every instant."""
    now = run.statistics()
    window = now.window
    assert window.balanced
    assert window.in_flight <= window.max_in_flight
    assert window.alive <= pipe.bounds.items
    assert all(edge.used <= edge.capacity for edge in now.edges)
    assert pipe.buffer_size is None or {edge.capacity for edge in now.edges} == {pipe.buffer_size}


async def perform(run: Run, gauge: Gauge, at: float, act: str) -> None:
    await anyio.sleep(at)
    match act:
        case "pause":
            run.pause()
            await anyio.sleep(TICK)
            run.resume()
        case "narrow" | "widen":
            for stage in run.statistics().stages:
                if stage.name in gauge.most:
                    wanted = 1 if act == "narrow" else 5
                    gauge.most[stage.name] = max(gauge.most[stage.name], wanted)
                    run.set_concurrency(stage.name, wanted)
        case "drain items":
            run.drain("items")
        case "drain calls":
            run.drain("calls")
        case _:
            run.abort()


async def put(run: Run, ask: Ask, played: Played) -> None:
    await anyio.sleep(ask.at)
    with anyio.move_on_after(ask.patience):
        try:
            played.replies.append((ask, await run.submit(ask.value, wait=ask.wait)))
        except (RunClosed, anyio.WouldBlock):
            pass


def each_root_has_one_outcome(plan: Plan, played: Played) -> None:
    records = played.records
    assert len({record.index for record in records}) == len(records)
    assert played.at_end is not None
    settled = played.at_end.window.settled
    seen = Counter(record.status for record in (*records, *(record for _, record in played.replies)))
    for status in ("ok", "partial", "failed"):
        taken_by_nobody = sum(ask.patience is not None for ask in plan.asks)
        assert seen[status] <= settled[status] <= seen[status] + taken_by_nobody
    if plan.undisturbed:
        from_source = len(records) + sum(settled[status] for status in ("skipped", "cancelled"))
        assert from_source + len(plan.asks) >= len(plan.values)


def outcomes_are_those_of_the_oracle(plan: Plan, played: Played) -> None:
    oracle = Oracle(plan.net)
    asked = [(ask.value, record) for ask, record in played.replies]
    for value, record in [(record.input, record) for record in played.records] + asked:
        if record.status == "cancelled":
            continue
        end = oracle.root(value)
        status = "partial" if end.status == "ok" and end.missing else end.status
        assert record.status == status
        if end.status == "ok":
            assert record.output == end.value
            assert record.missing == end.missing
    if plan.undisturbed:
        expected = Counter(value for value in plan.values if oracle.root(value).status != "skipped")
        assert Counter(record.input for record in played.records) == expected


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=EXAMPLES)
@given(plan=plans)
def test_random_networks_keep_the_laws(backend: str, plan: Plan) -> None:
    played = run_in(backend, plan.seed, play, plan)
    each_root_has_one_outcome(plan, played)
    if plan.ordered:
        order = [record.index for record in played.records]
        assert order == sorted(order)
    if plan.predictable:
        outcomes_are_those_of_the_oracle(plan, played)


@settings(max_examples=EXAMPLES // 6)
@given(plan=plans)
def test_both_backends_give_equal_records_when_timing_cannot_matter(plan: Plan) -> None:
    if not plan.predictable or not plan.undisturbed or plan.asks:
        return
    one, other = (run_in(backend, plan.seed, play, plan).records for backend in ("asyncio", "trio"))
    assert in_order(one) == in_order(other)


def in_order(records: list[Record]) -> list[dict[str, object]]:
    """Standard records by index. The first failure closes an `all`, and which other branches were finished by then is a
    matter of scheduling even where nothing waits: what a failed record keeps of them is not compared."""
    standard = [record.standard() for record in sorted(records, key=lambda record: record.index)]
    return [{**record, "outputs": None} if record["status"] == "failed" else record for record in standard]


def test_the_networks_are_varied_enough() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=100)
    @given(net=nets(3))
    def draw(net: Net) -> None:
        seen.update({type(node).__name__ for node in nodes(net)})
        seen["waits"] += any(isinstance(node, Work) and node.kind != "plain" for node in nodes(net))

    draw()
    assert min(seen[kind] for kind in ("Work", "Sieve", "Par", "Choice", "Fan", "waits")) >= 10
