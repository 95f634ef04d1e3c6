"""Whole runs against servers that are slow now and then, or die and come back; in virtual time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from random import Random

import anyio
import pytest

from pipeline import Pipeline, Run, RunStopped
from pipeline.calls.circuit import CircuitStatistics
from pipeline.core.events import CallEnded, Event
from pipeline.core.limits import Limits
from stages import agent
from stages.models.openai import OpenAIModel
from tests.calls.flaky import Server, served
from tests.engine.schedules import in_virtual_time, run_in

# -- hedging ---------------------------------------------------------------------------------------------------------

CALLS = 1500


def with_stragglers(base: Callable[[Random], float]) -> Callable[[int], float]:
    """Latencies of which one in twenty is ten times as long."""
    chance = Random(1)
    drawn = [base(chance) * (10.0 if chance.random() < 0.05 else 1.0) for _ in range(2 * CALLS)]
    return lambda number: drawn[number]


async def measured(server: Server, hedge: str | None) -> tuple[float, int]:
    """The 99th percentile of the calls' seconds, and the number of requests."""
    seconds: list[float] = []

    def listen(event: Event) -> None:
        if isinstance(event, CallEnded):
            assert event.outcome == "ok"
            seconds.append(event.seconds)

    stage = agent("ask", model=served(server, hedge=hedge), concurrency=100)
    pipe = Pipeline(stage, max_in_flight=50)
    async with pipe.open([str(number) for number in range(CALLS)], on_event=listen) as run:
        assert Counter([record.status async for record in run.results]) == {"ok": CALLS}
    return sorted(seconds)[int(0.99 * CALLS)], server.requests


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize(
    "base",
    [lambda chance: 1.0, lambda chance: chance.lognormvariate(0.0, 0.3)],
    ids=["constant", "lognormal"],
)
def test_a_second_attempt_takes_most_of_the_tail_away_for_a_few_requests_more(
    backend: str, base: Callable[[Random], float]
) -> None:
    @in_virtual_time
    async def compare() -> None:
        plain, requests = await measured(Server(latency=with_stragglers(base)), None)
        raced, more = await measured(Server(latency=with_stragglers(base)), "p95")
        print(
            f"p99 {plain:.2f} s -> {raced:.2f} s (-{1 - raced / plain:.0%}) for {more / requests - 1:.1%} more requests"
        )
        assert raced <= 0.4 * plain
        assert requests < more <= 1.07 * requests

    compare(backend)


# -- an endpoint that dies -------------------------------------------------------------------------------------------


async def through(model: OpenAIModel, count: int, concurrency: int = 16) -> tuple[Counter[str], Run]:
    pipe = Pipeline(agent("ask", model=model, concurrency=concurrency), max_in_flight=64)
    async with pipe.open([str(number) for number in range(count)]) as run:
        return Counter([record.status async for record in run.results]), run


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("trouble", ["connection", "RemoteProtocolError", 500, 502, 503])
@pytest.mark.parametrize("concurrency", [3, 16])
def test_an_endpoint_that_dies_in_mid_run_costs_no_item_and_is_used_again(
    backend: str, trouble: str | int, concurrency: int
) -> None:
    @in_virtual_time
    async def run_through() -> None:
        server = Server(trouble=lambda now: trouble if 20.0 <= now < 50.0 else None)
        statuses, _ = await through(served(server), 45 * concurrency, concurrency)
        lost = 3 if (trouble, concurrency) == ("RemoteProtocolError", 3) else 0  # may have been paid twice until then
        assert +statuses == +Counter(ok=45 * concurrency - lost, failed=lost)
        down = [at for at in server.at if 20.0 <= at < 50.0]
        print(f"{trouble}, {concurrency} at a time: {len(down)} requests while it was down")
        assert len(down) <= 2 * concurrency + 10 + 5  # found down, then the probes
        if trouble != 503:  # a server that said it was overloaded is approached with care afterwards
            assert anyio.current_time() <= 45 + 30 + 20

    run_through(backend)


@in_virtual_time
async def test_what_waits_for_a_dead_endpoint_is_seen() -> None:
    server = Server(trouble=lambda now: "connection" if 20.0 <= now < 50.0 else None)
    pipe = Pipeline(agent("ask", model=served(server), concurrency=16), max_in_flight=64)
    async with pipe.open([str(number) for number in range(600)]) as run, anyio.create_task_group() as tg:

        async def look() -> None:
            await anyio.sleep(30.0)
            chain = "\n".join(run.wait_chain())
            assert "waits for the endpoint m.localhost, which is down, to answer again" in chain
            (line,) = [str(limit) for limit in run.statistics().limits if str(limit).startswith("endpoint")]
            assert line == ("endpoint m.localhost: open (connection), 64 calls wait; it went down once, 3 probes")
            assert run.statistics().stages[0].slots.borrowed == 0

        tg.start_soon(look)
        assert Counter([record.status async for record in run.results]) == {"ok": 600}


@in_virtual_time
async def test_an_endpoint_that_does_not_come_back_stops_the_run_after_a_minute() -> None:
    server = Server(trouble=lambda now: "connection" if now >= 20.0 else None)
    with pytest.raises(RunStopped, match=r"no answer for \d+ s") as caught:
        await through(served(server), 1000)
    assert caught.value.cause_kind == "refused"
    assert 80.0 <= anyio.current_time() <= 115.0
    assert len([at for at in server.at if at > 25.0]) <= 6


