"""A pipeline with something of everything, in code. Run as a program, it prints its fingerprint."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, Field

from pipeline import Pipeline
from pipeline.core.budget import Budget
from pipeline.core.codec import canonical
from pipeline.core.leaf import LeafStage
from pipeline.core.state import ConversationState
from pipeline.durability.fingerprint import fingerprint
from stages import (
    agent,
    batch,
    filter,
    flat_map,
    loop,
    map,
    map_reduce,
    parallel,
    partition_by,
    route,
    scatter,
    tap,
    tool,
    vote,
)
from stages.models import resolve
from tests.durability.functions import add, area, is_long, population, shout, two_of_three

KEY = "sk-canary0123456789abcdef"
TOKEN = "canary-token-of-a-gateway"


class Plan(BaseModel):
    """What to ask."""

    questions: list[str] = Field(min_length=1)
    tone: str = "dry"


@dataclass(frozen=True)
class Echo:
    """An agent of the user's."""

    name: str
    prefix: str = ">"
    api_key: str = KEY
    words: frozenset[str] = frozenset({"one", "two", "three", "four", "five"})

    async def process(self, prompt: str, state: ConversationState) -> str:
        return self.prefix + prompt


@dataclass(frozen=True)
class Prefixed:
    prefix: str

    def put(self, value: object) -> str:
        return self.prefix + str(value)


class Counting:
    """An agent that shows nothing of what it holds."""

    name = "counting"

    def __init__(self) -> None:
        self.seen = 0

    async def process(self, prompt: str, state: ConversationState) -> str:
        return prompt


async def plain_agent(prompt: str, state: ConversationState) -> str:
    return prompt


@dataclass(frozen=True)
class Longer(LeafStage):
    """A stage of the user's."""

    by: int = 1
    spare: float = field(default=1.0, metadata={"operational": True})

    async def process(self, value: object) -> object:
        return str(value) + "." * self.by


def limited(words: frozenset[str], most: int = 3) -> Callable[[object], bool]:
    """A function that was made for its words."""

    def few(value: object) -> bool:
        return len(set(str(value).split()) & words) < most

    return few


def model() -> object:
    return resolve(
        "openai/gpt-5.5",
        temperature=0.5,
        max_output_tokens=1000,
        headers={"Authorization": f"Bearer {TOKEN}", "x-route": "route-canary"},
        fallback=[resolve("sim/echo", latency="1s", errors={"429": "3%"}, max_output_tokens=10)],
        extra_body={"api_key": KEY, "top_k": 3},
        price={"input": 1, "output": 2},
    )


def everything() -> Pipeline:
    smart = model()
    stages = (
        agent("lead", model=smart, prompt="Plan: {{ prompt }}", output=Plan, tools=[population, tool(area, timeout=5)])
        | tap(shout)
        | scatter(
            "dig",
            split="{{ lead.questions }}",
            each=agent(Echo("echo")) | agent(plain_agent),
            gather=map(functools.partial(add, 1), name="sum"),
            join=two_of_three,
            on_error=lambda failure: "skip",
        )
        | parallel(
            "views",
            a=agent(Counting(), output_key="note"),
            b=agent(Echo("b"), output_key="note"),
            reducers={"note": add},
        )
        | route({"x": map("{{ dig }}", name="x"), "y": Longer("y", by=2)}, by="{{ input.kind }}", name="kind")
        | loop(map(str.strip, name="strip"), until=is_long, max_rounds=3)
        | vote("verdict", agent("judge", model=smart, prompt="Yes or no?"), samples=3)
        | partition_by("{{ input.user }}", map(shout, name="again"), name="turns")
        | map_reduce(map(shout, name="piece"), split=lambda value: [value], reduce=add, initial=0)
        | filter(limited(frozenset({"alpha", "beta", "gamma", "delta"})), name="few")
        | flat_map(list, name="flat")
        | batch(size=3, name="lot")
    )
    return Pipeline(
        stages, variables={"topic": "rain", "api_key": KEY, "day": 1}, budget=Budget(usd=5), max_failures=0.5
    )


def printed(pipeline: Pipeline) -> Mapping[str, object]:
    return fingerprint(pipeline).as_json()


if __name__ == "__main__":
    from tests.durability import pipelines  # under its own name

    print(canonical(pipelines.printed(pipelines.everything())).decode())
