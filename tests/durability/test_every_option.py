"""Every option that can stand in a pipeline file, given another legal value: exactly that is noticed, and told for what
it is. An option without a row here fails, and so does one of which nobody has said what it decides."""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from importlib import import_module
from typing import NamedTuple

import pytest

import pipeline.calls
import pipeline.core
import stages
from pipeline import Pipeline
from pipeline.cli.definition import Changes, read_text
from pipeline.config.registry import InstalledModels, InstalledWords
from pipeline.core.leaf import LeafStage
from pipeline.core.stage import Stage
from pipeline.durability.fingerprint import fingerprint
from pipeline.durability.fingerprint.changes import differences
from pipeline.durability.fingerprint.effects import EFFECTS, Effect, unclassed

HERE = "tests.durability.functions"
SHOUT, WHISPER = f"{HERE}:shout", f"{HERE}:whisper"
BODY: list[object] = [{"map": "inner", "value": "{{ prompt }}"}]
OTHER: list[object] = [{"map": "inner", "value": "{{ prompt | upper }}"}]
BRANCHES = {"a": [{"map": "left", "value": "{{ prompt }}"}], "b": [{"map": "right", "value": "{{ prompt }}"}]}


class Row(NamedTuple):
    """`option` with one value and then with another, and what is told of it: keys, in the stage `s` if they begin with
    a dot."""

    option: str
    before: object  #: MISSING: it is not given
    after: object
    told: str | set[str]
    effect: Effect
    beside: Mapping[str, object] = {}  #: options that it needs


class Missing:
    def __repr__(self) -> str:
        return "missing"


MISSING = Missing()
R: Effect = "result"
O: Effect = "operational"  # noqa: E741


def row(option: str, before: object, after: object, effect: Effect, told: str | set[str] = "", **beside: object) -> Row:
    return Row(option, before, after, told or f".{option}", effect, beside)


ON_ERROR = row("on_error", MISSING, "skip", R)
JOINED = (
    row("join", "all", {"quorum": 1}, R),
    row("timeout", MISSING, "5s", R),
    row("on_timeout", "fail", "partial", R, timeout="5s"),
    ON_ERROR,
)
PARAMETERS = (
    row("temperature", 0, 0.5, R),
    row("max_output_tokens", 100, "1k", R),
    row("stop", ["a"], ["a", "b"], R),
    row("seed", 1, 2, R),
    row("reasoning", "low", "high", R),
    row("extra_body", {"top_k": 3}, {"top_k": 4}, R, ".extra_body.top_k"),
)

