"""What has changed, in sentences."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipeline import Pipeline
from pipeline.core.errors import Failure
from pipeline.core.stage import Stage
from pipeline.durability.fingerprint import fingerprint
from pipeline.durability.fingerprint.changes import Change, differences, sentences
from pipeline.durability.fingerprint.values import LONGEST
from stages import agent, loop, map, parallel
from stages.models import resolve
from tests.durability import functions


def judge(prompt: str = "Score {{ prompt }}", **options: object) -> Stage:
    return agent("judge", model="sim/echo", prompt=prompt, **options)  # type: ignore[arg-type]


def told(before: Stage | Pipeline, after: Stage | Pipeline) -> list[str]:
    one, other = (each if isinstance(each, Pipeline) else Pipeline(each) for each in (before, after))
    return [*sentences(differences(fingerprint(one), fingerprint(other)))]


def test_a_short_text_is_shown_whole() -> None:
    assert told(judge(), judge("Rate {{ prompt }}")) == [
        """stage 'judge', prompt: "Score {{ prompt }}" is now "Rate {{ prompt }}\""""
    ]


def test_of_a_long_text_only_the_part_is_shown_that_differs() -> None:
    text = "You are a careful judge. " * 10 + "Give {} points at most. " + "Say why, in one sentence. " * 10
    (said,) = told(judge(text.format("ten")), judge(text.format("twenty")))
    was, now = (f"…judge. Give {points} points at most. Say…" for points in ("ten", "twenty"))
    assert said == f"""stage 'judge', prompt: "{was}" is now "{now}\""""
    (said,) = told(judge(text), judge(text + "x" * 1000))
    assert said == f"""stage 'judge', prompt: "…in one sentence. " is now "…in one sentence. {"x" * 143}…\""""


def test_what_differs_beyond_what_is_kept_is_told_without_it() -> None:
    text = "x" * LONGEST
    assert told(judge(text + "a"), judge(text + "b")) == [
        "stage 'judge', prompt: has changed after its first 4,096 characters"
    ]


def test_numbers_flags_and_what_is_not_set() -> None:
    assert told(judge(), judge(temperature=0.5)) == ["stage 'judge', temperature: not set is now 0.5"]
    assert told(judge(concurrency=8), judge(concurrency=4)) == ["stage 'judge', concurrency: 8 is now 4"]
    assert told(judge(conversation=True), judge()) == ["stage 'judge', conversation: true is now false"]
    assert told(Pipeline(judge(), max_in_flight=64), Pipeline(judge())) == ["pipeline, max_in_flight: 64 is now 256"]
    assert told(Pipeline(judge(), variables={"a": "b"}), Pipeline(judge())) == [
        """pipeline, vars.a: "b" is now not set"""
    ]


def test_a_number_that_is_written_in_another_way_is_none() -> None:
    assert told(Pipeline(judge(), item_timeout=2), Pipeline(judge(), item_timeout=2.0)) == []


def test_a_stage_that_is_new_is_gone_or_is_another_one_is_one_sentence() -> None:
    other = map("{{ prompt }}", name="other")
    order = "pipeline, stages: judge is now judge, other"
    assert told(judge(), judge() | other) == [order, "stage 'other' is new"]
    assert told(judge() | other, judge()) == ["pipeline, stages: judge, other is now judge", "stage 'other' is gone"]
    assert told(judge(), replace(other, name="judge")) == ["""stage 'judge', kind: "AgentStage" is now "MapStage\""""]


def test_what_changes_alike_in_several_stages_is_one_sentence() -> None:
    def of(rate: int, name: str) -> Stage:
        model = resolve(f"openai/{name}", requests_per_minute=rate)
        a, b, c = (agent(each, model=model, prompt="x") for each in "abc")
        return a | b | c

    assert told(of(500, "gpt-5.4"), of(600, "gpt-5.5")) == [
        """stages 'a', 'b' and 'c', model.name: "gpt-5.4" is now "gpt-5.5\"""",
        "stages 'a', 'b' and 'c', model.requests_per_minute: 500 is now 600",
    ]


def test_what_decides_the_results_comes_first() -> None:
    before, after = fingerprint(Pipeline(judge())), fingerprint(Pipeline(judge("x", concurrency=3), ordered=True))
    assert [(change.key, change.effect) for change in differences(before, after)] == [
        ("stages.judge.prompt", "result"),
        ("pipeline.ordered", "result"),
        ("stages.judge.concurrency", "operational"),
    ]


def test_other_code_is_told_without_its_hash() -> None:
    def handler(failure: Failure) -> str:
        return "skip"

    one = fingerprint(Pipeline(judge(on_error=handler)))
    other = replace(one, result={**one.result, "stages.judge.on_error.source": "another"})
    assert sentences(differences(one, other)) == ("stage 'judge', on_error: its code has changed",)
    here = "tests.durability.functions"
    assert told(map(functions.shout, name="s"), map(functions.whisper, name="s")) == [
        f"""stage 's', function: "{here}:shout" is now "{here}:whisper\""""
    ]


def test_what_is_hidden_is_told_without_it() -> None:
    def of(**headers: str) -> Stage:
        return agent("s", model=resolve("openai/gpt-5.5", headers=headers), prompt="x")

    assert told(of(route="east"), of(route="west")) == [
        "stage 's', model.headers.route: has another value, which is not shown"
    ]
    assert told(of(), of(route="west")) == ["stage 's', model.headers.route: not set is now a value that is not shown"]


def test_joins_orders_and_data_are_told_as_they_are_written() -> None:
    a, b = map("{{ prompt }}", name="a"), map("{{ prompt }}", name="b")
    assert told(parallel("p", a=a, b=b), parallel("p", a=a, b=b, join="any")) == [
        """stage 'p', join: "all" is now "first(1)\""""
    ]
    assert told(parallel("p", a=a, b=b), parallel("p", b=b, a=a)) == ["stage 'p', branches: a, b is now b, a"]
    one, other = (loop(a, until="{{ a }}", max_rounds=2, max_cost=most) for most in (0.5, None))
    assert told(one, other) == ["stage 'loop', max_cost: 0.5 is now not set"]


def test_nothing_that_a_terminal_would_obey_is_in_a_sentence() -> None:
    said = told(judge(), judge("\x1b[2J {{ prompt }} \u202e"))
    assert said == ["""stage 'judge', prompt: "Score {{ prompt }}" is now "\\u001b[2J {{ prompt }} \\u202e\""""]


@pytest.mark.parametrize("stage", ["judge", "a.b", 'say "x"'])
def test_a_change_knows_its_stage_and_option_and_can_be_kept(stage: str) -> None:
    one, other = (fingerprint(Pipeline(replace(judge(prompt), name=stage))) for prompt in ("x", "y"))
    (change,) = differences(one, other)
    assert (change.stage, change.option, change.effect) == (stage, "prompt", "result")
    assert str(change) == f'stage {stage!r}, prompt: "x" is now "y"'
    assert change.as_json() == {"key": change.key, "effect": "result", "old": "x", "new": "y"}
    assert Change(**change.as_json()) == change  # type: ignore[arg-type]
