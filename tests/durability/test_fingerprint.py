"""The fingerprint of a pipeline: the same wherever and however it was made, exact as JSON, and without secrets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from pipeline import Pipeline
from pipeline.cli.definition import Changes, read_text
from pipeline.core.budget import Budget
from pipeline.core.codec import canonical, decode, encode
from pipeline.core.joins import majority, quorum
from pipeline.core.leaf import LeafStage
from pipeline.core.state import ConversationState
from pipeline.core.templates import Template
from pipeline.durability.fingerprint import Fingerprint, fingerprint
from pipeline.durability.fingerprint.changes import differences
from pipeline.durability.fingerprint.values import LONGEST, digest
from stages import agent, filter, loop, map, parallel, route, scatter, tap, vote
from stages.agent import ModelAgent
from stages.models import resolve
from tests.durability import functions, pipelines

ROOT = Path(__file__).parents[2]
HERE = "tests.durability.functions"


def of_file(text: str, **variables: object) -> Pipeline:
    return read_text(text, "p.yaml", Changes((), variables, (HERE,)))


def keys(before: Pipeline, after: Pipeline) -> list[str]:
    return [change.key for change in differences(fingerprint(before), fingerprint(after))]


# -- the same everywhere ----------------------------------------------------------------------------------------------


def printed(seed: str) -> bytes:
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.durability.pipelines"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True).stdout.strip()


def test_it_is_the_same_in_processes_with_different_orders_of_sets() -> None:
    here = canonical(pipelines.printed(pipelines.everything()))
    assert printed("1") == here
    assert printed("2") == here


def test_it_is_the_same_each_time_that_a_pipeline_is_made() -> None:
    assert fingerprint(pipelines.everything()) == fingerprint(pipelines.everything())


def test_it_comes_back_from_json_as_it_was() -> None:
    found = fingerprint(pipelines.everything())
    assert Fingerprint.of_json(decode(encode(found.as_json()))) == found  # type: ignore[arg-type]
    assert not differences(found, Fingerprint.of_json(decode(encode(found.as_json()))))  # type: ignore[arg-type]


def test_numbers_and_texts_that_json_has_no_word_for_come_back_too() -> None:
    def odd(value: object, most: float = float("inf"), what: object = "\ud800", big: int = 2**70) -> object:
        return value

    found = fingerprint(Pipeline(map(odd, name="odd")))
    assert found.result["stages.odd.function.defaults.most"] == "inf"
    assert Fingerprint.of_json(decode(encode(found.as_json()))) == found  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, [], {}, {"form": 2}, {"form": 1, "result": {}, "operational": []}])
def test_what_is_no_fingerprint_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="no fingerprint"):
        Fingerprint.of_json(value)


FILE = """
version: 1
models: {smart: {use: openai/gpt-5.5, requests_per_minute: 500, temperature: 0.5, stop: END, fallback: sim/echo}}
vars: {topic: rain}
pipeline: {max_in_flight: 64, budget: 5usd, item_timeout: 2m}
stages:
  - agent: lead
    prompt: "Plan: {{ prompt }} about {{ vars.topic }}"
    output: {questions: [string], tone: string}
    max_output_tokens: 1k
    stop: END
  - scatter: dig
    split: "{{ lead.questions }}"
    each: [{agent: worker, prompt: "{{ part }}", concurrency: 32, max_output_tokens: 100}]
    join: {quorum: 2}
    timeout: 60s
  - parallel: views
    branches:
      a: [{map: loud, call: "tests.durability.functions:shout"}]
      b: [{filter: long, when: "{{ dig | length > 1 }}"}]
    join: {majority: "{{ answer }}"}
  - loop: polish
    body: [{map: again, value: "{{ views }}"}]
    until: {call: "tests.durability.functions:is_long"}
    max_rounds: 3