WORDS: Mapping[str, tuple[Mapping[str, object], tuple[Row, ...]]] = {
    "agent": (
        {"model": "m"},
        (
            row("model", "m", "sim/echo", R, ".model.name"),
            row("prompt", "Hi {{ prompt }}", "Hello {{ prompt }}", R),
            row("system", "Be brief.", "Be long.", R),
            row("output", {"score": "number"}, {"rating": "number"}, R),
            row("output_key", MISSING, "draft", R),
            row("conversation", False, True, R),
            row(
                "tools",
                [f"{HERE}:population"],
                [f"{HERE}:population", f"{HERE}:area"],
                R,
                {".tools", ".tools.area.kind", ".tools.area.description", ".tools.area.arguments"}
                | {".tools.area.function", ".tools.area.function.source"},
            ),
            row("max_hops", MISSING, 3, R, tools=[f"{HERE}:population"]),
            row("stream", MISSING, True, O),
            row("on_truncated", MISSING, "fail", R),
            row("on_refused", "accept", "fail", R),
            row("concurrency", MISSING, 32, O),
            ON_ERROR,
            *PARAMETERS,
        ),
    ),
    "map": (
        {},
        (
            row("call", SHOUT, WHISPER, R, {".function", ".function.source"}),
            row("value", "{{ prompt }}", "{{ prompt | upper }}", R, ".function"),
            row("concurrency", 1, 2, O, call=SHOUT, blocking=True),
            row("blocking", False, True, O, call=SHOUT),
            row("cpu", False, True, O, call=SHOUT),
            row("timeout", "1s", "2s", O, call=SHOUT, blocking=True),
            row("pure", True, False, R, call=SHOUT),
            row("on_error", "fail", "skip", R, call=SHOUT),
        ),
    ),
    "filter": (
        {},
        (
            row("when", "{{ prompt }}", {"call": f"{HERE}:is_long"}, R, {".function", ".function.source"}),
            row("concurrency", 1, 2, O, when={"call": f"{HERE}:is_long"}, blocking=True),
            row("blocking", False, True, O, when={"call": f"{HERE}:is_long"}),
            row("cpu", False, True, O, when={"call": f"{HERE}:is_long"}),
            row("timeout", "1s", "2s", O, when={"call": f"{HERE}:is_long"}, blocking=True),
            row("pure", True, False, R, when={"call": f"{HERE}:is_long"}),
            row("on_error", "fail", "skip", R, when="{{ prompt }}"),
        ),
    ),
    "flat_map": (
        {"value": "{{ [prompt] }}"},
        (
            row("value", "{{ [prompt] }}", "{{ [prompt, prompt] }}", R, ".function"),
            row("max_children", MISSING, 2000, O),
        ),
    ),
    "parallel": (
        {"branches": BRANCHES},
        (
            row("branches", BRANCHES, {"b": BRANCHES["b"], "a": BRANCHES["a"]}, R),
            row(
                "reducers",
                {"note": "list"},
                {"note": "concat"},
                R,
                ".reducers.note",
                branches={
                    label: [{"agent": label, "model": "m", "prompt": "x", "output_key": "note"}] for label in ("a", "b")
                },
            ),
            *JOINED,
        ),
    ),
    "route": (
        {"by": "{{ input.kind }}", "cases": BRANCHES},
        (
            row("by", "{{ input.kind }}", "{{ input.sort }}", R),
            row("cases", BRANCHES, {"b": BRANCHES["b"], "a": BRANCHES["a"]}, R),
            row("default", BODY, OTHER, R, "stages.inner.function"),
            row("on_error", "fail", "default", R, default=BODY),
        ),
    ),
    "scatter": (
        {"split": "{{ [prompt] }}", "each": BODY},
        (
            row("split", "{{ [prompt] }}", "{{ [prompt, prompt] }}", R),
            row("each", BODY, OTHER, R, "stages.inner.function"),
            row("gather", MISSING, [{"map": "last", "value": "{{ parts }}"}], R, {".gather", "stages.last.kind"}),
            row("max_children", MISSING, 100, R),
            row("max_open", MISSING, 10, O),
            row("on_excess", "fail", "truncate", R),
            *JOINED,
        ),
    ),
    "loop": (
        {"body": BODY, "until": "{{ inner }}", "max_rounds": 3},
        (
            row("body", BODY, OTHER, R, "stages.inner.function"),
            row("until", "{{ inner }}", "{{ not inner }}", R),
            row("max_rounds", 3, 4, R),
            row("max_cost", MISSING, "1usd", R),
            row("on_exhausted", "last", "fail", R),
            ON_ERROR,
        ),
    ),
    "batch": (
        {"size": 5},
        (
            row("size", 5, 6, R),
            row("within", "1s", "2s", O),
            row("weight", MISSING, "{{ prompt | length }}", R),
            row("key", "{{ input.a }}", "{{ input.b }}", R),
            row("body", BODY, OTHER, R, "stages.inner.function")._replace(
                before=[{"map": "inner", "value": "{{ parts }}"}], after=[{"map": "inner", "value": "{{ parts[:] }}"}]
            ),
            row("on_error", "fail", "skip", R, body=[{"map": "inner", "value": "{{ parts }}"}]),
        ),
    ),
    "partition_by": (
        {"key": "{{ input.user }}", "body": BODY},
        (
            row("key", "{{ input.user }}", "{{ input.room }}", R),
            row("body", BODY, OTHER, R, "stages.inner.function"),
            ON_ERROR,
        ),
    ),
    "map_reduce": (
        {"split": "{{ [prompt] }}", "each": BODY, "reduce": "{{ total + [value] }}", "initial": []},
        (
            row("split", "{{ [prompt] }}", "{{ [prompt, prompt] }}", R),
            row("each", BODY, OTHER, R, "stages.inner.function"),
            row("reduce", "{{ total + [value] }}", {"call": f"{HERE}:add"}, R, {".reduce", ".reduce.source"}),
            row("initial", [], [1], R),
            row("max_open", MISSING, 10, O),
            row("max_children", MISSING, 10, R),
            ON_ERROR,
        ),
    ),
    "vote": (
        {"branches": BRANCHES},
        (
            row("branches", BRANCHES, {"b": BRANCHES["b"], "a": BRANCHES["a"]}, R),
            row("body", BODY, OTHER, R, "stages.inner.function", branches=MISSING, samples=3),
            row("samples", 3, 5, R, branches=MISSING, body=BODY),
            row("key", "{{ answer }}", "{{ answer | upper }}", R),
            row("needed", "majority", "plurality", R),
            row("on_tie", "fail", "first", R, needed="plurality"),
            row("timeout", "5s", "6s", R),
            row("on_timeout", "fail", "partial", R, timeout="5s"),
            ON_ERROR,
        ),
    ),
    "tap": (
        {"call": SHOUT},
        (
            row("call", SHOUT, WHISPER, O, {".function", ".function.source"}),
            row("buffer", MISSING, 10, O),
            row("on_full", "drop_newest", "drop_oldest", O),
            row("blocking", False, True, O),
        ),
    ),
}

