"""Every mistake in one pass: what the engine finds is shown beside what the file has wrong, and no echo of it."""

from __future__ import annotations

import pytest

from pipeline.cli.definition import Changes, read_text
from pipeline.config.problems import ConfigError

HEAD = "version: 1\nmodels: {fake: {use: sim/echo}}\n"


def told(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_text(HEAD + text, "p.yaml", Changes())
    return [f"{p.mark.line}:{p.mark.column} {p.code} {p.message}" for p in caught.value.problems]


TYPO = "unknown key 'promt' in stage 'a'"


def test_a_template_is_checked_beside_a_stage_that_cannot_be_built() -> None:
    assert told('stages:\n  - {agent: a, promt: x}\n  - {agent: b, prompt: "{{ nope }} {{ a.x }}"}\n') == [
        f"4:16 E102 {TYPO}",
        "5:24 E210 'prompt' of stage 'b' uses 'nope'; available here: input, prompt, vars, a",
    ]


def test_a_stage_that_cannot_be_built_is_checked_as_far_as_it_was_read() -> None:
    stages = 'stages:\n  - {agent: a, promt: x, system: "{{ nope }}"}\n'
    assert told(stages) == [
        f"3:16 E102 {TYPO}".replace("3:", "4:"),
        "4:34 E210 'system' of stage 'a' uses 'nope'; available here: input, prompt, vars",
    ]
    scatter = (
        'stages:\n  - scatter: s\n    split: "{{ [1] }}"\n    max_childen: 5\n'
        '    each: [{map: m, value: "{{ part }}"}, {map: n, value: "{{ nope }}"}]\n'
    )
    assert [line.partition("; ")[0] for line in told(scatter)] == [
        "6:5 E102 unknown key 'max_childen' in stage 's'",
        "7:59 E210 'value' of stage 'n' uses 'nope'",
    ]


def test_a_composite_is_checked_whose_body_has_a_stage_that_cannot_be_built() -> None:
    stages = (
        "stages:\n  - parallel: p\n    join: {quorum: 5}\n"
        '    branches: {x: [{agent: a, promt: x}], y: [{agent: b, prompt: "{{ nope }}"}]}\n'
    )
    assert told(stages) == [
        "5:11 E110 'join' of stage 'p': quorum(5) cannot be reached with 2 members",
        f"6:31 E102 {TYPO}",
        "6:66 E210 'prompt' of stage 'b' uses 'nope'; available here: input, prompt, vars",
    ]
    by = "stages:\n  - route: r\n    by: {agent: a, promt: x}\n    cases: {x: [{map: m, value: '{{ nope }}'}]}\n"
    by += "  - {agent: z, prompt: '{{ r }} {{ r_label }}'}\n"
    assert [line.partition("; ")[0] for line in told(by)] == [
        f"5:20 E102 {TYPO}",
        "6:33 E210 'value' of stage 'm' uses 'nope'",
    ]


def test_the_pipeline_s_options_are_checked_beside_the_stages() -> None:
    text = "pipeline: {max_in_flight: 0, max_failures: 500%}\nstages: [{agent: a, promt: x}]\n"
    assert told(text) == [
        "3:27 E110 'max_in_flight' of the pipeline: must be a whole number of at least 1, got 0",
        "3:44 E101 'max_failures' of the pipeline: '500%' is not a share: write 3% (from 0% to 100%)",
        f"4:21 E102 {TYPO}",
    ]
    assert told("pipeline: {max_in_flight: 0}\n") == [
        "0:0 E104 the file needs 'stages'",
        "3:27 E110 'max_in_flight' of the pipeline: must be a whole number of at least 1, got 0",
    ]


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ("{agent: a, output_key: k, output: {x: strin}}", 1),
        ("{agnt: a, output_key: k}", 1),
        ("{agent: a, outputkey: k}", 1),
        ("{agent: a b}", 1),
        ("[agent, a]", 1),
        ("{name: x, agent: a, output_key: k}", 1),
        ("{agent: a, output_key: k}, {agent: a}", 1),
    ],
)
def test_a_mistake_has_no_echo_further_down(broken: str, expected: int) -> None:
    after = "  - {agent: z, prompt: '{{ a.x }} {{ k }}'}\n"
    if "output_key: k, " in broken or broken.startswith("{agent: a, outputkey"):
        after = "  - {agent: z, prompt: '{{ k.x }}'}\n"
    found = told(f"stages:\n  - {broken.replace('}, {', '}' + chr(10) + '  - {')}\n{after}")
    assert len(found) == expected, found