"""


def in_code(**changed: object) -> Pipeline:
    smart = resolve(
        "openai/gpt-5.5", requests_per_minute=500, temperature=0.5, stop=["END"], fallback="sim/echo", **changed
    )
    stages = (
        agent(
            "lead",
            model=smart,
            prompt=Template("Plan: {{ prompt }} about {{ vars.topic }}"),
            output={"questions": ["string"], "tone": "string"},
            max_output_tokens=1000,
            stop=["END"],
        )
        | scatter(
            "dig",
            split="{{ lead.questions }}",
            each=agent("worker", model=smart, prompt="{{ part }}", concurrency=32, max_output_tokens=100),
            join=quorum(2),
            timeout=60,
        )
        | parallel(
            "views",
            a=map(functions.shout, name="loud"),
            b=filter("{{ dig | length > 1 }}", name="long"),
            join=majority("{{ answer }}"),
        )
        | loop(map("{{ views }}", name="again"), until=functions.is_long, max_rounds=3, name="polish")
    )
    return Pipeline(stages, max_in_flight=64, budget=Budget(usd=5), item_timeout=120, variables={"topic": "rain"})


def test_a_pipeline_from_a_file_and_the_same_in_code_have_the_same() -> None:
    assert fingerprint(of_file(FILE)) == fingerprint(in_code())
    assert fingerprint(of_file(FILE)).opaque == ()


def test_comments_positions_and_the_way_of_writing_in_a_file_change_nothing() -> None:
    moved = FILE.replace("stages:\n", "\n# what it does\nstages:\n\n").replace("60s", "1m").replace("1k", "1000")
    assert fingerprint(of_file(moved)) == fingerprint(of_file(FILE))


def test_every_pipeline_that_is_shipped_has_one() -> None:
    for file in sorted((ROOT / "configs").glob("*.yaml")):
        found = fingerprint(read_text(file.read_text(), file.name, Changes((), {}, ())))
        assert found.result["pipeline.stages"]
        assert found.opaque == ()
        assert Fingerprint.of_json(decode(encode(found.as_json()))) == found  # type: ignore[arg-type]


def test_it_can_be_printed_and_compared_but_not_changed() -> None:
    found = fingerprint(Pipeline(map("{{ prompt }}", name="s")))
    assert "stages.s.function" in repr(found)
    with pytest.raises(TypeError):
        found.result["stages.s.function"] = "other"  # type: ignore[index]


# -- what is in it ----------------------------------------------------------------------------------------------------


def test_the_order_of_stages_and_the_shape_of_the_graph_are_in_it() -> None:
    a, b, c = (map("{{ prompt }}", name=name) for name in "abc")
    assert keys(Pipeline(a | b | c), Pipeline(b | a | c)) == ["pipeline.stages"]
    one, other = parallel("p", x=a | b, y=c), parallel("p", x=a, y=b | c)
    assert keys(Pipeline(one), Pipeline(other)) == ["stages.p.branches.x", "stages.p.branches.y"]
    assert keys(Pipeline(parallel("p", x=a, y=b)), Pipeline(parallel("p", y=b, x=a))) == ["stages.p.branches"]
    assert keys(Pipeline(a | b), Pipeline(a | b | c)) == ["pipeline.stages", "stages.c.kind"]


def test_a_tap_that_comes_or_goes_changes_no_result() -> None:
    a, b = map("{{ prompt }}", name="a"), map("{{ prompt }}", name="b")
    found = differences(fingerprint(Pipeline(a | b)), fingerprint(Pipeline(a | tap(functions.shout) | b)))
    assert [(change.key, change.effect) for change in found] == [("stages.shout.kind", "operational")]


def test_an_agent_that_chooses_is_one_of_the_stages() -> None:
    cases = {"a": map("{{ prompt }}", name="a")}
    asking = agent("triage", model="sim/echo", prompt="Which?")
    found = fingerprint(Pipeline(route(cases, by=asking, name="kind")))
    assert found.result["stages.kind.by"] == ["triage"]
    assert found.result["stages.triage.prompt"] == "Which?"


def test_the_order_of_the_fields_of_an_answer_is_in_it_because_a_model_writes_them_so() -> None:
    def of(*names: str) -> Pipeline:
        kinds = {"why": {"type": "string"}, "score": {"type": "number"}}
        schema = {"type": "object", "properties": {name: kinds[name] for name in names}, "required": ["why", "score"]}
        return Pipeline(agent("s", model="sim/echo", prompt="x", output=schema))

    one, other = of("why", "score"), of("score", "why")
    assert keys(one, other) == ["stages.s.output.order"]


def test_fields_of_definitions_that_an_answer_refers_to_have_an_order_too() -> None:
    def of(*names: str) -> Pipeline:
        point = {"type": "object", "properties": {name: {"type": "number"} for name in names}}
        schema = {
            "type": "object",
            "properties": {"at": {"$ref": "#/$defs/Point"}, "ways": {"type": "array", "items": point}},
            "$defs": {"Point": point},
        }
        return Pipeline(agent("s", model="sim/echo", prompt="x", output=schema))

    assert fingerprint(of("x", "y")).result["stages.s.output.order"] == [
        "at", "ways", "ways.[].x", "ways.[].y", "Point.x", "Point.y"
    ]  # fmt: skip
    assert keys(of("x", "y"), of("y", "x")) == ["stages.s.output.order"]


def test_variables_are_in_it_one_by_one() -> None:
    stage = map("{{ vars.a }}", name="s")
    one, other = Pipeline(stage, variables={"a": 1, "b": [1]}), Pipeline(stage, variables={"b": [1], "a": 1.0})
    assert keys(one, other) == ["pipeline.vars.a"]


def test_names_that_look_like_several_steps_are_told_apart() -> None:
    stage = map("{{ vars.x }}", name="s")
    found = fingerprint(Pipeline(replace(stage, name="a.b"), variables={"x": 1, "c.d": 2}))
    assert found.result['stages."a.b".function'] == "{{ vars.x }}"
    assert found.result['pipeline.vars."c.d"'] == 2
    (change,) = differences(found, fingerprint(Pipeline(replace(stage, name="a.b", function=str), variables={"x": 1})))[
        :1
    ]
    assert (change.stage, change.option) == ("a.b", "function")


def test_of_a_long_prompt_the_beginning_and_a_hash_are_kept() -> None:
    def of(text: str) -> Pipeline:
        return Pipeline(agent("s", model="sim/echo", prompt=text))

    most, more = "x" * LONGEST, "x" * (LONGEST + 1)
    assert fingerprint(of(most)).result["stages.s.prompt"] == most
    kept = fingerprint(of(more)).result["stages.s.prompt"]
    assert isinstance(kept, dict)
    assert (kept["begins"], kept["characters"]) == (most, LONGEST + 1)
    assert keys(of(more), of(most + "y")) == ["stages.s.prompt"]
    assert keys(of(more), of(more)) == []


def test_an_option_that_a_later_version_has_more_of_is_no_change_while_it_is_not_used() -> None:
    new = fingerprint(in_code())
    assert "stages.lead.conversation" in new.defaults
    less = {key: value for key, value in new.result.items() if key != "stages.lead.conversation"}
    assert differences(replace(new, result=less), new) == ()
    assert differences(new, replace(new, result=less)) == ()
    less = {key: value for key, value in new.result.items() if key != "stages.lead.prompt"}
    assert [change.key for change in differences(replace(new, result=less), new)] == ["stages.lead.prompt"]


# -- secrets ----------------------------------------------------------------------------------------------------------


def test_no_secret_stands_in_it() -> None:
    found = fingerprint(pipelines.everything())
    text = encode(found.as_json()).decode() + repr(found)
    for canary in (pipelines.KEY, pipelines.TOKEN, "canary"):
        assert canary not in text
    assert found.operational["stages.lead.model.api_key_env"] == "OPENAI_API_KEY"


def test_a_new_key_in_a_header_is_no_change_and_another_route_is_one() -> None:
    def of(key: str, route: str) -> Pipeline:
        headers = {"Authorization": key, "x-route": route}
        return Pipeline(agent("s", model=resolve("openai/gpt-5.5", headers=headers), prompt="x"))

    assert keys(of("old", "east"), of("new", "east")) == []
    assert keys(of("old", "east"), of("old", "west")) == ["stages.s.model.headers.x-route"]


def test_a_key_in_a_text_is_replaced_and_another_one_is_noticed() -> None:
    def of(key: str) -> Pipeline:
        return Pipeline(agent("s", model="sim/echo", prompt=f"Log in with sk-{key * 10} and go on."))

    text = str(fingerprint(of("ab")).result["stages.s.prompt"])
    assert text.startswith("Log in with [key ")
    assert text.endswith("] and go on.")
    assert "abab" not in text
    assert keys(of("ab"), of("cd")) == ["stages.s.prompt"]


# -- objects of the user's --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Versioned:
    name: str
    version: str = "1"

    async def process(self, prompt: str, state: ConversationState) -> str:
        return prompt


def test_fields_of_an_agent_of_the_users_are_in_it() -> None:
    one, other = Pipeline(agent(pipelines.Echo("e"))), Pipeline(agent(pipelines.Echo("e", prefix="<")))
    assert keys(one, other) == ["stages.e.agent.prefix"]
    assert keys(one, Pipeline(agent(pipelines.Echo("e", api_key="another")))) == ["stages.e.agent.api_key"]


def test_an_agent_with_a_version_is_known_by_it_and_not_by_its_source() -> None:
    found = fingerprint(Pipeline(agent(Versioned("v"))))
    assert found.result["stages.v.agent.version"] == "1"
    assert "stages.v.agent.source" not in found.result


def test_what_an_object_holds_that_is_no_dataclass_is_named_as_not_seen() -> None:
    found = fingerprint(Pipeline(agent(pipelines.Counting())))
    said = "stage 'counting', agent: what a tests.durability.pipelines:Counting holds cannot be seen"
    assert found.opaque == (f"{said}; a change of it is not noticed; give it a `version`",)


class Simple(LeafStage):
    """A stage as authors write it."""

    async def process(self, value: object) -> object:
        return value


class Model:
    """A model of the user's, that nothing is known of."""

    name = "mine"

    def open(self) -> AbstractAsyncContextManager[Any]:
        raise NotImplementedError


