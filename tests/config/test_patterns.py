"""Loops, batches, partitions and map_reduce as they stand in a pipeline file: every option, and every mistake in its
place."""

from __future__ import annotations

import operator

import pytest

from pipeline import DefinitionError, Pipeline
from pipeline.cli.definition import Changes, read_text
from pipeline.config.problems import ConfigError
from pipeline.core.stage import Stage
from pipeline.core.templates import Expression
from stages import batch, loop, majority, map, map_reduce, partition_by

HEAD = "version: 1\nmodels: {fake: {use: sim/echo}}\nstages:\n"
BODY = "[{map: m, value: '{{ prompt }}'}]"
M = map(Expression("{{ prompt }}"), name="m")
PARTS = "[{map: m, value: '{{ parts }}'}]"
P = map(Expression("{{ parts }}"), name="m")


def pipeline(stages: str) -> Pipeline:
    return read_text(HEAD + stages, "p.yaml", Changes((), {}, ("operator",)))


def only(stages: str) -> Stage:
    (stage,) = pipeline(stages).stage.parts()
    return stage


def told(stages: str) -> list[str]:
    """Each problem as `what it points at: code message (hint)`."""
    lines = (HEAD + stages).splitlines()
    with pytest.raises(ConfigError) as caught:
        pipeline(stages)
    return [
        f"{lines[p.mark.line - 1][p.mark.column - 1 : p.mark.end_column - 1]}: {p.code} {p.message}"
        + (f" ({p.hint})" if p.hint else "")
        for p in caught.value.problems
    ]


# -- every option ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "stage"),
    [
        (
            f"{{loop: l, body: {BODY}, until: '{{{{ m }}}}', max_rounds: 4}}",
            lambda: loop(M, until="{{ m }}", max_rounds=4, name="l"),
        ),
        (
            (
                f"{{loop: l, body: {BODY}, until: {{call: 'operator:truth'}}, max_rounds: 1k, max_cost: 0.50usd, "
                "on_exhausted: fail, on_error: skip}"
            ),
            lambda: loop(
                M, until=operator.truth, max_rounds=1000, name="l", max_cost=0.5, on_exhausted="fail", on_error="skip"
            ),
        ),
        (
            f"{{partition_by: p, key: '{{{{ input.user }}}}', body: {BODY}}}",
            lambda: partition_by("{{ input.user }}", M, name="p"),
        ),
        (
            f"{{partition_by: p, key: {{call: 'operator:truth'}}, body: {BODY}, on_error: fail}}",
            lambda: partition_by(operator.truth, M, name="p", on_error="fail"),
        ),
        ("{batch: b, size: 20}", lambda: batch(size=20, name="b")),
        (f"{{batch: b, size: 20, body: {PARTS}}}", lambda: batch(P, size=20, name="b")),
        (
            (
                "{batch: b, size: 16k, within: 250ms, weight: '{{ prompt | length }}', key: '{{ input.kind }}', "
                f"body: {PARTS}, on_error: skip}}"
            ),
            lambda: batch(
                P,
                size=16_000,
                within=0.25,
                weight="{{ prompt | length }}",
                key="{{ input.kind }}",
                name="b",
                on_error="skip",
            ),
        ),
        (
            "{batch: b, size: 5, weight: {call: 'operator:length_hint'}, key: {call: 'operator:truth'}}",
            lambda: batch(size=5, weight=operator.length_hint, key=operator.truth, name="b"),
        ),
        ("{batch: b, size: 20, within: none}", lambda: batch(size=20, within=None, name="b")),
        (
            (
                f"{{map_reduce: r, split: '{{{{ input.parts }}}}', each: {BODY}, reduce: '{{{{ total + [value] }}}}', "
                "initial: []}"
            ),
            lambda: map_reduce(M, split="{{ input.parts }}", reduce="{{ total + [value] }}", initial=[], name="r"),
        ),
        (
            (
                f"{{map_reduce: r, split: {{call: 'operator:index'}}, each: {BODY}, reduce: {{call: 'operator:add'}}, "
                "initial: {a: [1, text], b: none}, max_open: 8, max_children: 10k, on_error: skip}"
            ),
            lambda: map_reduce(
                M,
                split=operator.index,
                reduce=operator.add,
                initial={"a": [1, "text"], "b": "none"},
                max_open=8,
                max_children=10_000,
                name="r",
                on_error="skip",
            ),
        ),
        (
            f"{{map_reduce: r, split: '{{{{ [1] }}}}', each: {BODY}, reduce: '{{{{ total + value }}}}', initial: 0}}",
            lambda: map_reduce(M, split="{{ [1] }}", reduce="{{ total + value }}", initial=0, name="r"),
        ),
    ],
)
def test_a_stage_of_a_file_is_that_of_code(text: str, stage: object) -> None:
    assert only(f"  - {text}\n") == stage()  # type: ignore[operator]


