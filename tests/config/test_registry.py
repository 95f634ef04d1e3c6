"""Stage kinds and model providers come from entry points, one by one, when they are used."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.config.description import load_text
from pipeline.config.problems import ConfigError
from pipeline.config.registry import InstalledModels, InstalledWords

MODULE = """
from pipeline.core.words import Field, Word

class Provider:
    def __init__(self, name):
        self.name = name
    def options(self, use):
        if use.endswith("/none"):
            raise ValueError("has no such model")
        return {"size": Field("count")}
    def resolve(self, use, **values):
        if values.get("size") == 0:
            raise ValueError("the size must be at least 1")
        return (self.name, use, values)

OWN = Provider("own")
WORD = Word("shout", {"model": Field("model", required=True), "words": Field("texts")}, lambda name, **v: (name, v))
"""

POINTS = """
[penstock.stages]
test_shout = penstock_test_plugin:WORD
test_broken = penstock_test_plugin_missing:WORD
[penstock.models]
own = penstock_test_plugin:OWN
"""


@pytest.fixture(autouse=True)
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "penstock_test_plugin-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: penstock-test-plugin\nVersion: 1\n")
    (info / "entry_points.txt").write_text(POINTS)
    (tmp_path / "penstock_test_plugin.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "penstock_test_plugin", raising=False)


def told(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_text(f"version: 1\n{text}")
    return [f"{problem.code} {problem.message}" for problem in caught.value.problems]


def test_a_kind_of_another_package_is_a_kind_like_any_other() -> None:
    description = load_text("version: 1\nstages: [{test_shout: a, model: own/x, words: hey}]")
    assert description.stages == ("a", {"model": ("own", "own/x", {}), "words": ("hey",)})


def test_a_kind_is_imported_when_it_is_used() -> None:
    words = InstalledWords()
    assert "test_shout" in words
    assert "test_shout" in list(words)
    assert len(words) == len(list(words))
    assert "penstock_test_plugin" not in sys.modules
    assert words["test_shout"].kind == "shout"


def test_a_provider_of_its_own_is_asked_for_its_models() -> None:
    models = InstalledModels()
    assert models.options("own/x").keys() == {"size"}
    assert models.resolve("own/x", size=1) == ("own", "own/x", {"size": 1})


def test_without_presets_an_unknown_provider_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.config.registry.entry_points", lambda group: [])
    assert told("models: {m: {use: other/x}}\nstages: [{test_shout: a}]") == [
        "E301 model 'm': no provider of models is installed (entry points of the group penstock.models)",
        "E103 there is no kind of stage 'test_shout'",
    ]


def test_what_cannot_be_imported_is_told_where_it_is_used() -> None:
    assert told("stages: [{test_broken: a}]") == [
        "E311 loading the kind 'test_broken' failed: No module named 'penstock_test_plugin_missing'"
    ]


def test_what_a_provider_refuses_is_told_where_it_stands() -> None:
    stages = "stages: [{test_shout: a, model: own/none}, {test_shout: b, model: big}]"
    assert told(f"models: {{big: {{use: own/x, size: 0}}}}\n{stages}") == [
        "E302 model 'big': the size must be at least 1",
    ]
    assert told("models: {big: {use: own/none}}\nstages: [{test_shout: b}]") == ["E301 model 'big': has no such model"]
