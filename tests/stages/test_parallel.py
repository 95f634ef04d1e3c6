"""Outputs that several branches write: one value of each, in declaration order whatever the timing."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

import anyio
import pytest

from pipeline import DefinitionError, Item, ItemError, LeafStage, Pipeline, Record
from pipeline.config.description import load_text
from pipeline.config.problems import ConfigError
from pipeline.core.codec import encode
from pipeline.core.state import ConversationState
from stages import agent, filter, loop, map, parallel, quorum, route, scatter
from stages.agent import WORD as AGENT
from stages.models.provider import PROVIDER
from stages.parallel import WORD as PARALLEL
from tests.engine.schedules import in_virtual_time, run_in


def writes(name: str, value: object, key: str = "notes", seconds: float = 0) -> Any:
    """An agent that writes `value` as the output `key`."""

    async def answers(prompt: str, state: ConversationState) -> object:
        await anyio.sleep(seconds)
        if isinstance(value, Exception):
            raise value
        return value

    answers.__name__ = name
    return agent(answers, output_key=key)


async def one(stage: object, value: object = "v") -> Record:
    (record,) = await Pipeline(stage).collect([value])  # type: ignore[arg-type]
    return record


def problems(make: Callable[[], object]) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        Pipeline(make())  # type: ignore[arg-type]
    return [str(problem) for problem in caught.value.problems]


@dataclass(frozen=True)
class Note:
    about: str


@pytest.mark.parametrize(
    ("reducer", "left", "right", "whole"),
    [
        ("list", "a", ["b"], ["a", ["b"]]),
        ("concat", "one", "two", "one\n\ntwo"),
        ("concat", [1], (2, 3), [1, 2, 3]),
        ("merge", {"x": 1, "y": 1}, {"y": 2, "z": 2}, {"x": 1, "y": 2, "z": 2}),
        ("merge", Note("a"), {"by": "b"}, {"about": "a", "by": "b"}),
        ("sum", 1, 2.5, 3.5),
        ("first", "a", "b", "a"),
        ("last", "a", "b", "b"),
        (operator.mul, 3, 4, 12),
        (lambda left, right: f"({left} {right})", "a", "b", "(a b)"),
    ],
)
async def test_what_branches_write_becomes_one_value(reducer: Any, left: object, right: object, whole: object) -> None:
    views = parallel("p", reducers={"notes": reducer}, l=writes("l", left), r=writes("r", right))
    record = await one(views)
    assert record.outputs == {"p": {"l": left, "r": right}, "notes": whole}
    assert record.output == {"l": left, "r": right}


@pytest.mark.parametrize(
    ("reducer", "whole"),
    [("list", []), ("concat", ""), ("merge", {}), ("sum", 0), ("first", None), ("last", None), (operator.add, None)],
)
async def test_there_is_a_value_when_no_branch_that_finished_has_written(reducer: Any, whole: object) -> None:
    views = parallel(
        "p", join=quorum(1), reducers={"notes": reducer}, a=writes("a", ValueError("no")), b=map(str, name="b")
    )
    record = await one(views)
    assert (record.status, record.outputs["notes"]) == ("partial", whole)


async def test_branches_that_are_missing_or_were_skipped_are_left_out() -> None:
    sieve = filter(lambda value: False, name="sieve")
    views = parallel(
        "p",
        join=quorum(1),
        reducers={"notes": "list"},
        a=writes("a", ValueError("no")),
        b=writes("b", "B"),
        c=sieve | writes("c", "C"),
        d=writes("d", "D"),
    )
    assert (await one(views)).outputs["notes"] == ["B", "D"]


@in_virtual_time
async def test_of_a_race_only_the_winner_is_left() -> None:
    views = parallel("p", join="any", reducers={"notes": "list"}, a=writes("a", 1, seconds=2), b=writes("b", 2))
    assert (await one(views)).outputs == {"p": 2, "notes": [2]}


async def test_what_is_written_before_the_end_of_a_branch_counts_too() -> None:
    views = parallel(
        "p",
        reducers={"notes": "concat", "score": "sum"},
        a=writes("a", "seen by a") | writes("a2", 1, "score"),
        b=writes("b", 2, "score") | writes("b2", "seen by b") | map(str, name="end"),
    )
    record = await one(views | agent(lambda_named("reads"), prompt="{{ notes }} {{ score }}"))
    assert record.output == "seen by a\n\nseen by b 3"


def lambda_named(name: str) -> Any:
    async def echoes(prompt: str, state: ConversationState) -> str:
        return prompt

    echoes.__name__ = name
    return echoes


async def test_a_parallel_in_a_branch_passes_on_what_it_reduces() -> None:
    inner = parallel("inner", reducers={"notes": "concat"}, x=writes("x", "X"), y=writes("y", "Y"))
    views = parallel("p", reducers={"notes": "list"}, a=writes("a", "A"), b=inner)
    record = await one(views)
    assert record.outputs["notes"] == ["A", "X\n\nY"]
    assert list(record.outputs) == ["p", "notes"]


async def test_in_a_loop_each_round_has_its_own_and_sees_the_one_before() -> None:
    def reads(name: str) -> Any:
        prompt = name + " {{ round }}{% if round > 1 %} after {{ notes }}{% endif %}"
        return agent(lambda_named(name), prompt=prompt, output_key="notes")

    turns = parallel("turns", reducers={"notes": "list"}, a=reads("a"), b=reads("b"))
    kept = map(lambda value, visit: visit.names()["notes"], name="kept")
    record = await one(loop(turns | kept, until=lambda value: False, max_rounds=2))
    first = '["a 1", "b 1"]'
    assert record.output == [f"a 2 after {first}", f"b 2 after {first}"]


async def test_a_reducer_that_raises_fails_the_item_and_the_run_goes_on() -> None:
    def picky(left: int, right: int) -> int:
        if left == right:
            raise ValueError("twice the same")
        return left + right

    async def same(prompt: str, state: ConversationState) -> int:
        return int(prompt)

    async def seven(prompt: str, state: ConversationState) -> int:
        return 7

    views = parallel("p", reducers={"n": picky}, a=agent(same, output_key="n"), b=agent(seven, output_key="n"))
    bad, good = await Pipeline(views, ordered=True).collect(["7", "8"])
    assert bad.error is not None
    assert (bad.status, bad.error.type, bad.error.stage) == ("failed", "ReducerError", "p")
    assert bad.error.message == "reducer picky of 'n' raised ValueError: twice the same"
    assert bad.outputs == {"p": {"a": 7, "b": 7}}
    assert (good.status, good.outputs["n"]) == ("ok", 15)


@pytest.mark.parametrize(
    ("reducer", "value", "message"),
    [
        ("sum", "two", "sum takes numbers, got str for 'notes' from branch 'b'"),
        ("sum", True, "sum takes numbers, got bool for 'notes' from branch 'b'"),
        ("merge", "two", "merge takes mappings, got str for 'notes' from branch 'b'"),
        ("concat", 2, "concat takes texts, or lists, got int for 'notes' from branch 'b'"),
    ],
)
async def test_a_value_that_a_reducer_cannot_take_is_told_with_its_branch(
    reducer: Any, value: object, message: str
) -> None:
    first: Mapping[str, object] = {"sum": 1, "merge": {}, "concat": "one"}
    views = parallel("p", reducers={"notes": reducer}, a=writes("a", first[reducer]), b=writes("b", value))
    record = await one(views)
    assert record.error is not None
    assert (record.error.type, record.error.message) == ("ReducerError", message)


async def test_an_item_error_of_a_reducer_is_told_as_it_is() -> None:
    def refuses(left: object, right: object) -> object:
        raise ItemError("these two do not go together", type="Odd")

    record = await one(parallel("p", reducers={"notes": refuses}, a=writes("a", 1), b=writes("b", 2)))
    assert record.error is not None
    assert (record.error.type, record.error.message) == ("Odd", "these two do not go together")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_timing_does_not_matter(backend: str) -> None:
    def late(name: str, chance: Random) -> Any:
        async def answers(prompt: str, state: ConversationState) -> str:
            await anyio.sleep(chance.random())
            return f"{name} of {prompt}"

        answers.__name__ = name
        return agent(answers, output_key="notes")

    async def run(seed: int) -> bytes:
        chance = Random(seed)
        branches = {name: late(name, chance) for name in "abcde"}
        inner = parallel("inner", reducers={"notes": "list"}, branches={n: branches[n] for n in "bcd"})
        views = parallel("p", reducers={"notes": "list"}, a=branches["a"], b=inner, e=branches["e"])
        records = await Pipeline(views, ordered=True).collect(["x", "y", "z"])
        return b"".join(encode(dict(record.outputs)) for record in records)

    assert len({run_in(backend, seed, run, seed) for seed in range(100)}) == 1


# -- what is refused ------------------------------------------------------------------------------------------------


def test_two_branches_that_write_the_same_are_named_with_what_to_add() -> None:
    assert problems(lambda: parallel("p", a=writes("one", 1), b=map(str) | writes("two", 2))) == [
        (
            "stage 'two', output_key: branches 'a' and 'b' of 'p' both write 'notes' "
            "(give 'p' a reducer for it, as reducers: {notes: list})"
        )
    ]


def test_what_passes_through_a_parallel_inside_needs_a_reducer_there_too() -> None:
    def views(outer: Any = None, inside: Any = None) -> Any:
        inner = parallel("inner", reducers=inside, x=writes("x", 1), y=map(str, name="y"))
        return parallel("p", reducers=outer, a=writes("a", 1), b=inner)

    keep = {"notes": "list"}
    assert problems(lambda: views()) == [
        (
            "stage 'x', output_key: branches 'a' and 'b' of 'p' both write 'notes' "
            "(give 'p' and 'inner' a reducer for it, as reducers: {notes: list})"
        )
    ]
    assert problems(lambda: views(outer=keep)) == [
        (
            "stage 'x', output_key: 'notes' does not come out of 'inner', so it cannot reach 'p' "
            "(give 'inner' a reducer for it, as reducers: {notes: list})"
        )
    ]
    assert problems(lambda: views(inside=keep)) == [
        (
            "stage 'inner', reducers: branches 'a' and 'b' of 'p' both write 'notes' "
            "(give 'p' a reducer for it, as reducers: {notes: list})"
        ),
    ]
    assert Pipeline(views(outer=keep, inside=keep))


UNIQUE = "there is already an output named 'notes' (names are unique in a pipeline)"


@pytest.mark.parametrize(
    "make",
    [
        lambda keep: parallel("p", reducers=keep, a=writes("a", 1) | writes("two", 2), b=writes("b", 1)),
        lambda keep: writes("a", 1) | parallel("two", reducers=keep, b=writes("b", 1)),
        lambda keep: parallel("p", reducers=keep, a=writes("a", 1)) | writes("two", 1),
        lambda keep: parallel("p", reducers=keep, a=writes("a", 1), b=scatter("s", split=list, each=writes("two", 1))),
        lambda keep: route({"x": writes("a", 1), "y": writes("two", 1)}, by=str),
    ],
    ids=["twice in one branch", "before", "after", "in a scatter", "in cases of a route"],
)
def test_a_name_is_taken_everywhere_else(make: Any) -> None:
    told = problems(lambda: make({"notes": "list"}))
    assert told[0].startswith("stage 'two'")
    assert told[0].endswith(UNIQUE)


def test_an_output_of_branches_cannot_be_named_like_a_stage() -> None:
    views = lambda: parallel("p", reducers={"b": "list"}, a=writes("a", 1, "b"), b=map(str, name="b"))  # noqa: E731
    assert problems(views) == ["stage 'b': there is already an output named 'b' (names are unique in a pipeline)"]


def test_a_reducer_for_what_no_branch_writes_is_refused_with_the_nearest_right_word() -> None:
    def views(**reducers: Any) -> Any:
        return parallel("p", reducers=reducers, a=writes("a", 1), b=writes("b", 2, "score"))

    assert problems(lambda: views(nots="list")) == [
        "stage 'p', reducers: no branch writes 'nots'; branches write: notes, score (did you mean 'notes'?)"
    ]
    assert problems(lambda: views(notes="lst")) == [
        (
            "stage 'p', reducers: of 'notes' must be one of list, concat, merge, sum, first, last, or a function, "
            "got 'lst' (did you mean 'list'?)"
        )
    ]
    assert problems(lambda: views(notes=3)) == [
        "stage 'p', reducers: of 'notes' must be one of list, concat, merge, sum, first, last, or a function, got 3"
    ]


def test_templates_see_it_in_its_branch_after_the_writer_and_outside_after_the_parallel() -> None:
    def reads(name: str) -> Any:
        return agent(lambda_named(name), prompt="{{ notes }}")

    def views(before: object, after: object, other: object) -> Any:
        a = before | writes("a", 1) | after  # type: ignore[operator]
        return parallel("p", reducers={"notes": "list"}, a=a, b=other | writes("b", 1))  # type: ignore[operator]

    plain = lambda name: map(str, name=name)  # noqa: E731
    assert Pipeline(views(plain("x"), reads("y"), plain("z")) | reads("end"))
    assert problems(lambda: views(reads("x"), plain("y"), plain("z"))) == [
        "stage 'x', prompt: uses 'notes'; available here: input, prompt, vars"
    ]
    assert problems(lambda: views(plain("x"), plain("y"), reads("z"))) == [
        "stage 'z', prompt: uses 'notes'; available here: input, prompt, vars"
    ]
    assert problems(lambda: reads("first") | views(plain("x"), plain("y"), plain("z"))) == [
        "stage 'first', prompt: uses 'notes'; available here: input, prompt, vars"
    ]


# -- in a file ------------------------------------------------------------------------------------------------------


FILE = """
version: 1
models: {fake: {use: sim/echo}}
stages:
  - parallel: views
    reducers: {notes: concat}
    branches:
      a: [{agent: one, prompt: "first", output_key: notes}]
      b: [{agent: two, prompt: "second", output_key: notes}]
  - {agent: end, prompt: "{{ notes }}"}
