"""Which failures another model is asked after, which one answers, and with what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import anyio
import pytest

from pipeline import DefinitionError, Pipeline, RunStopped
from pipeline.calls.call import Reply, Request, Tries
from pipeline.calls.errors import CallError, FaultClass, ModelError
from pipeline.calls.fallback import Fallback
from pipeline.core.limits import Limits
from pipeline.core.record import Record
from stages import agent, resolve
from stages.models import OpenAIModel, SimulatedModel
from stages.models.calling import Calling
from tests.calls.asking import ask, failure, reply
from tests.calls.flaky import Server, served
from tests.engine.schedules import in_virtual_time


@dataclass
class Other:
    """A model that takes over, or fails to."""

    outcome: Callable[[], Reply | Exception]
    asked: list[Request] = field(default_factory=list[Request])

    async def take_over(self, request: Request) -> Reply:
        self.asked.append(request)
        outcome = self.outcome()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


async def first_fails(error: Exception, *others: Other) -> Reply:
    async def call(request: Request) -> Reply:
        raise error

    return await Fallback(others)(call)(replace(ask(), tries=Tries()))


@pytest.mark.parametrize(
    ("type", "fault", "taken"),
    [
        ("connection", "retry", True),
        ("empty", "ambiguous", True),
        ("endpoint_down", "park", True),
        ("rate_limited", "park", True),
        ("key_refused", "stop", True),
        ("not_found", "fail", True),
        ("server_error", "fail", True),
        ("too_long", "fail", False),
        ("blocked", "fail", False),
        ("bad_request", "fail", False),
        ("item_timeout", "fail", False),
        ("budget", "fail", False),
        ("filtered", "fail", False),
        ("schema", "fail", False),
    ],
)
async def test_another_model_is_asked_when_the_first_could_not_answer(
    type: str, fault: FaultClass, taken: bool
) -> None:
    other = Other(lambda: reply("other"))
    if taken:
        answer = await first_fails(failure(type, fault), other)
        assert (answer.text, answer.flags) == ("other", ("fallback",))
    else:
        with pytest.raises(CallError, match=f"it said {type}$"):
            await first_fails(failure(type, fault), other)
    assert len(other.asked) == taken


async def test_models_are_asked_in_turn_until_one_answers() -> None:
    others = [Other(lambda: failure("server_error")), Other(lambda: reply("b", ("hedged",))), Other(lambda: reply("c"))]
    answer = await first_fails(failure(), *others)
    assert (answer.text, answer.flags) == ("b", ("hedged", "fallback"))
    assert [len(other.asked) for other in others] == [1, 1, 0]


async def test_an_answer_that_another_model_fell_back_for_is_flagged_once() -> None:
    assert (await first_fails(failure(), Other(lambda: reply("b", ("fallback",))))).flags == ("fallback",)


@pytest.mark.parametrize(
    ("faults", "type", "stops"),
    [
        (("retry", "retry"), "0", False),
        (("stop", "retry"), "1", False),
        (("retry", "stop"), "0", False),
        (("stop", "stop"), "0", True),
        (("park", "stop"), "0", False),
    ],
)
async def test_when_all_fail_the_run_is_stopped_only_if_each_would(
    faults: Sequence[FaultClass], type: str, stops: bool
) -> None:
    first, second = (failure(str(number), fault) for number, fault in enumerate(faults))
    with pytest.raises(CallError) as caught:
        await first_fails(first, Other(lambda: second))
    assert (caught.value.type, caught.value.stops_run) == (type, stops)
    assert sorted(caught.value.message.split("; and ")) == ["it said 0", "it said 1"]


async def test_what_the_next_model_finds_wrong_with_the_request_is_not_asked_of_a_third() -> None:
    third = Other(lambda: reply())
    with pytest.raises(CallError) as caught:
        await first_fails(failure("endpoint_down", "park"), Other(lambda: failure("too_long", "fail")), third)
    assert (caught.value.type, third.asked) == ("endpoint_down", [])


async def test_what_is_no_call_error_is_nobody_elses() -> None:
    with pytest.raises(ValueError, match="bug"):
        await first_fails(ValueError("bug"), Other(lambda: reply()))


# -- with whole models -----------------------------------------------------------------------------------------------


async def collected(model: Calling, count: int = 20, **options: object) -> list[Record]:
    stage = agent("ask", model=model, **options)  # type: ignore[arg-type]
    return await Pipeline(stage, max_in_flight=8).collect([f"p{number}" for number in range(count)])


@in_virtual_time
async def test_each_model_is_asked_with_its_own_parameters_under_those_of_the_agent() -> None:
    bodies: list[tuple[str, object, object]] = []

    class Noting(Server):
        async def handle_async_request(self, request: object) -> object:  # type: ignore[override]
            import json

            body = json.loads(await request.aread())  # type: ignore[attr-defined]
            bodies.append((body["model"], body.get("temperature"), body.get("seed")))
            return await super().handle_async_request(request)  # type: ignore[arg-type]

    second = resolve_served(Noting(), "other", seed=7, temperature=0.1)
    first = resolve_served(Noting(trouble=lambda now: 500), "first", temperature=0.9, attempts=1, fallback=(second,))
    (record,) = await collected(first, 1, temperature=0.5)
    assert record.status == "ok"
    assert bodies == [("m", 0.5, None), ("m", 0.5, 7)]


def resolve_served(server: Server, name: str, **options: object) -> OpenAIModel:
    from pipeline.calls.parameters import PARAMETERS, Parameters

    parameters = Parameters().updated({key: value for key, value in options.items() if key in PARAMETERS})
    rest = {key: value for key, value in options.items() if key not in PARAMETERS}
    return served(server, name, parameters=parameters, **rest)


@in_virtual_time
async def test_an_endpoint_that_dies_costs_no_item_and_no_time_with_a_fallback_and_is_used_again() -> None:
    first = Server(trouble=lambda now: "connection" if 10 <= now < 40 else None)
    second = Server()
    model = served(first, "first", fallback=(served(second, "second"),))
    records = await collected(model, 640)
    assert Counter(record.status for record in records) == {"ok": 640}
    assert anyio.current_time() < 85.0  # 640 answers, 8 at a time
    down = [at for at in first.at if 10.0 <= at < 40.0]
    assert len(down) <= 8 + 10 + 6  # what was in flight, what opened the circuit, the probes
    assert [at for at in first.at if at > 45.0]
    late = [at for at in second.at if at > 45.0]
    assert late == []
    assert first.requests + second.requests <= 640 + 8 + len(down)


@in_virtual_time
async def test_a_refused_key_stops_no_run_while_another_model_is_left_and_is_asked_no_more() -> None:
    first, second = Server(trouble=lambda now: 401), Server()
    records = await collected(served(first, "first", fallback=(served(second, "second"),)))
    assert Counter(record.status for record in records) == {"ok": 20}
    assert 1 <= first.requests <= 8
    assert records[-1].usage.requests == 1


@in_virtual_time
async def test_when_every_key_is_refused_the_run_stops() -> None:
    first, second = Server(trouble=lambda now: 401), Server(trouble=lambda now: 401)
    with pytest.raises(RunStopped) as caught:
        await collected(served(first, "first", fallback=(served(second, "second"),)))
    assert caught.value.cause_kind == "refused"


@in_virtual_time
async def test_a_fallback_has_its_own_fallback_and_all_are_opened_once() -> None:
    servers = [Server(trouble=lambda now: 404), Server(trouble=lambda now: 500), Server()]
    third = served(servers[2], "third")
    second = served(servers[1], "second", attempts=2, fallback=(third,))
    first = served(servers[0], "first", fallback=(second, third))
    async with Limits() as limits:
        pipe = Pipeline(agent("a", model=first) | agent("b", model=first), max_in_flight=2)
        async with pipe.open(["x", "y"], limits=limits) as run:
            records = [record async for record in run.results]
        opened = [each for each in limits._kept if isinstance(each, tuple) and each[0] == "fallback"]
    assert Counter(record.status for record in records) == {"ok": 2}
    assert len(opened) == 2
    assert records[0].usage.requests == servers_asked(servers) // 2


def servers_asked(servers: Sequence[Server]) -> int:
    return sum(server.requests for server in servers)


async def test_a_fallback_whose_key_is_missing_is_found_before_the_run() -> None:
    model = SimulatedModel(fallback=(resolve("openai/gpt-5.5", api_key_env="NOT_SET_ANYWHERE"),))
    with pytest.raises(ModelError, match="NOT_SET_ANYWHERE is not set"):
        await collected(model)


def test_models_that_take_over_may_be_written_as_words() -> None:
    model = resolve("sim/a", fallback=("sim/b", resolve("sim/c", seed=2)))
    assert model.fallback == (resolve("sim/b"), resolve("sim/c", seed=2))
    assert resolve("sim/a", fallback="sim/b") == resolve("sim/a", fallback=["sim/b"])
    assert hash(model) != hash(resolve("sim/a"))


@pytest.mark.parametrize("wrong", [("sim",), (7,), "nobody/x", 7])
def test_what_cannot_take_over_is_refused(wrong: object) -> None:
    with pytest.raises(DefinitionError):
        resolve("sim/a", fallback=wrong)
    with pytest.raises(DefinitionError):
        SimulatedModel(fallback=wrong)  # type: ignore[arg-type]
