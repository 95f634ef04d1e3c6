"""Debug mode: whoever changes what it was given is named; without it, and for all others, nothing is different."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline import ConversationState, Item, LeafStage, Pipeline, Record, Skip, Visit
from pipeline.config.description import load_text
from pipeline.core.agent import stage_of_agent
from pipeline.core.stage import Stage
from stages import agent, batch, filter, flat_map, loop, map, parallel, partition_by, quorum, route, scatter
from tests.engine.schedules import in_virtual_time
from tests.stages.models import ScriptedModel

Payload = dict[str, Any]


def payload() -> Payload:
    return {"list": [1, 2, [3]], "text": "x"}


def spoils(value: Payload) -> Payload:
    value["list"][2].append(4)
    return value


async def spoils_later(value: Payload) -> Payload:
    value["list"][2].append(4)
    return value


def spoils_and_raises(value: Payload) -> Payload:
    value["list"][2].append(4)
    raise ValueError("after the deed")


def spoils_and_skips(value: Payload) -> Payload:
    value["list"][2].append(4)
    raise Skip


def spoils_in_passing(value: Payload) -> Iterator[int]:
    yield 1
    value["list"][2].append(4)
    yield 2


async def spoils_in_passing_later(value: Payload) -> AsyncIterator[int]:
    yield 1
    value["list"][2].append(4)


def spoils_input(value: Payload, visit: Visit) -> Payload:
    visit.names()["input"]["list"][2].append(4)
    return value


def spoils_item(value: Payload, visit: Visit) -> Payload:
    visit.item.state.outputs["given"]["list"].append(4)
    return value


def key(value: Payload) -> str:
    return str(spoils(value)["text"])


def extends(one: list[int], other: list[int]) -> list[int]:
    one.extend(other)
    return one


def reduces() -> Stage:
    """Branches that write the same output, and a reducer that makes one of them into both."""

    def writes(value: object) -> Stage:
        async def answer(prompt: str, state: ConversationState) -> object:
            return [value]

        return stage_of_agent(answer, name=f"answer{value}", prompt="?", output_key="found")

    return parallel("both", a=writes(1), b=writes(2), reducers={"found": extends})


def true(value: object) -> bool:
    return True


@dataclass(frozen=True)
class SpoilsState:
    """An agent, blocking or not."""

    name: str = "ask"

    async def process(self, prompt: str, state: ConversationState) -> str:
        state.outputs["given"]["list"][2].append(4)
        return "done"


def blocks(prompt: str, state: ConversationState) -> str:
    state.outputs["given"]["list"][2].append(4)
    return "done"


@dataclass(frozen=True)
class Own(LeafStage):
    async def process(self, item: Item) -> object:
        item.value["list"][2].append(4)  # type: ignore[index]
        return item


same = map(lambda value: value, name="same")
given = map(lambda value: payload(), name="given")

DEEP = "['list'][2][1]"
SPOILING: dict[str, tuple[Callable[[], Stage], str, str]] = {
    "map": (lambda: map(spoils), "spoils", f"value{DEEP}"),
    "fused map": (lambda: same | map(spoils) | map(len), "spoils", f"value{DEEP}"),
    "async map": (lambda: map(spoils_later), "spoils_later", f"value{DEEP}"),
    "blocking map": (lambda: map(spoils, blocking=True), "spoils", f"value{DEEP}"),
    "timed map": (lambda: map(spoils_later, timeout=10), "spoils_later", f"value{DEEP}"),
    "map that raises": (lambda: map(spoils_and_raises), "spoils_and_raises", f"value{DEEP}"),
    "map that skips": (lambda: map(spoils_and_skips), "spoils_and_skips", f"value{DEEP}"),
    "filter": (lambda: filter(spoils), "spoils", f"value{DEEP}"),
    "names of the visit": (lambda: given | map(spoils_input), "spoils_input", f"visit.names()['input']{DEEP}"),
    "item of the visit": (lambda: given | map(spoils_item), "spoils_item", "value['list'][3]"),
    "flat_map": (lambda: flat_map(lambda value: spoils(value)["list"], name="f"), "f", f"value{DEEP}"),
    "agent": (lambda: given | stage_of_agent(SpoilsState()), "ask", f"state.outputs['given']{DEEP}"),
    "blocking agent": (lambda: given | stage_of_agent(blocks), "blocks", f"state.outputs['given']{DEEP}"),
    "own stage": (lambda: Own("own"), "own", f"item.value{DEEP}"),
    "split": (lambda: scatter("dig", split=lambda v: spoils(v)["list"], each=same), "dig", f"value{DEEP}"),
    "generator": (lambda: scatter("dig", split=spoils_in_passing, each=same), "dig", f"value{DEEP}"),
    "async generator": (lambda: scatter("dig", split=spoils_in_passing_later, each=same), "dig", f"value{DEEP}"),
    "by": (lambda: route({"a": same}, by=lambda value: (spoils(value), "a")[1]), "route", f"value{DEEP}"),
    "reducer": (reduces, "both", "value[1]"),
    "batch key": (lambda: batch(same, size=1, within=1.0, key=key, name="b"), "b", f"value{DEEP}"),
    "partition key": (lambda: partition_by(key, same, name="p"), "p", f"value{DEEP}"),
    "until": (lambda: loop(same, name="again", until=lambda v: bool(spoils(v)), max_rounds=2), "again", f"value{DEEP}"),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILING)
async def test_in_debug_mode_a_function_that_changes_what_it_was_given_fails_its_item(name: str) -> None:
    make, stage, where = SPOILING[name]
    value = payload()
    record = (await Pipeline(make(), debug=True).collect([value]))[-1]
    assert (record.status, value) == ("failed", payload())
    assert record.error is not None
    assert record.error.type == "MutatedInput"
    assert record.error.message == (
        f"stage {stage!r} changed what it was given, at {where}; others have the same object, so return a new value "
        "instead of changing the one that came"
    )


@pytest.mark.parametrize("name", SPOILING)
async def test_without_debug_it_goes_unnoticed(name: str) -> None:
    make, _, _ = SPOILING[name]
    records = await Pipeline(make()).collect([payload()])
    assert [record.error.type for record in records if record.error] in ([], ["ValueError"])


def ends(records: list[Record]) -> list[tuple[object, ...]]:
    return [(record.status, record.output, dict(record.outputs)) for record in records]


@in_virtual_time
async def test_a_sibling_of_who_changed_it_is_not_blamed_and_sees_no_change() -> None:
    views = parallel("views", a=map(lambda v: len(v["list"][2]), name="a"), b=map(spoils), join=quorum(1))
    (record,) = await Pipeline(views, debug=True).collect([payload()])
    assert (record.status, record.output, record.missing) == ("partial", {"a": 1}, ("views.b",))


@in_virtual_time
async def test_what_changes_nothing_does_in_debug_mode_what_it_does_without() -> None:
    model = ScriptedModel()

    def makes(value: Payload) -> Payload:
        return {**value, "list": [*value["list"], 4]}

    async def looks(prompt: str, state: ConversationState, visit: Visit) -> str:
        return f"{visit.item_id} {sorted(visit.names())} {len(state.outputs)} {prompt[:9]}"

    async def members(value: Payload) -> AsyncIterator[object]:
        for member in value["list"]:
            yield member

    stages = (
        same
        | map(makes)
        | filter(true)
        | map(lambda value: value, name="identity", blocking=True)
        | stage_of_agent(looks)
        | agent("model", model=model, prompt="{{ makes.text }}")
        | map(makes_of, name="again")
        | scatter("dig", split=members, each=map(repr))
    )
    values = [{"prompt": "question", **payload()}]
    plain = await Pipeline(stages).collect(values)
    assert [record.error for record in plain] == [None]
    assert ends(await Pipeline(stages, debug=True).collect(values)) == ends(plain)


def makes_of(value: object, visit: Visit) -> object:
    return visit.names()["makes"]


async def test_a_record_that_nobody_has_touched_is_still_the_record() -> None:
    async def reads(prompt: str, state: ConversationState) -> str:
        return prompt

    stages = map(lambda value: value, name="identity") | filter(true) | stage_of_agent(reads)
    (record,) = await Pipeline(stages, debug=True).collect([{"prompt": "question", "extra": [1]}])
    assert record.output == "question"


async def test_what_cannot_be_copied_is_given_as_it_is_and_said_once() -> None:
    lock = threading.Lock()
    stages = map(lambda value: {"lock": lock, "n": value}, name="make") | map(lambda value: value["lock"], name="take")
    async with Pipeline(stages, debug=True).open([1, 2]) as run:
        records = [record async for record in run.results]
    assert [(record.status, record.output) for record in records] == [("ok", lock)] * 2
    assert run.statistics().unwatched == {"take": "dict"}
    assert "debug   take: dict cannot be copied, so it is not watched" in run.statistics().lines()


async def test_frozen_values_and_generators_pass() -> None:
    value = (1, "x", frozenset({2}), ConversationState())
    (record,) = await Pipeline(map(lambda v: v, name="same"), debug=True).collect([value])
    assert (record.status, record.output) == ("ok", value)
    stages = map(lambda v: (n for n in range(v)), name="make") | map(sum)
    (record,) = await Pipeline(stages, debug=True).collect([4])
    assert (record.status, record.output) == ("ok", 6)


async def test_off_there_is_no_wrapper() -> None:
    seen: list[object] = []
    (record,) = await Pipeline(map(seen.append, name="see") | map(str)).collect([(value := payload())])
    assert record.status in ("ok", "skipped")
    assert seen[0] is value


def test_a_pipeline_file_can_ask_for_it() -> None:
    description = load_text("version: 1\npipeline: {debug: true}\nstages: [{map: a, value: '{{ prompt }}'}]\n")
    assert Pipeline(description.stages, **description.options).debug