RATES = tuple(
    row(f"{kind}_per_minute", 500, "1k", O)
    for kind in ("requests", "tokens", "input_tokens", "output_tokens")
)  # fmt: skip
CALLING = (
    *RATES,
    row("max_concurrency", MISSING, 8, O),
    row("timeout", "30s", "none", O),
    row("attempts", 4, 5, O),
    row("hedge", MISSING, "p95", O),
    row("fallback", "sim/echo", "sim/other", R, {".fallback", ".fallback.1.name"}),
    row("cache", False, True, O),
    row("price", {"input": 1, "output": 2}, {"input": 1, "output": 3}, O, ".price.output"),
)
MODELS: Mapping[str, tuple[Row, ...]] = {
    "openai/gpt-5.5": (
        row("base_url", "https://api.openai.com/v1", "https://api.openai.com/v2", R),
        row("api_key_env", "ONE_KEY", "OTHER_KEY", O),
        row("organization", MISSING, "org-1", O),
        row("headers", {"x-route": "east"}, {"x-route": "west"}, R, ".headers.x-route"),
        row("api", "chat", "responses", R),
        row("stream_usage", True, False, O),
        row("finish_optional", False, True, R),
        row("token_field", "max_tokens", "max_completion_tokens", R),
        row("schema_mode", "json_schema", "json_object", R),
        *CALLING,
        *PARAMETERS,
    ),
    "sim/default": (
        row("latency", "1s", "uniform:1s..2s", O),
        row("tokens", 100, 200, R),
        row("errors", {"429": "3%"}, {"429": "4%"}, R, ".errors.429"),
        row("fail_when", MISSING, "bad", R),
        row("hang_when", MISSING, "slow", R),
        row("limits", MISSING, {"requests_per_minute": 500}, O),
        *CALLING,
        *PARAMETERS,
    ),
}
PIPELINE = (
    row("max_in_flight", 64, 128, O),
    row("ordered", False, True, R),
    row("buffer_size", MISSING, 0, O),
    row("on_error", "dead_letter", "skip", R),
    row("max_failures", 5, "5%", O),
    row("item_timeout", "30m", "none", O),
    row("watchdog", MISSING, "1s", O),
    row("stall_timeout", MISSING, "1m", O),
    row("budget", "5usd", "6usd", O),
    row("debug", False, True, O),
)


def built(*stages: object, model: object = None, **options: object) -> Pipeline:
    document = {
        "version": 1,
        "models": {"m": model or {"use": "sim/default"}},
        "pipeline": options,
        "stages": stages or [{"map": "s", "value": "{{ prompt }}"}],
    }
    return read_text(json.dumps(document), "p.json", Changes((), {}, (HERE,)))


def given(**options: object) -> dict[str, object]:
    return {name: value for name, value in options.items() if not isinstance(value, Missing)}


def told(before: Pipeline, after: Pipeline) -> set[tuple[str, Effect]]:
    return {(change.key, change.effect) for change in differences(fingerprint(before), fingerprint(after))}


def expected(row: Row, owner: str) -> set[tuple[str, Effect]]:
    keys = {row.told} if isinstance(row.told, str) else row.told
    return {(owner + key if key.startswith(".") else key, row.effect) for key in keys}


