"""Reading stages: each kind of option as its value, each mistake with its place, all of them in one pass."""

from __future__ import annotations

import math

import pytest

from pipeline.config.description import load_text
from pipeline.config.problems import ConfigError
from pipeline.core.joins import Join, first, majority, quorum
from pipeline.core.templates import Expression, Template
from tests.config.fakes import HEAD, SIM, WORDS, Chain, Models, Stage, messages, read


def only(stages: str, **options: object) -> Stage:
    stage = read(f"{HEAD}stages:\n{stages}", **options).stages  # type: ignore[arg-type]
    assert isinstance(stage, Stage)
    return stage


def wrong(stages: str, **options: object) -> list[str]:
    return messages(f"{HEAD}stages:\n{stages}", **options)


def test_a_stage_is_built_from_its_options_as_values() -> None:
    stage = only("""
  - agent: draft
    prompt: "Write: {{ prompt }}"
    system: Be brief.
    output: {questions: [string]}
    concurrency: 1k
    timeout: 2m
    temperature: 0.5
    stop: [a, b]
    strict: true
    extra_body: {top_k: 3}
    on_error: skip
    fallback: [fake, sim/other]
""")
    assert stage == Stage(
        "agent",
        "draft",
        {
            "model": SIM,
            "prompt": Template("Write: {{ prompt }}"),
            "system": "Be brief.",
            "output": {"questions": ["string"]},
            "concurrency": 1000,
            "timeout": 120.0,
            "temperature": 0.5,
            "stop": ("a", "b"),
            "strict": True,
            "extra_body": {"top_k": 3},
            "on_error": "skip",
            "fallback": (SIM, ("sim/other", {})),
        },
    )


def test_an_option_that_is_left_out_is_left_to_the_builder() -> None:
    assert only("  - agent: draft\n") == Stage("agent", "draft", {"model": SIM})


def test_a_declared_default_is_given_to_the_builder() -> None:
    stage = only("  - {scatter: s, split: '{{ x }}', each: [{agent: a}]}\n")
    assert stage.values["max_children"] == 100
    assert only("  - {scatter: s, split: '{{ x }}', max_children: 5, each: [{agent: a}]}\n").values["max_children"] == 5


def test_a_list_is_a_sequence() -> None:
    a, b, c = (Stage("agent", name, {"model": SIM}) for name in "abc")
    assert read(f"{HEAD}stages: [{{agent: a}}, {{agent: b}}, {{agent: c}}]").stages == Chain((a, b, c))


def test_composites_hold_lists_that_are_built_before_them() -> None:
    worker = Stage("agent", "worker", {"model": SIM})
    check = Stage("agent", "check", {"model": SIM})
    stage = only("""
  - scatter: dig
    split: "{{ plan.questions }}"
    each: [{agent: worker}, {agent: check}]
    join: {quorum: 2}
""")
    assert stage.values == {
        "max_children": 100,
        "split": Expression("{{ plan.questions }}"),
        "each": Chain((worker, check)),
        "join": quorum(2),
    }
    parallel = only("  - {parallel: p, join: any, branches: {no: [{agent: worker}], 2: [{agent: check}]}}\n")
    assert parallel.values == {"branches": {"no": worker, "2": check}, "join": first(1)}


@pytest.mark.parametrize(
    ("join", "value"),
    [
        ("all", Join()),
        ("any", first(1)),
        ("majority", majority()),
        ("{first: 3}", first(3)),
        ("{quorum: 2}", quorum(2)),
        ("{majority: '{{ answer.label }}'}", majority("{{ answer.label }}")),
        ("{majority: {call: 'math:sqrt'}}", majority(math.sqrt)),
        ("{call: 'math:sqrt'}", Join("custom", 0, math.sqrt)),
    ],
)
def test_a_join_is_a_word_a_rule_with_its_number_or_a_function(join: str, value: object) -> None:
    text = f"  - {{parallel: p, join: {join}, branches: {{a: [{{agent: a}}]}}}}\n"
    assert only(text, allow_import=["math"]).values["join"] == value


def test_reducers_are_words_or_functions_by_output() -> None:
    text = "  - {parallel: p, reducers: {notes: list, sums: {call: 'math:hypot'}}, branches: {a: [{agent: a}]}}\n"
    assert only(text, allow_import=["math"]).values["reducers"] == {"notes": "list", "sums": math.hypot}


def test_a_decision_is_an_expression_a_stage_or_a_function() -> None:
    body = "cases: {a: [{agent: x}]}"
    assert only(f"  - {{route: r, by: '{{{{ kind }}}}', {body}}}\n").values["by"] == Expression("{{ kind }}")
    assert only(f"  - {{route: r, by: {{agent: t}}, {body}}}\n").values["by"] == Stage("agent", "t", {"model": SIM})
    called = only(f"  - {{route: r, by: {{call: 'math:sqrt'}}, {body}}}\n", allow_import=["math"])
    assert called.values["by"] is math.sqrt
    split = only("  - {scatter: s, split: {call: 'math:sqrt'}, each: [{agent: a}]}\n", allow_import=["math"])
    assert split.values["split"] is math.sqrt