def test_variables_that_cannot_be_read_have_no_echo() -> None:
    assert told("vars: [a]\nstages: [{agent: z, prompt: '{{ vars.x }}'}]\n") == [
        "3:7 E101 'vars' must be a mapping, not a list"
    ]


# -- no echo of what a composite lacks -----------------------------------------------------------------------------

BRANCHES = "    branches: {x: [{agent: a, output_key: notes}], y: [{agent: b, output_key: notes}]}\n"
NOTES = "  - {agent: z, prompt: '{{ p }} {{ notes }}'}\n"


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        (
            "reducers: notes",
            (
                "5:15 E101 'reducers' of stage 'p' must be a mapping from output to "
                "list, concat, merge, sum, first, last "
                "or {call: \"module:attribute\"}, not the text 'notes'"
            ),
        ),
        (
            "reducers: {notes: lst}",
            (
                "5:23 E101 'notes' in 'reducers' of stage 'p' must be one of list, concat, merge, sum, first, last, "
                "not the text 'lst'"
            ),
        ),
        ("reducer: {notes: list}", "5:5 E102 unknown key 'reducer' in stage 'p'"),
    ],
)
def test_reducers_that_cannot_be_read_are_one_mistake(option: str, expected: str) -> None:
    assert told(f"stages:\n  - parallel: p\n    {option}\n{BRANCHES}{NOTES}") == [expected]


def test_reducers_that_are_missing_are_told_beside_another_mistake() -> None:
    assert told(f"stages:\n  - parallel: p\n    timeot: 3s\n{BRANCHES}") == [
        "5:5 E102 unknown key 'timeot' in stage 'p'",
        "6:79 E110 'output_key' of stage 'b': branches 'x' and 'y' of 'p' both write 'notes'",
    ]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("body: {agent: a}", ["5:11 E101 'body' of stage 'l' must be a list of stages, not a mapping"]),
        ("body: []", ["5:11 E101 'body' of stage 'l' needs at least one stage"]),
        ("stages: [{agent: a}]", ["4:11 E104 stage 'l' needs 'body'", "5:5 E102 unknown key 'stages' in stage 'l'"]),
    ],
)
def test_a_body_that_cannot_be_read_has_no_echo_in_what_looks_into_it(body: str, expected: list[str]) -> None:
    rest = "    until: '{{ a.good }}'\n    max_rounds: 2\n  - {agent: z, prompt: '{{ l }} {{ l_rounds }}'}\n"
    assert told(f"stages:\n  - loop: l\n    {body}\n{rest}") == expected


def test_a_body_that_can_be_read_is_looked_into() -> None:
    text = "stages:\n  - {loop: l, body: [{agent: a}], until: '{{ b }}', max_round: 2}\n"
    assert [line.partition(";")[0] for line in told(text)] == [
        "4:12 E104 stage 'l' needs 'max_rounds'",
        "4:42 E210 'until' of stage 'l' uses 'b'",
        "4:53 E102 unknown key 'max_round' in stage 'l'",
    ]


def test_what_is_given_is_not_what_an_unknown_key_means() -> None:
    with pytest.raises(ConfigError) as caught:
        read_text(HEAD + "stages: [{partition_by: p, by: '{{ prompt }}', body: [{agent: a}]}]\n", "p.yaml", Changes())
    assert [(p.message, p.hint) for p in caught.value.problems] == [
        ("stage 'p' needs 'key'", "an expression, or {call: …}"),
        ("unknown key 'by' in stage 'p'", "known here: body, key, on_error"),
    ]
    with pytest.raises(ConfigError) as caught:
        read_text(HEAD + "stages: [{partition_by: p, key: '{{ prompt }}', bdy: [{agent: a}]}]\n", "p.yaml", Changes())
    assert ("unknown key 'bdy' in stage 'p'", "did you mean 'body'?") in [
        (p.message, p.hint) for p in caught.value.problems
    ]