@pytest.mark.parametrize(
    ("kind", "base", "row"),
    [pytest.param(kind, base, row, id=f"{kind}-{row.option}") for kind, (base, rows) in WORDS.items() for row in rows],
)
def test_another_value_of_an_option_of_a_stage_is_noticed_and_nothing_else(
    kind: str, base: Mapping[str, object], row: Row
) -> None:
    before, after = (
        built({kind: "s", **given(**{**base, **row.beside, row.option: value})}) for value in (row.before, row.after)
    )
    assert told(before, after) == expected(row, "stages.s")
    assert told(before, before) == set()


@pytest.mark.parametrize(
    ("use", "row"),
    [pytest.param(use, each, id=f"{use}-{each.option}") for use, rows in MODELS.items() for each in rows],
)
def test_another_value_of_an_option_of_a_model_is_noticed_and_nothing_else(use: str, row: Row) -> None:
    asks = {"agent": "s", "model": "m", "prompt": "x"}
    before, after = (
        built(asks, model={"use": use, **given(**{**row.beside, row.option: value})})
        for value in (row.before, row.after)
    )
    assert told(before, after) == expected(row, "stages.s.model")


@pytest.mark.parametrize("row", PIPELINE, ids=[each.option for each in PIPELINE])
def test_another_value_of_an_option_of_the_pipeline_is_noticed_and_nothing_else(row: Row) -> None:
    before, after = (built(**given(**{row.option: value})) for value in (row.before, row.after))
    assert told(before, after) == expected(row, "pipeline")


def test_there_is_a_row_for_every_option_of_every_word_of_every_model_and_of_the_pipeline() -> None:
    words = InstalledWords()
    assert {kind: {each.option for each in rows} for kind, (_, rows) in WORDS.items()} == {
        kind: set(words[kind].fields) for kind in words
    }
    for use, rows in MODELS.items():
        options = InstalledModels().options(use)
        assert {each.option for each in rows} == {name for name, known in options.items() if not known.secret}
    assert {each.option for each in PIPELINE} == {each.name for each in fields(Pipeline)} - {"stage", "variables"}


# -- classes ----------------------------------------------------------------------------------------------------------

#: stages that other stages make of themselves; no definition holds them
MADE = {
    "AgentLabelStage", "ChildrenStage", "Composite", "FusedStage", "GatherStage", "LabelStage", "Passing",
    "SwitchStage", "UntilStage",
}  # fmt: skip


def dataclasses() -> Iterator[type]:
    for package in (stages, pipeline.core, pipeline.calls):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.startswith(("stages.sources", "stages.sinks")):  # no pipeline holds them
                continue
            for each in vars(import_module(found.name)).values():
                if isinstance(each, type) and is_dataclass(each) and each.__module__ == found.name:
                    yield each


def definitions() -> Iterator[type]:
    """What a pipeline is made of: stages, agents, models and tools."""
    for kind in dataclasses():
        is_stage = issubclass(kind, Stage) and kind.__name__ not in MADE
        is_agent = kind.__module__.startswith("stages") and hasattr(kind, "process")
        is_model = any(base.__name__ == "Calling" for base in kind.__mro__)
        if is_stage or is_agent or is_model or kind.__name__ in EFFECTS:
            yield kind


def test_of_every_option_it_is_said_what_it_decides() -> None:
    found = {kind.__name__: unclassed(kind) for kind in definitions()}
    assert {name: options for name, options in found.items() if options} == {}
    assert set(EFFECTS) <= set(found)


def test_nothing_is_said_of_options_that_there_are_not() -> None:
    known = {kind.__name__: {each.name for each in fields(kind)} for kind in definitions()}
    assert {name: extra for name, row in EFFECTS.items() if (extra := set(row) - known[name])} == {}


@dataclass(frozen=True)
class NewStage(LeafStage):
    depth: int = 1
    retries: int = field(default=3, metadata={"operational": True})
    width: int = field(default=3, metadata={"operational": False})

    async def process(self, item: object) -> object:
        return item


def test_an_option_of_which_nobody_has_said_what_it_decides_is_found_and_counts_for_the_result() -> None:
    assert unclassed(NewStage) == ("depth",)
    one, other = Pipeline(NewStage("s")), Pipeline(NewStage("s", depth=2, retries=4, width=5, concurrency=6))
    assert told(one, other) == {
        ("stages.s.depth", "result"),
        ("stages.s.width", "result"),
        ("stages.s.retries", "operational"),
        ("stages.s.concurrency", "operational"),
    }
