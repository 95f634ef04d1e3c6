"""Models as a pipeline file describes them: which options `provider/model` takes, and the definition they make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeline.core.words import Field
from stages.models.openai import OpenAIModel
from stages.models.presets import resolve
from stages.models.simulated import SimulatedModel

#: what may be said of a model, and again of an agent that asks it
PARAMETERS: Final[Mapping[str, Field]] = {
    "temperature": Field("number", help="how varied answers are, from 0"),
    "max_output_tokens": Field("count", help="longest answer, in tokens"),
    "stop": Field("texts", help="where the model stops"),
    "seed": Field("count", help="the model's seed, where it has one"),
    "reasoning": Field("text", help="effort, as the provider words it"),
    "extra_body": Field("mapping", help="fields of one provider, sent as they are"),
}

_COMMON: Final[Mapping[str, Field]] = {
    "requests_per_minute": Field("count", help="what the account may send"),
    "tokens_per_minute": Field("count", help="input and output together"),
    "input_tokens_per_minute": Field("count", help="where the provider counts them apart"),
    "output_tokens_per_minute": Field("count", help="where the provider counts them apart"),
    "max_concurrency": Field("count", help="attempts in flight over all stages"),
    "timeout": Field("duration", help="of one attempt; none waits without end"),
    "attempts": Field("count", help="tries of one call, the first included"),
    "hedge": Field("text", help="p95: send a second attempt when one takes longer than 95% of them"),
    "fallback": Field("models", help="models that are asked when this one cannot answer, in turn"),
    "cache": Field("any", help="keep answers on disk: true, or the path of a file"),
    "price": Field("mapping", help="US dollars a million tokens: input, output, cached_input"),
    **PARAMETERS,
}

_OPENAI: Final[Mapping[str, Field]] = {
    "base_url": Field("text", help="address of an OpenAI-compatible server"),
    "api_key_env": Field("text", help="name of the variable that holds the key"),
    "api_key": Field("text", secret=True),
    "organization": Field("text", help="billed organization"),
    "headers": Field("mapping", help="sent with every request"),
    "api": Field("choice", choices=("chat", "responses"), help="what it is asked through, where it has both"),
    "stream_usage": Field("flag", help="ask a stream to count its tokens"),
    "finish_optional": Field("flag", help="the server may leave out why an answer ends"),
    "token_field": Field("choice", choices=("max_tokens", "max_completion_tokens"), help="name of the token limit"),
    "schema_mode": Field("choice", choices=("json_schema", "json_object"), help="how a schema is asked for"),
    **_COMMON,
}

_SIMULATED: Final[Mapping[str, Field]] = {
    "latency": Field("any", help="1s, uniform:0.5s..2s, lognormal:1s,0.5 or exponential:1s"),
    "tokens": Field("any", help="length of an answer in tokens, in the same forms"),
    "errors": Field("mapping", help="share of attempts that fail, by status or name"),
    "fail_when": Field("text", help="prompts with this text are refused"),
    "hang_when": Field("text", help="prompts with this text are never answered"),
    "limits": Field("mapping", help="what the simulated server allows, as {requests_per_minute: 500, window: sliding}"),
    **_COMMON,
}


class PresetProvider:
    """All built-in providers, simulated ones included."""

    def options(self, use: str) -> Mapping[str, Field]:
        """The options of `use`. Raises `DefinitionError` when the provider is not known."""
        if use.partition("/")[0] == "sim":
            return _SIMULATED
        if "/" in use:  # an unknown provider is named by `resolve`, whatever its options
            resolve(use, base_url="https://example.invalid/v1", api_key_env="UNUSED")
        return _OPENAI

    def resolve(self, use: str, **values: object) -> OpenAIModel | SimulatedModel:
        """The definition. Raises `DefinitionError`, whose problems name the option."""
        return resolve(use, **values)


PROVIDER: Final = PresetProvider()