def test_stages_and_models_of_the_users_are_known_by_their_source() -> None:
    found = fingerprint(Pipeline(Simple("s") | agent("a", model=Model(), prompt="x")))  # type: ignore[arg-type]
    assert found.result["stages.s.kind"] == f"{__name__}:Simple"
    assert found.result["stages.a.model"] == f"{__name__}:Model"
    for key in ("stages.s.kind.source", "stages.a.model.source"):
        assert isinstance(found.result[key], str)
    assert found.opaque == ()
    another = fingerprint(Pipeline(pipelines.Longer("s")))
    told = [change.key for change in differences(fingerprint(Pipeline(Simple("s"))), another)]
    assert told == ["stages.s.kind"]


def test_a_method_is_known_by_its_object_too() -> None:
    one, other = (Pipeline(map(pipelines.Prefixed(each).put, name="s")) for each in "<>")
    assert keys(one, other) == ["stages.s.function.self.prefix"]


def made(words: frozenset[str], most: int) -> Callable[[object], bool]:
    return pipelines.limited(words, most)


def test_what_a_function_closes_over_and_its_defaults_are_in_it() -> None:
    words = frozenset({"a", "b"})
    one = Pipeline(filter(made(words, 3), name="few"))
    assert keys(one, Pipeline(filter(made(words, 3), name="few"))) == []
    assert keys(one, Pipeline(filter(made(words, 4), name="few"))) == ["stages.few.function.closure.most"]
    assert keys(one, Pipeline(filter(made(words | {"c"}, 3), name="few"))) == ["stages.few.function.closure.words"]