def test_an_evaluator_and_its_optimizer_in_a_file() -> None:
    file = """
  - loop: polish
    body:
      - agent: writer
        prompt: "Round {{ round }}. Improve: {{ prompt }}{% if critic %} because {{ critic.text }}{% endif %}"
      - agent: critic
        prompt: "Rate: {{ writer }}"
        output: {score: number, text: string}
    until: "{{ critic.score >= 0.9 }}"
    max_rounds: 4
    max_cost: 5usd
  - map: told
    value: "{{ polish_rounds }}"
"""
    pipe = pipeline(file)
    assert str(pipe).startswith("polish | told: at most 256 roots, at most 512 items alive, at most 32 calls")


# -- mistakes -------------------------------------------------------------------------------------------------------

LOOP = f"loop: l, body: {BODY}, until: '{{{{ m }}}}'"
REDUCE = f"map_reduce: r, split: '{{{{ [1] }}}}', each: {BODY}"
NO_EXPRESSION = "this must be exactly one expression, written {{ … }}, with nothing around it"
STALLS = "with `key` there can be more batches that are not full than the window has items"
SAY = "say how long an item may wait at most"


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (f"{LOOP}, max_rounds: 0", "0: E110 'max_rounds' of stage 'l': must be a whole number of at least 1, got 0"),
        (
            f"{LOOP}, max_rounds: few",
            "few: E101 'max_rounds' of stage 'l': 'few' is not a count: write a whole number like 16, 25.6k or 1M",
        ),
        (
            f"{LOOP}, max_rounds: 2, max_cost: 5",
            "5: E101 'max_cost' of stage 'l': '5' is not an amount of money: write 5usd or 0.50usd",
        ),
        (
            f"{LOOP}, max_rounds: 2, max_cost: 0usd",
            "0usd: E110 'max_cost' of stage 'l': must be above 0 US dollars, got 0.0",
        ),
        (
            f"{LOOP}, max_rounds: 2, on_exhausted: lst",
            (
                "lst: E101 'on_exhausted' of stage 'l' must be one of last, fail, not the text 'lst' "
                "(did you mean 'last'?)"
            ),
        ),
        (
            f"{LOOP}, max_rounds: 2, max_round: 2",
            "max_round: E102 unknown key 'max_round' in stage 'l' (did you mean 'max_rounds'?)",
        ),
        (
            f"loop: l, body: {BODY}, until: '{{{{ n }}}}', max_rounds: 2",
            "'{{ n }}': E210 'until' of stage 'l' uses 'n'; available here: input, prompt, vars, m, round",
        ),
        (
            f"loop: l, body: {BODY}, until: m is good, max_rounds: 2",
            f"m is good: E202 'until' of stage 'l': {NO_EXPRESSION}",
        ),
        (
            f"loop: l, body: {BODY}, until: {{call: 'os:getcwd'}}, max_rounds: 2",
            (
                "'os:getcwd': E310 'until' of stage 'l' asks to import 'os', which is not allowed "
                "(allow it with --allow-import os)"
            ),
        ),
        (f"partition_by: p, key: user, body: {BODY}", f"user: E202 'key' of stage 'p': {NO_EXPRESSION}"),
        (
            f"partition_by: p, key: '{{{{ inptu.user }}}}', body: {BODY}",
            (
                "'{{ inptu.user }}': E210 'key' of stage 'p' uses 'inptu'; available here: input, prompt, vars "
                "(did you mean 'input'?)"
            ),
        ),
        ("batch: b, size: 0", "0: E110 'size' of stage 'b': must be a whole number of at least 1, got 0"),
        (
            "batch: b, size: 3, within: 5",
            (
                "5: E101 'within' of stage 'b': '5' is not a duration: write 250ms, 30s, 2m, 1h or none "
                "(did you mean 5s?)"
            ),
        ),
        (
            "batch: b, size: 3, within: 0s",
            "0s: E110 'within' of stage 'b': must be a number of seconds above 0, got 0.0",
        ),
        (
            "batch: b, size: 3, weight: 5",
            "5: E101 'weight' of stage 'b' must be text, not the number 5 (put it in quotes)",
        ),
        (
            "batch: b, size: 3, key: '{{ user }}'",
            "'{{ user }}': E210 'key' of stage 'b' uses 'user'; available here: input, prompt, vars",
        ),
        (
            "batch: b, size: 3, body: [{map: x, value: '{{ prompt }}'}]",
            "'{{ prompt }}': E210 'value' of stage 'x' uses 'prompt'; available here: vars, parts",
        ),
        (
            "batch: b, size: 3, within: none, key: '{{ prompt }}'",
            f"none: E110 'within' of stage 'b': without a time it could wait for ever: {STALLS} ({SAY})",
        ),
        (
            "parallel: p, branches: {a: [{batch: b, size: 3}]}",
            (
                "b: E110 stage 'b': a batch without a body can stand on the top-level chain only "
                "(give it a body, which returns one result for each item)"
            ),
        ),
        (
            f"{REDUCE}, reduce: '{{{{ totl + value }}}}', initial: 0",
            (
                "'{{ totl + value }}': E210 'reduce' of stage 'r' uses 'totl'; available here: total, value "
                "(did you mean 'total'?)"
            ),
        ),
        (
            f"{REDUCE}, reduce: '{{{{ total }}}}', initial: 0, max_open: 0",
            "0: E110 'max_open' of stage 'r': must be a whole number of at least 1, got 0",
        ),
        (
            f"{REDUCE}, reduce: '{{{{ total + value }}}}', initial: 0, max_children: many",
            (
                "many: E101 'max_children' of stage 'r': 'many' is not a count: "
                "write a whole number like 16, 25.6k or 1M"
            ),
        ),
        (
            f"parallel: p, branches: {{a: [{{{REDUCE}, reduce: '{{{{ total }}}}', initial: 0}}]}}",
            (
                "r: E110 stage 'r': map_reduce can stand on the top-level chain only "
                "(use scatter here, whose gather sees all outputs at once)"
            ),
        ),
    ],
)
def test_a_mistake_is_told_with_its_place_and_nothing_that_is_only_its_echo(stage: str, expected: str) -> None:
    assert told(f"  - {{{stage}}}\n") == [expected]


