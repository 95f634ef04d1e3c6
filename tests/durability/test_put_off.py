"""What ends with the run and not with the item is left to a resume: it is no failure, and decides nothing."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from pipeline.calls.errors import CallError, FaultClass
from pipeline.core.errors import RunStopped
from pipeline.core.pipeline import Pipeline
from pipeline.core.ports import Visit
from pipeline.core.state import Message
from stages import agent, batch, flat_map, loop, map, map_reduce, parallel, partition_by, quorum, route, scatter, vote
from stages.models.simulated import SimulatedModel
from tests.durability.prefixes import Memory, played
from tests.engine.schedules import run_in

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
FAULTS = pytest.mark.parametrize("fault", ["park", "stop"])
EVEN = SimulatedModel(model="echo", latency=0.2)
PROMPTS = ("one", "two")


@dataclass
class Weather:
    """What becomes of requests: while it is bad, those with "two" in them are refused as `fault` says."""

    fault: FaultClass
    bad: bool = True


@dataclass(frozen=True)
class Reply:
    text: str
    parsed: None = None


@dataclass(frozen=True)
class Refusing:
    """A model that answers with what it was asked, if the weather lets it."""

    weather: Weather = field(compare=False)
    seconds: float = 0.1
    name: str = "refusing"

    def open(self) -> AbstractAsyncContextManager[Refusing]:
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncGenerator[Refusing]:
        yield self

    async def call(self, visit: Visit, messages: Sequence[Message], **params: object) -> Reply:
        visit.admit_call()
        await anyio.sleep(self.seconds)
        if self.weather.bad and "two" in messages[-1].content:
            raise CallError("come back tomorrow", fault=self.weather.fault, type="quota")
        return Reply(messages[-1].content)


def calm(name: str, prompt: str = "{{ prompt }}", model: Any = EVEN) -> Any:
    return agent(name, model=model, prompt=f"{name}: {prompt}")


def when_done(members: Any) -> str | None:
    return "ok" if members.done else None


def pieces(value: str) -> list[str]:
    return [f"{value}1", f"{value}2"]


Build = Callable[[Any], Any]

#: pipelines around a model that may refuse
PUT_OFF: dict[str, Build] = {
    "alone": lambda r: calm("a") | calm("b", model=r),
    "all": lambda r: parallel("p", x=calm("x"), y=calm("y", model=r)),
    "quorum": lambda r: parallel("p", x=calm("x"), y=calm("y", model=r), z=calm("z"), join=quorum(1)),
    "custom": lambda r: parallel("p", x=calm("x"), y=calm("y", model=r), join=when_done),
    "late": lambda r: parallel("p", x=calm("x"), y=calm("y", model=r), timeout=5.0, on_timeout="partial"),
    "plurality": lambda r: vote(
        "v", a=calm("a"), b=calm("b", model=r), c=calm("c"), needed="plurality", on_tie="first"
    ),
    "scatter": lambda r: scatter("s", split=pieces, each=calm("e", "{{ part }}", r)),
    "map_reduce": lambda r: map_reduce(
        calm("e", "{{ part }}", r), split=pieces, reduce="{{ total + [value] }}", initial=[], name="m"
    ),
    "loop": lambda r: loop(calm("l", model=r), until=lambda value: True, max_rounds=2),
    "chosen": lambda r: route({"one": calm("o"), "two": calm("t", model=r)}, by="{{ prompt }}", name="r"),
    "classified": lambda r: route(
        {"k: one": calm("o")},
        by=agent("k", model=r, prompt="k: {{ prompt }}"),
        name="r",
        default=calm("d"),
        on_error="default",
    ),
    "partition": lambda r: partition_by("{{ prompt }}", calm("k", model=r)),
    "nested": lambda r: parallel(
        "p", x=calm("x"), y=scatter("s", split=pieces, each=calm("e", "{{ part }}", r)), join=quorum(1)
    ),
    "bracket": lambda r: (
        calm("a") | batch(calm("b", "{{ parts[0] }}", r) | map(lambda v: [v], name="m"), size=1) | calm("c")
    ),
}


def played_in(backend: str, pipeline: Pipeline, memory: Memory) -> Memory:
    return run_in(backend, 0, played, pipeline, PROMPTS, memory)


@BACKENDS
@FAULTS
@pytest.mark.parametrize("name", tuple(PUT_OFF))
def test_what_is_put_off_stays_open_and_a_resume_ends_it_as_if_nothing_had_been(
    name: str, fault: FaultClass, backend: str
) -> None:
    fine, bad = Weather(fault, bad=False), Weather(fault)
    expected = played_in(backend, Pipeline(PUT_OFF[name](Refusing(fine))), Memory())
    first = played_in(backend, Pipeline(PUT_OFF[name](Refusing(bad))), Memory())
    assert "r1" not in first.lines()
    assert 2 not in first.settled()
    if fault == "park":
        assert first.lines()["r0"] == expected.lines()["r0"]
    resumed = played_in(backend, Pipeline(PUT_OFF[name](Refusing(fine))), Memory(first.sequence))
    assert resumed.lines() == expected.lines()
    assert set(resumed.settled()) == {1, 2}


@BACKENDS
def test_without_a_journal_what_would_be_put_off_fails(backend: str) -> None:
    for fault in ("park", "stop"):
        pipeline = Pipeline(calm("a", model=Refusing(Weather(fault))))

        async def run(pipeline: Pipeline = pipeline) -> list[str]:
            found: list[str] = []
            try:
                async with pipeline.open(list(PROMPTS)) as run:
                    found = [f"{record.id} {record.status}" async for record in run.results]
            except RunStopped as stopped:
                found.append(stopped.cause_kind)
            return found

        ended = sorted(run_in(backend, 0, run))
        assert ended == (["0 ok", "1 failed"] if fault == "park" else ["0 ok", "1 failed", "refused"])


@BACKENDS
def test_who_wins_without_the_member_that_is_put_off_wins(backend: str) -> None:
    r = Refusing(Weather("park"))
    pipeline = Pipeline(parallel("p", x=calm("x"), y=calm("y", model=r), join="any"))
    first = played_in(backend, pipeline, Memory())
    assert b'"status":"ok","output":"x: two"' in first.lines()["r1"]
    joined = next(n for n, e in enumerate(first.sequence, 1) if e.root == 2 and e.name[1] == "join")
    assert b'["cancelled",' in first.sequence[joined - 1].data
    resumed = played_in(backend, pipeline, Memory(first.sequence[:joined]))
    assert resumed.lines() == first.lines()


@BACKENDS
def test_children_that_are_not_put_off_leave_their_records_once(backend: str) -> None:
    def build(weather: Weather) -> Pipeline:
        return Pipeline(flat_map(lambda value: ["a", value], name="f") | calm("e", "{{ f }}", Refusing(weather)))

    expected = played_in(backend, build(Weather("park", bad=False)), Memory())
    first = played_in(backend, build(Weather("park")), Memory())
    assert sorted(first.lines()) == ["r0#0", "r0#1", "r1#0"]
    assert set(first.settled()) == {1}
    resumed = played_in(backend, build(Weather("park", bad=False)), Memory(first.sequence))
    assert resumed.lines() == expected.lines()
    assert [entry.name[0] for entry in resumed.written if entry.kind == "line"] == ['["1"]']


@BACKENDS
@pytest.mark.parametrize("end", [0.05, 0.15, 0.25, 0.35])
def test_a_split_that_a_drain_of_calls_cuts_is_left_open(end: float, backend: str) -> None:
    async def slowly(value: str) -> AsyncGenerator[str]:
        for letter in value:
            await anyio.sleep(0.1)
            yield letter

    stages = {
        "scatter": scatter("s", split=slowly, each=calm("e", "{{ part }}")),
        "map_reduce": map_reduce(
            calm("e", "{{ part }}"), split=slowly, reduce="{{ total + [value] }}", initial=[], name="s"
        ),
        "flat_map": flat_map(slowly, name="s") | calm("e", "{{ s }}"),
    }
    for name, stage in stages.items():
        pipeline = Pipeline(stage)
        expected = run_in(backend, 0, played, pipeline, ["word"], Memory())

        async def cut(memory: Memory, pipeline: Pipeline = pipeline) -> Memory:
            async with pipeline.open(["word"], journal=memory) as run, anyio.create_task_group() as tg:

                async def later() -> None:
                    await anyio.sleep(end)
                    run.drain("calls")

                tg.start_soon(later)
                async for _ in run.results:
                    pass
            return memory

        first = run_in(backend, 0, cut, Memory())
        assert first.settled() == {}, name
        resumed = run_in(backend, 0, played, pipeline, ["word"], Memory(first.sequence))
        assert resumed.lines() == expected.lines(), name
