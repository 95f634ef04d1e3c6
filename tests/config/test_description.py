"""The whole file: its sections, flags over it, the environment, and how its problems are shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.description import load
from pipeline.config.problems import EXPLANATIONS, ConfigError, redact
from pipeline.core.errors import DefinitionError, Problem
from pipeline.core.joins import quorum
from tests.config.fakes import HEAD, SIM, WORDS, Models, Stage, messages, read, refused

NO_BUDGET = "is not a budget: write 5usd, 2Mtok, 10kreq or 5usd,2Mtok"

FILE = """\
version: 1
models:
  fake: {use: sim/default, latency: 1s, seed: 7}
  default: {use: sim/other}
pipeline: {max_in_flight: 64, ordered: false, on_error: skip, max_failures: 5%, item_timeout: none, buffer_size: 0}
vars: {lang: French, n: 3}
stages:
  - agent: draft
    prompt: "{{ drfat }}"
    concurrency: 4
"""


def test_a_file_becomes_definitions() -> None:
    description = read(FILE, variables={"lang": "German"})
    assert description.name == "review.yaml"
    assert description.models == {"fake": ("sim/default", {"latency": 1.0, "seed": 7}), "default": ("sim/other", {})}
    assert description.options == {
        "max_in_flight": 64,
        "ordered": False,
        "on_error": "skip",
        "max_failures": 0.05,
        "item_timeout": None,
        "buffer_size": 0,
    }
    assert description.vars == {"lang": "German", "n": 3}
    assert isinstance(description.stages, Stage)
    assert description.stages.values["model"] == ("sim/other", {})


def test_a_stage_without_a_model_takes_the_only_one_or_the_default_one() -> None:
    assert read(f"{HEAD}stages: [{{agent: a}}]").stages == Stage("agent", "a", {"model": SIM})
    two = "version: 1\nmodels: {a: {use: sim/a}, b: {use: sim/b}}\nstages: [{agent: x}]"
    assert messages(two) == ["3:18 E104 stage 'x' needs 'model' (name one of a, b, or call one of them 'default')"]
    none = "version: 1\nstages: [{agent: x}]"
    assert messages(none) == ["2:18 E104 stage 'x' needs 'model' (write provider/model, or define one under 'models')"]


def test_a_mistake_that_the_engine_finds_is_shown_in_the_file() -> None:
    description = read(FILE)
    error = description.explain(
        DefinitionError(
            Problem("draft", "prompt", "uses 'drfat'; available here: input", "did you mean 'draft'?"),
            Problem("draft", "concurrency", "is too much"),
            Problem("draft", "timeout", "is too long"),
            Problem(None, "max_in_flight", "is too small", "at least 65"),
            Problem(None, None, "is odd"),
        )
    )
    assert (
        str(error)
        == """\
review.yaml  E110 the pipeline: is odd
review.yaml:5:27  E110 'max_in_flight' of the pipeline: is too small
  |
5 | pipeline: {max_in_flight: 64, ordered: false, on_error: skip, max_failures: 5%, item_timeout: none, buffer_size: 0}
  |                           ^^ at least 65
review.yaml:8:12  E110 'timeout' of stage 'draft': is too long
  |
8 |   - agent: draft
  |            ^^^^^
review.yaml:9:13  E210 'prompt' of stage 'draft' uses 'drfat'; available here: input
  |
9 |     prompt: "{{ drfat }}"
  |             ^^^^^^^^^^^^^ did you mean 'draft'?
review.yaml:10:18  E110 'concurrency' of stage 'draft': is too much
   |
10 |     concurrency: 4
   |                  ^
