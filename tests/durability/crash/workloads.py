"""What is run, killed and resumed: small pipelines that have everything that a journal has to remember.

Latencies lie far enough apart that no race is close: who wins is the same with and without a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import anyio

from pipeline.core.budget import Budget
from pipeline.core.pipeline import Pipeline
from pipeline.core.ports import Visit
from pipeline.core.state import ConversationState
from stages import agent, batch, filter, first, flat_map, loop, map, map_reduce, parallel, quorum, route, scatter, vote
from stages.models.simulated import SimulatedModel
from tests.durability.crash.ledger import happened

PRICE = {"input": 100.0, "output": 100.0}  #: US dollars a million tokens


@dataclass(frozen=True)
class Workload:
    """A pipeline and its input. `phases` are run one after the other, each until it ends by itself: a run that its
    budget stops, and then one with more."""

    name: str
    phases: tuple[Pipeline, ...]
    inputs: tuple[Any, ...]
    durability: Any = "power"
    races: bool = False  #: what was in flight at a crash may be needed no more after it
    later: tuple[Any, ...] = field(default=())  #: what the input has more of from the second phase on

    @property
    def eager(self) -> bool:
        """Whether its output is synced after each group, so that the marks of it are written while it runs."""
        return self.name in ("sequence", "parallel", "dead letters", "four", "growing")

    @property
    def ordered(self) -> bool:
        return self.phases[0].ordered

    @property
    def budget(self) -> Budget | None:
        return self.phases[-1].budget

    def input(self, phase: int) -> list[Any]:
        return [*self.inputs, *(self.later if phase else ())]


def sim(latency: float | str = 0.1, **options: Any) -> SimulatedModel:
    return SimulatedModel(latency=latency, **options)


ECHO = sim(model="echo")
UNEVEN = sim("uniform:0.02s..0.4s", seed=5)
PROMPTS = ("one", "two", "three", "four")


def asks(name: str, model: SimulatedModel = ECHO, prompt: str | None = None, **options: Any) -> Any:
    return agent(name, model=model, prompt=prompt or name + ": {{ prompt }}", **options)


def after(name: str, before: str, model: SimulatedModel = ECHO, **options: Any) -> Any:
    return agent(name, model=model, prompt=name + ": {{ " + before + " }}", **options)


# -- functions of the user's ------------------------------------------------------------------------------------------


def pieces(value: Any) -> list[str]:
    """Three parts, or two, or none."""
    return [f"{value} {number}" for number in range(len(str(value)) % 4)]


def label(value: Any) -> str:
    return "short" if len(str(value)) % 2 else "long"


def long_enough(value: Any) -> bool:
    return len(str(value)) > 40


def odd(value: Any) -> bool:
    return "w" not in str(value)


def upper(value: Any) -> str:
    return str(value).upper()


def judged(payloads: list[Any]) -> list[str]:
    return [f"{payload} of {len(payloads)}" for payload in payloads]


def joined(total: str, value: Any) -> str:
    return f"{total}+{value}"


def weather(city: str, visit: Visit) -> str:
    """Tell the weather.

    Args:
        city: where
    """
    happened("tool", [visit.item_id, list(visit.path), 0, 0])
    return f"rain in {city}"


class Oracle:
    """An agent of one's own. What it does is written down, because it must not be done again once it is known."""

    name = "oracle"

    async def process(self, prompt: str, state: ConversationState, visit: Visit) -> str:
        happened("value", [visit.item_id, list(visit.path), 0, 0])
        await anyio.sleep(0.1)
        return f"{prompt}?"


# -- the workloads ----------------------------------------------------------------------------------------------------


def one(name: str, stage: Any, inputs: tuple[Any, ...] = PROMPTS, *, races: bool = False, **options: Any) -> Workload:
    given: dict[str, Any] = {"ordered": True, "max_in_flight": 4, **options}
    return Workload(name, (Pipeline(stage, **given),), inputs, races=races)


