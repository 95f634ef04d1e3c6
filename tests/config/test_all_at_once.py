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