def test_shares_rates_money_and_counts_are_numbers() -> None:
    stage = only("  - {limits: l, share: 3%, rate: 500/min, money: 5usd, either: 5%}\n")
    assert stage.values == {"share": 0.03, "rate": 500.0, "money": 5.0, "either": 0.05}
    assert only("  - {limits: l, rate: 500, either: 7}\n").values == {"rate": 500.0, "either": 7}


def test_no_duration_is_written_none() -> None:
    assert only("  - {agent: a, timeout: none}\n").values["timeout"] is None


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("{agent: a, concurency: 8}", "4:16 E102 unknown key 'concurency' in stage 'a' (did you mean 'concurrency'?)"),
        (
            "{map: a, call: 'math:sqrt', zzz: 1}",
            "4:33 E102 unknown key 'zzz' in stage 'a' (known here: call, settings)",
        ),
        (
            "{agnt: a}",
            "4:6 E103 there is no kind of stage 'agnt' (did you mean 'agent'?)",
        ),
        (
            "{zzz: a}",
            "4:6 E103 there is no kind of stage 'zzz' (known here: agent, limits, map, parallel, route, scatter)",
        ),
        ("{prompt: x, agent: a}", "4:6 E103 a stage starts with its kind: put 'agent' before 'prompt'"),
        ("draft", "4:5 E103 a stage is a mapping that starts with its kind and name (- agent: name)"),
        ("{}", "4:5 E103 a stage is a mapping that starts with its kind and name (- agent: name)"),
        (
            "{agent: my draft}",
            (
                "4:13 E105 the name of an agent is letters, digits and underscores, so that templates can use it "
                "(agent: name)"
            ),
        ),
        (
            "{map: , call: 'math:sqrt'}",
            "4:11 E105 the name of a map is letters, digits and underscores, so that templates can use it (map: name)",
        ),
        ("{route: r, cases: {a: [{agent: x}]}}", "4:13 E104 stage 'r' needs 'by'"),
        (
            "{agent: a, timeout: 60}",
            (
                "4:25 E101 'timeout' of stage 'a': '60' is not a duration: "
                "write 250ms, 30s, 2m, 1h or none (did you mean 60s?)"
            ),
        ),
        ("{agent: a, timeout: [1]}", "4:25 E101 'timeout' of stage 'a' must be a duration like 30s, not a list"),
        (
            "{agent: a, concurrency: few}",
            "4:29 E101 'concurrency' of stage 'a': 'few' is not a count: write a whole number like 16, 25.6k or 1M",
        ),
        ("{agent: a, system: 5}", "4:24 E101 'system' of stage 'a' must be text, not the number 5 (put it in quotes)"),
        (
            "{agent: a, system: true}",
            "4:24 E101 'system' of stage 'a' must be text, not the boolean true (put it in quotes)",
        ),
        ("{agent: a, system: }", "4:24 E101 'system' of stage 'a' must be text, not nothing"),
        (
            "{agent: a, stop: [1]}",
            "4:23 E101 each of 'stop' of stage 'a' must be text, not the number 1 (put it in quotes)",
        ),
        ("{agent: a, temperature: hot}", "4:29 E101 'temperature' of stage 'a' must be a number, not the text 'hot'"),
        ("{agent: a, strict: yes}", "4:24 E101 'strict' of stage 'a' must be true or false, not the text 'yes'"),
        ("{agent: a, extra_body: []}", "4:28 E101 'extra_body' of stage 'a' must be a mapping, not a list"),
        (
            "{agent: a, output: 5}",
            "4:24 E101 'output' of stage 'a' must be a type, a list of one type, or a mapping, not the number 5",
        ),
        (
            "{agent: a, on_error: skp}",
            (
                "4:26 E101 'on_error' of stage 'a' must be one of dead_letter, skip, fail, "
                "not the text 'skp' (did you mean 'skip'?)"
            ),
        ),
        (
            "{agent: a, prompt: '{{ x y }}'}",
            "4:24 E201 'prompt' of stage 'a': expected token 'end of print statement', got 'y'",
        ),
        (
            "{agent: a, prompt: '{{ x|uper }}'}",
            "4:24 E201 'prompt' of stage 'a': No filter named 'uper' (did you mean 'upper'?)",
        ),
        (
            "{scatter: s, split: 'a', each: [{agent: a}]}",
            (
                "4:25 E202 'split' of stage 's': this must be exactly one expression, "
                "written {{ … }}, with nothing around it"
            ),
        ),
        (
            "{scatter: s, split: {agent: x}, each: [{agent: a}]}",
            (
                "4:25 E101 'split' of stage 's' must be an expression {{ … }} "
                'or {call: "module:attribute"}, not a mapping'
            ),
        ),
        ("{scatter: s, split: '{{ 1 }}', each: []}", "4:42 E101 'each' of stage 's' needs at least one stage"),
        (
            "{scatter: s, split: '{{ 1 }}', each: {agent: a}}",
            "4:42 E101 'each' of stage 's' must be a list of stages, not a mapping",
        ),
        (
            "{parallel: p, branches: [a]}",
            "4:29 E101 'branches' of stage 'p' must be a mapping from label to list of stages, not a list",
        ),
        (
            "{parallel: p, branches: {}}",
            "4:29 E101 'branches' of stage 'p' needs at least one label with a list of stages",
        ),
        ("{parallel: p, branches: {a: []}}", "4:33 E101 'a' in 'branches' of stage 'p' needs at least one stage"),
        (
            "{parallel: p, join: some, branches: {a: [{agent: a}]}}",
            (
                "4:25 E101 'join' of stage 'p' must be all, any, majority, {first: 2}, {quorum: 2}, "
                '{majority: "{{ answer.x }}"} or {call: "module:attribute"}, '
                "not the text 'some'"
            ),
        ),
        (
            "{parallel: p, join: {quorum: 0}, branches: {a: [{agent: a}]}}",
            "4:34 E101 'quorum' in 'join' of stage 'p' must be at least 1",
        ),
        (
            "{parallel: p, join: {majority: label}, branches: {a: [{agent: a}]}}",
            (
                "4:36 E202 'majority' in 'join' of stage 'p': this must be exactly one expression, "
                "written {{ … }}, with nothing around it"
            ),
        ),
        (
            "{parallel: p, join: {majority: 5}, branches: {a: [{agent: a}]}}",
            "4:36 E101 'majority' in 'join' of stage 'p' must be text, not the number 5 (put it in quotes)",
        ),
        (
            "{parallel: p, join: {majority: {call: 'os:getcwd'}}, branches: {a: [{agent: a}]}}",
            (
                "4:43 E310 'majority' in 'join' of stage 'p' asks to import 'os', which is not allowed "
                "(allow it with --allow-import os)"
            ),
        ),
        (
            "{parallel: p, join: {majority: {agent: x}}, branches: {a: [{agent: a}]}}",
            (
                "4:36 E101 'majority' in 'join' of stage 'p' must be an expression {{ … }} "
                'or {call: "module:attribute"}, not a mapping'
            ),
        ),
        (
            "{parallel: p, join: {call: 'os:getcwd'}, branches: {a: [{agent: a}]}}",
            (
                "4:32 E310 'join' of stage 'p' asks to import 'os', which is not allowed "
                "(allow it with --allow-import os)"
            ),
        ),
        (
            "{parallel: p, join: {call: 'math:pi'}, branches: {a: [{agent: a}]}}",
            "4:32 E311 'join' of stage 'p': 'math:pi' is a float, not a function",
        ),
        (
            "{parallel: p, reducers: [notes], branches: {a: [{agent: a}]}}",
            (
                "4:29 E101 'reducers' of stage 'p' must be a mapping from output to list, sum or "
                '{call: "module:attribute"}, not a list'
            ),
        ),
        (
            "{parallel: p, reducers: {notes: lst}, branches: {a: [{agent: a}]}}",
            (
                "4:37 E101 'notes' in 'reducers' of stage 'p' must be one of list, sum, "
                "not the text 'lst' (did you mean 'list'?)"
            ),
        ),
        (
            "{parallel: p, reducers: {notes: {call: 'os:getcwd'}}, branches: {a: [{agent: a}]}}",
            (
                "4:44 E310 'notes' in 'reducers' of stage 'p' asks to import 'os', which is not allowed "
                "(allow it with --allow-import os)"
            ),
        ),
        ("{agent: a, model: fke}", "4:23 E301 'model' of stage 'a': there is no model 'fke' (did you mean 'fake'?)"),
        (
            "{agent: a, model: opeai/x}",
            "4:23 E301 'model' of stage 'a': unknown provider in 'opeai/x' (did you mean 'sim'?)",
        ),
        (
            "{agent: a, model: 5}",
            "4:23 E101 'model' of stage 'a' must be the name of a model, or provider/model, not the number 5",
        ),
        (
            "{agent: a, concurrency: 0}",
            "4:29 E110 'concurrency' of stage 'a': must be at least 1 (leave it out for the default)",
        ),
        ("{agent: cursed}", "4:13 E110 stage 'cursed': cannot be built"),
        (
            "{agent: a, api_key: sk-1}",
            (
                "4:16 E303 'api_key' of stage 'a' would put a key into a file that is shared "
                "(use api_key_env with the name of an environment variable)"
            ),
        ),
        ("{map: m, call: 5}", "4:20 E101 'call' of stage 'm' must be 'module:attribute', not the number 5"),
        (
            "{map: m, call: math.sqrt}",
            "4:20 E101 'call' of stage 'm' must be 'module:attribute', not the text 'math.sqrt'",
        ),
        (
            "{map: m, call: 'os.path:join'}",
            (
                "4:20 E310 'call' of stage 'm' asks to import 'os.path', which is not allowed "
                "(allow it with --allow-import os)"
            ),
        ),
        (
            "{map: m, call: 'mathe:sqrt'}",
            (
                "4:20 E310 'call' of stage 'm' asks to import 'mathe', which is not allowed "
                "(allow it with --allow-import mathe)"
            ),
        ),
        ("{map: m, call: 'math:sqirt'}", "4:20 E311 'call' of stage 'm': 'math' has no 'sqirt'"),
        ("{map: m, call: 'math:pi'}", "4:20 E311 'call' of stage 'm': 'math:pi' is a float, not a function"),
        (
            "{map: m, call: 'math.nothing:x'}",
            (
                "4:20 E311 'call' of stage 'm': importing 'math.nothing' failed: "
                "ModuleNotFoundError: No module named 'math.nothing'; 'math' is not a package"
            ),
        ),
    ],
)
def test_a_mistake_in_a_stage_is_told_with_its_place(stage: str, expected: str) -> None:
    assert wrong(f"  - {stage}\n", allow_import=["math"]) == [expected]