def spending(stage: Any, least: Budget, most: Budget) -> tuple[Pipeline, ...]:
    poor = Pipeline(stage, ordered=True, max_in_flight=4, budget=least)
    return (poor, replace(poor, budget=most))


def workloads() -> Mapping[str, Workload]:
    found = (
        one("single", asks("a"), ("one", "two")),
        one("sequence", asks("a", UNEVEN) | after("b", "a") | after("c", "b", UNEVEN)),
        one("four", asks("a") | after("b", "a", UNEVEN) | after("c", "b") | after("d", "c", UNEVEN), ordered=False),
        one("functions", map(upper) | asks("a") | filter(odd) | map(upper, name="again"), ordered=False),
        one("parallel", parallel("p", x=asks("x"), y=asks("y", UNEVEN), z=asks("z")) | after("end", "p")),
        one(
            "scatter",
            scatter("s", split=pieces, each=asks("w", UNEVEN, "{{ part }}"), gather=asks("g", ECHO, "{{ parts }}")),
        ),
        one("loop", loop(agent("l", model=UNEVEN, prompt="{{ prompt }} {{ round }}"), until=long_enough, max_rounds=3)),
        one("retry", asks("a", sim(seed=3, errors={"429": 0.3, "503": 0.2})) | after("b", "a"), (*PROMPTS, "five")),
        one(
            "dead letters",
            asks("a", sim(seed=1, errors={"400": 0.4})) | after("b", "a"),
            (*PROMPTS, "five"),
        ),
        one("duplicates", asks("a", UNEVEN) | after("b", "a"), ("same", "other", "same", "same"), ordered=False),
        one(
            "own ids",
            asks("a", UNEVEN),
            ({"id": "x", "prompt": "one"}, {"id": "y", "prompt": "one"}, {"id": "z", "prompt": "two"}),
        ),
        one("any", parallel("p", join="any", fast=asks("f"), slow=asks("s", sim(5.0))) | after("end", "p"), races=True),
        one(
            "first", parallel("p", join=first(2), x=asks("x"), y=asks("y", sim(0.3)), z=asks("z", sim(9.0))), races=True
        ),
        one(
            "quorum",
            parallel(
                "q",
                join=quorum(2),
                timeout=2.0,
                on_timeout="partial",
                x=asks("x"),
                y=asks("y", sim(0.3)),
                z=asks("z", sim(60.0)),
            )
            | after("end", "q"),
            races=True,
        ),
        one("route", route({"short": asks("s", UNEVEN), "long": asks("l") | after("m", "l")}, by=label)),
        one(
            "batch", asks("a", UNEVEN) | batch(map(judged), size=2, within=30.0) | after("end", "batch"), ordered=False
        ),
        one("flat_map", flat_map(pieces) | asks("w", ECHO, "{{ pieces }}")),
        one("map_reduce", map_reduce(asks("m", UNEVEN, "{{ part }}"), split=pieces, reduce=joined, initial="")),
        one(
            "vote",
            vote(
                "v",
                x=asks("x", sim(0.1, model="echo"), "say {{ prompt }}"),
                y=asks("y", sim(0.3, model="echo"), "say {{ prompt }}"),
                z=asks("z", sim(0.5, model="echo"), "say {{ prompt }}"),
            )
            | after("end", "v"),
            races=True,
        ),
        one("custom", asks("a") | agent(Oracle()) | after("end", "oracle")),
        one("tools", asks("t", sim(), tools=[weather]) | after("end", "t"), ("one", "two")),
        Workload("money", spending(asks("a") | after("b", "a"), Budget(requests=3), Budget(requests=50)), PROMPTS),
        Workload(
            "growing",
            (Pipeline(asks("a", UNEVEN) | after("b", "a"), ordered=False, max_in_flight=2),) * 2,
            ("one", "two"),
            later=("one", "three"),
        ),
    )
    return {workload.name: workload for workload in found}


WORKLOADS: Callable[[], Mapping[str, Workload]] = workloads
