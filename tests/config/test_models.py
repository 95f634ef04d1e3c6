"""What is said of the options of a model that is not the one they were written for."""

from __future__ import annotations

import pytest

from pipeline.config.description import load_text
from pipeline.config.problems import ConfigError
from pipeline.config.registry import InstalledModels

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
