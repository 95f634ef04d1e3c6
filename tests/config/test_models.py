"""What is said of the options of a model that is not the one they were written for."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pipeline.config.description import load_text
from pipeline.config.problems import ConfigError
from pipeline.config.registry import InstalledModels
from stages import resolve

FILE = "version: 1\nmodels: {fake: {use: sim/echo, latency: 1s}}\nstages: [{agent: say}]\n"


def problems(text: str, *overrides: str) -> list[tuple[str, str, str | None]]:
    with pytest.raises(ConfigError) as caught:
        load_text(text, overrides=overrides, environment={}, models=InstalledModels())
    return [(each.code, each.message, each.hint) for each in caught.value.problems]


def test_options_of_the_provider_that_a_flag_replaced_are_exchanged_with_the_model() -> None:
    hint = "to exchange the whole model: --set models.fake=provider/model"
    assert problems(FILE, "models.fake.use=openai/gpt-5.5") == [("E102", "unknown key 'latency' in model 'fake'", hint)]


def test_the_known_options_of_a_model_do_not_name_the_key_that_would_be_refused() -> None:
    ((code, message, hint),) = problems(FILE.replace("sim/echo", "openai/gpt-5.5").replace("latency", "zzzzzz"))
    assert (code, message) == ("E102", "unknown key 'zzzzzz' in model 'fake'")
    assert hint is not None
    names = hint.removeprefix("known here: ").split(", ")
    assert ("api_key_env" in names, "api_key" in names) == (True, False)
    ((code, message, _),) = problems(FILE.replace("sim/echo, latency: 1s", "openai/gpt-5.5, api_key: hush"))
    assert (code, message) == ("E303", "'api_key' of model 'fake' would put a key into a file that is shared")


def loaded(text: str) -> Mapping[str, object]:
    return load_text(text, environment={}, models=InstalledModels()).models


TWO = """
version: 1
models:
  first: {use: sim/a, fallback: %s}
  second: {use: sim/b, seed: 3}
stages: [{agent: x, model: first}]
"""


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("second", (resolve("sim/b", seed=3),)),
        ("sim/c", (resolve("sim/c"),)),
        ("[sim/c, second]", (resolve("sim/c"), resolve("sim/b", seed=3))),
        ("[]", ()),
    ],
)
def test_a_model_falls_back_to_others_of_the_file_and_to_any_provider(written: str, meant: tuple[object, ...]) -> None:
    assert loaded(TWO % written) == {"first": resolve("sim/a", fallback=meant), "second": resolve("sim/b", seed=3)}


def test_a_chain_of_fallbacks_may_be_written_in_any_order() -> None:
    text = "version: 1\nmodels: {a: {use: sim/a, fallback: c}, b: {use: sim/b}, c: {use: sim/c, fallback: b}}\n"
    models = loaded(text + "stages: [{agent: x, model: a}]\n")
    assert list(models) == ["a", "b", "c"]
    assert models["a"] == resolve("sim/a", fallback=(resolve("sim/c", fallback=(resolve("sim/b"),)),))


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ("{a: {use: sim/a, fallback: a}}", "'fallback' of model 'a': the models fall back to each other (a -> a)"),
        (
            "{a: {use: sim/a, fallback: b}, b: {use: sim/b, fallback: [sim/x, a]}}",
            "'fallback' of model 'b': the models fall back to each other (a -> b -> a)",
        ),
        ("{a: {use: sim/a, fallback: zz}}", "'fallback' of model 'a': there is no model 'zz'"),
        ("{a: {use: sim/a, fallback: nobody/x}}", "'fallback' of model 'a': unknown provider 'nobody' in 'nobody/x'"),
        (
            "{a: {use: sim/a, fallback: 3}}",
            "'fallback' of model 'a' must be the name of a model, or provider/model, not the number 3",
        ),
        ("{a: {use: sim/a, fallback: b}, b: {use: sim/b, zz: 1}}", "unknown key 'zz' in model 'b'"),
        ("{b: {use: sim/b, zz: 1}, a: {use: sim/a, fallback: b}}", "unknown key 'zz' in model 'b'"),
        ("{a: {use: sim/a, hedge: p30}}", "'hedge' of model 'a': is 'p30'"),
        ("{a: {use: sim/a, cache: 3}}", "'cache' of model 'a': is 3"),
    ],
)
def test_what_is_wrong_with_a_fallback_is_said_once_and_in_its_place(models: str, said: str) -> None:
    found = problems(f"version: 1\nmodels: {models}\nstages: [{{agent: x, model: a}}]\n")
    assert [message for _, message, _ in found] == [said]


def test_what_is_kept_and_what_is_raced_can_be_written_in_a_file() -> None:
    text = "version: 1\nmodels: {a: {use: sim/a, cache: true, hedge: p95}}\nstages: [{agent: x}]\n"
    assert loaded(text) == {"a": resolve("sim/a", cache=True, hedge="p95")}
    assert loaded(text.replace("true", "calls.sqlite")) == {"a": resolve("sim/a", cache="calls.sqlite", hedge="p95")}


@pytest.mark.parametrize("word", ["off", "no", "maybe", "..", "''"])
def test_a_bare_word_is_no_place_of_a_cache(word: str) -> None:
    text = f"version: 1\nmodels: {{a: {{use: sim/a, cache: {word}}}}}\nstages: [{{agent: x, model: a}}]\n"
    with pytest.raises(ConfigError, match="give true or false, or the path of a file"):
        load_text(text)


def test_an_option_that_is_a_mapping_can_be_set_without_being_there() -> None:
    text = "version: 1\nmodels: {a: {use: sim/a}}\nstages: [{agent: x, model: a}]\n"
    described = load_text(text, overrides=["models.a.price.input=1", "models.a.price.output=2"])
    assert described.models == {"a": resolve("sim/a", price={"input": 1, "output": 2})}
