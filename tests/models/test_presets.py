"""`provider/model` stands for a definition, and a key stays with its host."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipeline.calls.parameters import Parameters
from pipeline.core.errors import DefinitionError
from stages.models import OpenAIModel, SimulatedModel, as_model, resolve
from stages.models.presets import PRESETS


def problem(use: str, **options: object) -> str:
    with pytest.raises(DefinitionError) as caught:
        resolve(use, **options)
    return str(caught.value)


@pytest.mark.parametrize("provider", sorted(set(PRESETS) - {"azure"}))
def test_every_preset_makes_a_definition(provider: str) -> None:
    model = resolve(f"{provider}/some/model")
    assert isinstance(model, OpenAIModel)
    assert (model.name, model.api_key_env) == (f"{provider}/some/model", PRESETS[provider].key)


def test_options_lie_over_the_preset() -> None:
    model = resolve("openai/gpt-5.5", timeout="30s", attempts=2, temperature=0, stop="x", max_concurrency=64)
    assert isinstance(model, OpenAIModel)
    assert (model.timeout, model.attempts, model.max_concurrency) == (30.0, 2, 64)
    assert model.parameters == Parameters(temperature=0.0, stop=("x",))
    assert (model.token_field, model.base_url) == ("max_completion_tokens", "https://api.openai.com/v1")


def test_no_timeout_can_be_asked_for() -> None:
    assert resolve("openai/gpt-5.5", timeout=None).timeout is None


def test_equal_definitions_are_equal_and_can_be_keys() -> None:
    made = [resolve("openai/x", headers={"A": "b"}, extra_body={"k": [1]}, timeout=each) for each in (30, "30s")]
    assert made[0] == made[1]
    assert len({*made, resolve("openai/y")}) == 2


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"headers": "x"}, "pipeline, headers: is 'x' (give a mapping, as {name: value})"),
        ({"headers": {"X-A": 1}}, "pipeline, headers.X-A: is 1 (give a text)"),
        ({"max_concurrency": "64"}, "pipeline, max_concurrency: is '64' (give a whole number, at least 1)"),
        ({"timeout": "soon"}, "pipeline, timeout: cannot read 'soon'"),
        ({"base_url": 5}, "base_url"),
        ({"api_key": "sk-1"}, "pipeline, api_key: is not an option of a model (did you mean api_key_env?)"),
    ],
)
def test_a_wrong_option_says_what_would_be_right(options: dict[str, object], text: str) -> None:
    assert text in problem("ollama/x", **options)


def test_a_definition_is_itself_as_a_model() -> None:
    model = SimulatedModel(seed=3)
    assert as_model(model) is model
    assert as_model("sim/echo") == SimulatedModel(model="echo")


def test_unknown_words_get_the_nearest_right_one() -> None:
    assert problem("opnai/gpt") == "pipeline, use: unknown provider 'opnai' in 'opnai/gpt' (did you mean openai?)"
    assert problem("openai") == "pipeline, use: 'openai' names no model (write openai/MODEL)"
    assert "(did you mean temperature?)" in problem("openai/x", temprature=1)
    assert "known: sim, openai, azure" in problem("zzz/x")


def test_a_key_is_not_carried_to_another_host() -> None:
    text = problem("openai/gpt", base_url="https://proxy.example.com/v1")
    assert text == (
        "pipeline, base_url: the key in OPENAI_API_KEY belongs to api.openai.com, not to proxy.example.com "
        "(name the variable of this host's key in api_key_env; for a server without a key: use: vllm/MODEL)"
    )
    other = resolve("openai/gpt", base_url="https://proxy.example.com/v1", api_key_env="PROXY_KEY")
    assert isinstance(other, OpenAIModel)
    assert (other.api_key_env, other.api_key_optional) == ("PROXY_KEY", False)


def test_azure_needs_its_resource_and_keeps_its_key_there() -> None:
    assert problem("azure/gpt") == (
        "pipeline, base_url: azure needs base_url: each resource has its own address "
        "(base_url: https://RESOURCE.openai.azure.com/openai/v1/)"
    )
    model = resolve("azure/gpt", base_url="https://res.openai.azure.com/openai/v1/")
    assert isinstance(model, OpenAIModel)
    assert model.api_key_env == "AZURE_OPENAI_API_KEY"
    assert "belongs to" in problem("azure/gpt", base_url="https://openai.azure.com.evil.example/v1")


def test_a_local_server_elsewhere_goes_without_the_optional_key() -> None:
    here, there = resolve("vllm/qwen"), resolve("vllm/qwen", base_url="http://10.0.0.5:8000/v1")
    assert isinstance(here, OpenAIModel)
    assert isinstance(there, OpenAIModel)
    assert (here.api_key_env, here.api_key_optional, there.api_key_env) == ("VLLM_API_KEY", True, None)


@pytest.mark.parametrize(
    ("base_url", "text"),
    [
        ("http://api.example.com/v1", "would send the key in clear"),
        ("https://user:pw@api.example.com/v1", "holds a user or a password"),
        ("file:///etc/passwd", "not an http or https address"),
        ("https://api.example.com/v1?x=1", "has a query or a fragment"),
        ("https://exämple.com/v1", "not an http or https address"),
        ("https://api.example.com:port/v1", "Port could not be cast"),
    ],
)
def test_an_address_that_is_not_safe_is_refused(base_url: str, text: str) -> None:
    shown = problem("openai/gpt", base_url=base_url, api_key_env="K")
    assert text in shown
    assert "pw" not in shown.replace("passwd", "")


def test_importing_models_loads_no_sdk() -> None:
    late = ["openai", "httpx2", "jsonschema", "genai_prices", "pydantic"]
    script = f"import sys, stages.models, pipeline.calls.stack; print([m for m in {late} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_every_mistake_in_a_simulated_model_is_told_at_once() -> None:
    with pytest.raises(DefinitionError) as caught:
        SimulatedModel(seed=True, latency="soon", tokens="many", errors={"430x": 1}, attempts=0)
    assert [each.option for each in caught.value.problems] == ["seed", "latency", "tokens", "errors", "attempts"]
