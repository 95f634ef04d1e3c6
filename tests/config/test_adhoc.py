"""A quick run is a file that nobody had to write."""

from __future__ import annotations

import pytest

from pipeline.config.adhoc import ad_hoc, short_schema
from pipeline.core.templates import Template
from tests.config.fakes import Chain, Stage, read

ECHO = ("sim/echo", {})


def test_prompts_make_a_chain_of_agents() -> None:
    text = ad_hoc("sim/echo", ["draft=Write on {{ prompt }}", "judge=Score: {{ draft }}"], system="Be brief.")
    assert (
        text
        == """\
version: 1
models:
  default:
    use: sim/echo
stages:
  - agent: draft
    system: Be brief.
    prompt: Write on {{ prompt }}
  - agent: judge
    system: Be brief.
    prompt: 'Score: {{ draft }}'
"""
    )
    draft = {"model": ECHO, "system": "Be brief.", "prompt": Template("Write on {{ prompt }}")}
    judge = {"model": ECHO, "system": "Be brief.", "prompt": Template("Score: {{ draft }}")}
    assert read(text).stages == Chain((Stage("agent", "draft", draft), Stage("agent", "judge", judge)))


def test_a_prompt_without_a_name_is_the_answer() -> None:
    assert read(ad_hoc("sim/echo", ["1 + 1 = 2?\nYes"])).stages == Stage(
        "agent", "answer", {"model": ECHO, "prompt": Template("1 + 1 = 2?\nYes")}
    )
    assert read(ad_hoc("sim/echo")).stages == Stage("agent", "answer", {"model": ECHO})


def test_a_schema_is_the_output_of_the_last_agent() -> None:
    stages = read(ad_hoc("sim/echo", ["a=x", "b=y"], schema=short_schema("name, age int, score float"))).stages
    assert isinstance(stages, Chain)
    first, last = stages.stages
    assert isinstance(first, Stage)
    assert isinstance(last, Stage)
    assert "output" not in first.values
    assert last.values["output"] == {"name": "string", "age": "integer", "score": "number"}


def test_two_prompts_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError) as caught:
        ad_hoc("sim/echo", ["one", "two"])
    assert str(caught.value) == "two prompts are called 'answer': give each its name, -p NAME='…'"


@pytest.mark.parametrize("text", ["", "a b c", "a,a", "a,,b", "1a"])
def test_what_is_no_short_schema_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a field of a schema: write 'name, age int, score float'"):
        short_schema(text)