5 errors"""
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[]", ["1:1 E101 the file must be a mapping, not a list (version: 1)"]),
        ("hello", ["1:1 E101 the file must be a mapping, not the text 'hello' (version: 1)"]),
        ("stages: [{agent: a, model: sim/x}]", ["1:1 E104 the file needs 'version' (version: 1)"]),
        ("version: 1", ["0:0 E104 the file needs 'stages' (stages: followed by a list)"]),
        ("version: 2\nstages: [{agent: a, model: sim/x}]", ["1:10 E101 'version' must be 1, not the number 2"]),
        ("version: true\nstages: [{agent: a, model: sim/x}]", ["1:10 E101 'version' must be 1, not the boolean true"]),
        ("version: 1\nstages: []", ["2:9 E101 'stages' needs at least one stage"]),
        ("version: 1\nstages: 5", ["2:9 E101 'stages' must be a list of stages, not the number 5"]),
        (
            "version: 1\nstage: []\nstages: [{agent: a, model: sim/x}]",
            ["2:1 E102 unknown key 'stage' in the file (did you mean 'stages'?)"],
        ),
        (f"{HEAD}stages: [{{agent: a}}]\nvars: [a]", ["4:7 E101 'vars' must be a mapping, not a list"]),
        (f"{HEAD}stages: [{{agent: a}}]\npipeline: 5", ["4:11 E101 'pipeline' must be a mapping, not the number 5"]),
        (
            f"{HEAD}stages: [{{agent: a}}]\npipeline: {{budget: $5, orderd: true}}",
            [
                f"4:20 E101 'budget' of the pipeline: '$5' {NO_BUDGET} (did you mean 5usd?)",
                "4:24 E102 unknown key 'orderd' in the pipeline (did you mean 'ordered'?)",
            ],
        ),
        (
            "version: 1\nmodels: [a]\nstages: [{agent: a, model: sim/x}]",
            ["2:9 E101 'models' must be a mapping from name to model, not a list"],
        ),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_place(text: str, expected: list[str]) -> None:
    assert messages(text) == expected


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("sim/x", "2:16 E101 model 'fast' must be a mapping, not the text 'sim/x' (fast: {use: provider/model})"),
        ("{latency: 1s}", "2:10 E104 model 'fast' needs 'use' (use: provider/model)"),
        ("{use: 5}", "2:22 E101 'use' of model 'fast' must be provider/model, not the number 5"),
        ("{use: smi/x}", "2:22 E301 model 'fast': unknown provider in 'smi/x' (did you mean 'sim'?)"),
        ("{use: sim/x, latncy: 1s}", "2:29 E102 unknown key 'latncy' in model 'fast' (did you mean 'latency'?)"),
        ("{use: sim/}", "2:22 E301 'use' of model 'fast': names no model"),
        (
            "{use: sim/x, headers: {Authorization: Bearer abcdefgh}}",
            (
                "2:29 E303 'headers' of model 'fast' would put a key into a file that is shared "
                "(use api_key_env with the name of an environment variable)"
            ),
        ),
        ("{use: sim/x, seed: 13}", "2:35 E302 'seed' of model 'fast': is unlucky"),
        (
            "{use: sim/x, api_key: hush}",
            (
                "2:29 E303 'api_key' of model 'fast' would put a key into a file that is shared "
                "(use api_key_env with the name of an environment variable)"
            ),
        ),
        (
            "{use: sim/x, token: hush}",
            (
                "2:29 E303 'token' of model 'fast' would put a key into a file that is shared "
                "(use api_key_env with the name of an environment variable)"
            ),
        ),
    ],
)
def test_a_mistake_in_a_model_is_told_once_although_stages_use_it(model: str, expected: str) -> None:
    text = f"version: 1\nmodels: {{fast: {model}}}\nstages: [{{agent: a}}, {{agent: b, model: fast}}]"
    assert messages(text) == [expected]


def test_problems_are_shown_as_a_compiler_does() -> None:
    text = f"{HEAD}stages:\n  - agent: draft\n    concurency: 8\n"
    assert (
        refused(text)
        == """\
review.yaml:5:5  E102 unknown key 'concurency' in stage 'draft'
  |
5 |     concurency: 8
  |     ^^^^^^^^^^ did you mean 'concurrency'?