def holding(held: object) -> Fingerprint:
    def work(value: object) -> object:
        return held

    return fingerprint(Pipeline(map(work, name="s")))


class Colour(Enum):
    RED = "red"


class Tone(BaseModel):
    loud: bool = True


class Picky:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    def __hash__(self) -> int:
        return 0


@dataclass(frozen=True)
class Settings:
    inner: object = None
    password: str = ""


@pytest.mark.parametrize(
    ("held", "written"),
    [
        (None, None),
        (True, True),
        (2.0, 2),
        ([2.0, float("nan")], [2.0, "nan"]),
        (Colour.RED, "red"),
        ({3, 1, 2}, [1, 2, 3]),
        (b"bytes", {"hidden": digest(b"bytes".hex())}),
        (Path("a") / "b", str(Path("a") / "b")),
        (date(2026, 1, 2), "2026-01-02"),
        (Budget(usd=2.0), {"usd": 2}),
        ([Budget(tokens=5), 1], [{"tokens": 5}, 1]),
        (json, "json"),
        ({"a": {"b": [Colour.RED], "password": "x"}}, None),
    ],
)
def test_values_of_every_kind_have_one_form(held: object, written: object) -> None:
    key = "stages.s.function.closure.held"
    found = holding(held)
    if isinstance(held, dict):
        assert found.result[f"{key}.a"] == {"b": ["red"], "password": {"hidden": digest("x")}}
    else:
        assert found.result[key] == written
        assert type(found.result[key]) is type(written)
    assert found.opaque == ()