@in_virtual_time
async def test_an_endpoint_that_was_never_there_stops_the_run_soon() -> None:
    server = Server(trouble=lambda now: "connection")
    with pytest.raises(RunStopped, match="it has never answered"):
        await through(served(server), 1000)
    assert 15.0 <= anyio.current_time() <= 20.0
    assert server.requests <= 2 * 16 + 6


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("count", [3, 50])
def test_a_network_that_comes_up_a_little_later_than_the_run_stops_nothing(backend: str, count: int) -> None:
    @in_virtual_time
    async def run_through() -> None:
        statuses, _ = await through(served(Server(trouble=lambda now: "connection" if now < 6.0 else None)), count)
        assert statuses == {"ok": count}

    run_through(backend)


@in_virtual_time
async def test_accounts_at_one_server_are_endpoints_of_their_own_and_quiet_ones_are_not_shown() -> None:
    server = Server(trouble=lambda now: "connection" if now >= 20.0 else None)
    other = Server()
    async with Limits() as limits:
        with pytest.raises(RunStopped):
            await Pipeline(agent("ask", model=served(server, organization="one"))).collect(
                [str(number) for number in range(1000)], limits=limits
            )
        began = anyio.current_time()
        records = await Pipeline(agent("ask", model=served(other, organization="two"))).collect(["a"], limits=limits)
        assert anyio.current_time() == began + 1.0  # nobody waited
        shown = [str(each) for each in limits.statistics() if str(each).startswith(("endpoint", "retries"))]
    assert [record.status for record in records] == ["ok"]
    assert [line.partition(":")[0] for line in shown] == ["retries at m.localhost", "endpoint m.localhost"]


@in_virtual_time
async def test_an_endpoint_that_only_has_errors_to_say_is_not_waited_for() -> None:
    server = Server(trouble=lambda now: 500)
    statuses, _ = await through(served(server), 200)
    assert statuses == {"failed": 200}
    assert server.requests <= 200 + 20 + 20 + 16  # one each, and the retries that are allowed


@in_virtual_time
async def test_a_few_items_fail_by_themselves_as_ever_when_nothing_is_there() -> None:
    server = Server(trouble=lambda now: "connection")
    statuses, _ = await through(served(server), 2)
    assert statuses == {"failed": 2}
    assert server.requests == 8


@in_virtual_time
async def test_a_run_that_is_drained_while_all_wait_ends_at_once() -> None:
    server = Server(trouble=lambda now: "connection" if now >= 20.0 else None)
    pipe = Pipeline(agent("ask", model=served(server), concurrency=16), max_in_flight=64)
    async with pipe.open([str(number) for number in range(1000)]) as run, anyio.create_task_group() as tg:

        async def stop() -> None:
            await anyio.sleep(40.0)
            run.drain("calls")

        tg.start_soon(stop)
        statuses = Counter([record.status async for record in run.results])
    assert anyio.current_time() == pytest.approx(40.0, abs=1.0)
    assert set(statuses) <= {"ok", "cancelled"}


# -- anything, in any order --------------------------------------------------------------------------------------------

TROUBLES = ("connection", "RemoteProtocolError", "ReadTimeout", 500)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("seed", range(6))
def test_whatever_servers_do_every_run_ends_and_nobody_is_left_waiting(backend: str, seed: int) -> None:
    """Four outages of a server that is slow now and then, items that run out of time in them, with and without races
    and another model to ask."""
    assert run_in(backend, seed, outages, Random(seed), seed % 2 == 0) > 0


async def outages(chance: Random, alone: bool) -> int:
    spans: list[tuple[float, float, str | int]] = []
    for _ in range(4):
        begin = (spans[-1][1] if spans else 0.0) + chance.uniform(1.0, 20.0)
        spans.append((begin, begin + chance.uniform(1.0, 40.0), chance.choice(TROUBLES)))
    server = Server(
        latency=lambda number: chance.choice([0.0, 0.5, 1.0, 3.0]),
        trouble=lambda now: next((what for begin, end, what in spans if begin <= now < end), None),
    )
    backup = Server(latency=lambda number: 0.7)
    others = () if alone else (served(backup, "backup"),)
    concurrency = chance.choice([1, 2, 5, 20])
    model = served(server, timeout=chance.choice([2.0, None]), hedge=chance.choice([None, "p90"]), fallback=others)
    pipe = Pipeline(
        agent("ask", model=model, concurrency=concurrency),
        max_in_flight=concurrency * chance.choice([1, 3]),
        item_timeout=chance.choice([None, 15.0, 60.0]),
    )
    records = 0
    async with Limits() as limits:
        with suppress(RunStopped):
            async with pipe.open([str(number) for number in range(40 * concurrency)], limits=limits) as run:
                async for _ in run.results:
                    records += 1
        circuits = [each for each in limits.statistics() if isinstance(each, CircuitStatistics)]
    assert {each.waiting for each in circuits} <= {0}
    assert "probing" not in [each.phase for each in circuits]
    assert (server.in_flight, backup.in_flight) == (0, 0)
    return records