def test_a_module_is_imported_only_when_it_or_a_parent_is_allowed() -> None:
    stage = "  - {map: m, call: 'os.path:join'}\n"
    assert only(stage, allow_import=["os"]).values["call"] is only(stage, allow_import=["os.path"]).values["call"]
    assert "E310" in wrong(stage, allow_import=["o"])[0]
    assert "E310" in wrong(stage, allow_import=["os.path.join"])[0]


def test_a_stage_is_not_built_from_a_model_that_is_broken() -> None:
    text = "version: 1\nmodels: {m: {use: no/x}}\nstages: [{agent: cursed}, {agent: b, model: m, fallback: [m]}]"
    assert messages(text) == ["2:19 E301 model 'm': unknown provider in 'no/x' (did you mean 'sim'?)"]


def test_a_name_is_unique_in_the_whole_pipeline() -> None:
    assert wrong("  - agent: a\n  - {scatter: s, split: '{{ x }}', each: [{agent: a}]}\n") == [
        "5:51 E105 the name 'a' is used by two stages; first in line 4"
    ]


def test_a_mistake_in_a_block_of_lines_is_told_in_its_own_line() -> None:
    assert wrong("  - agent: a\n    prompt: |\n      hello\n      {{ x y }}\n") == [
        "7:1 E201 'prompt' of stage 'a': expected token 'end of print statement', got 'y'"
    ]