def test_what_is_in_objects_of_the_users_is_found_wherever_they_are() -> None:
    key, module = "stages.s.function.closure.held", __name__
    found = holding([Settings(Settings(password="x")), Settings()])
    assert found.result[key] == [f"{module}:Settings", f"{module}:Settings"]
    assert found.result[f"{key}.1.inner.password"] == {"hidden": digest("x")}
    found = holding({"a": {"b": Settings(inner=Tone(loud=False))}})
    assert found.result[f"{key}.a"] == {
        "b": {"kind": f"{module}:Settings", "inner": {"kind": f"{module}:Tone", "loud": False}}
    }


def test_what_cannot_be_looked_into_is_named() -> None:
    where = "stage 's', function.closure.held"
    for held, said in (
        ({"a": {"b": object()}}, f"{where}.a: a object in it cannot be looked into"),
        ({"a": {"b": functions.shout}}, f"{where}.a: a tests.durability.functions:shout in it cannot be looked into"),
        ({"a": [resolve("sim/echo")]}, None),
        ({"a": {"b": [resolve("sim/echo")]}}, f"{where}.a: a SimulatedModel in it cannot be looked into"),
    ):
        opaque = holding(held).opaque
        assert [each.partition(";")[0] for each in opaque] == ([] if said is None else [said])


def test_a_structure_without_end_is_named_and_does_no_harm() -> None:
    endless: list[object] = []
    endless.append(endless)
    for held in (endless, Settings(endless)):
        (said,) = holding(held).opaque
        assert said.startswith(f"stage 's', function: what {__name__}:holding.<locals>.work holds has no end;")
    nested: dict[str, object] = {}
    nested["again"] = nested
    (said,) = holding({"a": nested}).opaque
    assert said.startswith("stage 's', function.closure.held.a: a dict in it cannot be looked into;")


def test_a_name_that_a_function_closes_over_and_that_is_not_bound_yet_is_left_out() -> None:
    def work(value: object) -> object:
        return later

    found = fingerprint(Pipeline(map(work, name="s")))
    later = 1
    assert "stages.s.function.closure.later" not in found.result
    assert fingerprint(Pipeline(map(work, name="s"))).result["stages.s.function.closure.later"] == later


class Text(str):
    def told(self) -> str:
        return super().upper()


def test_the_class_that_a_method_belongs_to_is_not_looked_into_for_its_super() -> None:
    found = fingerprint(Pipeline(map(Text.told, name="s")))
    assert [key for key in found.result if key.startswith("stages.s.function")] == [
        "stages.s.function", "stages.s.function.source"
    ]  # fmt: skip


def test_a_default_that_cannot_be_compared_counts_as_given() -> None:
    @dataclass(frozen=True)
    class Odd(LeafStage):
        held: object = Picky()

        async def process(self, value: object) -> object:
            return value

    assert "stages.s.held" in fingerprint(Pipeline(Odd("s"))).defaults
    assert "stages.s.held" not in fingerprint(Pipeline(Odd("s", held=Picky()))).defaults


def test_parameters_that_no_model_takes_are_kept_as_they_are() -> None:
    asks = ModelAgent("a", resolve("sim/echo"), parameters={"temprature": 1})
    found = fingerprint(Pipeline(agent(asks)))
    assert found.result["stages.a.parameters.temprature"] == 1


def test_the_key_of_a_vote_is_in_it() -> None:
    def of(key: str) -> Pipeline:
        return Pipeline(vote("v", map("{{ prompt }}", name="m"), samples=3, key=key))

    assert keys(of("{{ answer }}"), of("{{ answer | upper }}")) == ["stages.v.key"]


def test_the_key_of_a_majority_is_in_it() -> None:
    def of(key: str) -> Pipeline:
        body = {"a": map("{{ prompt }}", name="a"), "b": map("{{ prompt }}", name="b")}
        return Pipeline(parallel("p", branches=body, join=majority(key)))

    assert keys(of("{{ answer }}"), of("{{ answer | upper }}")) == ["stages.p.join.function.key"]
