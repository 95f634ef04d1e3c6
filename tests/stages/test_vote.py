"""Votes: which answer wins, when that is known, and that it does not depend on who came first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import permutations
from typing import Any

import anyio
import pytest

from pipeline import DefinitionError, Pipeline, Record
from pipeline.core.events import JoinDecided
from pipeline.core.state import ConversationState, Message
from pipeline.core.visit import Visit
from stages import agent, filter, map, parallel, quorum, resolve, scatter
from stages.vote import vote
from tests.engine.schedules import in_virtual_time, run_in


def says(name: str, answer: object, seconds: float = 0) -> Any:
    """A branch that answers after some time; None never answers, an exception is a failure, `...` a skip."""

    async def answers(value: object) -> object:
        await anyio.sleep(seconds)
        if answer is None:
            await anyio.sleep_forever()
        if isinstance(answer, Exception):
            raise answer
        return answer

    stage = map(answers, name=name, concurrency=16)
    return filter(lambda value: answer is not ..., name=f"{name}_sieve") | stage


def branches(*answers: object, seconds: tuple[float, ...] = ()) -> dict[str, object]:
    """Branches a, b, c, … that answer one second after the other, or after `seconds`."""
    times = seconds or tuple(range(1, len(answers) + 1))
    return {name: says(name, answer, at) for name, answer, at in zip("abcdefgh", answers, times, strict=False)}


async def one(stage: object, value: object = 1, **options: Any) -> Record:
    (record,) = await Pipeline(stage, **options).collect([value])  # type: ignore[arg-type]
    return record


def problems(make: Callable[[], object]) -> list[str]:
    with pytest.raises(DefinitionError) as caught:
        Pipeline(make())  # type: ignore[arg-type]
    return [str(problem) for problem in caught.value.problems]


NO = ValueError("no idea")


@pytest.mark.parametrize(
    ("needed", "answers", "value", "votes", "at"),
    [
        ("majority", ("Rome", "Bern", " rome", None), None, None, None),
        ("majority", ("Rome", " rome", None), "Rome", {"rome": 2}, 2),
        ("majority", ("Bern", "Rome", "rome", None), None, None, None),
        ("majority", ("Bern", "Rome", "rome", "ROME", None), "Rome", {"rome": 3, "bern": 1}, 4),
        ("majority", ("Rome", NO, "rome"), "Rome", {"rome": 2}, 3),
        ("majority", ("Rome", ..., "rome"), "Rome", {"rome": 2}, 3),
        ("majority", ("Rome",), "Rome", {"rome": 1}, 1),
        ("majority", ({"x": 1, "y": 2}, {"y": 2, "x": 1}, None), {"x": 1, "y": 2}, {'{"x":1,"y":2}': 2}, 2),
        ("plurality", ("Rome", "Bern", "rome", "Oslo"), "Rome", {"rome": 2, "bern": 1, "oslo": 1}, 4),
        ("plurality", ("Rome", "rome", "rome"), "Rome", {"rome": 3}, 3),
        ("plurality", ("Bern", "Rome", "rome", ...), "Rome", {"rome": 2, "bern": 1}, 3),
        (2, ("Rome", "rome", "Bern", None), None, None, None),
        (2, ("Rome", "rome", "rome", None), "Rome", {"rome": 3}, 3),
        (2, ("Rome", "rome", "Bern", "rome", None), "Rome", {"rome": 3, "bern": 1}, 4),
        (3, ("Rome", "rome", "Bern", "rome"), "Rome", {"rome": 3, "bern": 1}, 4),
    ],
)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_most_say_wins_as_soon_as_nothing_can_change_it(
    backend: str, needed: Any, answers: tuple[object, ...], value: object, votes: Mapping[str, int] | None, at: float
) -> None:
    async def main() -> tuple[Record, float]:
        record = await one(vote("v", branches=branches(*answers), needed=needed), item_timeout=99)
        return record, anyio.current_time()

    if votes is None:
        record, _ = run_in(backend, 0, main)
        assert record.error is not None
        assert (record.status, record.error.type) == ("failed", "item_timeout")
        return
    record, ended = run_in(backend, 0, main)
    assert (record.status, record.output, record.missing) == ("ok", value, ())
    assert list(record.outputs.items()) == [("v", value), ("v_votes", votes)]
    assert ended == at


@pytest.mark.parametrize(
    ("options", "answers", "type", "message", "at"),
    [
        (
            {},
            ("Rome", "Bern", "Oslo", None),
            "NoMajority",
            "no answer can have 3 of 4 votes: rome: 1, bern: 1, oslo: 1",
            3,
        ),
        ({}, ("Rome", NO, NO), "NoMajority", "no answer can have 2 of 3 votes: rome: 1; b: no idea; c: no idea", 3),
        ({}, (..., ..., None), "NoMajority", "no answer can have 2 of 3 votes: none was given", 0),
        ({"needed": 3}, ("Rome", "Bern", None, None), "item_timeout", "not finished within item_timeout, 99 s", 99),
        (
            {"needed": 3},
            ("Rome", "Bern", "Oslo", None),
            "NoMajority",
            "no answer can have 3 of 4 votes: rome: 1, bern: 1, oslo: 1",
            3,
        ),
        (
            {"needed": "plurality"},
            ("Rome", "Bern", "rome", "bern", "Oslo"),
            "Tied",
            "'rome' and 'bern' have 2 votes each; on_tie: first takes the one that was declared first",
            5,
        ),
        (
            {"needed": "plurality"},
            ("Rome", "Bern"),
            "Tied",
            "'rome' and 'bern' have 1 vote each; on_tie: first takes the one that was declared first",
            2,
        ),
        (
            {"needed": "plurality"},
            (NO, NO),
            "NoMajority",
            "no answer can have 1 of 2 votes: none was given; a: no idea; b: no idea",
            2,
        ),
        (
            {"needed": 2},
            ("a", "b", "a", "b", "c"),
            "Tied",
            "'a' and 'b' have 2 votes each; on_tie: first takes the one that was declared first",
            5,
        ),
    ],
)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_vote_without_a_winner_fails_as_soon_as_there_can_be_none(
    backend: str, options: Any, answers: tuple[object, ...], type: str, message: str, at: float
) -> None:
    async def main() -> tuple[Record, float]:
        return await one(vote("v", branches=branches(*answers), **options), item_timeout=99), anyio.current_time()

    record, ended = run_in(backend, 0, main)
    assert record.error is not None
    assert (record.status, record.error.type, record.error.message) == ("failed", type, message)
    assert ended == at


async def test_a_tie_can_go_to_the_answer_that_was_declared_first() -> None:
    views = vote(
        "v",
        branches=branches("Oslo", "Rome", "Bern", "bern", "rome", seconds=(0,) * 5),
        needed="plurality",
        on_tie="first",
    )
    record = await one(views)
    assert (record.status, record.output) == ("ok", "Rome")
    assert record.outputs["v_votes"] == {"rome": 2, "bern": 2, "oslo": 1}


async def test_branches_that_fail_are_missing_only_if_they_could_have_changed_the_result() -> None:
    async def of(*answers: object, **options: Any) -> tuple[str, object, tuple[str, ...]]:
        record = await one(vote("v", branches=branches(*answers, seconds=(0,) * 9), **options))
        return record.status, record.output, record.missing

    assert await of("a", "a", "b", NO, needed="plurality") == ("partial", "a", ("v.d",))
    assert await of("a", "a", "a", "b", NO, needed="plurality") == ("ok", "a", ())
    assert await of("a", "b", NO, needed="plurality", on_tie="first") == ("partial", "a", ("v.c",))
    assert await of("a", "a", NO, needed=1) == ("ok", "a", ())
    assert await of("a", "a", "b", "c", NO, needed=2) == ("partial", "a", ("v.e",))
    assert await of("a", "a", NO) == ("ok", "a", ())


@in_virtual_time
async def test_a_vote_that_could_end_early_waits_if_one_that_failed_might_have_mattered() -> None:
    views = vote("v", branches=branches(NO, "a", "a", "a", "a", "b"), needed=2)
    record = await one(views)
    assert (record.status, record.output) == ("ok", "a")
    assert anyio.current_time() == 5  # at 4 the two that were open, and the one that failed, could have come level


@in_virtual_time
async def test_losers_are_cancelled_and_those_declared_before_the_winner_are_waited_for() -> None:
    left: list[str] = []

    async def loser(value: object) -> object:
        try:
            await anyio.sleep(50)
        finally:
            left.append("cancelled")
        return value

    record = await one(
        vote(
            "v",
            a=says("a", "ROME", 3),
            b=says("b", "rome", 1),
            c=says("c", "Rome", 2),
            d=map(loser),
            e=says("e", "rome", 2),
        )
    )
    assert (record.output, left, anyio.current_time()) == ("ROME", ["cancelled"], 3)
    record = await one(vote("v", a=says("a", "rome", 1), b=says("b", "ROME", 2), c=map(loser)))
    assert (record.output, left, anyio.current_time()) == ("rome", ["cancelled"] * 2, 5)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("needed", ["majority", "plurality", 2])
def test_the_value_does_not_depend_on_who_came_first(backend: str, needed: Any) -> None:
    orders = list(permutations((1.0, 2.0, 3.0, 4.0, 5.0)))

    async def main(at: int) -> tuple[str, object, object]:
        views = vote("v", branches=branches("Rome", "bern", " rome", "BERN", "ROME", seconds=orders[at]), needed=needed)
        heard: list[tuple[Message, ...]] = []

        async def listens(prompt: str, state: ConversationState) -> str:
            heard.append(state.messages)
            return prompt

        record = await one(views | listens)  # type: ignore[operator]
        return record.status, record.output, heard

    seen = {str(run_in(backend, at, main, at)) for at in range(0, len(orders), 3)}
    assert len(seen) == 1
    assert "'ok', 'Rome'" in seen.pop()


async def test_the_conversation_goes_on_as_the_branch_left_it_whose_answer_won() -> None:
    def asks(name: str, answer: str) -> Any:
        async def answers(prompt: str, state: ConversationState) -> str:
            return answer

        answers.__name__ = name
        return agent(answers, prompt=f"{name}, what is {{{{ prompt }}}}?")

    heard: list[tuple[Message, ...]] = []

    async def listens(prompt: str, state: ConversationState) -> str:
        heard.append(state.messages)
        return prompt

    await one(vote("v", a=asks("one", "no"), b=asks("two", "Yes"), c=asks("three", "yes")) | listens, "it")
    assert [(message.name, message.content) for message in heard[0]] == [
        (None, "two, what is it?"),
        ("two", "Yes"),
    ]


# -- one that answers several times ---------------------------------------------------------------------------------


@in_virtual_time
async def test_one_body_can_answer_several_times_and_sees_which_time_it_is() -> None:
    async def answers(value: object, visit: Visit) -> str:
        sample = visit.names()["sample"]
        assert isinstance(sample, int)
        await anyio.sleep(sample + 1)
        assert visit.path == ("v", str(sample), "answers")
        return f"odd {value}" if sample % 2 else f"even {value}"

    record = await one(vote("v", map(answers, concurrency=9), samples=5))
    assert (record.output, record.outputs["v_votes"], anyio.current_time()) == ("even 1", {"even 1": 3, "odd 1": 2}, 5)


async def test_templates_of_the_body_see_sample_and_others_do_not() -> None:
    async def echoes(prompt: str, state: ConversationState) -> str:
        return prompt

    record = await one(
        vote("v", agent(echoes, prompt="{{ prompt }} {{ sample }}"), samples=3, needed=1, key=lambda a: "x"), "p"
    )
    assert record.output == "p 0"
    assert problems(lambda: vote("v", map(str), samples=3) | agent(echoes, prompt="{{ sample }}")) == [
        "stage 'echoes', prompt: uses 'sample'; available here: input, prompt, vars, v_votes, v"
    ]
    assert problems(lambda: vote("v", a=agent(echoes, prompt="{{ sample }}"))) == [
        "stage 'echoes', prompt: uses 'sample'; available here: input, prompt, vars"
    ]


async def test_samples_of_a_simulated_model_differ() -> None:
    ask = agent("solver", model=resolve("sim/default", seed=7), output={"label": {"enum": ["x", "y", "z"]}})
    body = vote("v", ask, samples=9, needed="plurality", on_tie="first", key="{{ answer.label }}")
    records = await Pipeline(body, ordered=True).collect(["one", "two", "three"])
    for record in records:
        votes = record.outputs["v_votes"]
        assert isinstance(votes, dict)
        assert sum(votes.values()) == 9
        assert record.output["label"] == next(iter(votes))  # type: ignore[index]
        assert record.usage.requests == 9
    assert any(len(record.outputs["v_votes"]) > 1 for record in records)  # type: ignore[arg-type]


async def test_a_vote_stands_in_bodies_and_has_composites_in_its_own() -> None:
    views = parallel(
        "p", join=quorum(1), a=vote("v", map(str), samples=3), b=vote("w", b=scatter("s", split=list, each=map(repr)))
    )
    record = await one(views, [1, 2])
    assert record.output == {"a": "[1, 2]", "b": ["1", "2"]}
    records = await Pipeline(scatter("s", split=list, each=vote("v", map(abs), samples=2)), ordered=True).collect(
        [[1, -2], []]
    )
    assert [record.output for record in records] == [[1, 2], []]


# -- keys -----------------------------------------------------------------------------------------------------------


async def test_a_key_says_what_is_compared_and_the_answer_stays_whole() -> None:
    def labelled(*labels: str) -> dict[str, object]:
        return branches(*({"label": label, "n": n} for n, label in enumerate(labels)), seconds=(0,) * 9)

    for key in ("{{ answer.label }}", lambda answer: answer["label"]):
        record = await one(vote("v", branches=labelled("x", "y", "y"), key=key))
        assert (record.output, record.outputs["v_votes"]) == ({"label": "y", "n": 1}, {"y": 2, "x": 1})


async def test_a_key_that_raises_fails_the_item_with_the_name_of_the_vote() -> None:
    record = await one(vote("v", branches=branches("x", seconds=(0,)), key=lambda answer: answer["label"]))
    assert record.error is not None
    assert (record.status, record.error.stage, record.error.type) == ("failed", "v", "JoinError")
    assert record.error.message.startswith("join majority of 'v' raised TypeError: ")
    record = await one(vote("v", branches=branches({}, seconds=(0,)), key="{{ answer.label }}"))
    assert (record.status, record.error and record.error.stage) == ("failed", "v")


async def test_a_key_that_changes_its_mind_fails_the_item_and_not_the_run() -> None:
    seen: list[object] = []

    def fickle(answer: object) -> str:
        seen.append(answer)
        if len(seen) > 4:
            raise ValueError("I have had enough")
        return f"{len(seen)}" if len(seen) > 2 else "x"

    record = await one(vote("v", branches=branches("x", "x", seconds=(0, 0)), key=fickle))
    assert record.status == "failed"


# -- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "answers", "end"),
    [
        ({}, ("a", None, None), ("failed", "2 of 3 not done within 5 s, join is majority")),
        ({"on_timeout": "fail"}, ("a", None, None), ("failed", "2 of 3 not done within 5 s, join is majority")),
        ({"needed": 2}, ("a", None, None), ("failed", "2 of 3 not done within 5 s, join is 2 votes")),
        ({"on_timeout": "partial"}, ("a", "a", None, None), ("partial", "a", ("v.c", "v.d"))),
        ({"on_timeout": "partial"}, ("a", "b", "b", None, None), ("partial", "b", ("v.d", "v.e"))),
        ({"on_timeout": "partial"}, ("a", "b", None), ("failed", "1 of 3 not done within 5 s, join is majority")),
        ({"on_timeout": "partial"}, (None, None), ("failed", "2 of 2 not done within 5 s, join is majority")),
        ({"on_timeout": "partial", "needed": 2}, ("a", "a", None, None), ("partial", "a", ("v.c", "v.d"))),
        (
            {"on_timeout": "partial", "needed": 2},
            ("a", None, None),
            ("failed", "2 of 3 not done within 5 s, join is 2 votes"),
        ),
        ({"on_timeout": "partial", "needed": "plurality"}, ("a", "b", "b", None, NO), ("partial", "b", ("v.d", "v.e"))),
        (
            {"on_timeout": "partial", "needed": "plurality", "on_tie": "first"},
            ("a", "b", None),
            ("partial", "a", ("v.c",)),
        ),
        (
            {"on_timeout": "partial", "needed": "plurality"},
            ("a", "b", None),
            ("failed", "'a' and 'b' have 1 vote each; on_tie: first takes the one that was declared first"),
        ),
        ({"needed": "plurality"}, ("a", "a", "a", None), ("ok", "a", ())),
        ({}, (None, "a", "A"), ("ok", "a", ())),
    ],
)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_when_the_time_is_up_those_decide_that_have_answered_if_they_may(
    backend: str, options: Any, answers: tuple[object, ...], end: tuple[object, ...]
) -> None:
    async def main() -> tuple[Record, float]:
        seconds = tuple(0.5 * (place + 1) for place in range(9))
        stage = vote("v", branches=branches(*answers, seconds=seconds), timeout=4.5, **options)
        return await one(stage), anyio.current_time()

    record, _ = run_in(backend, 0, main)
    if record.status == "failed":
        assert record.error is not None
        assert (record.status, record.error.message.replace("4.5 s", "5 s")) == end
    else:
        assert (record.status, record.output, record.missing) == end


@in_virtual_time
async def test_the_decision_is_told_with_the_members_as_slots() -> None:
    heard: list[object] = []
    stage = vote("v", map(str, name="s"), samples=3)
    async with Pipeline(stage).open([7], on_event=heard.append) as run:
        assert [record.output async for record in run.results] == ["7"]
    (decision,) = heard
    assert isinstance(decision, JoinDecided)
    assert (decision.path, decision.verdict, decision.late) == (("v",), "ok", False)
    assert list(decision.slots) == ["0", "1", "2"]
    assert list(decision.slots.values()).count("ok") >= 2