def test_every_mistake_is_told_at_once() -> None:
    assert wrong("""
  - {agent: a, prompt: '{{', zzz: 1, timeout: 5}
  - {agnt: b}
  - {scatter: a, each: [{agent: c, model: nope}, {}], join: 5}
""") == [
        "5:24 E201 'prompt' of stage 'a': unexpected 'end of template'",
        (
            "5:30 E102 unknown key 'zzz' in stage 'a' (known here: concurrency, extra_body, fallback, model, on_error, "
            "output, prompt, stop, strict, system, temperature, timeout)"
        ),
        "5:47 E101 'timeout' of stage 'a': '5' is not a duration: write 250ms, 30s, 2m, 1h or none (did you mean 5s?)",
        "6:6 E103 there is no kind of stage 'agnt' (did you mean 'agent'?)",
        "7:15 E105 the name 'a' is used by two stages; first in line 5",
        "7:15 E104 stage 'a' needs 'split'",
        "7:43 E301 'model' of stage 'c': there is no model 'nope' (name one of fake, or call one of them 'default')",
        "7:50 E103 a stage is a mapping that starts with its kind and name (- agent: name)",
        (
            "7:61 E101 'join' of stage 'a' must be all, any, majority, {first: 2}, {quorum: 2}, "
            '{majority: "{{ answer.x }}"} or {call: "module:attribute"}, not the number 5'
        ),
    ]


def test_a_kind_that_cannot_be_loaded_is_told_where_it_is_used() -> None:
    class Broken(dict[str, object]):
        def __getitem__(self, key: str) -> object:
            raise ImportError("no module named 'extra'")

    with pytest.raises(ConfigError) as caught:
        load_text("version: 1\nstages: [{agent: a}]", words=Broken(WORDS), models=Models())  # type: ignore[arg-type]
    assert [p.message for p in caught.value.problems] == ["loading the kind 'agent' failed: no module named 'extra'"]