@pytest.mark.parametrize(
    ("kind", "needed"),
    [
        ("loop", ["body", "until", "max_rounds"]),
        ("partition_by", ["key", "body"]),
        ("batch", ["size"]),
        ("map_reduce", ["split", "each", "reduce", "initial"]),
    ],
)
def test_what_is_needed_and_missing_is_told(kind: str, needed: list[str]) -> None:
    found = told(f"  - {kind}: x\n")
    assert [line.partition(" (")[0] for line in found] == [f"x: E104 stage 'x' needs {name!r}" for name in needed]


def test_what_stands_behind_a_batch_is_told_what_it_sees() -> None:
    assert told("  - {batch: b, size: 3}\n  - {map: x, value: '{{ prompt }}'}\n") == [
        "'{{ prompt }}': E210 'value' of stage 'x' uses 'prompt'; available here: vars, b"
    ]


def test_the_names_that_a_loop_writes_are_taken() -> None:
    text = "there is already an output named 'l_rounds' (names are unique in a pipeline)"
    assert told(f"  - {{{LOOP}, max_rounds: 2}}\n  - {{map: l_rounds, value: '{{{{ l }}}}'}}\n") == [
        f"l_rounds: E110 stage 'l_rounds': {text}"
    ]


def test_stages_of_code_are_refused_for_the_same() -> None:
    with pytest.raises(DefinitionError, match="uses 'totl'"):
        Pipeline(map_reduce(M, split="{{ [1] }}", reduce="{{ totl }}", initial=0))


# -- joins ----------------------------------------------------------------------------------------------------------

VIEWS = "branches: {a: [{map: a, value: '{{ prompt }}'}], b: [{map: b, value: '{{ prompt }}'}]}"


@pytest.mark.parametrize("kind", ["parallel: s, " + VIEWS, f"scatter: s, split: '{{{{ [1, 2] }}}}', each: {BODY}"])
def test_a_majority_has_a_key_in_a_file_as_well(kind: str) -> None:
    stage = only(f"  - {{{kind}, join: {{majority: '{{{{ answer.label }}}}'}}}}\n")
    assert stage.rules().join == majority("{{ answer.label }}")  # type: ignore[attr-defined]
    (only_one,) = told(f"  - {{{kind}, join: {{majority: '{{{{ anser.label }}}}'}}}}\n")
    text = "E210 'join' of stage 's' uses 'anser'; available here: answer (did you mean 'answer'?)"
    assert only_one == f"{{majority: '{{{{ anser.label }}}}'}}: {text}"


async def test_a_majority_of_a_file_is_that_of_its_key() -> None:
    views = "parallel: p, branches: {a: [{map: a, value: '{{ [1, 2] }}'}], b: [{map: b, value: '{{ [1, 3] }}'}]}"
    (record,) = await pipeline(f"  - {{{views}, join: {{majority: '{{{{ answer[0] }}}}'}}}}\n").collect(["x"])
    assert (record.status, record.output) == ("ok", {"a": [1, 2], "b": [1, 3]})
    (record,) = await pipeline(f"  - {{{views}, join: majority}}\n").collect(["x"])
    assert record.error is not None
    assert (record.status, record.error.type) == ("failed", "NoMajority")
