"""What a run tells of its models while it goes on, and counts for its end: flags, endpoints, money that is unknown."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from pipeline import EndpointChanged, Event, ModelReplaced, Pipeline, Stage, Statistics
from pipeline.calls.breaker import Breaker
from pipeline.calls.call import Reply, Request
from pipeline.calls.circuit import Circuit
from pipeline.calls.errors import CallError
from pipeline.calls.fallback import Fallback
from pipeline.calls.observed import ObservedCall
from pipeline.core.usage import Cost
from stages import agent, resolve
from tests.calls.asking import ask, failure, reply
from tests.calls.flaky import Server, served
from tests.calls.visits import FakeVisit
from tests.engine.schedules import in_virtual_time

# -- flags -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listening", [True, False])
@pytest.mark.parametrize("flags", [(), ("truncated",), ("hedged", "fallback")])
async def test_each_flag_of_an_answer_is_remarked_whether_or_not_anybody_listens(
    flags: tuple[str, ...], listening: bool
) -> None:
    async def call(request: Request) -> Reply:
        return reply(flags=flags)

    visit = FakeVisit(listening=listening)
    answer = await ObservedCall("m")(call)(ask(visit=visit))
    assert (answer.flags, visit.remarks) == (flags, list(flags))


async def test_a_call_that_failed_has_nothing_to_remark() -> None:
    async def call(request: Request) -> Reply:
        raise failure()

    visit = FakeVisit()
    with pytest.raises(CallError):
        await ObservedCall("m")(call)(ask(visit=visit))
    assert visit.remarks == []


@in_virtual_time
async def test_a_run_counts_the_flags_of_its_answers() -> None:
    second = resolve("sim/small", max_output_tokens=2)
    first = served(Server(trouble=lambda now: 500), attempts=1, fallback=(second,))
    now = await through(agent("ask", model=first) | agent("again", model=second), 3)
    assert dict(now.remarks) == {"truncated": 6, "fallback": 3}
    assert (await through(agent("ask", model=resolve("sim/echo")), 3)).remarks == {}


async def through(stage: Stage, count: int) -> Statistics:
    async with Pipeline(stage).open([f"{number}" for number in range(count)]) as run:
        _ = [record async for record in run.results]
    return run.statistics()


# -- money -----------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_what_is_known_of_the_cost_is_summed_beside_what_is_not() -> None:
    known, unknown = served(Server(), price={"input": 1.0, "output": 2.0}), served(Server(), "other")
    now = await through(agent("ask", model=known) | agent("again", model=unknown), 2)
    assert (now.cost, now.known_usd, now.unpriced) == (Cost(None, "given + unknown price"), 2 * 20e-6, 2)
    now = await through(agent("ask", model=known), 2)
    assert (now.cost, now.known_usd, now.unpriced) == (Cost(2 * 20e-6, "given"), 2 * 20e-6, 0)


# -- endpoints -------------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_an_endpoint_that_goes_down_and_comes_back_is_told_once_each_time() -> None:
    away = [(20.0, 25.0), (50.0, 55.0)]
    server = Server(trouble=lambda now: "connection" if any(a <= now < b for a, b in away) else None)
    told: list[tuple[float, EndpointChanged]] = []

    def listen(event: Event) -> None:
        if isinstance(event, EndpointChanged):
            told.append((anyio.current_time(), event))

    stage = agent("ask", model=served(server), concurrency=16)
    async with Pipeline(stage, max_in_flight=64).open(map(str, range(1000)), on_event=listen) as run:
        assert {record.status async for record in run.results} == {"ok"}
    assert [(event.endpoint, event.model, event.state, event.patient) for _, event in told] == [
        ("m.localhost", "vllm/m", "down", True),
        ("m.localhost", "vllm/m", "up", True),
    ] * 2
    for (fell, back), (down, up) in zip(away, [(told[0], told[1]), (told[2], told[3])], strict=True):
        assert "refused" in down[1].why or "gone" in down[1].why
        assert fell <= down[0] < back <= up[0] < back + 10.0
        assert up[1][3:5] == ("", 0)


async def broken(circuit: Circuit, error: CallError, times: int, **options: object) -> list[Event]:
    visit = FakeVisit()

    async def call(request: Request) -> Reply:
        raise failure(error.type, error.fault, error.http_status)

    for _ in range(times):
        with pytest.raises(CallError):
            await Breaker(circuit, **options)(call)(ask(visit=visit))  # type: ignore[arg-type]
    return visit.events


async def test_an_endpoint_is_told_by_the_call_that_found_it_down_with_the_name_of_its_model() -> None:
    circuit = Circuit("there:80")
    assert await broken(circuit, failure(), 9) == []
    assert await broken(circuit, failure(), 1, model="m", name="a/m", patient=False) == [
        EndpointChanged("there:80", "a/m", "down", "it said connection", 0, False)
    ]


async def test_one_that_answers_but_never_well_is_not_told_as_down() -> None:
    circuit = Circuit("there")
    assert await broken(circuit, failure("server_error", "retry", 500), 10) == []
    assert circuit.phase == "open"


async def test_a_quiet_endpoint_is_not_told() -> None:
    async def call(request: Request) -> Reply:
        return reply()

    visit = FakeVisit()
    circuit = Circuit("there")
    for _ in range(3):
        await Breaker(circuit)(call)(ask(visit=visit))
    assert await broken(circuit, failure("bad_request", "fail", 400), 20) == []
    assert visit.events == []


async def test_nobody_who_does_not_listen_is_told_and_it_is_not_told_later() -> None:
    circuit = Circuit("there")
    visit = FakeVisit(listening=False)

    async def call(request: Request) -> Reply:
        raise failure()

    for _ in range(10):
        with pytest.raises(CallError):
            await Breaker(circuit)(call)(ask(visit=visit))
    assert (visit.events, circuit.news()) == ([], None)


# -- another model ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type", "fault", "told"),
    [
        ("key_refused", "stop", True),
        ("no_money", "stop", True),
        ("connection", "stop", False),
        ("empty", "retry", False),
    ],
)
@pytest.mark.parametrize("listening", [True, False])
async def test_a_model_that_got_a_final_no_is_told_with_the_one_that_is_asked_instead(
    type: str, fault: str, told: bool, listening: bool
) -> None:
    async def call(request: Request) -> Reply:
        raise failure(type, fault)  # type: ignore[arg-type]

    class Other:
        async def take_over(self, request: Request) -> Reply:
            return reply()

    visit = FakeVisit(listening=listening)
    await Fallback((Other(),), ("first", "second"))(call)(ask(visit=visit))
    expected = [ModelReplaced("first", "second", type, f"it said {type}")]
    assert visit.events == (expected if told and listening else [])


@in_virtual_time
async def test_models_that_are_refused_in_turn_are_told_each_with_the_next_one() -> None:
    third = served(Server(), "third")
    second = replace(served(Server(trouble=lambda now: 401), "second"), model="b")
    first = replace(served(Server(trouble=lambda now: 401), "first", fallback=(second, third)), model="a")
    told: list[Event] = []
    async with Pipeline(agent("ask", model=first)).open(["x", "y"], on_event=told.append) as run:
        assert [record.status async for record in run.results] == ["ok", "ok"]
    replaced = [event for event in told if isinstance(event, ModelReplaced)]
    assert {(event.model, event.by, event.type) for event in replaced} == {
        ("vllm/a", "vllm/b", "key_refused"),
        ("vllm/b", "vllm/m", "key_refused"),
    }
    assert replaced[0].why.startswith("vllm/a: HTTP 401, ")