"""


def read(text: str, **options: Any) -> Pipeline:
    words = {"parallel": PARALLEL, "agent": AGENT}
    return Pipeline(load_text(text, words=words, models=PROVIDER, **options).stages)


async def test_reducers_in_a_file() -> None:
    (record,) = await read(FILE).collect(["x"])
    assert "first" in str(record.outputs["notes"])
    assert str(record.outputs["notes"]).index("first") < str(record.outputs["notes"]).index("second")


async def test_a_function_reduces_in_a_file_when_its_import_is_allowed() -> None:
    text = FILE.replace("concat", "{call: 'operator:add'}")
    (record,) = await read(text, allow_import=["operator"]).collect(["x"])
    assert "first" in str(record.outputs["notes"])
    with pytest.raises(ConfigError, match="which is not allowed"):
        read(text)


def enough(members: Any) -> Any:
    return "ok" if len(members.values) == 1 else None


@pytest.mark.parametrize(("join", "answers"), [("{call: 'tests.stages.test_parallel:enough'}", 1), ("majority", 2)])
async def test_a_function_or_a_majority_joins_in_a_file(join: str, answers: int) -> None:
    text = FILE.replace("    reducers: {notes: concat}\n", f"    join: {join}\n").replace("{{ notes }}", "{{ views }}")
    text = text.replace(", output_key: notes", "").replace('"second"', '"first"')
    (record,) = await read(text, allow_import=["tests"]).collect(["x"])
    assert (record.status, len(record.outputs["views"])) == ("ok", answers)  # type: ignore[arg-type]


def test_a_file_without_a_reducer_is_told_the_line_to_add() -> None:
    with pytest.raises(DefinitionError, match=r"give 'views' a reducer for it, as reducers: \{notes: list\}"):
        read(FILE.replace("    reducers: {notes: concat}\n", ""))


@in_virtual_time
async def test_a_branch_that_leaves_out_an_output_of_its_own_is_left_out_of_its_reducer() -> None:
    class Forgetful(LeafStage):
        def produces(self) -> Mapping[str, None]:
            return {"notes": None}

        async def process(self, item: Item) -> Item:
            return item

    stage = parallel("p", a=writes("one", "x"), b=Forgetful("forgetful"), reducers={"notes": "list"})
    record = await one(stage)
    assert (record.status, record.outputs["notes"]) == ("ok", ["x"])