1 error"""
    )


def test_a_key_in_a_file_is_never_repeated() -> None:
    text = "version: 1\nmodels: {fast: {use: sim/x, api_key: 'sk-hush-hush', latncy: 1s}}\nstages: [{agent: a}]"
    shown = refused(text, overrides=["models.fast.api_key=sk-hush-hush"])
    assert "hush" not in shown
    assert "api_key: **************, latncy: 1s" in shown
    assert redact("Bearer abc.def x") == "Bearer ******* x"
    assert redact("api_key_env: OPENAI_API_KEY") == "api_key_env: OPENAI_API_KEY"


def test_a_line_is_shown_without_what_a_terminal_would_obey() -> None:
    shown = refused(f"{HEAD}stages: [{{agent: a, zz: 1}}] # \u202e\t!", name="a\x1bb.yaml")
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert shown.startswith("a\ufffdb.yaml:3:21  E102")


def test_a_long_line_is_shown_around_the_place() -> None:
    shown = refused(f"{HEAD}stages: [{{agent: a, system: {'x' * 300}, zz: 1}}]")
    _, _, line, caret, _ = shown.split("\n")
    assert len(line) < 170
    assert line[caret.index("^") :].startswith("zz: 1")


def test_set_changes_the_document_before_it_is_checked() -> None:
    description = read(
        FILE,
        overrides=[
            "stages.draft.concurrency=8",
            "stages.draft.timeout=1m",
            "stages.draft.prompt={{ prompt }}: a=b",
            "stages.draft.system=42",
            "stages.draft.stop='a",
            "models.default.latency=2s",
            "pipeline.ordered=true",
            "vars.lang='7'",
        ],
    )
    assert isinstance(description.stages, Stage)
    values = description.stages.values
    assert values["concurrency"] == 8
    assert values["timeout"] == 60.0
    assert str(values["prompt"]) == "Template(source='{{ prompt }}: a=b')"
    assert values["system"] == "42"
    assert values["stop"] == ("'a",)
    assert values["model"] == ("sim/other", {"latency": 2.0})
    assert description.options["ordered"] is True
    assert description.vars == {"lang": "7", "n": 3}


def test_set_reaches_stages_in_bodies_and_mappings_in_stages_and_makes_a_missing_section() -> None:
    text = f"{HEAD}stages: [{{scatter: s, split: '{{{{ x }}}}', join: {{quorum: 1}}, each: [{{agent: a}}]}}]"
    description = read(text, overrides=["stages.a.concurrency=8", "stages.s.join.quorum=2", "pipeline.ordered=true"])
    assert isinstance(description.stages, Stage)
    assert description.stages.values["each"] == Stage("agent", "a", {"model": SIM, "concurrency": 8})
    assert description.stages.values["join"] == quorum(2)
    assert description.options == {"ordered": True}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("stages.drfat.concurrency=8", "E108 there is no stage 'drfat' (did you mean 'draft'?)"),
        ("stages.draft.concurency=8", "E102 unknown key 'concurency' in stage 'draft' (did you mean 'concurrency'?)"),
        (
            "stages.draft.concurrency=few",
            "E101 'concurrency' of stage 'draft': 'few' is not a count: write a whole number like 16, 25.6k or 1M",
        ),
        ("models.fkae.latency=2s", "E108 there is no 'models.fkae' to set (did you mean 'fake'?)"),
        ("models.fake.latncy=2s", "E102 unknown key 'latncy' in model 'fake' (did you mean 'latency'?)"),
        ("model.fake.latency=2s", "E108 there is no section 'model' to set (did you mean 'models'?)"),
        ("pipeline.orderd=true", "E102 unknown key 'orderd' in the pipeline (did you mean 'ordered'?)"),
        ("stages.draft.prompt.x=1", "E108 'stages.draft.prompt' is not a mapping, so nothing in it can be set"),
        ("stages.draft=1", "E108 say what to set in 'stages.draft' (for example stages.draft.option=1)"),
        ("ordered", "E108 this is not of the form a.b=c (for example stages.draft.concurrency=8)"),
        ("a..b=1", "E108 this is not of the form a.b=c (for example stages.draft.concurrency=8)"),
    ],
)
def test_a_mistake_in_a_flag_is_told_with_the_flag(override: str, expected: str) -> None:
    assert messages(FILE.replace("drfat", "prompt"), overrides=[override]) == [f"--set {override} {expected}"]


def test_a_mistake_in_a_flag_is_shown_in_one_line() -> None:
    assert refused(FILE, overrides=["pipeline.orderd=true"]) == (
        "--set pipeline.orderd=true  E102 unknown key 'orderd' in the pipeline; did you mean 'ordered'?\n1 error"
    )


def env_file(latency: str = "1s", prompt: str = "x") -> str:
    return (
        f"version: 1\nmodels: {{fast: {{use: sim/x, base_url: '{latency}'}}}}\n"
        f"pipeline: {{ordered: '${{ORDERED:-true}}'}}\nstages: [{{agent: a, prompt: '{prompt}'}}]"
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("http://${HOST}:${PORT}", "http://box:80"),
        ("${PORT}", "80"),
        ("${NONE:-dflt}", "dflt"),
        ("${EMPTY:-dflt}", "dflt"),
        ("${EMPTY}", ""),
        ("${HOST:-dflt}", "box"),
        ("${HOST:?needed}", "box"),
        ("$${HOST} $HOST", "${HOST} $HOST"),
        ("${NESTED}", "${HOST}"),
    ],
)
def test_the_environment_is_put_into_settings_once(text: str, value: str) -> None:
    environment = {"HOST": "box", "PORT": "80", "EMPTY": "", "NESTED": "${HOST}"}
    description = read(env_file(text), environment=environment)
    assert description.models == {"fast": ("sim/x", {"base_url": value})}
    assert description.options == {"ordered": True}


def test_a_key_may_come_from_the_environment() -> None:
    text = env_file().replace("base_url: '1s'", "headers: {x: 'Bearer ${KEY}'}")
    description = read(text, environment={"KEY": "hush-hush-hush"})
    assert description.models == {"fast": ("sim/x", {"headers": {"x": "Bearer hush-hush-hush"}})}


def test_the_environment_is_not_put_into_prompts() -> None:
    stage = read(env_file(prompt="${HOME} $5"), environment={"HOME": "/root"}).stages
    assert isinstance(stage, Stage)
    assert str(stage.values["prompt"]) == "Template(source='${HOME} $5')"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${NONE}", "E109 the environment variable NONE is not set (set it, or write ${NONE:-default})"),
        (
            "${NONE:?ask Ada}",
            "E109 the environment variable NONE is not set: ask Ada (set it, or write ${NONE:-default})",
        ),
        (
            "${1x}",
            "E109 '${' does not start a variable here (write ${NAME}, ${NAME:-default}, or $${ for a plain ${)",
        ),
    ],
)
def test_a_variable_that_is_missing_or_malformed_is_told(text: str, expected: str) -> None:
    assert messages(env_file(text)) == [f"2:39 {expected}"]


def test_a_value_from_the_environment_is_not_repeated() -> None:
    text = env_file().replace("base_url: '1s'", "seed: '${SECRET}'")
    shown = refused(text, environment={"SECRET": "hush"})
    assert "hush" not in shown
    assert "'seed' of model 'fast': the value from the environment is not a count" in shown


def test_a_file_is_loaded_from_its_path(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(FILE)
    assert load(path, words=WORDS, models=Models()).text == FILE
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "b.yaml", words=WORDS, models=Models())
    assert str(caught.value) == f"{tmp_path / 'b.yaml'}  E100 cannot be read: No such file or directory\n1 error"


def test_every_code_is_explained() -> None:
    source = "".join(path.read_text() for path in Path("pipeline/config").glob("*.py"))
    used = set(re.findall(r'"(E\d{3})"', source))
    assert used == set(EXPLANATIONS)


LINES = st.lists(
    st.sampled_from(
        [
            "version: 1",
            "models:",
            "  fast: {use: sim/x, latency: 1s}",
            "  slow: {use: ${X}}",
            "pipeline: {ordered: true}",
            "stages:",
            "  - agent: a",
            "    prompt: '{{ x'",
            "    model: fast",
            "  - {scatter: s, split: '{{ x }}', each: [{agent: b}]}",
            "  - {route: r, by: {agent: c}, cases: {x: [{agent: d}]}}",
            "  - {map: m, call: 'a:b'}",
            "    join: {first: 2}",
            "- ",
            "  - []",
            "vars: {a: 1}",
        ]
    ),
    max_size=12,
)
TEXTS = LINES.map("\n".join) | st.text(max_size=80)


@given(TEXTS, st.lists(st.text(max_size=20) | st.sampled_from(["stages.a.x=1", "models.fast.use=5"]), max_size=2))
def test_any_text_is_a_description_or_located_problems(text: str, overrides: list[str]) -> None:
    for name in ("a.yaml", "a.json", "a.toml"):
        try:
            shown = repr(read(text, name=name, overrides=overrides))
        except ConfigError as error:
            shown = str(error) if error.problems else ""
        assert shown
